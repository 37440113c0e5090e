"""``npz:PATH``: the forms that are understood, and clear errors for all others."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from datasets import DataError, load
from datasets.catalog import spec_of

RNG = np.random.default_rng(3)
X = RNG.integers(0, 256, (12, 20, 24, 3), dtype=np.uint8)
Y = np.arange(12) % 3


def write(path: Path, **changes: Any) -> str:
    values = {"x_train": X, "y_train": Y, "x_test": X[:6], "y_test": Y[:6], **changes}
    np.savez_compressed(path, **{k: v for k, v in values.items() if v is not None})
    return f"npz:{path}"


@pytest.mark.parametrize(
    ("turn", "channels"),
    [
        (lambda x: x, 3),
        (lambda x: x.transpose(0, 3, 1, 2), 3),
        (lambda x: x[..., 0], 1),
        (lambda x: x[..., :1], 1),
        (lambda x: x[..., 0][:, None], 1),
        (np.asfortranarray, 3),
    ],
)
def test_layouts(tmp_path: Path, turn: Any, channels: int) -> None:
    name = write(tmp_path / "data.npz", x_train=turn(X), x_test=turn(X[:6]), y_test=Y[:6, None])
    data = load(name)
    assert data.train.images.shape == (12, channels, 32, 32)
    assert data.test.labels.tolist() == Y[:6].tolist()
    assert data.class_names == ("0", "1", "2")
    expected = load(write(tmp_path / "plain.npz")).train.images[:, :channels]
    np.testing.assert_array_equal(data.train.images, expected)
    info = spec_of(name).info
    assert (info.train_samples, info.test_samples, info.channels) == (12, 6, channels)
    assert info.native_size == 24


def test_cached_by_content(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    one = load(write(tmp_path / "one.npz"), cache_dir=cache)
    again = load(f"npz:{tmp_path / 'one.npz'}", cache_dir=cache)
    assert isinstance(again.train.images, np.memmap)
    assert (again.fingerprint, again.mean, again.std) == (one.fingerprint, one.mean, one.std)
    assert one.std[0] == pytest.approx(one.train.images[:, 0].std() / 255, abs=1e-4)
    other = load(write(tmp_path / "one.npz", y_train=Y[::-1]), cache_dir=cache)
    assert other.fingerprint != one.fingerprint


class Evil:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return (exec, ("raise SystemExit('executed')",))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x_train": None}, "lacks x_train; it needs x_train, y_train"),
        ({"y_test": None, "x_test": None}, "lacks x_test, y_test"),
        ({"x_train": X / 255}, "x_train is float64, expected uint8"),
        ({"x_train": X.astype(np.int64)}, "x_train is int64"),
        ({"x_train": X[:11]}, "x_train has 11 images, y_train 12 labels"),
        ({"x_test": X[:6, :10]}, "x_train has images of .* x_test of"),
        ({"x_train": X[..., [0, 0, 0, 0]]}, "C = 1 or 3"),
        ({"x_train": X[0]}, r"x_train has images of \(1, 24, 3\), x_test of \(3, 20, 24\)"),
        ({"x_train": X[0, 0]}, "C = 1 or 3"),
        ({"x_train": X[:, :3]}, "can't tell channels from pixels"),
        ({"x_train": X[:0], "y_train": Y[:0]}, "y_train is int64 \\(0,\\)"),
        ({"y_train": Y / 2}, "y_train is float64"),
        ({"y_train": Y - 1}, "label -1, expected 0 or more"),
        ({"y_train": 2 * Y}, "no training sample of class 1"),
        ({"y_train": 0 * Y}, "no training sample of class 1"),
        ({"y_train": Y + 10**13}, "no training sample of class 0"),
        ({"y_train": Y.astype(np.uint64) + np.uint64(2**63)}, "label 9223372036854775810, which"),
        ({"y_test": Y[:6] + 1}, "y_test has label 3, expected 0 to 2"),
        ({"y_train": np.eye(12, dtype=np.int64)}, "expected whole numbers"),
        ({"y_train": np.array([Evil()] * 12, dtype=object)}, "y_train can't be read"),
        ({"x_train": np.array([Evil()] * 12, dtype=object)}, "x_train is object"),
    ],
)
def test_wrong_arrays(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        load(write(tmp_path / "data.npz", **changes))
    assert "\n" not in str(caught.value)


def test_damaged_archives(tmp_path: Path) -> None:
    path = tmp_path / "data.npz"
    write(path)
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 3] ^= 1
    for content in (whole[:-100], b"", b"PK\x03\x04", pickle.dumps(Evil()), bytes(flipped)):
        path.write_bytes(content)
        with pytest.raises(DataError, match="can't be read"):
            load(f"npz:{path}")
