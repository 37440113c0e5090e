"""From pictures to arrays, one chunk at a time: a build that is broken off goes on later.

The arrays grow in a folder ``.building-<entry>`` beside the cache entry. After each chunk of
pictures a line with its place and SHA-256 goes into a journal. The next attempt, after
Ctrl-C, a kill or a power cut, reads the journal, checks each chunk against its checksum and
goes on after the last good one. One process builds an entry at a time; others wait for it.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

import numpy as np

from datasets.cache import finish_entry, read_entry, save_array
from datasets.errors import DataError
from datasets.image_dataset import Decoded, Images, Split, fingerprint, measured_moments
from datasets.pictures import PictureList, PictureSet, Reader, decode_picture
from datasets.progress import Progress, silent

_LOG = logging.getLogger(__name__)
_CHUNK = 512
_JOURNAL = "journal.jsonl"
_BUILDING = ".building-"
_STALE_SECONDS = 30 * 86400.0
_SAY_SECONDS = 10.0


def decode_pictures(
    pictures: PictureSet, image_size: int, progress: Progress = silent
) -> tuple[Split, Split]:
    """Decode all pictures into memory.

    Parameters
    ----------
    pictures : PictureSet
        What to decode.
    image_size : int
        Height and width in pixels.
    progress : callable
        Called after each chunk with what is decoded, how many pictures are done, and of how
        many.

    Returns
    -------
    train, test : Split
        uint8 images [N, C, image_size, image_size], int64 labels [N].

    Raises
    ------
    DataError
        If a picture is missing or damaged; names it.
    """
    splits = []
    steps = _Steps(pictures, progress)
    with pictures.reader() as reader, _decoder(reader, pictures, image_size) as decoder:
        for part in (pictures.train, pictures.test):
            shape = (len(part), pictures.channels, image_size, image_size)
            images = np.empty(shape, dtype=np.uint8)
            for start in range(0, len(part), _CHUNK):
                names = part.names[start : start + _CHUNK]
                images[start : start + len(names)] = decoder(names)
                steps.advance(len(names))
            splits.append(Split(images, part.labels.copy()))
    return splits[0], splits[1]


def build_entry(
    path: Path,
    pictures: PictureSet,
    image_size: int,
    progress: Progress = silent,
    *,
    measure: bool = False,
) -> Decoded | None:
    """Decode all pictures into a cache entry, going on where an earlier attempt stopped.

    Parameters
    ----------
    path : Path
        The entry's folder.
    pictures : PictureSet
        What to decode.
    image_size : int
        Height and width in pixels.
    progress : callable
        See :func:`decode_pictures`.
    measure : bool
        Whether the moments of the training part are measured and kept.

    Returns
    -------
    Decoded or None
        Memory-mapped arrays; None if the cache can't be written, which is logged as a
        warning.

    Raises
    ------
    DataError
        If a picture is missing or damaged; names it. What is decoded by then is kept.
    """
    from filelock import FileLock

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _sweep(path.parent)
        with FileLock(path.parent / f".{path.name}.lock"):
            decoded = read_entry(path)  # another process may have been faster
            if decoded is None:
                _build(path, pictures, image_size, progress, measure)
                decoded = read_entry(path)
    except OSError as error:
        _LOG.warning("dataset cache %s can't be written (%s)", path, error.strerror or error)
        return None
    return decoded


def _build(
    path: Path, pictures: PictureSet, image_size: int, progress: Progress, measure: bool
) -> None:
    folder = path.parent / f"{_BUILDING}{path.name}"
    parts = {"train": pictures.train, "test": pictures.test}
    journal = _Journal(folder, _plan_digest(pictures, image_size))
    steps = _Steps(pictures, progress)
    pixels = pictures.channels * image_size**2
    with pictures.reader() as reader, _decoder(reader, pictures, image_size) as decoder:
        for name, part in parts.items():
            shape = (len(part), pictures.channels, image_size, image_size)
            with _array_file(folder / f"{name}_images.npy", shape) as (stream, header):
                for start in range(0, len(part), _CHUNK):
                    names = part.names[start : start + _CHUNK]
                    place = header + start * pixels
                    if not journal.holds(name, start, stream, place, len(names) * pixels):
                        journal.put(name, start, stream, place, decoder(names).tobytes())
                    steps.advance(len(names))
            save_array(folder / f"{name}_labels.npy", part.labels)
    train, test = (_open(folder, name, part) for name, part in parts.items())
    moments = measured_moments(train.images) if measure else ((), ())
    decoded = Decoded(train, test, fingerprint(train, test), pictures.class_names, *moments)
    finish_entry(folder, path, decoded)
    # Only now: had the disk been full, the next attempt would go on from it.
    with suppress(OSError):
        (path / _JOURNAL).unlink()


def _open(folder: Path, name: str, part: PictureList) -> Split:
    images = np.load(folder / f"{name}_images.npy", mmap_mode="r", allow_pickle=False)
    return Split(images, part.labels.copy())


class _Steps:
    """Counts pictures, tells the caller after each chunk and the log now and then."""

    def __init__(self, pictures: PictureSet, progress: Progress) -> None:
        self._where, self._progress = pictures.where, progress
        self._total = len(pictures.train) + len(pictures.test)
        self._done, self._said = 0, time.monotonic()

    def advance(self, count: int) -> None:
        self._done += count
        self._progress(f"decoding {self._where.name}", self._done, self._total)
        if time.monotonic() - self._said > _SAY_SECONDS:
            self._said = time.monotonic()
            _LOG.info("decoding %s: %d of %d pictures", self._where, self._done, self._total)


class _Journal:
    """Which chunks are done, in order, with their checksums."""

    def __init__(self, folder: Path, plan: str) -> None:
        self._path = folder / _JOURNAL
        folder.mkdir(exist_ok=True)
        lines = self._read()
        if lines[:1] != [{"plan": plan}]:
            # Another list of pictures or none: nothing here is of use.
            shutil.rmtree(folder)
            folder.mkdir()
            lines = [{"plan": plan}]
        self._known = {(str(line["part"]), line["start"]): line for line in lines[1:]}
        self._rewrite(lines)

    def _read(self) -> list[dict[str, object]]:
        try:
            text = self._path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            return []
        lines: list[dict[str, object]] = []
        for row in text.splitlines():
            try:
                line = json.loads(row)
            except ValueError:
                break  # the line a kill cut short, and nothing after it
            if not isinstance(line, dict) or (
                lines and not {"part", "start", "sha256"} <= set(line)
            ):
                break
            lines.append(line)
        return lines

    def _rewrite(self, lines: list[dict[str, object]]) -> None:
        temporary = self._path.with_suffix(".new")
        temporary.write_text("".join(f"{json.dumps(line)}\n" for line in lines), encoding="utf-8")
        temporary.replace(self._path)

    def holds(self, part: str, start: int, stream: BinaryIO, place: int, length: int) -> bool:
        """Return whether the chunk at ``place`` is there and has its checksum."""
        line = self._known.get((part, start))
        if line is None:
            return False
        stream.seek(place)
        content = stream.read(length)
        return len(content) == length and hashlib.sha256(content).hexdigest() == line["sha256"]

    def put(self, part: str, start: int, stream: BinaryIO, place: int, content: bytes) -> None:
        """Write a chunk, then its line."""
        stream.seek(place)
        stream.write(content)
        stream.flush()
        line = {"part": part, "start": start, "sha256": hashlib.sha256(content).hexdigest()}
        with self._path.open("a", encoding="utf-8") as journal:
            journal.write(f"{json.dumps(line)}\n")


@contextmanager
def _array_file(path: Path, shape: tuple[int, ...]) -> Iterator[tuple[BinaryIO, int]]:
    """Open a ``.npy`` file to write at any place; gives it and where its data begins.

    Written with plain writes: on a full disk, these raise an error, where a write to a
    memory map of a sparse file would end the process.
    """
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        head, {"descr": "|u1", "fortran_order": False, "shape": shape}
    )
    with path.open("r+b" if path.exists() else "w+b") as stream:
        stream.write(head.getvalue())
        yield stream, len(head.getvalue())
        stream.truncate(len(head.getvalue()) + int(np.prod(shape)))
        stream.flush()
        os.fsync(stream.fileno())


class _Decoder:
    """Decodes chunks of pictures, in order, on a few threads (Pillow releases the lock)."""

    def __init__(
        self, pool: ThreadPoolExecutor, reader: Reader, pictures: PictureSet, size: int
    ) -> None:
        self._pool, self._reader, self._pictures, self._size = pool, reader, pictures, size

    def __call__(self, names: tuple[str, ...]) -> Images:
        return np.stack(list(self._pool.map(self._one, names)))

    def _one(self, name: str) -> Images:
        where = f"{self._pictures.where}: {name}"
        return decode_picture(self._reader(name), self._size, self._pictures.channels, where)


@contextmanager
def _decoder(reader: Reader, pictures: PictureSet, size: int) -> Iterator[_Decoder]:
    pool = ThreadPoolExecutor(min(8, os.cpu_count() or 1))
    try:
        yield _Decoder(pool, reader, pictures, size)
    finally:
        pool.shutdown(cancel_futures=True)


def _plan_digest(pictures: PictureSet, size: int) -> str:
    digest = hashlib.sha256(f"{size};{pictures.channels};{_CHUNK};".encode())
    for part in (pictures.train, pictures.test):
        digest.update("\0".join(part.names).encode(errors="surrogateescape"))
        digest.update(part.labels.astype("<i8").tobytes())
    return digest.hexdigest()


def _sweep(parent: Path) -> None:
    """Remove builds that nobody went on with for a month."""
    for folder in parent.glob(f"{_BUILDING}*"):
        try:
            age = time.time() - folder.stat().st_mtime
        except OSError:
            continue
        if age > _STALE_SECONDS:
            shutil.rmtree(folder, ignore_errors=True)


def check_classes(pictures: PictureSet, classes: int) -> None:
    """Check that a set of pictures has as many classes as the catalogue says.

    Raises
    ------
    DataError
        If not.
    """
    if len(pictures.class_names) != classes:
        raise DataError(
            f"{pictures.where}: {len(pictures.class_names)} classes, expected {classes}"
        )
