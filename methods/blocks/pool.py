"""Pools of images: one growing uint8 tensor on the device, or an endless fresh source.

The published codes write every image to a PNG file and decode the whole folder again in
every epoch. The tensor holds the same 8-bit values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from benchmark.flops import counted
from benchmark.images import Normalization
from methods.blocks.augment import crop_and_flip, draw_views
from methods.blocks.parts import Batch
from methods.blocks.runtime import draw_permutation

_UNLABELLED = -1


def quantise(images: Tensor) -> Tensor:
    """Return unit-range images as uint8, clamped and truncated (published code).

    Truncation, not rounding: 0.999 becomes 254, as in the PNG files of the published code.
    """
    return (images.clamp(0, 1) * 255).to(torch.uint8)


def batch_sizes(images: int, batch_size: int) -> list[int]:
    """Return the sizes of batches that hold ``images`` images in all.

    The last partial batch is kept (published code), but never one image alone: batch norm
    can't normalise over a single value, so that one joins the batch before (ours).
    """
    if batch_size < 1:
        raise ValueError(f"batch size is {batch_size}; it must be at least 1")
    full, rest = divmod(images, batch_size)
    sizes = [batch_size] * full
    if rest == 1 and full:
        sizes[-1] += 1
    elif rest:
        sizes.append(rest)
    return sizes


def grouped(batches: Iterator[Batch], images: int) -> Iterator[list[Batch]]:
    """Yield lists of batches of about ``images`` images in all, each at least one batch."""
    group: list[Batch] = []
    held = 0
    for batch in batches:
        if group and held + len(batch.images) > images:
            yield group
            group, held = [], 0
        group.append(batch)
        held += len(batch.images)
    if group:
        yield group


class GrowingPool:
    """Images kept as one uint8 tensor, augmented and normalised when they are read.

    Private to a run: it starts empty, and nothing is ever evicted.

    Parameters
    ----------
    shape : tuple of int
        (C, H, W) of an image.
    normalization : Normalization
        From unit range to the classifier range that is read.
    device : torch.device or str
        Where images are kept and read.
    capacity : int
        Images to make room for; more find room too, at the price of a copy.
    crop_padding, flip : int, bool
        Augmentation on reading, a fresh draw each time: zero-padded random crop (0: none)
        and mirroring with probability 1/2.
    dtype : torch.dtype
        Floating type of the images that are read.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        normalization: Normalization,
        *,
        device: torch.device | str = "cpu",
        capacity: int = 0,
        crop_padding: int = 0,
        flip: bool = False,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self._images = torch.empty((capacity, *shape), dtype=torch.uint8, device=device)
        self._labels = torch.empty(capacity, dtype=torch.int64, device=device)
        self._size = 0
        self._older = 0
        self._labelled = True
        self._normalization = normalization
        self._crop_padding = crop_padding
        self._flip = flip
        self._dtype = dtype

    @property
    def size(self) -> int:
        """Number of images."""
        return self._size

    @property
    def images(self) -> Tensor:
        """All images, uint8 [N, C, H, W]; a view."""
        return self._images[: self._size]

    @property
    def labels(self) -> Tensor:
        """All labels, int64 [N], -1 where an image has none; a view."""
        return self._labels[: self._size]

    def _reserve(self, room: int) -> None:
        if room <= len(self._images):
            return
        room = max(room, 2 * len(self._images))
        images = self._images.new_empty((room, *self._images.shape[1:]))
        labels = self._labels.new_empty(room)
        images[: self._size] = self.images
        labels[: self._size] = self.labels
        self._images, self._labels = images, labels

    def add(self, images: Tensor, labels: Tensor | None = None) -> None:
        """Append images; they are the newest until the next call.

        Parameters
        ----------
        images : Tensor
            [B, C, H, W], uint8, or floating in unit range (quantised here).
        labels : Tensor, optional
            [B] class numbers.

        Raises
        ------
        ValueError
            If the shape differs from the pool's, or labels do not match images in number.
        """
        if images.shape[1:] != self._images.shape[1:]:
            expected, got = tuple(self._images.shape[1:]), tuple(images.shape[1:])
            raise ValueError(f"images of shape {got} do not fit a pool of {expected}")
        if labels is not None and len(labels) != len(images):
            raise ValueError(f"{len(labels)} labels for {len(images)} images")
        stop = self._size + len(images)
        self._reserve(stop)
        stored = images if images.dtype == torch.uint8 else quantise(images.detach())
        self._images[self._size : stop] = stored.to(self._images.device)
        self._labels[self._size : stop] = _UNLABELLED
        if labels is not None:
            self._labels[self._size : stop] = labels.to(self._labels.device)
        self._labelled = self._labelled and labels is not None
        self._older, self._size = self._size, stop

    def settle(self) -> None:
        """Count all images as older ones: nothing is new in a pool that does not grow."""
        self._older = self._size

    def older(self) -> GrowingPool | None:
        """Return a view of the pool before the last :meth:`add`, ``None`` if it was empty."""
        if not self._older:
            return None
        view = GrowingPool.__new__(GrowingPool)
        view.__dict__.update(self.__dict__)
        view._size = self._older
        return view

    def batches(
        self, batch_size: int, *, generator: torch.Generator, images: int | None = None
    ) -> Iterator[Batch]:
        """Yield shuffled, freshly augmented batches in classifier range.

        Parameters
        ----------
        batch_size : int
            Images a batch; the last may be smaller (or hold one more).
        generator : torch.Generator
            Source of order and augmentation.
        images : int, optional
            Images in all; by default each once. More than the pool holds starts another
            shuffled pass, fewer leaves out a random rest.

        Raises
        ------
        ValueError
            If the pool is empty.
        """
        if not self._size:
            raise ValueError("an empty pool has no batches; add images first")
        wanted = self._size if images is None else images
        passes = -(-wanted // self._size)
        device = self._images.device
        orders = [draw_permutation(self._size, generator, device) for _ in range(passes)]
        if not orders:
            return
        for index in torch.split(torch.cat(orders)[:wanted], batch_sizes(wanted, batch_size)):
            yield self._read(index, generator)

    def _read(self, index: Tensor, generator: torch.Generator) -> Batch:
        pixels, keys = self._images[index], index
        padding = self._crop_padding
        if padding or self._flip:
            views = draw_views(
                len(index), generator, pixels.device, padding=padding, flip=self._flip
            )
            pixels = crop_and_flip(
                pixels, top=views.top, left=views.left, flip=views.flip, padding=padding
            )
            keys = 2 * index + views.flip
        labels = self._labels[index] if self._labelled else None
        images = self._normalization.from_uint8(pixels, self._dtype)
        # With a crop there are too many versions of an image for one to come again soon.
        return Batch(images, labels, None if padding else keys)


class FreshPool:
    """An endless source: every image is drawn when it is asked for, and used once.

    Parameters
    ----------
    sample : callable
        ``sample(count, generator)`` returns a :class:`Batch` of that many images.
    """

    def __init__(self, sample: Callable[[int, torch.Generator], Batch]) -> None:
        self._sample = sample

    @property
    def size(self) -> None:
        """``None``: there is no end."""
        return

    def older(self) -> FreshPool:
        """Return the source itself."""
        return self

    def batches(
        self, batch_size: int, *, generator: torch.Generator, images: int | None = None
    ) -> Iterator[Batch]:
        """Yield fresh batches that hold ``images`` images in all.

        Raises
        ------
        ValueError
            If ``images`` is not given: an endless source has no full pass.
        """
        if images is None:
            raise ValueError("an endless pool has no full pass; say how many images")
        for size in batch_sizes(images, batch_size):
            with counted():
                batch = self._sample(size, generator)
            yield batch
