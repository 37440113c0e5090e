"""Training through ``torch.compile``, with bits that depend on nothing that came before."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from benchmark.flops import operations, uncounted


@contextmanager
def compiled(model: nn.Module) -> Iterator[Callable[[Tensor], Tensor]]:
    """Compile a model in train mode for one training, and count its operations.

    Every shape of batch is compiled for itself, and nothing is kept from earlier trainings:
    else a client's bits would depend on which clients this process had trained before. Code
    that was compiled once, by whatever process, is found on the disk. A batch of one image
    is not compiled, since its batch norms need hooks.

    Operations are those of the same model uncompiled, measured on the first batch and taken
    to grow with the images.

    Parameters
    ----------
    model : nn.Module
        From images [B, C, H, W] to logits.

    Yields
    ------
    callable
        The model, for forward passes that each have a backward pass.
    """
    from torch._inductor import config as inductor  # a second, for those alone who compile

    # A run has so many threads and no more; the compiler would take up to 32. Its variable in
    # the environment is read when it is imported, which the fork server has done before.
    inductor.compile_threads = torch.get_num_threads()
    torch.compiler.reset()
    fast = torch.compile(model, dynamic=False)
    images, per_image = 0, 0.0

    def forward(inputs: Tensor) -> Tensor:
        nonlocal images, per_image
        if not images:
            per_image = _step_operations(model, inputs) / len(inputs)
        images += len(inputs)
        logits: Tensor = model(inputs) if len(inputs) == 1 else fast(inputs)
        return logits

    with uncounted() as tell:
        try:
            yield forward
        finally:
            tell(round(per_image * images))
            torch.compiler.reset()


def _step_operations(model: nn.Module, inputs: Tensor) -> int:
    """Return the operations of a forward and backward pass, which leave no trace."""
    twin = copy.deepcopy(model)
    devices = [inputs.device] if inputs.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        return operations(lambda: torch.autograd.backward(twin(inputs).float().sum()))
