"""Training batches by indexing: uint8 images stay on the device, augmented a batch at a time.

No loader workers and no per-sample Python: a crop is one gather from a strided view of the
padded images, a flip one selection, the normalisation one fused multiply-add.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmark.images import Normalization
from benchmark.training.precision import moved


class Augmentation(Protocol):
    """A dataset's augmentation."""

    @property
    def crop_padding(self) -> int:
        """Black pixels added on each side before a random crop; 0 is no crop."""

    @property
    def flip(self) -> bool:
        """Whether images are mirrored left to right with probability one half."""


@dataclass(frozen=True)
class NoAugmentation:
    """Images as they are stored."""

    crop_padding: int = 0
    flip: bool = False


def epoch_order(n: int, generator: torch.Generator, device: torch.device) -> Tensor:
    """Return a random order of ``n`` samples, int64 [n] on ``device``.

    Drawn on the generator's own device, so that the order does not depend on ``device``.
    """
    order = torch.randperm(n, generator=generator, device=generator.device)
    return moved(order, device)


class Batches:
    """Batches of images in classifier range, reshuffled and augmented anew each epoch.

    Random crops pad with black (0 in unit range) *before* the normalisation, as image
    pipelines do in pixel space.

    Parameters
    ----------
    images : Tensor
        uint8 [n, C, H, W]; batches are made on its device. A padded copy is kept.
    labels : Tensor
        int64 [n] on the same device.
    batch_size : int
        Samples of a batch; the last one of an epoch has what remains.
    normalization : Normalization
        To classifier range.
    augmentation : Augmentation
        Random crop and flip.
    generator : torch.Generator
        Source of the order, then the crops, then the flips of each epoch; on any device.

    Raises
    ------
    ValueError
        If the images are not uint8 [n, C, H, W] with a label each, or their channels are not
        those of the normalisation.
    """

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        *,
        batch_size: int,
        normalization: Normalization,
        augmentation: Augmentation,
        generator: torch.Generator,
    ) -> None:
        check_images(images, labels, normalization)
        self.labels = labels
        self.batch_size = batch_size
        self.padding = augmentation.crop_padding
        self.flip = augmentation.flip
        self.generator = generator
        self.device = images.device
        p = self.padding
        # Channels last, so that a row of a crop is one run of memory.
        self.pixels = F.pad(images.permute(0, 2, 3, 1), (0, 0, p, p, p, p)).contiguous()
        self._size = (images.shape[2], images.shape[3])
        self._scale, self._offset = _affine(normalization, images.shape[3], images.device)

    def __len__(self) -> int:
        return ceil(len(self.labels) / self.batch_size)

    def epoch(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield one epoch's batches.

        Yields
        ------
        images : Tensor
            float32 [B, C, H, W] in classifier range, channels-last in memory.
        labels : Tensor
            int64 [B].
        """
        n = len(self.labels)
        order = epoch_order(n, self.generator, self.device)
        corners = self._draw(n, 2 * self.padding + 1, 2) if self.padding else None
        mirrored = self._draw(n, 2, 1)[:, 0].bool() if self.flip else None
        for start in range(0, n, self.batch_size):
            rows = slice(start, start + self.batch_size)
            index = order[rows]
            pixels = self._crop(index, None if corners is None else corners[rows])
            if mirrored is not None:
                flags = mirrored[rows].view(-1, 1, 1, 1)
                pixels = torch.where(flags, pixels.flip(2), pixels)
            yield self._normalize(pixels), self.labels[index]

    def cycle(self, steps: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield ``steps`` batches from as many reshuffled epochs as that takes."""
        done = 0
        while done < steps:
            for batch in self.epoch():
                yield batch
                done += 1
                if done == steps:
                    return

    def _draw(self, n: int, high: int, columns: int) -> Tensor:
        device = self.generator.device
        drawn = torch.randint(high, (n, columns), generator=self.generator, device=device)
        return moved(drawn, self.device)

    def _crop(self, index: Tensor, corners: Tensor | None) -> Tensor:
        """Return uint8 [B, H, W, C] with upper left corners [B, 2] in the padded images."""
        if corners is None:
            return self.pixels[index]
        # [n, 2p+1, 2p+1, C, H, W]: all crops as a view, of which only those asked for are read.
        windows = self.pixels.unfold(1, self._size[0], 1).unfold(2, self._size[1], 1)
        return windows.permute(0, 1, 2, 4, 5, 3)[index, corners[:, 0], corners[:, 1]]

    def _normalize(self, pixels: Tensor) -> Tensor:
        batch, height, width, channels = pixels.shape
        rows = pixels.reshape(batch * height, width * channels).float()
        out = torch.addcmul(self._offset, rows, self._scale)
        return out.view(batch, height, width, channels).permute(0, 3, 1, 2)


def check_images(images: Tensor, labels: Tensor, normalization: Normalization) -> None:
    """Check stored images and labels against each other and a normalisation.

    Raises
    ------
    ValueError
        If ``images`` are not uint8 [n, C, H, W] with one label each, or C is not the
        normalisation's number of channels.
    """
    if images.dtype != torch.uint8 or images.ndim != 4:
        raise ValueError(
            f"images must be uint8 [n, C, H, W], got {images.dtype} {list(images.shape)}"
        )
    if labels.shape != images.shape[:1]:
        raise ValueError(f"{len(images)} images but labels of shape {list(labels.shape)}")
    if images.shape[1] != normalization.channels:
        raise ValueError(
            f"images have {images.shape[1]} channels, the normalization {normalization.channels}"
        )


def _affine(norm: Normalization, width: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return scale and offset [width * C] from uint8 to classifier range of a row of pixels.

    A whole row, because broadcasting over one to three channels would not vectorise.
    """
    ends = torch.tensor([0.0, 1.0], dtype=torch.float64).view(2, 1, 1, 1)
    black, white = norm.from_unit(ends.expand(2, norm.channels, 1, 1)).view(2, -1)
    scale = ((white - black) / 255).float().repeat(width)
    return scale.to(device), black.float().repeat(width).to(device)
