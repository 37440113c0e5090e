"""A strict reader for the IDX files of MNIST and its drop-in replacements.

The format (documented beside the original MNIST files): two zero bytes, one byte for the
element type (0x08 is unsigned byte), one for the number of dimensions, each dimension as a
big-endian 32-bit integer, then the elements in C order. Files may be gzipped, which is told
by their content and not by their name.
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt

from datasets.errors import DataError

_GZIP_MAGIC = b"\x1f\x8b"
_UNSIGNED_BYTE = 0x08


def read_bytes(path: Path) -> bytes:
    """Return the content of a file, unpacked if it is gzipped.

    Parameters
    ----------
    path : Path
        The file.

    Returns
    -------
    bytes
        Its (unpacked) content.

    Raises
    ------
    DataError
        If it can't be read, or its gzip stream is corrupt or cut short.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: can't be read ({error.strerror})") from error
    if not content.startswith(_GZIP_MAGIC):
        return content
    try:
        return gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(
            f"{path}: corrupt gzip file ({error}); delete it and fetch it again"
        ) from error


def read_idx(path: Path, ndim: int) -> npt.NDArray[np.uint8]:
    """Read an IDX file of unsigned bytes with ``ndim`` dimensions.

    Parameters
    ----------
    path : Path
        The file, gzipped or not.
    ndim : int
        Number of dimensions it must have: 3 for images, 1 for labels.

    Returns
    -------
    numpy.ndarray
        uint8, of the shape that the header states; read-only.

    Raises
    ------
    DataError
        If the file can't be read, its magic number is wrong, or it holds fewer or more bytes
        than its header says.
    """
    content = read_bytes(path)
    header_size = 4 + 4 * ndim
    expected = bytes([0, 0, _UNSIGNED_BYTE, ndim])
    if content[:4] != expected:
        raise DataError(
            f"{path}: bad magic number 0x{content[:4].hex() or '(empty file)'}, "
            f"expected 0x{expected.hex()} (IDX, unsigned bytes, {ndim} dimensions)"
        )
    if len(content) < header_size:
        raise DataError(
            f"{path}: truncated in its header ({len(content)} of {header_size} bytes); "
            "delete it and fetch it again"
        )
    shape = struct.unpack(f">{ndim}I", content[4:header_size])
    wanted, found = header_size + math.prod(shape), len(content)
    if found != wanted:
        problem = "truncated" if found < wanted else "trailing bytes"
        raise DataError(
            f"{path}: {problem}, shape {shape} needs {wanted} bytes but the file has {found}; "
            "delete it and fetch it again"
        )
    return np.frombuffer(content, dtype=np.uint8, offset=header_size).reshape(shape)


def read_pair(
    images_path: Path, labels_path: Path, *, size: int, classes: int
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Read an image file and its label file, and check one against the other.

    Parameters
    ----------
    images_path, labels_path : Path
        The two IDX files.
    size : int
        Height and width in pixels that the images must have.
    classes : int
        Number of classes; labels must be 0 to ``classes - 1``.

    Returns
    -------
    images : numpy.ndarray
        uint8 [N, 1, size, size].
    labels : numpy.ndarray
        int64 [N].

    Raises
    ------
    DataError
        If either file is damaged, holds no samples, or disagrees with the other or with
        ``size`` and ``classes``.
    """
    images = read_idx(images_path, 3)
    labels = read_idx(labels_path, 1)
    if len(images) == 0:
        raise DataError(f"{images_path}: holds no images")
    if images.shape[1:] != (size, size):
        raise DataError(
            f"{images_path}: images of {images.shape[1]}×{images.shape[2]} pixels, "
            f"expected {size}×{size}"
        )
    if len(images) != len(labels):
        raise DataError(
            f"{labels_path}: {len(labels)} labels, but {images_path} holds {len(images)} images"
        )
    if int(labels.max()) >= classes:
        raise DataError(
            f"{labels_path}: label {int(labels.max())} at position {int(labels.argmax())}, "
            f"expected 0 to {classes - 1}"
        )
    return images[:, None], labels.astype(np.int64)
