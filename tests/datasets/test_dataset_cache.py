"""The cache of decoded datasets: mapped, verified, rebuilt when damaged, never in the way."""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from datasets import ImageDataset, cache, idx, image_dataset, load, verification
from datasets.catalog import specs
from datasets.image_dataset import Decoded, Split


@pytest.fixture
def root(tmp_path: Path, nothing_else: Path, write_set: Callable[..., None]) -> Path:
    write_set(tmp_path / "data")
    return tmp_path / "data"


def same(first: ImageDataset, second: ImageDataset) -> bool:
    return first.fingerprint == second.fingerprint and all(
        np.array_equal(a, b)
        for one, two in ((first.train, second.train), (first.test, second.test))
        for a, b in ((one.images, two.images), (one.labels, two.labels))
    )


def only_entry(folder: Path) -> Path:
    (entry,) = folder.iterdir()
    return entry


def count_decodes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    calls: list[int] = []
    original = idx.read_pair

    def counted(*args: Path, size: int, classes: int) -> object:
        calls.append(1)
        return original(*args, size=size, classes=classes)

    monkeypatch.setattr("datasets.source_mnist.read_pair", counted)
    return calls


def test_second_load_is_mapped_and_decodes_nothing(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = count_decodes(monkeypatch)
    fresh = load("mnist", data_root=root)
    first = load("mnist", data_root=root, cache_dir=tmp_path / "cache")
    assert len(calls) == 4  # two files pairs, twice
    second = load("mnist", data_root=root, cache_dir=tmp_path / "cache")
    assert len(calls) == 4
    assert isinstance(second.train.images, np.memmap)
    assert not second.train.images.flags.writeable
    assert same(fresh, first)
    assert same(first, second)


def test_key_follows_content_size_and_name(
    root: Path, tmp_path: Path, write_set: Callable[..., None]
) -> None:
    folder = tmp_path / "cache"
    load("mnist", data_root=root, cache_dir=folder)
    shutil.copytree(root, tmp_path / "copy")
    load("mnist", data_root=tmp_path / "copy", cache_dir=folder)
    assert len(list(folder.iterdir())) == 1  # a copy elsewhere shares the entry
    load("mnist", data_root=root, cache_dir=folder, image_size=64)
    load("fashion_mnist", data_root=root, cache_dir=folder)
    assert len(list(folder.iterdir())) == 3
    write_set(root, seed=5)  # same names and sizes, other pixels
    changed = load("mnist", data_root=root, cache_dir=folder)
    assert len(list(folder.iterdir())) == 4
    assert same(changed, load("mnist", data_root=root))


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    path.write_bytes(content)


def flip_brace(path: Path) -> None:
    """Damage the header so that NumPy's reading of it raises what is no ``ValueError``."""
    content = bytearray(path.read_bytes())
    content[content.index(b"}")] ^= 0x40
    path.write_bytes(content)


def swap_labels(path: Path) -> None:
    shutil.copy(path.with_name("test_labels.npy"), path.with_name("train_labels.npy"))


@pytest.mark.parametrize(
    ("file", "damage"),
    [
        ("train_images.npy", flip),
        ("test_labels.npy", flip),
        ("train_images.npy", flip_brace),
        ("train_images.npy", lambda path: os.truncate(path, path.stat().st_size // 2)),
        ("test_images.npy", lambda path: os.truncate(path, 0)),
        ("train_images.npy", lambda path: path.unlink()),
        ("train_labels.npy", swap_labels),
        ("entry.json", lambda path: path.unlink()),
        ("entry.json", lambda path: path.write_text("{")),
        ("entry.json", lambda path: path.write_text("[]")),
        ("entry.json", lambda path: path.write_bytes(b"\xff\xfe")),
        ("entry.json", lambda path: path.write_text(path.read_text().replace('"format"', '"f"'))),
        ("test_images.npy", lambda path: path.write_bytes(b"not an array, " * 10)),
    ],
)
def test_damage_is_found_told_and_repaired(
    root: Path,
    tmp_path: Path,
    file: str,
    damage: Callable[[Path], object],
    caplog: pytest.LogCaptureFixture,
) -> None:
    folder = tmp_path / "cache"
    fresh = load("mnist", data_root=root, cache_dir=folder)
    damage(only_entry(folder) / file)
    with caplog.at_level(logging.WARNING, "datasets.cache"):
        repaired = load("mnist", data_root=root, cache_dir=folder)
    assert "damaged cache entry" in caplog.text
    assert same(fresh, repaired)
    caplog.clear()
    assert same(fresh, load("mnist", data_root=root, cache_dir=folder))
    assert "damaged" not in caplog.text
    only_entry(folder)  # neither leftovers nor a second entry


def test_a_full_disk_costs_no_result(
    root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def full(path: Path, array: object) -> None:
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cache, "save_array", full)
    data = load("mnist", data_root=root, cache_dir=tmp_path / "cache")
    assert len(data.train) == 30
    assert "No space left on device" in caplog.text
    assert not list((tmp_path / "cache").iterdir())


def test_a_disk_that_flushes_no_folders_keeps_entries(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flush, refused = os.fsync, []

    def files_alone(handle: int) -> None:
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            refused.append(handle)
            raise OSError(22, "Invalid argument")
        flush(handle)

    monkeypatch.setattr(os, "fsync", files_alone)
    first = load("mnist", data_root=root, cache_dir=tmp_path / "cache")
    assert len(refused) == 2
    assert cache.read_entry(only_entry(tmp_path / "cache")) is not None
    assert same(first, load("mnist", data_root=root, cache_dir=tmp_path / "cache"))


def test_a_cache_folder_that_is_a_file(
    root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "cache").write_text("in the way")
    assert len(load("mnist", data_root=root, cache_dir=tmp_path / "cache").train) == 30
    assert "can't be written" in caplog.text


def test_a_race_for_one_entry_is_won_by_somebody(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "cache"
    data = load("mnist", data_root=root, cache_dir=folder)
    entry = only_entry(folder)
    # The other process finishes between this one's look and its rename.
    monkeypatch.setattr(Path, "exists", lambda self, **_: False)
    assert cache.write_entry(entry, Decoded(data.train, data.test, data.fingerprint))
    monkeypatch.undo()
    assert only_entry(folder) == entry
    assert cache.read_entry(entry) is not None


def test_leftovers_of_killed_processes_are_swept(root: Path, tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    old, young = folder / ".writing-1-aa", folder / ".writing-2-bb"
    for leftover in (old, young):
        leftover.mkdir(parents=True)
        (leftover / "train_images.npy").write_bytes(b"half")
    os.utime(old, (1, 1))
    load("mnist", data_root=root, cache_dir=folder)
    assert not old.exists()
    assert young.exists()  # may be another process at work


def test_identity_of_large_sets_is_by_date(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = specs()["mnist"].search(root).files
    by_content = cache.source_identity(files)
    os.utime(files[0], (1, 1))
    assert cache.source_identity(files) == by_content
    monkeypatch.setattr(cache, "_HASH_LIMIT_BYTES", 0)
    by_date = cache.source_identity(files)
    os.utime(files[0], (2, 2))
    assert len({by_content, by_date, cache.source_identity(files)}) == 3


@pytest.fixture
def noted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Note checksums of files of any size and age; return what is hashed in full."""
    hashed: list[str] = []
    monkeypatch.setattr(cache, "_ENTRY_NOTE_BYTES", 0)
    monkeypatch.setattr(cache, "_SOURCE_NOTE_BYTES", 0)
    monkeypatch.setattr(verification, "SETTLED_SECONDS", -1.0)
    whole, digest = image_dataset.fingerprint, hashlib.file_digest

    def fingerprint(train: Split, test: Split) -> str:
        hashed.append("arrays")
        return whole(train, test)

    def file_digest(*args: Any) -> Any:
        hashed.append("source")
        return digest(*args)

    monkeypatch.setattr(cache, "fingerprint", fingerprint)
    monkeypatch.setattr(hashlib, "file_digest", file_digest)
    return hashed


def test_large_files_are_hashed_once(root: Path, tmp_path: Path, noted: list[str]) -> None:
    folder = tmp_path / "cache"
    fresh = load("mnist", data_root=root, cache_dir=folder)
    assert same(fresh, load("mnist", data_root=root, cache_dir=folder))
    assert noted == ["source"] * 4 + ["arrays"]
    noted.clear()
    assert same(fresh, load("mnist", data_root=root, cache_dir=folder))
    assert noted == []


def test_a_change_is_seen_although_hashed_before(
    root: Path,
    tmp_path: Path,
    noted: list[str],
    write_set: Callable[..., None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    folder = tmp_path / "cache"
    fresh = load("mnist", data_root=root, cache_dir=folder)
    load("mnist", data_root=root, cache_dir=folder)
    arrays = next(folder.glob("mnist*")) / "train_images.npy"
    before = arrays.stat()
    flip(arrays)
    os.utime(arrays, ns=(before.st_atime_ns, before.st_mtime_ns))  # hidden as well as one can
    assert same(fresh, load("mnist", data_root=root, cache_dir=folder))
    assert "checksum differs" in caplog.text
    write_set(root, seed=9)
    assert not same(fresh, load("mnist", data_root=root, cache_dir=folder))


def test_notes_age_and_need_not_be_written(
    root: Path, tmp_path: Path, noted: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "cache"
    for _ in range(2):
        load("mnist", data_root=root, cache_dir=folder)
    noted.clear()
    monkeypatch.setattr(verification, "BELIEVED_SECONDS", 0.0)
    load("mnist", data_root=root, cache_dir=folder)
    assert noted == ["source"] * 4 + ["arrays"]
    noted.clear()
    monkeypatch.undo()
    for note in (*folder.glob(".sources/*"), *folder.glob("mnist*/verified.json")):
        note.write_text('{"checksum": 3}')
    monkeypatch.setattr(cache, "_ENTRY_NOTE_BYTES", 0)

    def refuse(*args: object, **options: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Path, "write_text", refuse)
    assert len(load("mnist", data_root=root, cache_dir=folder).train) == 30


def test_a_file_just_written_gets_no_note(tmp_path: Path) -> None:
    file, note = tmp_path / "file", tmp_path / "note"
    file.write_text("content")
    verification.take_note(note, [file], "a" * 64, verification.identity([file]))
    assert not note.exists()
    os.utime(file, (1, 1))
    assert not verification.settled([file])  # the time of change can't be set back
