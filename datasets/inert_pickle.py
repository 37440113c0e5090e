"""Reading pickles as data: no code of the file, and none of NumPy, is ever called by it.

The CIFAR files are pickles (protocol 2, written by Python 2), a format in which a file names
functions to call. Here every name outside a list of four is refused, and the four stand for
records of our own that only keep what they are given. An array is made of a record
afterwards, by code that checks its type and size first.
"""

from __future__ import annotations

import io
import math
import pickle
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from datasets.errors import DataError


class _Record:
    """Stands for a name of the file; calling it keeps the arguments, and nothing else."""

    __slots__ = ("args", "kind", "state")

    def __init__(self, kind: str, args: tuple[Any, ...] | None = None) -> None:
        self.kind, self.args, self.state = kind, args, None

    def __call__(self, *args: Any) -> Any:
        if self.args is not None or self.kind == "ndarray":
            raise pickle.UnpicklingError(f"{self.kind} can't be called")
        if self.kind == "encode":  # bytes, as Python 3 writes them in protocol 2
            if len(args) != 2 or not isinstance(args[0], str) or args[1] not in _LATIN:
                raise pickle.UnpicklingError("encode: only text as latin1 is admitted")
            return args[0].encode("latin1")
        return _Record(self.kind, args)

    def __setstate__(self, state: Any) -> None:
        if self.args is None or self.state is not None:
            raise pickle.UnpicklingError(f"{self.kind} has no state")
        self.state = state


_LATIN = ("latin1", b"latin1")
_ADMITTED = {
    ("numpy.core.multiarray", "_reconstruct"): "array",
    ("numpy._core.multiarray", "_reconstruct"): "array",
    ("numpy", "ndarray"): "ndarray",
    ("numpy", "dtype"): "dtype",
    ("_codecs", "encode"): "encode",
}


class _InertUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str, /) -> Any:
        kind = _ADMITTED.get((module, name))
        if kind is None:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which data has no need of")
        return _Record(kind)

    def persistent_load(self, pid: Any, /) -> NoReturn:
        raise pickle.UnpicklingError("it refers to an object outside the file")


def read_dict(content: bytes, path: Path) -> dict[str, Any]:
    """Read a pickled dictionary of plain values and byte arrays.

    Parameters
    ----------
    content : bytes
        The pickle.
    path : Path
        Where it comes from, for messages.

    Returns
    -------
    dict
        By key as text. Arrays are records: see :func:`byte_array`.

    Raises
    ------
    DataError
        If it is no pickle, cut short, names anything but plain NumPy arrays, or holds
        something else than a dictionary.
    """
    try:
        value = _InertUnpickler(io.BytesIO(content), encoding="bytes").load()
    except Exception as error:  # a damaged pickle can raise anything
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(
            f"{path}: not a readable data pickle ({reason}); delete it and fetch it again"
        ) from error
    if not isinstance(value, dict):
        raise DataError(f"{path}: holds a {type(value).__name__}, expected a dictionary")
    return {
        key.decode("latin1") if isinstance(key, bytes) else str(key): item
        for key, item in value.items()
    }


def byte_array(value: Any, what: str) -> npt.NDArray[np.uint8]:
    """Return the array that a record of :func:`read_dict` describes.

    Parameters
    ----------
    value : object
        The record.
    what : str
        File and key, for messages.

    Returns
    -------
    numpy.ndarray
        uint8, of the shape that the record states.

    Raises
    ------
    DataError
        If it is no array of unsigned bytes, or has fewer or more bytes than its shape.
    """
    if not isinstance(value, _Record) or value.kind != "array":
        raise DataError(f"{what}: expected an array of bytes")
    state = value.state
    if not isinstance(state, tuple) or len(state) != 5:
        raise DataError(f"{what}: an array without content")
    _, shape, dtype, fortran, raw = state
    kind = dtype.args[0] if isinstance(dtype, _Record) and dtype.args else None
    if kind not in ("u1", b"u1", "|u1", b"|u1") or not isinstance(raw, bytes):
        raise DataError(f"{what}: expected an array of unsigned bytes")
    sizes = shape if isinstance(shape, tuple) else ()
    if not sizes or not all(isinstance(size, int) and size >= 0 for size in sizes):
        raise DataError(f"{what}: an array without a shape")
    if math.prod(sizes) != len(raw):
        raise DataError(f"{what}: shape {sizes} needs {math.prod(sizes)} bytes, has {len(raw)}")
    flat = np.frombuffer(raw, dtype=np.uint8)
    return flat.reshape(sizes, order="F" if fortran else "C")
