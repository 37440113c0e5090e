"""The IDX reader: right files gzipped or not, and one clear line for each kind of damage."""

from __future__ import annotations

import gzip
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from datasets import DataError
from datasets.idx import read_idx, read_pair

IMAGES = np.random.default_rng(0).integers(0, 256, (5, 28, 28), dtype=np.uint8)
LABELS = np.array([0, 9, 3, 3, 1], dtype=np.uint8)


def good(array: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> bytes:
    return struct.pack(f">4B{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_reads_packed_and_unpacked_whatever_the_name(
    tmp_path: Path, pack: Callable[[bytes], bytes], suffix: str
) -> None:
    path = tmp_path / f"images{suffix}"
    path.write_bytes(pack(good(IMAGES)))
    np.testing.assert_array_equal(read_idx(path, 3), IMAGES)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"bad magic number 0x\(empty file\)"),
        (b"\x00\x00", "bad magic number 0x0000"),
        (b"<html>not found</html>", "bad magic number 0x3c68746d"),
        (good(LABELS), "bad magic number 0x00000801, expected 0x00000803"),
        (b"\x00\x00\x0d\x03" + good(IMAGES)[4:], "bad magic number 0x00000d03"),
        (good(IMAGES)[:9], "truncated in its header"),
        (good(IMAGES)[:-1], "truncated, shape"),
        (good(IMAGES) + b"\x00", "trailing bytes, shape"),
        (gzip.compress(good(IMAGES))[:-20], "corrupt gzip file"),
        (gzip.compress(good(IMAGES))[:200] + b"\xff" * 50, "corrupt gzip file"),
        (gzip.compress(good(IMAGES)[:-1]), "truncated, shape"),
    ],
)
def test_damage_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "train-images-idx3-ubyte"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        read_idx(path, 3)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_bit_flip_in_a_gzip_stream_is_found(tmp_path: Path) -> None:
    packed = bytearray(gzip.compress(good(IMAGES)))
    packed[-6] ^= 1  # in the checksum
    path = tmp_path / "images.gz"
    path.write_bytes(packed)
    with pytest.raises(DataError, match="corrupt gzip"):
        read_idx(path, 3)


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="can't be read"):
        read_idx(tmp_path / "nowhere", 3)
    with pytest.raises(DataError, match="can't be read"):
        read_idx(tmp_path, 3)


def test_pair(tmp_path: Path, write_idx: Callable[..., None]) -> None:
    write_idx(tmp_path / "i", IMAGES)
    write_idx(tmp_path / "l", LABELS)
    images, labels = read_pair(tmp_path / "i", tmp_path / "l", size=28, classes=10)
    assert images.shape == (5, 1, 28, 28)
    assert labels.dtype == np.int64
    assert labels.tolist() == LABELS.tolist()


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (IMAGES, LABELS[:4], "4 labels, but .* holds 5 images"),
        (IMAGES[:, :27], LABELS, "images of 27×28 pixels, expected 28×28"),
        (IMAGES, LABELS + 1, "label 10 at position 1, expected 0 to 9"),
        (IMAGES[:0], LABELS[:0], "holds no images"),
    ],
)
def test_pairs_that_disagree(
    tmp_path: Path,
    write_idx: Callable[..., None],
    images: np.ndarray[tuple[int, ...], np.dtype[np.uint8]],
    labels: np.ndarray[tuple[int, ...], np.dtype[np.uint8]],
    message: str,
) -> None:
    write_idx(tmp_path / "i", images)
    write_idx(tmp_path / "l", labels)
    with pytest.raises(DataError, match=message):
        read_pair(tmp_path / "i", tmp_path / "l", size=28, classes=10)
