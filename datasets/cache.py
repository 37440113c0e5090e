"""Decoded datasets on disk: memory-mapped on load, written whole, checked always.

An entry is a folder ``<cache_dir>/<name>-<size>px-<key>`` of four ``.npy`` files and
``entry.json``. Its key covers all that decides the arrays: dataset, image size, decoder and
Pillow versions, and the identity of the source files. An entry is written under a temporary
name, flushed to disk and renamed, so it is there whole or not at all.

On load the fingerprint is computed anew from the mapped arrays and compared with the stored
one: a full checksum, always, because it costs 40 ms for Fashion-MNIST at 32×32 and because it
makes the fingerprint in a record something that was verified and not something that was
believed. Training reads these pages in any case.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import secrets
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from datasets.catalog import DatasetSpec
from datasets.errors import DataError
from datasets.image_dataset import Split, fingerprint

_LOG = logging.getLogger(__name__)
_FORMAT = 1
_META = "entry.json"
_TEMPORARY = ".writing-"
_STALE_SECONDS = 6 * 3600.0
# Above this, hashing the source files would cost more than it saves.
_HASH_LIMIT_BYTES = 256 * 2**20

Decoded = tuple[Split, Split, str]


def source_identity(files: Sequence[Path]) -> str:
    """Return a short text that changes when the source files change.

    Parameters
    ----------
    files : sequence of Path
        The dataset's files. Up to 256 MiB together they are identified by their content, so
        that a copy of the data elsewhere shares the cache entry; larger sets by name, size and
        modification time.

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
                with file.open("rb") as stream:
                    digest.update(hashlib.file_digest(stream, "sha256").digest())
            else:
                digest.update(f"{file.name};{stat.st_mtime_ns};".encode())
    except OSError as error:
        raise DataError(f"{error.filename}: can't be read ({error.strerror})") from error
    return digest.hexdigest()


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

    parts = [spec.info.name, image_size, spec.decode_version, PIL.__version__, _FORMAT]
    key = hashlib.sha256(json.dumps([*parts, source_identity(files)]).encode()).hexdigest()
    return cache_dir / f"{spec.info.name}-{image_size}px-{key[:16]}"


def read_entry(path: Path) -> Decoded | None:
    """Open a cache entry, memory-mapped, and verify it.

    Parameters
    ----------
    path : Path
        The entry's folder.

    Returns
    -------
    tuple of (Split, Split, str) or None
        Training part, test part and fingerprint; None when there is no entry, or when it is
        damaged, which is logged as a warning.
    """
    if not path.is_dir():
        return None
    try:
        meta = json.loads((path / _META).read_text(encoding="utf-8"))
        stored = str(meta["fingerprint"])
        parts = [
            Split(
                np.load(path / f"{part}_images.npy", mmap_mode="r", allow_pickle=False),
                np.load(path / f"{part}_labels.npy", allow_pickle=False),
            )
            for part in ("train", "test")
        ]
        found = fingerprint(parts[0], parts[1])
    except (OSError, ValueError, KeyError, TypeError, EOFError) as error:
        reason = " ".join(str(error).split())
        _LOG.warning("damaged cache entry %s (%s); it is built again", path, reason)
        return None
    if found != stored:
        _LOG.warning("damaged cache entry %s (checksum differs); it is built again", path)
        return None
    return parts[0], parts[1], stored


def write_entry(path: Path, train: Split, test: Split, mark: str) -> bool:
    """Write a cache entry, replacing one that stands there.

    A cache that can't be written (full disk, no permission) costs time but no result: it is
    logged as a warning.

    Parameters
    ----------
    path : Path
        The entry's folder.
    train, test : Split
        The decoded splits.
    mark : str
        Their fingerprint.

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
        for part, split in (("train", train), ("test", test)):
            _save(temporary / f"{part}_images.npy", split.images)
            _save(temporary / f"{part}_labels.npy", split.labels)
        with (temporary / _META).open("w", encoding="utf-8") as stream:
            json.dump({"format": _FORMAT, "fingerprint": mark}, stream)
            stream.flush()
            os.fsync(stream.fileno())
        _sync_folder(temporary)
        _replace_folder(temporary, path)
        _sync_folder(path.parent)
    except OSError as error:
        _LOG.warning("dataset cache %s can't be written (%s)", path, error.strerror or error)
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)
        return False
    return True


def _save(path: Path, array: np.ndarray[tuple[int, ...], np.dtype[np.generic]]) -> None:
    with path.open("wb") as stream:
        np.save(stream, array, allow_pickle=False)
        stream.flush()
        os.fsync(stream.fileno())


def _sync_folder(path: Path) -> None:
    if os.name == "nt":  # folders can't be opened there, and a rename needs no flush
        return
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
