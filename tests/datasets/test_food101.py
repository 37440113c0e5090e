"""Food-101: the published tree with its lists, unpacking, and damage."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from datasets import Augmentation, DataError, load, source_food101
from datasets.catalog import spec_of
from datasets.fetching import Remote
from datasets.progress import silent

CLASSES = ["apple_pie", *(f"dish_{number:03d}" for number in range(100))]
Files = dict[str, bytes]


@pytest.fixture
def files(picture_bytes: Callable[..., bytes]) -> Files:
    """Return a miniature of the published tree: 101 classes, one picture each, 20 to test."""
    wide = picture_bytes(200, size=(51, 38), kind="JPEG")
    made: Files = {"meta/classes.txt": "\n".join(CLASSES).encode()}
    for name in CLASSES:
        made[f"images/{name}/1001.jpg"] = wide
    for name in CLASSES[:20]:
        made[f"images/{name}/7.jpg"] = wide
    made["meta/train.txt"] = "".join(f"{name}/1001\n" for name in CLASSES).encode()
    made["meta/test.txt"] = "".join(f"{name}/7\n" for name in CLASSES[:20]).encode()
    return made


@pytest.mark.parametrize("folder", ["", "food-101", "food101", "food101/food-101"])
def test_published_form(
    tmp_path: Path,
    nothing_else: Path,
    files: Files,
    write_tree: Callable[[Path, Files], None],
    folder: str,
) -> None:
    write_tree(tmp_path / folder, files)
    data = load("food101", data_root=tmp_path, cache_dir=tmp_path / "cache", download=False)
    assert data.train.images.shape == (101, 3, 32, 32)  # squeezed to a square
    assert data.train.labels.tolist() == list(range(101))
    assert data.test.labels.tolist() == list(range(20))
    assert data.class_names[0] == "apple pie"
    assert abs(int(data.train.images[5, 0, 16, 16]) - 200) < 5
    assert data.augmentation == Augmentation()
    again = load("food101", data_root=tmp_path, cache_dir=tmp_path / "cache", download=False)
    assert isinstance(again.train.images, np.memmap)
    assert again.fingerprint == data.fingerprint


def swap(name: str, old: bytes, new: bytes) -> Callable[[Files], Files]:
    return lambda files: {**files, name: files[name].replace(old, new)}


def without(name: str) -> Callable[[Files], Files]:
    return lambda files: {key: value for key, value in files.items() if key != name}


@pytest.mark.usefixtures("nothing_else")
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (swap("meta/classes.txt", b"dish_099", b""), "100 classes, expected 101"),
        (swap("meta/classes.txt", b"dish_099", b"dish_098"), "100 classes, expected 101"),
        (swap("meta/classes.txt", b"dish_0", b"\xff\xff"), "is not text"),
        (swap("meta/train.txt", b"dish_001/", b"dish_999/"), "line 3: 'dish_999/1001'"),
        (swap("meta/train.txt", b"dish_001/", b"dish_001 "), "expected class/number"),
        (swap("meta/train.txt", b"dish_001/1001", b"dish_001/"), "expected class/number"),
        (swap("meta/test.txt", b"dish_001/7", b"dish_001/8"), "lacks dish_001/8.jpg of 20"),
        (swap("meta/test.txt", b"dish_001/7", b"dish_002/7"), "lists a picture twice"),
        (swap("meta/test.txt", b"dish_001/7", b"dish_001/1001"), "is in train.txt, too"),
        (lambda files: {**files, "meta/test.txt": b""}, "lists no pictures"),
        (without("images/dish_050/1001.jpg"), "lacks dish_050/1001.jpg"),
        (without("meta/test.txt"), r"lacks meta/test.txt"),
        (lambda f: {**f, "images/dish_000/7.jpg": b""}, "7.jpg: damaged picture"),
        (swap("images/dish_000/7.jpg", b"\xff\xd9", b""), "truncated|damaged"),
    ],
)
def test_damage(
    tmp_path: Path,
    files: Files,
    write_tree: Callable[[Path, Files], None],
    damage: Callable[[Files], Files],
    message: str,
) -> None:
    if message == "truncated|damaged":
        whole = files["images/dish_000/7.jpg"]
        files = {**files, "images/dish_000/7.jpg": whole[: int(0.7 * len(whole))]}
    write_tree(tmp_path / "food-101", damage(files))
    with pytest.raises(DataError, match=message) as caught:
        load("food101", data_root=tmp_path, download=False)
    assert "\n" not in str(caught.value)


def pack(path: Path, files: Files, top: str = "food-101") -> None:
    with tarfile.open(path, "w:gz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(f"{top}/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


def test_fetching_unpacks_and_cleans_up(
    tmp_path: Path, nothing_else: Path, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fetch(remote: Remote, target: Path, progress: object) -> None:
        assert remote.md5 == "85eeb15f3717b99a5da872d97d918f87"
        pack(target, files)

    monkeypatch.setattr(source_food101, "fetch", fetch)
    download = source_food101.SPECS[0].download
    assert download is not None
    download(tmp_path, silent)
    assert [path.name for path in tmp_path.iterdir()] == ["food-101"]
    assert len(load("food101", data_root=tmp_path, download=False).train) == 101


def test_what_the_user_put_there_is_neither_overwritten_nor_removed(
    tmp_path: Path, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched: list[Path] = []
    monkeypatch.setattr(source_food101, "fetch", lambda _, target, __: fetched.append(target))
    download = source_food101.SPECS[0].download
    assert download is not None
    half = tmp_path / "food-101" / "images"
    half.mkdir(parents=True)
    with pytest.raises(DataError, match="is there, but not whole; remove it"):
        download(tmp_path, silent)
    assert fetched == []
    half.rmdir()  # an empty folder is in nobody's way
    archive = tmp_path / "food-101.tar.gz"
    pack(archive, files)
    download(tmp_path, silent)
    assert fetched == [archive]
    assert archive.is_file()
    assert len(load("food101", data_root=tmp_path, download=False).train) == 101


def test_a_damaged_archive_leaves_no_half_tree(tmp_path: Path, files: Files) -> None:
    archive = tmp_path / "food-101.tar.gz"
    pack(archive, files)
    whole = archive.read_bytes()
    for content in (whole[: len(whole) // 2], b"", b"<html>"):
        archive.write_bytes(content)
        with pytest.raises(DataError, match="can't be unpacked"):
            source_food101.unpack(archive, tmp_path, silent)
    pack(archive, files, top="elsewhere")
    with pytest.raises(DataError, match="does not hold the folder food-101"):
        source_food101.unpack(archive, tmp_path, silent)
    pack(archive, files, top="../outside")
    with pytest.raises(DataError, match="can't be unpacked"):
        source_food101.unpack(archive, tmp_path, silent)
    assert [path.name for path in tmp_path.iterdir()] == ["food-101.tar.gz"]
    assert not (tmp_path.parent / "outside").exists()


def test_identity_follows_lists_and_folders(
    tmp_path: Path, files: Files, write_tree: Callable[[Path, Files], None]
) -> None:
    write_tree(tmp_path, files)
    spec = spec_of("food101")
    found = spec.search(tmp_path).files
    assert spec.identity is not None
    before = spec.identity(found)
    write_tree(tmp_path, {"images/dish_000/8.jpg": b"new"})
    after = spec.identity(found)
    write_tree(tmp_path, {"meta/test.txt": b"dish_000/8\n"})
    assert len({before, after, spec.identity(found)}) == 3
