"""A strict reader of the numeric arrays in MATLAB 5.0 MAT-files.

The format is documented by MathWorks ("MAT-File Format", level 5): a header of 128 bytes, then
elements, each with a tag of type and size; arrays may be compressed with zlib one by one.
SciPy reads all of it, but trusts the sizes: a damaged file can end the process in its C code.
Only what SVHN needs is read here, and every size is checked against the bytes that are there.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from datasets.errors import DataError

_HEADER = 128
_ORDERS = {b"\x00\x01IM": "<", b"\x01\x00MI": ">"}
_MATRIX, _COMPRESSED = 14, 15
_NUMERIC_CLASSES = range(6, 16)
_COMPLEX_FLAG = 0x0800
_STORAGE = {
    1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8",
}  # fmt: skip

Array = npt.NDArray[Any]


def read_arrays(path: Path, names: tuple[str, ...]) -> dict[str, Array]:
    """Read numeric arrays of a MAT-file by name.

    Parameters
    ----------
    path : Path
        The file.
    names : tuple of str
        The variables wanted; others are passed over.

    Returns
    -------
    dict
        By name, of the type in which the file stores them (not the class MATLAB shows), with
        the dimensions that the file states.

    Raises
    ------
    DataError
        If the file can't be read, is no MAT-file of level 5, is damaged, or lacks one of the
        variables as a real numeric array.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: can't be read ({error.strerror})") from error
    order = _ORDERS.get(content[_HEADER - 4 : _HEADER])
    if order is None:
        magic = content[_HEADER - 4 : _HEADER].hex() or "(too short)"
        raise DataError(
            f"{path}: bad magic number 0x{magic}, expected a MATLAB 5.0 MAT-file; "
            "delete it and fetch it again"
        )
    found: dict[str, Array] = {}
    try:
        for body in _matrices(memoryview(content)[_HEADER:], order):
            name, array = _matrix(body, order, names)
            if array is not None:
                found[name] = array
    except (ValueError, struct.error, zlib.error) as error:
        raise DataError(
            f"{path}: damaged MAT-file ({error}); delete it and fetch it again"
        ) from error
    for name in names:
        if name not in found:
            raise DataError(f"{path}: lacks the variable '{name}' as an array of numbers")
    return found


def _matrices(rest: memoryview, order: str) -> Iterator[memoryview]:
    """Yield the content of each matrix element, unpacked."""
    while rest:
        kind, size = struct.unpack(f"{order}II", rest[:8])
        body = rest[8 : 8 + size]
        if len(body) < size:
            raise ValueError(f"truncated, an element of {size} bytes has {len(body)}")
        # Compressed elements are not padded to eight bytes, all others are.
        rest = rest[8 + size + (-size % 8 if kind != _COMPRESSED else 0) :]
        if kind == _COMPRESSED:
            body = _unpack(body, order)
        elif kind != _MATRIX:
            raise ValueError(f"an element of type {kind} where an array is expected")
        yield body


def _unpack(packed: memoryview, order: str) -> memoryview:
    stream = zlib.decompressobj()
    head = stream.decompress(packed, 8)
    kind, size = struct.unpack(f"{order}II", head)
    if kind != _MATRIX:
        raise ValueError(f"a packed element of type {kind} where an array is expected")
    # One byte more than stated, so that the stream's own checksum is reached and checked.
    body = stream.decompress(stream.unconsumed_tail, size + 1)
    if len(body) != size or not stream.eof:
        raise ValueError(f"a packed array of {size} bytes does not unpack to as many")
    return memoryview(body)


def _matrix(body: memoryview, order: str, names: tuple[str, ...]) -> tuple[str, Array | None]:
    """Return a matrix's name, and its array if it is wanted and of real numbers."""
    kind, flags, body = _element(body, order)
    if kind != 6 or len(flags) != 8:
        raise ValueError("an array without flags")
    (word,) = struct.unpack(f"{order}I", flags[:4])
    kind, raw, body = _element(body, order)
    if kind != 5 or len(raw) % 4:
        raise ValueError("an array without dimensions")
    shape = struct.unpack(f"{order}{len(raw) // 4}i", raw)
    _, label, body = _element(body, order)
    name = bytes(label).decode("latin1")
    if name not in names or word & 0xFF not in _NUMERIC_CLASSES or word & _COMPLEX_FLAG:
        return name, None
    kind, values, _ = _element(body, order)
    if kind not in _STORAGE:
        raise ValueError(f"{name} is stored as type {kind}")
    dtype = np.dtype(order + _STORAGE[kind])
    if min(shape, default=-1) < 0 or math.prod(shape) * dtype.itemsize != len(values):
        raise ValueError(f"{name} of shape {shape} has {len(values)} bytes")
    array = np.frombuffer(values, dtype=dtype).reshape(shape, order="F")
    return name, array.astype(dtype.newbyteorder("="), copy=False)


def _element(rest: memoryview, order: str) -> tuple[int, memoryview, memoryview]:
    """Return type and content of the first element, and what follows it."""
    (word,) = struct.unpack(f"{order}I", rest[:4])
    kind, size = word & 0xFFFF, word >> 16
    if size:  # the small form: type, size and up to four bytes in eight
        if size > 4 or len(rest) < 8:
            raise ValueError("a small element of more than four bytes")
        return kind, rest[4 : 4 + size], rest[8:]
    (size,) = struct.unpack(f"{order}I", rest[4:8])
    if len(rest) < 8 + size:
        raise ValueError(f"truncated, an element of {size} bytes has {len(rest) - 8}")
    return kind, rest[8 : 8 + size], rest[8 + size + -size % 8 :]
