"""The forward pass of all client models: one operation, two implementations.

Stacking small models with ``torch.func.vmap`` is 2 to 3.5 times slower than a loop on a
CPU and the other way round on a GPU, so the device chooses.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from typing import Literal, Self

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.func import functional_call, stack_module_state, vmap
from torch.utils.checkpoint import checkpoint

from methods.blocks.runtime import Precision

Implementation = Literal["auto", "loop", "stack"]

CHUNK = 16
"""Stacked clients computed at a time."""
REMEMBERED = 2 * 2**30
"""Bytes of activations that all clients together may keep for gradients. Where they would need
more, each but the first is computed once more on the way back, in the same bits, and one
client's activations are kept at a time."""


@dataclass(frozen=True)
class _Stack:
    """Client models of one architecture, with their tensors stacked on a new first axis."""

    members: list[int]
    template: nn.Module
    parameters: dict[str, Tensor]
    buffers: dict[str, Tensor]

    def logits(self, images: Tensor, start: int, stop: int) -> Tensor:
        """Return logits [stop - start, B, classes] of some members."""

        def call(
            parameters: dict[str, Tensor], buffers: dict[str, Tensor], inputs: Tensor
        ) -> Tensor:
            outputs: Tensor = functional_call(self.template, (parameters, buffers), (inputs,))
            return outputs

        parameters = {name: value[start:stop] for name, value in self.parameters.items()}
        buffers = {name: value[start:stop] for name, value in self.buffers.items()}
        return vmap(call, in_dims=(0, 0, None))(parameters, buffers, images)


def _architecture(model: nn.Module) -> tuple[object, ...]:
    shapes = tuple((name, tuple(value.shape)) for name, value in model.state_dict().items())
    return (type(model), str(model), shapes)


class ClientEnsemble(nn.Module):
    """All clients' logits for a batch, [clients, B, classes].

    The client models are frozen in place (eval mode, no weight gradients) and stay so,
    whatever mode the ensemble is put in; gradients flow to the images. Teachers make one
    answer of them, by the mean of logits or of probabilities.

    Parameters
    ----------
    clients : sequence of nn.Module
        From images in classifier range to logits; architectures may differ.
    implementation : {"auto", "loop", "stack"}
        One client after another, or all clients of one architecture at once. ``"auto"``
        stacks on CUDA where at least two clients share an architecture.
    chunk : int or None
        Stacked clients computed at a time, which bounds memory; ``None`` for all.
    precision : Precision
        Autocast and memory format of the forward passes.

    Raises
    ------
    ValueError
        If there are no clients.
    """

    def __init__(
        self,
        clients: Sequence[nn.Module],
        *,
        implementation: Implementation = "auto",
        chunk: int | None = CHUNK,
        precision: Precision | None = None,
    ) -> None:
        super().__init__()
        if not clients:
            raise ValueError("an ensemble needs at least one client")
        if chunk is not None and chunk < 1:
            raise ValueError(f"chunk is {chunk}; it must be at least 1")
        self.clients = nn.ModuleList(clients)
        self.precision = precision or Precision()
        self._implementation = implementation
        self._chunk = chunk
        self._stacks: list[_Stack] | None = None
        self._hooked = False
        self._alike = len({_architecture(client) for client in clients}) < len(clients)
        self.precision.prepare(self.clients)
        self.requires_grad_(False)
        self.eval()

    def __len__(self) -> int:
        return len(self.clients)

    def train(self, mode: bool = True) -> Self:
        """Set the flag of the ensemble itself; the clients stay in eval mode."""
        super().train(mode)
        self.clients.eval()
        return self

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        # Moved or cast: the stacked copies are out of date.
        self._stacks = None
        result: Self = super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return result

    @contextmanager
    def looping(self) -> Iterator[None]:
        """Compute client after client inside, so that forward hooks on clients fire."""
        chosen, self._implementation = self._implementation, "loop"
        # Computed twice, a client's hooks would fire twice.
        self._hooked = True
        try:
            yield
        finally:
            self._implementation, self._hooked = chosen, False

    def _build_stacks(self) -> list[_Stack]:
        groups: dict[tuple[object, ...], list[int]] = {}
        for index, client in enumerate(self.clients):
            groups.setdefault(_architecture(client), []).append(index)
        stacks = []
        for members in groups.values():
            models = [self.clients[index] for index in members]
            parameters, buffers = stack_module_state(models)
            template = deepcopy(models[0]).to("meta")
            frozen = {name: value.detach() for name, value in parameters.items()}
            stacks.append(_Stack(members, template, frozen, buffers))
        return stacks

    def _stacked(self, images: Tensor) -> Tensor:
        if self._stacks is None:
            self._stacks = self._build_stacks()
        rows: list[Tensor] = [images] * len(self)
        for stack in self._stacks:
            count = len(stack.members)
            step = min(self._chunk or count, count)
            for start in range(0, count, step):
                stop = min(start + step, count)
                logits = self.precision.run(partial(stack.logits, start=start, stop=stop), images)
                for index, row in zip(stack.members[start:stop], logits, strict=True):
                    rows[index] = row
        return torch.stack(rows)

    def _stacks_pay(self, images: Tensor) -> bool:
        if self._implementation == "auto":
            return images.is_cuda and self._alike
        return self._implementation == "stack"

    def forward(self, images: Tensor) -> Tensor:
        """Return logits [clients, B, classes] for images [B, C, H, W] in classifier range."""
        if self._stacks_pay(images):
            return self._stacked(images)
        if self._hooked or not (torch.is_grad_enabled() and images.requires_grad):
            return torch.stack([self.precision.run(client, images) for client in self.clients])
        first, *others = self.clients
        kept = 0

        def count(saved: Tensor) -> Tensor:
            nonlocal kept
            kept += saved.nbytes
            return saved

        with saved_tensors_hooks(count, lambda saved: saved):
            logits = [self.precision.run(first, images)]
        forget = kept * len(self) > REMEMBERED
        answer = self._forgetful if forget else self.precision.run
        return torch.stack(logits + [answer(client, images) for client in others])

    def _forgetful(self, client: nn.Module, images: Tensor) -> Tensor:
        answer = partial(self.precision.run, client)
        logits: Tensor = checkpoint(answer, images, use_reentrant=False, preserve_rng_state=False)
        return logits
