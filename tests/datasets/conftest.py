"""Small datasets in the exact published formats, in folders no real data is found beside."""

from __future__ import annotations

import dataclasses
import gzip
import io
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from datasets import catalog, places
from datasets.progress import Progress

NAMES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)


def idx_bytes(array: npt.NDArray[np.uint8]) -> bytes:
    """Return an array in IDX format."""
    return struct.pack(f">4B{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


@pytest.fixture
def write_idx() -> Callable[..., None]:
    """Return a writer of one array in IDX format."""

    def write(path: Path, array: npt.NDArray[np.uint8]) -> None:
        path.write_bytes(idx_bytes(array))

    return write


@pytest.fixture
def write_set() -> Callable[..., None]:
    """Return a writer of the four files of a small dataset of 28×28 images."""

    def write(folder: Path, *, zipped: bool = False, seed: int = 0, train: int = 30) -> None:
        rng = np.random.default_rng(seed)
        folder.mkdir(parents=True, exist_ok=True)
        for names, count in ((NAMES[:2], train), (NAMES[2:], 20)):
            images = rng.integers(0, 256, (count, 28, 28), dtype=np.uint8)
            labels = (np.arange(count) % 10).astype(np.uint8)
            for name, array in zip(names, (images, labels), strict=True):
                content = idx_bytes(array)
                if zipped:
                    (folder / f"{name}.gz").write_bytes(gzip.compress(content))
                else:
                    (folder / name).write_bytes(content)

    return write


@pytest.fixture
def nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Hide the machine's own data and downloads; return an empty user data root."""
    user_root = tmp_path / "user-data"
    monkeypatch.delenv(places.DATA_VARIABLE, raising=False)
    monkeypatch.setattr(places, "user_data_root", lambda: user_root)

    def refuse(root: Path, progress: Progress) -> None:
        raise OSError("no network in this test")

    for name, spec in catalog.specs().items():
        if spec.download is not None:
            hidden = dataclasses.replace(spec, own_places=tuple, download=refuse)
            monkeypatch.setitem(catalog.specs(), name, hidden)
    return user_root


def python2_pickle(values: dict[str, Any]) -> bytes:
    """Return a dictionary as Python 2 with NumPy 1 pickled it: the form of the CIFAR files.

    Text is in string opcodes and not in Unicode ones, and arrays are rebuilt by names of
    NumPy's old layout.
    """
    return b"\x80\x02" + _item(values) + b"."


def _item(value: Any) -> bytes:
    if isinstance(value, dict):
        pairs = b"".join(_item(key) + _item(item) for key, item in value.items())
        return b"}(" + pairs + b"u"
    if isinstance(value, list):
        return b"](" + b"".join(map(_item, value)) + b"e"
    if isinstance(value, str):
        return b"U" + bytes([len(value)]) + value.encode("latin1")
    if isinstance(value, int):
        return b"J" + struct.pack("<i", value)
    content: bytes = np.ascontiguousarray(value).tobytes()
    shape = b"(" + b"".join(map(_item, value.shape)) + b"t"
    kind: bytes = value.dtype.str[1:].encode()
    dtype = b"cnumpy\ndtype\nU" + bytes([len(kind)]) + kind + b"K\x00K\x01\x87R"
    dtype += b"(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    return (
        b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        + b"(K\x01" + shape + dtype + b"\x89T" + struct.pack("<i", len(content)) + content + b"tb"
    )  # fmt: skip


@pytest.fixture(name="python2_pickle")
def python2_pickle_fixture() -> Callable[[dict[str, Any]], bytes]:
    """Return :func:`python2_pickle`."""
    return python2_pickle


def picture_bytes(
    colour: int, *, size: tuple[int, int] = (8, 8), kind: str = "PNG", mode: str = "RGB"
) -> bytes:
    """Return a picture of one shade."""
    shade: Any = (
        colour if mode in ("L", "I;16", "P") else (colour, 255 - colour, 7, 255)[: len(mode)]
    )
    stream = io.BytesIO()
    Image.new(mode, size, shade).save(stream, kind)
    return stream.getvalue()


@pytest.fixture(name="picture_bytes")
def picture_bytes_fixture() -> Callable[..., bytes]:
    """Return :func:`picture_bytes`."""
    return picture_bytes


@pytest.fixture
def write_tree() -> Callable[[Path, dict[str, bytes]], None]:
    """Return a writer of files by name below a folder."""

    def write(root: Path, files: dict[str, bytes]) -> None:
        for name, content in files.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(content)

    return write
