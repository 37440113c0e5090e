"""What a loaded dataset is: typed, frozen, read-only arrays and the facts about them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from datasets.errors import DataError

Images = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int64]

_AUGMENTATION_SIZE = 32
_MOMENT_DIGITS = 4


@dataclass(frozen=True)
class Augmentation:
    """The training augmentation of a dataset, applied to each batch by the trainer.

    Parameters
    ----------
    crop_padding : int
        Zero padding in pixels on each side before a random crop back to the image size;
        0 means no crop.
    flip : bool
        Whether images are mirrored left to right with probability 1/2.
    """

    crop_padding: int = 0
    flip: bool = False

    def __post_init__(self) -> None:
        if self.crop_padding < 0:
            raise DataError(f"crop_padding must be 0 or more pixels, got {self.crop_padding}")

    def at(self, image_size: int) -> Augmentation:
        """Return the augmentation for images of another size than 32 pixels.

        Published paddings belong to 32×32; in larger images the crop moves by the same
        share of the image.
        """
        scaled = round(self.crop_padding * image_size / _AUGMENTATION_SIZE)
        return Augmentation(crop_padding=scaled, flip=self.flip)


@dataclass(frozen=True, eq=False)
class Split:
    """Images and labels of the training or the test part of a dataset.

    The arrays are made read-only, so that a loaded dataset and one memory-mapped from the
    cache behave alike: copy before writing.

    Parameters
    ----------
    images : numpy.ndarray
        uint8 [N, C, H, W], values 0 to 255.
    labels : numpy.ndarray
        int64 [N].

    Raises
    ------
    DataError
        If types or shapes are not these, or if the split is empty.
    """

    images: Images
    labels: Labels

    def __post_init__(self) -> None:
        if self.images.dtype != np.uint8 or self.images.ndim != 4:
            raise DataError(
                f"images must be uint8 [N, C, H, W], got {self.images.dtype} {self.images.shape}"
            )
        if self.labels.dtype != np.int64 or self.labels.ndim != 1:
            raise DataError(f"labels must be int64 [N], got {self.labels.dtype}")
        if len(self.images) != len(self.labels):
            raise DataError(f"{len(self.images)} images but {len(self.labels)} labels")
        if len(self.labels) == 0:
            raise DataError("a split must have at least one image")
        self.images.setflags(write=False)
        self.labels.setflags(write=False)

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class DatasetInfo:
    """What can be said of a dataset without opening it.

    Parameters
    ----------
    name : str
        The name used on the command line and in records.
    title : str
        The name used in tables and figures.
    classes, channels : int
        Number of classes and of native image channels.
    native_size : int
        Height and width in pixels as published.
    train_samples, test_samples : int
        Published sizes of the two splits.
    summary : str
        One line.
    source : str
        Where it comes from (a citation or an address).
    deviations : tuple of str
        Where this suite's reading of it differs from that of the published Mosaic code
        (arXiv 2505.19699), one line each, with the reason.
    """

    name: str
    title: str
    classes: int
    channels: int
    native_size: int
    train_samples: int
    test_samples: int
    summary: str
    source: str
    deviations: tuple[str, ...] = ()


def own_info(
    name: str, path: Path, *, classes: int, channels: int, side: int, sizes: tuple[int, int]
) -> DatasetInfo:
    """Return the facts of a user's own data.

    Parameters
    ----------
    name : str
        Its name in flags and records.
    path : Path
        Where it lies.
    classes, channels, side : int
        Classes, image channels, and the larger side in pixels.
    sizes : tuple of int
        Training and test samples.
    """
    return DatasetInfo(
        name=name,
        title=path.stem,
        classes=classes,
        channels=channels,
        native_size=side,
        train_samples=sizes[0],
        test_samples=sizes[1],
        summary="your own data",
        source=str(path),
    )


@dataclass(frozen=True, eq=False)
class Decoded:
    """What decoding the files of a dataset at one image size gives.

    Parameters
    ----------
    train, test : Split
        The two splits.
    fingerprint : str
        :func:`fingerprint` of them.
    class_names : tuple of str
        Names read from the files; empty where the catalogue states them.
    mean, std : tuple of float
        Moments measured on the training part, per channel in unit range; empty where the
        catalogue states them.
    """

    train: Split
    test: Split
    fingerprint: str
    class_names: tuple[str, ...] = ()
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()


@dataclass(frozen=True, eq=False)
class ImageDataset:
    """A loaded dataset at one image size.

    Parameters
    ----------
    name : str
        Its name in the catalogue.
    train, test : Split
        uint8 images [N, C, S, S] and int64 labels [N].
    class_names : tuple of str
        One per class, in label order.
    mean, std : tuple of float
        Normalisation per channel, in unit range.
    augmentation : Augmentation
        The training augmentation.
    fingerprint : str
        :func:`fingerprint` of the two splits.
    """

    name: str
    train: Split
    test: Split
    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    augmentation: Augmentation
    fingerprint: str


def measured_moments(images: Images) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation per channel, in unit range.

    Sums are of integers, so the result is the same on every machine.

    Parameters
    ----------
    images : numpy.ndarray
        uint8 [N, C, H, W].

    Returns
    -------
    mean, std : tuple of float
        C numbers each, rounded to four digits; std is at least 0.0001.
    """
    channels = images.shape[1]
    counts = np.zeros((channels, 256), dtype=np.int64)
    for start in range(0, len(images), 1024):
        part = images[start : start + 1024]
        for channel in range(channels):
            counts[channel] += np.bincount(part[:, channel].ravel(), minlength=256)
    values = np.arange(256, dtype=np.int64)
    pixels = int(counts[0].sum())
    mean: list[float] = []
    std: list[float] = []
    for row in counts:
        total, squares = int(row @ values), int(row @ values**2)
        mean.append(round(total / (255 * pixels), _MOMENT_DIGITS))
        variance = (squares * pixels - total * total) / (255 * pixels) ** 2
        std.append(max(round(variance**0.5, _MOMENT_DIGITS), 10.0**-_MOMENT_DIGITS))
    return tuple(mean), tuple(std)


def fingerprint(train: Split, test: Split) -> str:
    """Return the SHA-256 of the content of two splits.

    It covers shapes, pixels and labels as they are used (after resizing), and nothing else:
    neither paths nor compression nor file dates change it.

    Parameters
    ----------
    train, test : Split
        The two splits.

    Returns
    -------
    str
        64 hexadecimal digits.
    """
    digest = hashlib.sha256(b"image-dataset/1")
    for split in (train, test):
        digest.update(f"{split.images.shape}".encode())
        digest.update(np.ascontiguousarray(split.images).data)
        digest.update(np.ascontiguousarray(split.labels.astype("<i8", copy=False)).data)
    return digest.hexdigest()
