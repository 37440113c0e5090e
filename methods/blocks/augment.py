"""Random crop and flip of a whole batch at once, differentiable, each image its own draw."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from methods.blocks.runtime import draw_integers


def crop_and_flip(
    images: Tensor, *, top: Tensor, left: Tensor, flip: Tensor, padding: int
) -> Tensor:
    """Cut a window of the original size out of each zero-padded image, then mirror some.

    Parameters
    ----------
    images : Tensor
        [B, C, H, W] of any dtype, in a range where 0 is black (uint8 or unit).
    top, left : Tensor
        [B] int64 window corners in the padded image, 0 … 2 · padding.
    flip : Tensor
        [B] bool, which images to mirror left to right (after the crop).
    padding : int
        Pixels of zeros on each side.

    Returns
    -------
    Tensor
        [B, C, H, W]; gradients flow to ``images``.
    """
    batch, channels, height, width = images.shape
    padded = F.pad(images, (padding,) * 4) if padding else images
    rows = top[:, None] + torch.arange(height, device=images.device)
    columns = torch.arange(width, device=images.device).expand(batch, width)
    columns = left[:, None] + torch.where(flip[:, None], width - 1 - columns, columns)
    index = (rows[:, :, None] * padded.shape[3] + columns[:, None, :]).reshape(batch, 1, -1)
    pixels = padded.flatten(2).gather(2, index.expand(batch, channels, height * width))
    return pixels.view(batch, channels, height, width)


@dataclass(frozen=True)
class Views:
    """Draws for a batch: the arguments of :func:`crop_and_flip`, each [B]."""

    top: Tensor
    left: Tensor
    flip: Tensor


def draw_views(
    count: int,
    generator: torch.Generator,
    device: torch.device,
    *,
    padding: int = 0,
    flip: bool = False,
) -> Views:
    """Draw independent crops and, with probability 1/2, mirrorings of ``count`` images."""
    corners = 2 * padding + 1
    return Views(
        top=draw_integers(corners, count, generator, device),
        left=draw_integers(corners, count, generator, device),
        flip=draw_integers(2 if flip else 1, count, generator, device) > 0,
    )


def random_crop_and_flip(
    images: Tensor, generator: torch.Generator, *, padding: int = 0, flip: bool = False
) -> Tensor:
    """Apply independent random crops (zero padding) and mirror with probability 1/2.

    Parameters
    ----------
    images : Tensor
        [B, C, H, W] in uint8 or unit range.
    generator : torch.Generator
        Source of the draws.
    padding : int
        Zero padding in pixels; 0 means no crop.
    flip : bool
        Whether to mirror.
    """
    if not padding and not flip:
        return images
    views = draw_views(len(images), generator, images.device, padding=padding, flip=flip)
    return crop_and_flip(images, top=views.top, left=views.left, flip=views.flip, padding=padding)
