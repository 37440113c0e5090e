"""Re-estimation of batch-norm statistics on given images."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from benchmark.flops import counted
from methods.blocks.runtime import Precision, kept_modes


@torch.no_grad()
def reestimate_batch_norm(
    model: nn.Module, batches: Iterable[Tensor], precision: Precision | None = None
) -> int:
    """Replace running statistics by their plain average over batches, in place.

    Only batch-norm layers are in train mode meanwhile (no dropout). Layers are found by
    type, never by name.

    Parameters
    ----------
    model : nn.Module
        Model whose batch-norm layers keep running statistics; others are left alone.
    batches : iterable of Tensor
        Images [B, C, H, W] in classifier range. Not consumed if there is no such layer.
    precision : Precision, optional
        Autocast and layout.

    Returns
    -------
    int
        Number of layers re-estimated.
    """
    precision = precision or Precision()
    layers = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    if not layers:
        return 0
    momenta = [layer.momentum for layer in layers]
    with kept_modes(model):
        model.eval()
        for layer in layers:
            layer.reset_running_stats()
            layer.momentum = None  # torch's name for a plain average
            layer.train()
        try:
            for images in batches:
                with counted():
                    precision.run(model, images)
        finally:
            for layer, momentum in zip(layers, momenta, strict=True):
                layer.momentum = momentum
    return len(layers)
