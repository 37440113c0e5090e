"""Holding a model still while something else is trained against it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def frozen(model: nn.Module) -> Iterator[nn.Module]:
    """Hold ``model`` in evaluation mode without weight gradients, then restore it."""
    modes = [(module, module.training) for module in model.modules()]
    wants = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    model.eval().requires_grad_(False)
    try:
        yield model
    finally:
        for module, training in modes:
            module.training = training
        for parameter, wanted in wants:
            parameter.requires_grad_(wanted)
