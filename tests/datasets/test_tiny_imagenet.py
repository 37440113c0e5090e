"""Tiny-ImageNet: the published zip and its folder, and what is wrong with damaged ones."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from datasets import DataError, building, load
from datasets.catalog import spec_of

TOP = "tiny-imagenet-200/"
WNIDS = [f"n{number:08d}" for number in range(200, 0, -1)]  # published unsorted, too
Files = dict[str, bytes]


@pytest.fixture
def files(picture_bytes: Callable[..., bytes]) -> Files:
    """Return a miniature of the published archive: 200 classes, one picture each, 30 to test."""
    pictures = [picture_bytes(colour, size=(64, 64), kind="JPEG") for colour in (0, 90, 255)]
    grey = picture_bytes(90, size=(64, 64), kind="JPEG", mode="L")
    made: Files = {
        "wnids.txt": "\n".join(WNIDS).encode(),
        "words.txt": b"n00000001\tgoldfish, Carassius auratus\nn00000002\tcrane\n"
        b"n00000003\tcrane\nn99999999\tsomething else\n",
    }
    for number, wnid in enumerate(sorted(WNIDS)):
        made[f"train/{wnid}/{wnid}_boxes.txt"] = b"0\t0\t1\t1\n"
        made[f"train/{wnid}/images/{wnid}_0.JPEG"] = pictures[number % 3]
    made["train/n00000004/images/n00000004_10.JPEG"] = grey
    rows = []
    for number in range(30):
        made[f"val/images/val_{number}.JPEG"] = pictures[number % 3]
        rows.append(f"val_{number}.JPEG\t{WNIDS[number]}\t0\t32\t44\t62\n")
    made["val/val_annotations.txt"] = "".join(rows).encode()
    made["test/images/test_0.JPEG"] = pictures[0]
    return made


def write_zip(root: Path, files: Files) -> Path:
    path = root / "tiny-imagenet-200.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(TOP + name, content)
    return path


@pytest.mark.parametrize("size", [32, 64])
def test_zip_and_folder_are_the_same(
    tmp_path: Path,
    nothing_else: Path,
    files: Files,
    write_tree: Callable[[Path, Files], None],
    size: int,
) -> None:
    (tmp_path / "zip").mkdir()
    write_zip(tmp_path / "zip", files)
    write_tree(tmp_path / "tree" / TOP, files)
    zipped, tree = (
        load("tiny_imagenet", data_root=tmp_path / kind, image_size=size, download=False)
        for kind in ("zip", "tree")
    )
    assert zipped.fingerprint == tree.fingerprint
    assert zipped.train.images.shape == (201, 3, size, size)
    assert zipped.test.images.shape == (30, 3, size, size)
    # Class by class, in the order of the sorted ids.
    assert zipped.train.labels.tolist() == [0, 1, 2, 3, 3, *range(4, 200)]
    assert zipped.test.labels.tolist() == [199 - number for number in range(30)]
    assert zipped.class_names[:4] == (
        "goldfish", "crane (n00000002)", "crane (n00000003)", "n00000004",
    )  # fmt: skip
    shade = zipped.train.images.astype(float).mean(axis=(2, 3))
    assert shade[2, 0] > 250  # colour 255
    assert shade[0, 0] < 5
    assert np.ptp(shade[4]) == 0  # a grey picture in three channels
    assert zipped.augmentation.crop_padding == size // 8


def test_it_is_decoded_once(tmp_path: Path, nothing_else: Path, files: Files) -> None:
    write_zip(tmp_path, files)
    told: list[tuple[str, int, int]] = []

    def follow(*step: object) -> None:
        told.append(step)  # type: ignore[arg-type]

    cache = tmp_path / "cache"
    first = load("tiny_imagenet", data_root=tmp_path, cache_dir=cache, progress=follow)
    assert told[-1] == ("decoding tiny-imagenet-200.zip", 231, 231)
    told.clear()
    again = load("tiny_imagenet", data_root=tmp_path, cache_dir=cache, progress=follow)
    assert told == []
    assert isinstance(again.train.images, np.memmap)
    assert (again.fingerprint, again.class_names) == (first.fingerprint, first.class_names)


def test_a_full_disk_costs_no_result(
    tmp_path: Path,
    nothing_else: Path,
    files: Files,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    write_zip(tmp_path, files)
    monkeypatch.setattr(building._Journal, "put", full)
    data = load("tiny_imagenet", data_root=tmp_path, cache_dir=tmp_path / "cache")
    assert len(data.train) == 201
    assert "No space left on device" in caplog.text


def test_identity_of_a_folder_follows_its_pictures(
    tmp_path: Path, files: Files, write_tree: Callable[[Path, Files], None]
) -> None:
    write_tree(tmp_path, files)
    spec = spec_of("tiny_imagenet")
    found = spec.search(tmp_path).files
    assert spec.identity is not None
    before = spec.identity(found)
    assert spec.identity(found) == before
    write_tree(tmp_path, {"train/n00000001/images/new.JPEG": b"new"})
    assert spec.identity(found) != before


def annotate(row: str) -> Callable[[Files], Files]:
    return lambda files: {
        **files,
        "val/val_annotations.txt": files["val/val_annotations.txt"] + row.encode("latin1"),
    }


def without(*names: str) -> Callable[[Files], Files]:
    return lambda files: {name: value for name, value in files.items() if name not in names}


def put(name: str, content: bytes) -> Callable[[Files], Files]:
    return lambda files: {**files, name: content}


@pytest.fixture(params=["zip", "tree"])
def write(
    request: pytest.FixtureRequest, write_tree: Callable[[Path, Files], None]
) -> Callable[[Path, Files], object]:
    """Return a writer of either form."""
    if request.param == "zip":
        return write_zip
    return lambda root, files: write_tree(root / TOP, files)


@pytest.mark.usefixtures("nothing_else")
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (without("wnids.txt"), "lacks wnids.txt"),
        (without("val/val_annotations.txt"), "lacks val/val_annotations.txt"),
        (without("val/images/val_7.JPEG"), "lacks val/images/val_7.JPEG of 30 pictures"),
        (without("val/images/val_7.JPEG", "val/images/val_8.JPEG"), "val_7.JPEG and 1 more"),
        (without("train/n00000009/images/n00000009_0.JPEG"), "n00000009/images holds no picture"),
        (put("wnids.txt", b"n00000001\n"), "lists 1 classes, expected 200"),
        (put("wnids.txt", b"\xff\xfe\xff"), "wnids.txt is not text"),
        (put("train/n77/images/n77_0.JPEG", b""), "train/n77 is not in wnids.txt"),
        (put("val/images/val_99.JPEG", b""), "val_99.JPEG is not in val/val_annotations"),
        (annotate("val_99.JPEG\tn00000001\n"), "lacks val/images/val_99.JPEG"),
        (annotate("val_3.JPEG\tn00000001\n"), "lists a picture twice"),
        (annotate("val_3.JPEG\tn77\t0\n"), "line 31: class 'n77' is not in wnids.txt"),
        (annotate("val_3.JPEG n00000001\n"), "line 31: .*with a tab between"),
        (put("train/n00000009/images/n00000009_0.JPEG", b"<html>"), "not a picture format"),
        (
            lambda files: put("val/images/val_0.JPEG", files["val/images/val_0.JPEG"][:400])(files),
            "val_0.JPEG: damaged picture",
        ),
    ],
)
def test_damage(
    tmp_path: Path,
    files: Files,
    write: Callable[[Path, Files], None],
    damage: Callable[[Files], Files],
    message: str,
) -> None:
    write(tmp_path, damage(files))
    with pytest.raises(DataError, match=message) as caught:
        load("tiny_imagenet", data_root=tmp_path, download=False)
    assert "\n" not in str(caught.value)


def test_damaged_zip(tmp_path: Path, nothing_else: Path, files: Files) -> None:
    path = write_zip(tmp_path, files)
    whole = bytearray(path.read_bytes())
    flipped = bytearray(whole)
    place = whole.index(b"\xff\xd8")  # in the first picture's content
    flipped[place + 200] ^= 1
    for content in (whole[: len(whole) // 2], b"", b"<html>" * 100, flipped):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"tiny-imagenet-200.zip: damaged zip archive"):
            load("tiny_imagenet", data_root=tmp_path, download=False)
