"""Co-Boosting's on-the-fly perturbation: one sign step along a random output direction.

The direction is that of output-diversified sampling: raise a random mixture of the
ensemble's tempered class probabilities (arXiv 2402.15070, published code).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from benchmark.images import Normalization
from methods.blocks.runtime import draw_uniform


class Perturbation(BaseModel):
    """Settings of the perturbation.

    Parameters
    ----------
    size : float
        L-infinity size in unit pixels. The published 8/255 is in [-1, 1] units, hence
        4/255 here; stating it in pixels keeps its strength under any normalisation.
    temperature : float
        Temperature of the probabilities (published code: 4, whatever the distillation's).
    clamp : bool
        Whether to keep images in the valid pixel range (published code: no).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    size: float = Field(default=4 / 255, ge=0)
    temperature: float = Field(default=4.0, gt=0)
    clamp: bool = False


def random_directions(
    count: int, num_classes: int, generator: torch.Generator, like: Tensor
) -> Tensor:
    """Return directions [count, num_classes], uniform in [-1, 1)."""
    return draw_uniform((count, num_classes), -1.0, 1.0, generator, like)


def direction_objective(logits: Tensor, directions: Tensor, temperature: float) -> Tensor:
    """Return the sum over batch and classes of u · softmax(logits / T), a scalar."""
    return (directions * F.softmax(logits / temperature, dim=1)).sum()


def perturb(
    teacher: Callable[[Tensor], Tensor],
    images: Tensor,
    directions: Tensor,
    settings: Perturbation,
    normalization: Normalization,
) -> Tensor:
    """Return images shifted by ``size`` unit pixels along the sign of the gradient.

    One teacher forward pass and one input gradient.

    Parameters
    ----------
    teacher : callable
        Images in classifier range to logits [B, classes], weights frozen.
    images : Tensor
        [B, C, H, W] in classifier range.
    directions : Tensor
        [B, classes], see :func:`random_directions`.
    settings : Perturbation
        Size, temperature, clamping.
    normalization : Normalization
        Says what a unit pixel is in classifier range.

    Returns
    -------
    Tensor
        [B, C, H, W] in classifier range, detached.
    """
    with torch.enable_grad():
        inputs = images.detach().requires_grad_(True)
        objective = direction_objective(teacher(inputs), directions, settings.temperature)
        (slope,) = torch.autograd.grad(objective, inputs)
    shifted = images.detach() + normalization.unit_step(settings.size, images) * slope.sign()
    if settings.clamp:
        return normalization.from_unit(normalization.to_unit(shifted).clamp(0, 1))
    return shifted
