"""``npz:PATH``: a NumPy archive of training and test arrays."""

from __future__ import annotations

import tokenize
import zipfile
import zlib
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from datasets.catalog import DatasetSpec, Search
from datasets.errors import DataError
from datasets.image_dataset import Augmentation, Images, Labels, Split, own_info
from datasets.resize import resize_images

_ARRAYS = ("x_train", "y_train", "x_test", "y_test")


def npz_spec(name: str, path: Path) -> DatasetSpec:
    """Return the table entry for an archive of arrays; see :func:`datasets.own_data.own_spec`.

    Parameters
    ----------
    name : str
        ``npz:PATH``, as it was asked for.
    path : Path
        The archive. Only its labels and the headers of its images are read.

    Raises
    ------
    DataError
        If the archive is missing, damaged, or its arrays don't fit each other.
    """
    labels = _read_labels(path)
    train, test = (_image_shape(path, key) for key in ("x_train", "x_test"))
    if train[1:] != test[1:]:
        raise DataError(f"npz:{path}: x_train has images of {train[1:]}, x_test of {test[1:]}")
    for part, shape in (("train", train), ("test", test)):
        if shape[0] != len(labels[part]):
            raise DataError(
                f"npz:{path}: x_{part} has {shape[0]} images, y_{part} {len(labels[part])} labels"
            )
    classes = int(labels["train"].max()) + 1
    return DatasetSpec(
        info=own_info(
            name,
            path,
            classes=classes,
            channels=train[1],
            side=max(train[2:]),
            sizes=(train[0], test[0]),
        ),
        class_names=tuple(str(label) for label in range(classes)),
        augmentation=Augmentation(),
        search=lambda place: Search(files=(place,)),
        decode=partial(_decode_npz, labels),
        own_places=lambda: (path,),
        advice="npz:PATH with x_train, y_train, x_test, y_test",
    )


def _decode_npz(
    labels: dict[str, Labels], files: tuple[Path, ...], image_size: int
) -> tuple[Split, Split]:
    train, test = (
        Split(resize_images(_read_images(files[0], f"x_{part}"), image_size), labels[part].copy())
        for part in ("train", "test")
    )
    return train, test


def _member(path: Path, key: str, *, header_only: bool = False) -> Any:
    """Return an array of an archive, or its (shape, dtype), without unpickling anything."""
    try:
        with zipfile.ZipFile(path) as archive:
            lacks = [name for name in _ARRAYS if f"{name}.npy" not in archive.namelist()]
            if lacks:
                raise DataError(
                    f"npz:{path}: lacks {', '.join(lacks)}; it needs {', '.join(_ARRAYS)}"
                )
            with archive.open(f"{key}.npy") as stream:
                if not header_only:
                    return np.lib.format.read_array(stream, allow_pickle=False)
                version = np.lib.format.read_magic(stream)
                read = (
                    np.lib.format.read_array_header_1_0
                    if version == (1, 0)
                    else np.lib.format.read_array_header_2_0
                )
                shape, _, dtype = read(stream)
                return shape, dtype
    except DataError:
        raise
    except OSError as error:
        raise DataError(f"npz:{path}: can't be read ({error.strerror or error})") from error
    except (
        zipfile.BadZipFile, zlib.error, ValueError, EOFError, RuntimeError, MemoryError,
        tokenize.TokenError,  # NumPy's own reading of a damaged header
    ) as error:  # fmt: skip
        reason = " ".join(str(error).split())
        raise DataError(f"npz:{path}: {key} can't be read ({reason})") from error


def _image_shape(path: Path, key: str) -> tuple[int, int, int, int]:
    """Return N, C, H, W of an array of images, from its header."""
    shape, dtype = _member(path, key, header_only=True)
    if dtype != np.uint8:
        raise DataError(f"npz:{path}: {key} is {dtype}, expected uint8 with values 0 to 255")
    if len(shape) == 3:
        shape = (*shape, 1)
    if len(shape) == 4 and min(shape) > 0:
        last, first = shape[3] in (1, 3), shape[1] in (1, 3)
        if last and first:
            raise DataError(
                f"npz:{path}: {key} of shape {shape}: can't tell channels from pixels; "
                "enlarge the images"
            )
        if last:
            return shape[0], shape[3], shape[1], shape[2]
        if first:
            return shape[0], shape[1], shape[2], shape[3]
    raise DataError(
        f"npz:{path}: {key} of shape {shape}, expected [N, H, W], [N, H, W, C] or [N, C, H, W] "
        "with C = 1 or 3"
    )


def _read_images(path: Path, key: str) -> Images:
    wanted = _image_shape(path, key)
    images: Images = _member(path, key)
    if images.ndim == 3:
        images = images[..., None]
    if images.shape != wanted:
        images = images.transpose(0, 3, 1, 2)
    return np.ascontiguousarray(images)


def _read_labels(path: Path) -> dict[str, Labels]:
    if not path.is_file():
        problem = "is a folder" if path.is_dir() else "does not exist"
        raise DataError(f"npz:{path}: {problem}, expected a NumPy archive (numpy.savez)")
    found = {}
    for part in ("train", "test"):
        raw = _member(path, f"y_{part}")
        if raw.ndim == 2 and raw.shape[1] == 1:
            raw = raw[:, 0]
        if raw.dtype.kind not in "ui" or raw.ndim != 1 or len(raw) == 0:
            raise DataError(
                f"npz:{path}: y_{part} is {raw.dtype} {raw.shape}, expected whole numbers [N]"
            )
        if int(raw.min()) < 0:
            raise DataError(f"npz:{path}: y_{part} has label {raw.min()}, expected 0 or more")
        if int(raw.max()) > np.iinfo(np.int64).max:
            raise DataError(f"npz:{path}: y_{part} has label {raw.max()}, which no class has")
        found[part] = raw.astype(np.int64)
    classes = int(found["train"].max()) + 1
    held = np.unique(found["train"])
    if len(held) != classes or classes < 2:
        gap = next((place for place, label in enumerate(held) if place != label), len(held))
        raise DataError(f"npz:{path}: no training sample of class {gap}; labels are 0, 1, 2, …")
    if int(found["test"].max()) >= classes:
        raise DataError(
            f"npz:{path}: y_test has label {found['test'].max()}, expected 0 to {classes - 1}"
        )
    return found
