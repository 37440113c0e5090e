"""Building arrays of pictures: resumed where it stopped, checked chunk by chunk."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import datasets
from datasets import DataError, building, load
from datasets.image_dataset import Decoded
from datasets.pictures import PictureList, PictureSet, decode_picture, folder_reader
from datasets.progress import silent

Write = Callable[[Path, dict[str, bytes]], None]
ROOT = Path(datasets.__file__).parents[1]
SIZE = 32


@pytest.fixture
def pictures(
    tmp_path: Path,
    write_tree: Write,
    picture_bytes: Callable[..., bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> PictureSet:
    monkeypatch.setattr(building, "_CHUNK", 4)
    root = tmp_path / "pictures"
    names = [f"{number:02d}.png" for number in range(23)]
    write_tree(root, {name: picture_bytes(7 * n) for n, name in enumerate(names)})
    labels = np.arange(23) % 3
    return PictureSet(
        root,
        folder_reader(root),
        PictureList(tuple(names[:15]), labels[:15]),
        PictureList(tuple(names[15:]), labels[15:]),
        ("a", "b", "c"),
    )


def equal(decoded: Decoded | None, pictures: PictureSet) -> bool:
    assert decoded is not None
    train, test = building.decode_pictures(pictures, SIZE)
    assert decoded.train.images[:, 0, 0, 0].tolist() == [7 * n for n in range(15)]
    return (
        np.array_equal(decoded.train.images, train.images)
        and np.array_equal(decoded.test.images, test.images)
        and np.array_equal(decoded.test.labels, test.labels)
        and decoded.class_names == pictures.class_names
    )


class StopError(Exception):
    pass


def stop_after(count: int) -> Callable[[str, int, int], None]:
    def step(what: str, done: int, total: int) -> None:
        if done >= count:
            raise StopError

    return step


def decoded_by(
    path: Path, pictures: PictureSet, monkeypatch: pytest.MonkeyPatch
) -> tuple[Decoded | None, int]:
    """Build, and return how many pictures had to be decoded for it."""
    count = [0]
    original = decode_picture

    def counted(*args: object) -> object:
        count[0] += 1
        return original(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(building, "decode_picture", counted)
    decoded = building.build_entry(path, pictures, SIZE)
    monkeypatch.setattr(building, "decode_picture", original)
    return decoded, count[0]


def test_unbroken(tmp_path: Path, pictures: PictureSet) -> None:
    entry = tmp_path / "cache" / "entry"
    assert equal(building.build_entry(entry, pictures, SIZE, silent, measure=True), pictures)
    assert not list(entry.parent.glob(".building-*"))
    assert {path.name for path in entry.iterdir()} == {
        "train_images.npy", "train_labels.npy", "test_images.npy", "test_labels.npy", "entry.json",
    }  # fmt: skip


@pytest.mark.parametrize(("stop", "left"), [(4, 19), (15, 8), (19, 4), (23, 0)])
def test_goes_on_where_it_stopped(
    tmp_path: Path, pictures: PictureSet, monkeypatch: pytest.MonkeyPatch, stop: int, left: int
) -> None:
    entry = tmp_path / "cache" / "entry"
    with pytest.raises(StopError):
        building.build_entry(entry, pictures, SIZE, stop_after(stop))
    assert not entry.exists()
    decoded, worked = decoded_by(entry, pictures, monkeypatch)
    assert worked == left
    assert equal(decoded, pictures)


def flip_first(folder: Path) -> None:
    path = folder / "train_images.npy"
    content = bytearray(path.read_bytes())
    content[200] ^= 1
    path.write_bytes(content)


def cut_images(folder: Path) -> None:
    path = folder / "train_images.npy"
    path.write_bytes(path.read_bytes()[:-5])


def cut_journal(folder: Path) -> None:
    path = folder / "journal.jsonl"
    path.write_bytes(path.read_bytes()[:-20])


@pytest.mark.parametrize(
    ("damage", "worked"),
    [
        (flip_first, 15),  # the first of three chunks, and all that was not there yet
        (cut_images, 15),
        (cut_journal, 15),
        (lambda folder: (folder / "journal.jsonl").write_text("{}\n"), 23),
        (lambda folder: (folder / "journal.jsonl").write_bytes(b"\xff"), 23),
        (lambda folder: (folder / "journal.jsonl").unlink(), 23),
        (lambda folder: (folder / "train_images.npy").unlink(), 23),
    ],
)
def test_only_good_chunks_are_kept(
    tmp_path: Path,
    pictures: PictureSet,
    monkeypatch: pytest.MonkeyPatch,
    damage: Callable[[Path], object],
    worked: int,
) -> None:
    entry = tmp_path / "cache" / "entry"
    with pytest.raises(StopError):
        building.build_entry(entry, pictures, SIZE, stop_after(12))
    damage(entry.parent / ".building-entry")
    decoded, count = decoded_by(entry, pictures, monkeypatch)
    assert count == worked
    assert equal(decoded, pictures)


def test_work_on_another_list_is_not_gone_on_with(
    tmp_path: Path, pictures: PictureSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = tmp_path / "cache" / "entry"
    other = PictureSet(
        pictures.where,
        pictures.reader,
        PictureList(pictures.train.names[::-1], pictures.train.labels),
        pictures.test,
        pictures.class_names,
    )
    with pytest.raises(StopError):
        building.build_entry(entry, other, SIZE, stop_after(12))
    decoded, count = decoded_by(entry, pictures, monkeypatch)
    assert count == 23
    assert equal(decoded, pictures)


def test_a_damaged_picture_keeps_what_is_done(
    tmp_path: Path, pictures: PictureSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = tmp_path / "cache" / "entry"
    victim = pictures.where / "13.png"
    whole = victim.read_bytes()
    victim.write_bytes(whole[:40])
    with pytest.raises(DataError, match=r"13.png: damaged picture"):
        building.build_entry(entry, pictures, SIZE)
    victim.write_bytes(whole)
    decoded, count = decoded_by(entry, pictures, monkeypatch)
    assert count == 11  # three chunks of four were done
    assert equal(decoded, pictures)


def test_a_full_disk_costs_no_result(
    tmp_path: Path, pictures: PictureSet, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(building._Journal, "put", full)
    assert building.build_entry(tmp_path / "cache" / "entry", pictures, SIZE) is None
    assert "No space left on device" in caplog.text


def test_an_entry_that_fails_at_its_end_is_not_decoded_again(
    tmp_path: Path, pictures: PictureSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    entry = tmp_path / "cache" / "entry"
    with monkeypatch.context() as patch:
        patch.setattr(building, "finish_entry", full)
        assert building.build_entry(entry, pictures, SIZE) is None
    decoded, count = decoded_by(entry, pictures, monkeypatch)
    assert count == 0
    assert equal(decoded, pictures)
    assert not (entry / "journal.jsonl").exists()


def test_two_at_once_decode_once(
    tmp_path: Path, pictures: PictureSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = tmp_path / "cache" / "entry"
    started, told = threading.Event(), []
    results: list[Decoded | None] = []

    def slow(what: str, done: int, total: int) -> None:
        told.append(done)
        started.set()
        time.sleep(0.01)

    def build() -> None:
        results.append(building.build_entry(entry, pictures, SIZE, slow))

    threads = [threading.Thread(target=build) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert told == sorted(told)  # one build, one pass
    assert all(equal(result, pictures) for result in results)


_CHILD = """
import os, signal, sys
from datasets import building, load
building._CHUNK = 4
def kill(what, done, total):
    if done >= 12:
        os.kill(os.getpid(), signal.SIGKILL)
load(sys.argv[1], cache_dir=sys.argv[2] and __import__("pathlib").Path(sys.argv[2]), progress=kill)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL")
def test_after_a_kill(
    tmp_path: Path,
    write_tree: Write,
    picture_bytes: Callable[..., bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    root, cache = tmp_path / "tree", tmp_path / "cache"
    write_tree(root, {f"{c}/{n}.png": picture_bytes(n) for c in "ab" for n in range(10)})
    name = f"folder:{root}"
    killed = subprocess.run([sys.executable, "-c", _CHILD, name, str(cache)], cwd=ROOT, check=False)
    assert killed.returncode == -9
    (work,) = cache.glob(".building-*")
    lines = [json.loads(line) for line in (work / "journal.jsonl").read_text().splitlines()]
    assert len(lines) == 1 + 3
    monkeypatch.setattr(building, "_CHUNK", 4)
    resumed = load(name, cache_dir=cache)
    assert resumed.fingerprint == load(name).fingerprint
    assert not list(cache.glob(".building-*"))


def test_forgotten_builds_are_swept(tmp_path: Path, pictures: PictureSet) -> None:
    old, young = tmp_path / ".building-old", tmp_path / ".building-young"
    for folder in (old, young):
        folder.mkdir()
    os.utime(old, (1, 1))
    building.build_entry(tmp_path / "entry", pictures, SIZE)
    assert not old.exists()
    assert young.exists()
