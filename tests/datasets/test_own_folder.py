"""``folder:PATH``: order, the fixed fifth, grey and colour, and clear errors."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from datasets import Augmentation, DataError, load, locate
from datasets.catalog import spec_of
from datasets.pictures import picture_shape

Files = dict[str, bytes]
Write = Callable[[Path, Files], None]
Picture = Callable[..., bytes]

# Of trees that are all grey, or all colour, as they were when the first picture decided.
GREY_PRINT, COLOUR_PRINT = "1e8d90d57d31fb44", "5e210eb9148e4ac5"


def tree(picture: Picture, counts: dict[str, int], prefix: str = "", **options: object) -> Files:
    return {
        f"{prefix}{name}/{number:03d}.png": picture(20 * label + number, **options)
        for label, (name, count) in enumerate(counts.items())
        for number in range(count)
    }


def test_a_fifth_is_taken_for_testing(
    tmp_path: Path, write_tree: Write, picture_bytes: Picture
) -> None:
    write_tree(tmp_path, tree(picture_bytes, {"b": 10, "a": 5, "c": 15}))
    data = load(f"folder:{tmp_path}")
    assert data.class_names == ("a", "b", "c")
    assert np.bincount(data.test.labels).tolist() == [1, 2, 3]
    assert np.bincount(data.train.labels).tolist() == [4, 8, 12]
    assert np.all(np.diff(data.train.labels) >= 0)
    info = spec_of(f"folder:{tmp_path}").info
    assert (info.train_samples, info.test_samples, info.classes, info.native_size) == (24, 6, 3, 8)
    # Every picture once, in one of the two parts: shades are 20 for class b, plus a number.
    shades = np.concatenate([data.train.images, data.test.images])[:, 0, 0, 0]
    assert sorted(shades.tolist()) == [*range(10), *range(20, 25), *range(40, 55)]
    assert data.mean[0] == pytest.approx(data.train.images[:, 0].mean() / 255, abs=6e-5)
    assert data.std[2] == pytest.approx(data.train.images[:, 2].std() / 255, abs=1.1e-4)
    assert data.augmentation == Augmentation()


def test_given_parts_and_other_file_kinds(
    tmp_path: Path, write_tree: Write, picture_bytes: Picture, caplog: pytest.LogCaptureFixture
) -> None:
    files = {
        **tree(picture_bytes, {"cat": 2, "dog": 1}, "train/"),
        **tree(picture_bytes, {"cat": 1, "dog": 1}, "test/"),
        "train/dog/big.JPG": picture_bytes(9, size=(50, 70), kind="JPEG"),
        "train/dog/grey.gif": picture_bytes(9, kind="GIF", mode="L"),
        "train/dog/see-through.webp": picture_bytes(9, kind="WEBP", mode="RGBA"),
        "train/dog/notes.txt": b"not a picture",
        "train/dog/.hidden.png": b"",
        "train/.git/x.png": b"",
        "readme.md": b"",
    }
    write_tree(tmp_path, files)
    data = load(f"folder:{tmp_path}", image_size=64)
    assert data.train.images.shape == (6, 3, 64, 64)
    assert data.train.labels.tolist() == [0, 0, 1, 1, 1, 1]
    assert data.test.labels.tolist() == [0, 1]
    assert "1 files that are no pictures are passed over" in caplog.text


def test_a_class_may_be_called_train(
    tmp_path: Path, write_tree: Write, picture_bytes: Picture
) -> None:
    write_tree(tmp_path, tree(picture_bytes, {"train": 5, "tram": 5}))
    assert load(f"folder:{tmp_path}").class_names == ("train", "tram")


def test_order_depends_on_names_alone(
    tmp_path: Path, write_tree: Write, picture_bytes: Picture
) -> None:
    files = tree(picture_bytes, {"b": 10, "a": 5, "c": 15})
    write_tree(tmp_path / "one", files)
    write_tree(tmp_path / "two", dict(reversed(files.items())))
    one, two = (load(f"folder:{tmp_path / name}") for name in ("one", "two"))
    assert one.fingerprint == two.fingerprint


def test_grey_pictures_have_one_channel(
    tmp_path: Path, write_tree: Write, picture_bytes: Picture
) -> None:
    write_tree(tmp_path, tree(picture_bytes, {"a": 5, "b": 5}, mode="L"))
    data = load(f"folder:{tmp_path}")
    assert data.train.images.shape[1] == len(data.mean) == 1
    assert data.fingerprint.startswith(GREY_PRINT)
    write_tree(tmp_path, {"a/000.png": picture_bytes(3)})
    assert load(f"folder:{tmp_path}").train.images.shape[1] == 3


@pytest.mark.parametrize("order", [["grey", "colour"], ["colour", "grey"]])
def test_one_grey_picture_makes_no_grey_set_wherever_it_stands(
    tmp_path: Path, write_tree: Write, picture_bytes: Picture, order: list[str]
) -> None:
    files = tree(picture_bytes, {"a": 10, "b": 10})
    write_tree(tmp_path, files)
    assert load(f"folder:{tmp_path}").fingerprint.startswith(COLOUR_PRINT)
    one = min(files) if order[0] == "grey" else max(files)
    write_tree(tmp_path, {one: picture_bytes(200, mode="L")})
    data = load(f"folder:{tmp_path}")
    assert data.train.images.shape[1] == spec_of(f"folder:{tmp_path}").info.channels == 3
    found = np.concatenate([data.train.images, data.test.images])
    (grey,) = found[(found == 200).all(axis=(1, 2, 3))]
    assert grey.shape == (3, 32, 32), "the grey one became colour"


def test_a_header_is_read_once_in_a_command(
    tmp_path: Path, write_tree: Write, picture_bytes: Picture, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []

    def counted(path: Path, where: str) -> tuple[int, int]:
        read.append(path.name)
        return picture_shape(path, where)

    write_tree(tmp_path, tree(picture_bytes, {"a": 5, "b": 5}, mode="L"))
    monkeypatch.setattr("datasets.own_folder.picture_shape", counted)
    load(f"folder:{tmp_path}", cache_dir=tmp_path.with_name("cache"))
    assert len(read) == 10 + 2, "all once, and the first for its size whenever the name is read"
    read.clear()
    write_tree(tmp_path, {"b/000.png": picture_bytes(1)})  # of another identity
    assert load(f"folder:{tmp_path}").train.images.shape[1] == 3
    assert "004.png" not in read, "what stands as it was is not read again"


def test_it_is_cached_and_every_change_is_seen(
    tmp_path: Path, write_tree: Write, picture_bytes: Picture
) -> None:
    root, cache = tmp_path / "my pictures ä", tmp_path / "cache"
    write_tree(root, tree(picture_bytes, {"a": 5, "b": 5}))
    told: list[object] = []

    def open_it() -> str:
        told.clear()
        name = f"folder:{root}"
        data = load(name, cache_dir=cache, progress=lambda *step: told.append(step))
        assert data.class_names == ("a", "b")
        assert len(data.mean) == 3
        return data.fingerprint

    first = open_it()
    assert told
    assert open_it() == first
    assert not told
    assert locate(f"folder:{root}").place == root
    before = (root / "a" / "001.png").stat()
    write_tree(root, {"a/001.png": picture_bytes(77)})
    os.utime(root / "a" / "001.png", ns=(0, before.st_mtime_ns + 1))
    assert open_it() != first
    assert told


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "no folders, expected one folder for each"),
        ({"a/1.png": 5}, "only the folder 'a'"),
        ({"a/1.png": 5, "b/1.txt": 5}, "b: holds no pictures"),
        ({"train/a/1.png": 5, "train/b/1.png": 5}, "has train/ but no test/"),
        ({"test/a/1.png": 5, "b/1.png": 5}, "has test/ but no train/"),
        (
            {"train/cat/1.png": 5, "train/dog/1.png": 5, "test/cat/1.png": 5, "test/dgo/1.png": 5},
            "class 'dgo' is in test/ but not in train/: did you mean 'dog'",
        ),
        (
            {"train/a/1.png": 5, "train/b/1.png": 5, "train/c/1.png": 5, "test/a/1.png": 5,
             "test/b/1.png": 5},
            "class 'c' is in train/ but not in test/",
        ),
        ({"a/1.png": 5, "b/1.png": 5}, "class 'a' has too few pictures"),
    ],
)  # fmt: skip
def test_wrong_trees(
    tmp_path: Path,
    write_tree: Write,
    picture_bytes: Picture,
    files: dict[str, int],
    message: str,
) -> None:
    write_tree(tmp_path, {name: picture_bytes(shade) for name, shade in files.items()})
    with pytest.raises(DataError, match=message) as caught:
        load(f"folder:{tmp_path}")
    assert "\n" not in str(caught.value)


def test_damaged_pictures_are_named(
    tmp_path: Path, write_tree: Write, picture_bytes: Picture
) -> None:
    files = tree(picture_bytes, {"a": 5, "b": 5})
    for content, message in (
        (files["a/000.png"][:50], "a/003.png: damaged picture"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", "a/003.png: damaged picture .not a picture format"),
        (b"", "a/003.png: damaged picture"),
        (picture_bytes(3, mode="I;16"), "a/003.png: more than 8 bits a channel"),
    ):
        write_tree(tmp_path, {**files, "a/003.png": content})
        with pytest.raises(DataError, match=message):
            load(f"folder:{tmp_path}")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("folder:", "no path given"),
        ("folder:/nowhere/at/all", "does not exist"),
        ("fodler:x", "did you mean 'folder'"),
        ("npz:/nowhere/at/all", "does not exist"),
        ("http://x", "one of: folder, npz"),
    ],
)
def test_wrong_names(name: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        load(name)


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("")
    with pytest.raises(DataError, match="is a file, expected a folder"):
        load(f"folder:{tmp_path / 'x'}")
    with pytest.raises(DataError, match="is a folder, expected a NumPy archive"):
        load(f"npz:{tmp_path}")
