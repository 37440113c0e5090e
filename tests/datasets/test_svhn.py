"""SVHN: MATLAB files as published, and damaged ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.io import loadmat, savemat

from datasets import DataError, load
from datasets.matlab import read_arrays

LABELS = np.array([[1], [10], [9], [2], [10]], dtype=np.uint8)


def write(
    path: Path, *, plain: bool = False, **changes: Any
) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    pixels = np.random.default_rng(1).integers(0, 256, (32, 32, 3, 5), dtype=np.uint8)
    values = {"X": pixels, "y": LABELS, **changes}
    path.parent.mkdir(parents=True, exist_ok=True)
    savemat(path, {k: v for k, v in values.items() if v is not None}, do_compression=not plain)
    return pixels


@pytest.mark.parametrize("folder", ["", "svhn", "SVHN"])
def test_published_form(tmp_path: Path, nothing_else: Path, folder: str) -> None:
    pixels = write(tmp_path / folder / "train_32x32.mat")
    write(tmp_path / folder / "test_32x32.mat", y=LABELS[::-1])
    data = load("svhn", data_root=tmp_path, download=False)
    assert data.train.labels.tolist() == [1, 0, 9, 2, 0]  # 10 stands for the digit 0
    assert data.test.labels.tolist() == [0, 2, 9, 0, 1]
    np.testing.assert_array_equal(data.train.images[3, 2], pixels[:, :, 2, 3])
    assert data.train.images.shape == (5, 3, 32, 32)
    assert not data.augmentation.flip


def test_other_files_of_the_published_names_are_warned_of_when_they_are_decoded(
    tmp_path: Path, nothing_else: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path / "train_32x32.mat")
    write(tmp_path / "test_32x32.mat")
    for _ in range(2):
        load("svhn", data_root=tmp_path, download=False, cache_dir=tmp_path / "cache")
    (said,) = [text for text in caplog.messages if "published file" in text]
    assert said == (
        f"dataset 'svhn': {tmp_path / 'train_32x32.mat'} and 1 more is NOT the published file (its "
        "checksum differs): results on it are not results on SVHN"
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"X": None, "z": LABELS}, "lacks the variable 'X'"),
        ({"y": None}, "lacks the variable 'y'"),
        ({"y": LABELS[:4]}, r"y is uint8 \(4, 1\), expected 5 whole numbers"),
        ({"y": LABELS + 1}, "label 11 at position 1, expected 1 to 10"),
        ({"y": LABELS - 1}, "label 0 at position 0, expected 1 to 10"),
        ({"y": LABELS / 3}, "expected 5 whole numbers"),
        ({"X": np.zeros((5, 3, 32, 32), dtype=np.uint8)}, r"expected uint8 \(32, 32, 3, N\)"),
        ({"X": np.zeros((32, 32, 3, 5))}, "X is float64"),
        ({"y": np.array([{"a": 1}] * 5, dtype=object)}, "lacks the variable 'y'"),
        ({"y": LABELS + 1j}, "lacks the variable 'y'"),
        ({"y": "12345"}, "lacks the variable 'y'"),
        ({"y": LABELS.astype(float)}, "y is float64"),
    ],
)
def test_wrong_content(
    tmp_path: Path, nothing_else: Path, changes: dict[str, Any], message: str
) -> None:
    write(tmp_path / "train_32x32.mat", **changes)
    write(tmp_path / "test_32x32.mat")
    with pytest.raises(DataError, match=message) as caught:
        load("svhn", data_root=tmp_path, download=False)
    assert str(tmp_path / "train_32x32.mat") in str(caught.value)


@pytest.mark.parametrize("keep", [0, 4, 127, 130, 200, 0.5, 0.98])
def test_truncated(tmp_path: Path, nothing_else: Path, keep: float) -> None:
    write(tmp_path / "train_32x32.mat")
    path = tmp_path / "test_32x32.mat"
    write(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: keep if isinstance(keep, int) else int(keep * len(whole))])
    with pytest.raises(DataError, match=r"magic|damaged MAT-file \(|lacks the variable") as caught:
        load("svhn", data_root=tmp_path, download=False)
    assert "\n" not in str(caught.value)


def test_wrong_magic(tmp_path: Path, nothing_else: Path) -> None:
    write(tmp_path / "train_32x32.mat")
    path = tmp_path / "test_32x32.mat"
    path.write_bytes(b"<html>moved</html>" * 30)
    with pytest.raises(DataError, match=r"bad magic number 0x.*MATLAB 5.0"):
        load("svhn", data_root=tmp_path, download=False)


@pytest.mark.parametrize("plain", [False, True])
def test_any_damage_is_a_data_error_or_changes_values_only(tmp_path: Path, plain: bool) -> None:
    path = tmp_path / "test_32x32.mat"
    write(path, plain=plain)
    whole = path.read_bytes()
    rng = np.random.default_rng(5)
    errors = 0
    for _ in range(300):
        content = bytearray(whole)
        for position in rng.integers(100, min(len(whole), 400), 3):
            content[position] = rng.integers(0, 256)
        path.write_bytes(
            content[: rng.integers(200, len(whole))] if rng.random() < 0.2 else content
        )
        try:
            values = read_arrays(path, ("X",))
        except DataError:
            errors += 1
            continue
        assert values["X"].size == 32 * 32 * 3 * 5 or values["X"].dtype != np.uint8
    assert errors > 100


def test_reader_agrees_with_scipy(tmp_path: Path) -> None:
    path = tmp_path / "arrays.mat"
    rng = np.random.default_rng(2)
    arrays = {
        "bytes": rng.integers(0, 256, (3, 4, 2), dtype=np.uint8),
        "small": np.array([[7, 8, 9]], dtype=np.uint8),
        "long": rng.integers(-9, 9, (2, 5), dtype=np.int64),
        "real": rng.random((3, 3)),
        "single": rng.random((1, 7)).astype(np.float32),
    }
    for packed in (False, True):
        savemat(path, {**arrays, "text": "passed over"}, do_compression=packed)
        expected = loadmat(path)
        found = read_arrays(path, tuple(arrays))
        for name in arrays:
            assert found[name].dtype == expected[name].dtype
            np.testing.assert_array_equal(found[name], expected[name])


def test_one_file_is_not_enough(tmp_path: Path, nothing_else: Path) -> None:
    write(tmp_path / "svhn" / "train_32x32.mat")
    with pytest.raises(DataError, match=r"svhn \(lacks test_32x32.mat\)"):
        load("svhn", data_root=tmp_path, download=False)
