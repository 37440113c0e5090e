"""CIFAR-10 and CIFAR-100: the published pickles, read without executing anything of them."""

from __future__ import annotations

import io
import os
import pickle
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from datasets import DataError, load
from datasets.inert_pickle import byte_array, read_dict

Pickler = Callable[[dict[str, Any]], bytes]
FOLDERS = {"cifar10": "cifar-10-batches-py", "cifar100": "cifar-100-python"}


def batch(name: str, count: int, seed: int) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    rows = rng.integers(0, 256, (count, 3072), dtype=np.uint8)
    classes = 10 if name == "cifar10" else 100
    labels = [(seed + k) % classes for k in range(count)]
    key = "labels" if name == "cifar10" else "fine_labels"
    other = (
        {"batch_label": "training batch"} if name == "cifar10" else {"coarse_labels": [0] * count}
    )
    return {"data": rows, key: labels, **other, "filenames": [f"{k}.png" for k in range(count)]}


def batches(name: str) -> dict[str, dict[str, Any]]:
    if name == "cifar10":
        files = [f"data_batch_{k}" for k in range(1, 6)] + ["test_batch"]
    else:
        files = ["train", "test"]
    return {file: batch(name, 4 + k, k) for k, file in enumerate(files)}


def write(name: str, root: Path, pickler: Pickler, how: str) -> None:
    contents = {file: pickler(values) for file, values in batches(name).items()}
    folder = FOLDERS[name]
    if how == "archive":
        archive = root / (
            "cifar-10-python.tar.gz" if name == "cifar10" else "cifar-100-python.tar.gz"
        )
        with tarfile.open(archive, "w:gz") as tar:
            for file, content in contents.items():
                member = tarfile.TarInfo(f"{folder}/{file}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
        return
    (root / folder).mkdir()
    for file, content in contents.items():
        (root / folder / file).write_bytes(content)


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
@pytest.mark.parametrize("how", ["folder", "archive"])
def test_published_form(
    name: str, how: str, tmp_path: Path, nothing_else: Path, python2_pickle: Pickler
) -> None:
    write(name, tmp_path, python2_pickle, how)
    data = load(name, data_root=tmp_path, cache_dir=tmp_path / "cache", download=False)
    parts = list(batches(name).values())
    key = "labels" if name == "cifar10" else "fine_labels"
    rows = np.concatenate([part["data"] for part in parts[:-1]])
    # Published: 1024 red, 1024 green, 1024 blue values, each row by row.
    np.testing.assert_array_equal(data.train.images, rows.reshape(-1, 3, 32, 32))
    np.testing.assert_array_equal(data.test.images.reshape(-1, 3072), parts[-1]["data"])
    assert data.train.labels.tolist() == [y for part in parts[:-1] for y in part[key]]
    assert len(data.class_names) == (10 if name == "cifar10" else 100)
    again = load(name, data_root=tmp_path, cache_dir=tmp_path / "cache", download=False)
    assert again.fingerprint == data.fingerprint
    assert isinstance(again.train.images, np.memmap)


def test_python_3_pickles_are_read_too(tmp_path: Path, nothing_else: Path) -> None:
    write("cifar10", tmp_path, lambda values: pickle.dumps(values, protocol=2), "folder")
    data = load("cifar10", data_root=tmp_path, download=False)
    assert len(data.train) == 4 + 5 + 6 + 7 + 8


class Bomb:
    """Unpickled the usual way, it runs a command."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return (os.system, (self.command,))


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize("place", ["data", "labels", "extra"])
def test_a_foreign_pickle_is_not_executed(
    tmp_path: Path, nothing_else: Path, python2_pickle: Pickler, protocol: int, place: str
) -> None:
    trace = tmp_path / "trace"
    write("cifar10", tmp_path, python2_pickle, "folder")
    evil = pickle.dumps(
        {**batch("cifar10", 4, 0), place: Bomb(f"touch {trace}")}, protocol=protocol
    )
    pickle.loads(evil)
    assert trace.exists()  # the bomb is a real one
    trace.unlink()
    (tmp_path / FOLDERS["cifar10"] / "data_batch_2").write_bytes(evil)
    said = r"it names (posix|nt)\.system" if protocol == 2 else "has no place in the published"
    with pytest.raises(DataError, match=rf"data_batch_2: .*{said}"):
        load("cifar10", data_root=tmp_path, download=False)
    assert not trace.exists()


@pytest.mark.parametrize(
    "content",
    [
        b"cbuiltins\neval\nU\x031+1\x85R.",
        b"cnumpy\nload\nU\x03abc\x85R.",
        b"cnumpy\nndarray\nK\x03\x85R.",  # an admitted name, called
        b"cnumpy\ndtype\n}b.",  # an admitted name, given a state
        b"c_codecs\nencode\nX\x01\x00\x00\x00aU\x05utf-7\x86R.",
        b"cnumpy\nndarray\n)\x81.",  # made without a call
        b"(cnumpy\ndtype\nU\x02u1o.",
        b"(U\x03abcinumpy\ndtype\n.",
        b"Pelsewhere\n.",
        b"\x80\x02\x82\x01.",
        b"\x80\x02r\xff\xff\xff\xff}.",  # nothing to remember, at a huge place
        b"T\xff\xff\xff\x7f.",
        b"T\xff\xff\xff\xff.",
        b"}K\x01K\x02s.",
        b"}(K\x01u.",
        b"K\x01K\x02e.",
        b"]K\x01K\x02s.",
        b"h\x05.",
        b"X\x01\x00\x00\x00\xff.",
        b"K\x01)R.",
        b"(.",
        b"t.",
        b"a.",
        b"",
        b".",
        b"c" + b"x" * 500,
        b"<html>not found</html>",
        b"K\x01.",
        b"}",
        bytes(range(256)),
    ],
)
def test_what_is_no_data_is_refused(content: bytes) -> None:
    with pytest.raises(DataError, match="file") as caught:
        read_dict(content, Path("file"))
    assert "\n" not in str(caught.value)


def test_byte_arrays(python2_pickle: Pickler) -> None:
    values = {"a": np.arange(6, dtype=np.uint8).reshape(2, 3), "f": np.zeros(2), "l": [1]}
    content = python2_pickle(values)
    read = read_dict(content, Path("file"))
    np.testing.assert_array_equal(byte_array(read["a"], "a"), values["a"])
    with pytest.raises(DataError, match="unsigned bytes"):
        byte_array(read["f"], "f")
    with pytest.raises(DataError, match="expected an array"):
        byte_array(read["l"], "l")
    short = content.replace(b"J\x03\x00\x00\x00t", b"J\x04\x00\x00\x00t")
    with pytest.raises(DataError, match="needs 8 bytes, has 6"):
        byte_array(read_dict(short, Path("file"))["a"], "a")
    column_major = pickle.dumps({"a": np.asfortranarray(values["a"])}, protocol=2)
    fortran = read_dict(column_major, Path("file"))["a"]
    np.testing.assert_array_equal(byte_array(fortran, "a"), values["a"])


def change(**changes: Any) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda values: {k: v for k, v in {**values, **changes}.items() if v is not None}


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (change(data=None), "lacks 'data'"),
        (change(labels=None, fine_labels=[0] * 6), "lacks 'labels'; is this a cifar10 file"),
        (change(labels=[1, 2]), "2 labels, but 6 images"),
        (change(labels=[[1], 1, 1, 1, 1, 1]), "label of type list at position 0"),
        (change(labels="text"), "no labels, but 6 images"),
        (change(labels=[0, 1, 10, 3, 4, 5]), "label 10 at position 2, expected 0 to 9"),
        (change(labels=[0, 1, -1, 3, 4, 5]), "label -1 at position 2"),
        (change(data=np.zeros((6, 3071), dtype=np.uint8)), r"\(6, 3071\), expected rows of 3072"),
        (change(data=np.zeros((6, 3072), dtype=np.float32)), "unsigned bytes"),
        (change(data=np.zeros((0, 3072), dtype=np.uint8), labels=[]), "at least one"),
    ],
)
def test_damaged_content(
    tmp_path: Path,
    nothing_else: Path,
    python2_pickle: Pickler,
    damage: Callable[[dict[str, Any]], dict[str, Any]],
    message: str,
) -> None:
    write("cifar10", tmp_path, python2_pickle, "folder")
    values = damage(batch("cifar10", 6, 2))
    (tmp_path / FOLDERS["cifar10"] / "data_batch_3").write_bytes(python2_pickle(values))
    with pytest.raises(DataError, match=message):
        load("cifar10", data_root=tmp_path, download=False)


@pytest.mark.parametrize("keep", [0.0, 0.3, 0.999])
def test_truncated_files(
    tmp_path: Path, nothing_else: Path, python2_pickle: Pickler, keep: float
) -> None:
    write("cifar100", tmp_path, python2_pickle, "folder")
    path = tmp_path / FOLDERS["cifar100"] / "train"
    path.write_bytes(path.read_bytes()[: int(keep * path.stat().st_size)])
    with pytest.raises(DataError, match=r"train: not a readable data pickle"):
        load("cifar100", data_root=tmp_path, download=False)


def test_damaged_archives(tmp_path: Path, nothing_else: Path, python2_pickle: Pickler) -> None:
    archive = tmp_path / "cifar-10-python.tar.gz"
    write("cifar10", tmp_path, python2_pickle, "archive")
    whole = archive.read_bytes()
    for content in (whole[: len(whole) // 2], b"<html>", b"", whole[:5000] + b"\x00" * 5000):
        archive.write_bytes(content)
        with pytest.raises(DataError, match=r"damaged archive|lacks cifar-10"):
            load("cifar10", data_root=tmp_path, download=False)
    with tarfile.open(archive, "w:gz") as tar:
        tar.addfile(tarfile.TarInfo("cifar-10-batches-py/data_batch_1"))
    with pytest.raises(DataError, match="lacks cifar-10-batches-py/data_batch_2"):
        load("cifar10", data_root=tmp_path, download=False)
    archive.unlink()
    write("cifar10", tmp_path, python2_pickle, "folder")
    (tmp_path / FOLDERS["cifar10"] / "test_batch").unlink()
    with pytest.raises(DataError, match=r"lacks test_batch"):
        load("cifar10", data_root=tmp_path, download=False)
