"""Small datasets in the exact IDX format, in folders no real data is found beside."""

from __future__ import annotations

import dataclasses
import gzip
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from datasets import catalog, places

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

    def refuse(root: Path) -> None:
        raise OSError("no network in this test")

    for name in ("mnist", "fashion_mnist"):
        spec = catalog.specs()[name]
        hidden = dataclasses.replace(spec, own_places=tuple, download=refuse)
        monkeypatch.setitem(catalog.specs(), name, hidden)
    return user_root
