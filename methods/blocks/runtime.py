"""What all blocks share: precision of a forward pass, frozen models, random draws.

Draws are made on the device of their :class:`torch.Generator` and then moved, so that
a CPU stream gives the same numbers whichever device the models are on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

_HALF = (torch.bfloat16, torch.float16)


@dataclass(frozen=True)
class Precision:
    """How forward passes are computed; the default changes nothing (exact fp32 or fp64).

    Parameters
    ----------
    autocast : callable
        Makes the context a forward pass runs in, for instance
        ``lambda: torch.autocast("cpu", dtype=torch.bfloat16)``.
    memory_format : torch.memory_format
        Layout that images are given before a model sees them.
    """

    autocast: Callable[[], AbstractContextManager[object]] = nullcontext
    memory_format: torch.memory_format = torch.preserve_format

    def layout(self, inputs: Tensor) -> Tensor:
        """Return ``inputs`` in the memory format; what is not [B, C, H, W] stays as it is."""
        if inputs.dim() != 4 or self.memory_format == torch.preserve_format:
            return inputs
        return inputs.contiguous(memory_format=self.memory_format)

    def prepare(self, model: nn.Module) -> None:
        """Give the 4-D weights of ``model`` the memory format, in place."""
        if self.memory_format != torch.preserve_format:
            model.to(memory_format=self.memory_format)

    def run(self, model: Callable[[Tensor], Tensor], inputs: Tensor) -> Tensor:
        """Return ``model(inputs)``; half-precision outputs come back as float32.

        Losses are formed outside of autocast: a KL at temperature 20 is a difference of
        nearly equal numbers, which bfloat16 can't hold.
        """
        with self.autocast():
            outputs = model(self.layout(inputs))
        return outputs.float() if outputs.dtype in _HALF else outputs


@contextmanager
def kept_modes(*models: nn.Module) -> Iterator[None]:
    """Restore train/eval flags of all sub-modules on leaving."""
    flags = [(module, module.training) for model in models for module in model.modules()]
    try:
        yield
    finally:
        for module, training in flags:
            module.training = training


@contextmanager
def frozen(model: nn.Module) -> Iterator[nn.Module]:
    """Use ``model`` in eval mode and without weight gradients, then restore both.

    Gradients still flow through it to its input.
    """
    wanted = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    with kept_modes(model):
        model.eval()
        for parameter, _ in wanted:
            parameter.requires_grad_(False)
        try:
            yield model
        finally:
            for parameter, requires_grad in wanted:
                parameter.requires_grad_(requires_grad)


def draw_normal(shape: Sequence[int], generator: torch.Generator, like: Tensor) -> Tensor:
    """Return standard-normal values with the device and dtype of ``like``."""
    values = torch.randn(
        tuple(shape), generator=generator, device=generator.device, dtype=like.dtype
    )
    return values.to(like.device)


def draw_uniform(
    shape: Sequence[int], low: float, high: float, generator: torch.Generator, like: Tensor
) -> Tensor:
    """Return values uniform in [low, high) with the device and dtype of ``like``."""
    values = torch.rand(
        tuple(shape), generator=generator, device=generator.device, dtype=like.dtype
    )
    return (values * (high - low) + low).to(like.device)


def draw_integers(
    high: int, count: int, generator: torch.Generator, device: torch.device
) -> Tensor:
    """Return ``count`` int64 values uniform in 0 … high - 1 on ``device``."""
    values = torch.randint(high, (count,), generator=generator, device=generator.device)
    return values.to(device)


def draw_permutation(count: int, generator: torch.Generator, device: torch.device) -> Tensor:
    """Return a random permutation of 0 … count - 1 (int64) on ``device``."""
    return torch.randperm(count, generator=generator, device=generator.device).to(device)
