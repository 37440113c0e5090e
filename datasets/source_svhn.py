"""``svhn``: the cropped house-number digits (format 2), two MATLAB files."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from datasets.catalog import DatasetSpec, Search
from datasets.errors import DataError
from datasets.fetching import Remote, fetch_all
from datasets.image_dataset import Augmentation, DatasetInfo, Split
from datasets.matlab import read_arrays
from datasets.progress import Progress
from datasets.resize import resize_images

_FILES = ("train_32x32.mat", "test_32x32.mat")
_SIZE = 32
_CLASSES = 10
_URL = "http://ufldl.stanford.edu/housenumbers/"
_REMOTES = (
    Remote(_FILES[0], (_URL + _FILES[0],), "e26dedcc434d2e4c54c9b2d4a06d8373", 182_040_794),
    Remote(_FILES[1], (_URL + _FILES[1],), "eb5a983be6a315427106f1b164d9cef3", 64_275_384),
)


def _search(place: Path) -> Search:
    files = tuple(place / name for name in _FILES)
    missing = tuple(file.name for file in files if not file.is_file())
    if missing:
        return Search(missing=missing, partial=len(missing) < len(files))
    return Search(files=files)


def _read(path: Path) -> Split:
    values = read_arrays(path, ("X", "y"))
    pixels, labels = values["X"], values["y"]
    if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[:3] != (_SIZE, _SIZE, 3):
        raise DataError(
            f"{path}: X is {pixels.dtype} {pixels.shape}, expected uint8 (32, 32, 3, N)"
        )
    if labels.dtype.kind not in "ui" or labels.size != pixels.shape[3]:
        raise DataError(
            f"{path}: y is {labels.dtype} {labels.shape}, expected {pixels.shape[3]} "
            "whole numbers, one for each image"
        )
    flat = labels.ravel().astype(np.int64)
    outside = np.flatnonzero((flat < 1) | (flat > _CLASSES))
    if len(outside):
        raise DataError(
            f"{path}: label {flat[outside[0]]} at position {outside[0]}, expected 1 to 10"
        )
    # The digit 0 is labelled 10 in the files.
    return Split(np.ascontiguousarray(pixels.transpose(3, 2, 0, 1)), flat % _CLASSES)


def _decode(files: tuple[Path, ...], image_size: int) -> tuple[Split, Split]:
    train, test = _read(files[0]), _read(files[1])
    return (
        Split(resize_images(train.images, image_size), train.labels),
        Split(resize_images(test.images, image_size), test.labels),
    )


def _download(root: Path, progress: Progress) -> None:
    fetch_all(_REMOTES, root / "svhn", progress)


SPECS = (
    DatasetSpec(
        info=DatasetInfo(
            name="svhn",
            title="SVHN",
            classes=_CLASSES,
            channels=3,
            native_size=_SIZE,
            train_samples=73_257,
            test_samples=26_032,
            summary="32×32 colour photographs of house-number digits",
            source="Netzer et al., 2011, Reading Digits in Natural Images",
            deviations=(
                "random crops but no mirroring; published code mirrors, which makes other "
                "shapes of digits",
            ),
        ),
        class_names=tuple("0123456789"),
        # As in the published Mosaic code; with it, classifier and tanh range are the same.
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
        # A mirrored 2 or 7 is no digit: cropped, not flipped.
        augmentation=Augmentation(crop_padding=4, flip=False),
        search=_search,
        decode=_decode,
        subfolders=("svhn", "SVHN", ""),
        download=_download,
        download_bytes=sum(remote.size for remote in _REMOTES),
        published=_REMOTES,
        advice=(
            "give a data root that holds train_32x32.mat and test_32x32.mat, or fetch it "
            f"(python -m benchmark datasets fetch svhn, from {_URL})"
        ),
    ),
)
