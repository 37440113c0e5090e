"""Pixel ranges, in one place: uint8 storage, unit, tanh and classifier range.

Real and generated images meet in classifiers and discriminators, so every
conversion between ranges goes through one :class:`Normalization`. Names of ranges:

======== ===================== =====================================
range    values                who speaks it
======== ===================== =====================================
uint8    0 … 255               stored data and pools
unit     [0, 1]                sigmoid generators, perturbation sizes
tanh     [-1, 1]               tanh generators, discriminators
classifier (unit - mean) / std every classifier's input
======== ===================== =====================================
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor


@dataclass(frozen=True)
class Normalization:
    """Per-channel normalisation of a dataset, and the way between ranges.

    Parameters
    ----------
    mean, std : tuple of float
        Per-channel mean and standard deviation in unit range, one entry per channel.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.mean) != len(self.std):
            raise ValueError(f"{len(self.mean)} means but {len(self.std)} standard deviations")
        if min(self.std) <= 0:
            raise ValueError(f"standard deviations must be positive, got {self.std}")

    @property
    def channels(self) -> int:
        """Number of image channels."""
        return len(self.mean)

    def _moments(self, like: Tensor) -> tuple[Tensor, Tensor]:
        return _on_device(self.mean, like.dtype, like.device), _on_device(
            self.std, like.dtype, like.device
        )

    def from_unit(self, images: Tensor) -> Tensor:
        """Map images [B, C, H, W] from unit range to classifier range."""
        mean, std = self._moments(images)
        return (images - mean) / std

    def to_unit(self, images: Tensor) -> Tensor:
        """Map images [B, C, H, W] from classifier range to unit range (not clamped)."""
        mean, std = self._moments(images)
        return images * std + mean

    def from_tanh(self, images: Tensor) -> Tensor:
        """Map images [B, C, H, W] from tanh range to classifier range."""
        return self.from_unit((images + 1) / 2)

    def from_uint8(self, images: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """Map stored uint8 images [B, C, H, W] to classifier range in ``dtype``."""
        return self.from_unit(images.to(dtype) / 255)

    def unit_step(self, size: float, like: Tensor) -> Tensor:
        """Return the classifier-range size [1, C, 1, 1] of a step of ``size`` unit pixels."""
        _, std = self._moments(like)
        return size / std


@lru_cache(maxsize=64)
def _on_device(values: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return values as [1, C, 1, 1], made once: a copy to CUDA for each batch would wait for it."""
    return torch.tensor(values, dtype=dtype, device=device).view(1, len(values), 1, 1)
