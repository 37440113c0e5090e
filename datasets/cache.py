"""Decoded datasets on disk: memory-mapped on load, written whole, checked.

An entry is a folder ``<cache_dir>/<name>-<size>px-<key>`` of four ``.npy`` files and
``entry.json``. Its key covers all that decides the arrays: dataset, image size, decoder and
Pillow versions, and the identity of the source files. An entry is written under a temporary
name, flushed to disk and renamed, so it is there whole or not at all.

On load the fingerprint is computed anew from the mapped arrays and compared with the stored
one, so that the fingerprint in a record is something that was verified and not something
that was believed. Up to 128 MiB that happens on every load (40 ms for Fashion-MNIST at
32×32); above, once per identity of the array files (:mod:`datasets.verification`), and once
a week, which lets Food-101 open in milliseconds.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import secrets
import shutil
import time
import tokenize
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from datasets.catalog import DatasetSpec
from datasets.errors import DataError
from datasets.image_dataset import Decoded, Split, fingerprint
from datasets.verification import identity, noted, take_note

_LOG = logging.getLogger(__name__)
_FORMAT = 2
_META = "entry.json"
_VERIFIED = "verified.json"
_SOURCES = ".sources"
_TEMPORARY = ".writing-"
_STALE_SECONDS = 6 * 3600.0
# Above this, hashing the source files would cost more than it saves.
_HASH_LIMIT_BYTES = 256 * 2**20
# Above these, a checksum is computed once per identity of the files and not on every load.
_SOURCE_NOTE_BYTES = 16 * 2**20
_ENTRY_NOTE_BYTES = 128 * 2**20
_ARRAYS = ("train_images.npy", "train_labels.npy", "test_images.npy", "test_labels.npy")


def source_identity(files: Sequence[Path], notes: Path | None = None) -> str:
    """Return a short text that changes when the source files change.

    Parameters
    ----------
    files : sequence of Path
        The dataset's files. Up to 256 MiB together they are identified by their content, so
        that a copy of the data elsewhere shares the cache entry; larger sets by name, size and
        modification time.
    notes : Path, optional
        Folder in which checksums of larger files are noted, once per identity.

    Returns
    -------
    str
        A SHA-256, in hexadecimal digits.

    Raises
    ------
    DataError
        If a file can't be read.
    """
    digest = hashlib.sha256()
    try:
        stats = [file.stat() for file in files]
        by_content = sum(stat.st_size for stat in stats) <= _HASH_LIMIT_BYTES
        for file, stat in zip(files, stats, strict=True):
            digest.update(f"{stat.st_size};".encode())
            if by_content:
                digest.update(bytes.fromhex(_content_digest(file, stat.st_size, notes)))
            else:
                digest.update(f"{file.name};{stat.st_mtime_ns};".encode())
    except OSError as error:
        raise DataError(f"{error.filename}: can't be read ({error.strerror})") from error
    return digest.hexdigest()


def _content_digest(file: Path, size: int, notes: Path | None) -> str:
    note: Path | None = None
    if notes is not None and size > _SOURCE_NOTE_BYTES:
        place = hashlib.sha256(str(file.absolute()).encode()).hexdigest()
        note = notes / f"{place[:16]}.json"
        known = noted(note, [file])
        if known is not None:
            return known
    seen = identity([file])
    with file.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if note is not None:
        take_note(note, [file], found, seen)
    return found


def entry_path(cache_dir: Path, spec: DatasetSpec, files: Sequence[Path], image_size: int) -> Path:
    """Return the folder of the cache entry for a dataset at one image size.

    Parameters
    ----------
    cache_dir : Path
        Folder of all entries.
    spec : DatasetSpec
        The dataset.
    files : sequence of Path
        Its source files.
    image_size : int
        Height and width in pixels.

    Returns
    -------
    Path
        It exists only when the entry does.
    """
    import PIL

    # Users' own data is named by its path, which may hold anything.
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", spec.info.name)[-60:].lstrip(".-")
    if spec.identity is not None:
        source = spec.identity(tuple(files))
    else:
        source = source_identity(files, cache_dir / _SOURCES)
    kind = spec.info.name.partition(":")[0]
    parts = [kind, image_size, spec.decode_version, PIL.__version__, _FORMAT, source]
    key = hashlib.sha256(json.dumps(parts).encode()).hexdigest()
    return cache_dir / f"{name}-{image_size}px-{key[:16]}"


def read_entry(path: Path) -> Decoded | None:
    """Open a cache entry, memory-mapped, and verify it.

    Parameters
    ----------
    path : Path
        The entry's folder.

    Returns
    -------
    Decoded or None
        What the entry holds; None when there is no entry, or when it is damaged, which is
        logged as a warning.
    """
    if not path.is_dir():
        return None
    try:
        meta = json.loads((path / _META).read_text(encoding="utf-8"))
        stored = meta.pop("checksum")
        if stored != _meta_checksum(meta):
            raise ValueError("entry.json has a wrong checksum")
        decoded = Decoded(
            _open_split(path, "train"),
            _open_split(path, "test"),
            str(meta["fingerprint"]),
            tuple(meta["class_names"]),
            tuple(meta["mean"]),
            tuple(meta["std"]),
        )
        _verify(path, decoded)
    except (
        OSError, ValueError, KeyError, TypeError, EOFError, AttributeError, tokenize.TokenError,
    ) as error:  # fmt: skip
        reason = " ".join(str(error).split())
        _LOG.warning("damaged cache entry %s (%s); it is built again", path, reason)
        return None
    return decoded


def _open_split(path: Path, part: str) -> Split:
    return Split(
        np.load(path / f"{part}_images.npy", mmap_mode="r", allow_pickle=False),
        np.load(path / f"{part}_labels.npy", allow_pickle=False),
    )


def _verify(path: Path, decoded: Decoded) -> None:
    files = [path / name for name in _ARRAYS]
    note = path / _VERIFIED
    large = sum(file.stat().st_size for file in files) > _ENTRY_NOTE_BYTES
    if large and noted(note, files) == decoded.fingerprint:
        return
    seen = identity(files)
    if fingerprint(decoded.train, decoded.test) != decoded.fingerprint:
        raise ValueError("checksum differs")
    if large:
        take_note(note, files, decoded.fingerprint, seen)


def _meta_checksum(meta: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(meta, sort_keys=True).encode()).hexdigest()


def write_entry(path: Path, decoded: Decoded) -> bool:
    """Write a cache entry, replacing one that stands there.

    A cache that can't be written (full disk, no permission) costs time but no result: it is
    logged as a warning.

    Parameters
    ----------
    path : Path
        The entry's folder.
    decoded : Decoded
        What it shall hold.

    Returns
    -------
    bool
        Whether the entry stands.
    """
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _sweep(path.parent)
        temporary = _temporary_folder(path.parent)
        for part, split in (("train", decoded.train), ("test", decoded.test)):
            save_array(temporary / f"{part}_images.npy", split.images)
            save_array(temporary / f"{part}_labels.npy", split.labels)
        finish_entry(temporary, path, decoded)
    except OSError as error:
        _LOG.warning("dataset cache %s can't be written (%s)", path, error.strerror or error)
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)
        return False
    return True


def finish_entry(folder: Path, path: Path, decoded: Decoded) -> None:
    """Add the facts to a folder that holds the arrays, and put it in its place.

    Parameters
    ----------
    folder : Path
        Holds the four array files, beside ``path``.
    path : Path
        The entry's folder, replaced if it is there.
    decoded : Decoded
        What the entry holds.

    Raises
    ------
    OSError
        If the disk is full or can't be written.
    """
    meta: dict[str, Any] = {
        "format": _FORMAT,
        "fingerprint": decoded.fingerprint,
        "class_names": list(decoded.class_names),
        "mean": list(decoded.mean),
        "std": list(decoded.std),
    }
    with (folder / _META).open("w", encoding="utf-8") as stream:
        json.dump({**meta, "checksum": _meta_checksum(meta)}, stream)
        stream.flush()
        os.fsync(stream.fileno())
    _sync_folder(folder)
    _replace_folder(folder, path)
    _sync_folder(path.parent)


def save_array(path: Path, array: np.ndarray[tuple[int, ...], np.dtype[np.generic]]) -> None:
    """Write an array in NumPy's format, flushed to the disk."""
    with path.open("wb") as stream:
        np.save(stream, array, allow_pickle=False)
        stream.flush()
        os.fsync(stream.fileno())


def _sync_folder(path: Path) -> None:
    # Some network file systems refuse to flush a folder; an entry may stand there all the same.
    with suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _replace_folder(new: Path, path: Path) -> None:
    """Put ``new`` in the place of ``path``; an old folder there is moved away first."""
    if path.exists():
        grave = _temporary_folder(path.parent)
        try:
            path.rename(grave / path.name)
        except FileNotFoundError:
            _LOG.debug("%s was replaced by another process", path)
        shutil.rmtree(grave, ignore_errors=True)
    try:
        new.rename(path)
    except OSError:
        # Another process put the same entry there in the meantime: equal by construction.
        if not (path / _META).is_file():
            raise
        shutil.rmtree(new, ignore_errors=True)


def _temporary_folder(parent: Path) -> Path:
    # Not tempfile.mkdtemp: its mode would lock other users out of a shared cache.
    folder = parent / f"{_TEMPORARY}{os.getpid()}-{secrets.token_hex(4)}"
    folder.mkdir()
    return folder


def _sweep(folder: Path) -> None:
    """Remove what killed processes left behind, long enough ago to be nobody's work."""
    for leftover in folder.glob(f"{_TEMPORARY}*"):
        try:
            age = time.time() - leftover.stat().st_mtime
        except OSError:
            continue
        if age > _STALE_SECONDS:
            shutil.rmtree(leftover, ignore_errors=True)
