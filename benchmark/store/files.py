"""Files written whole or not at all, and JSON that knows when it is damaged.

A file is written under a temporary name in its own folder, flushed to the disk and
renamed, so that a reader (or a process killed at any moment) sees the old content or
the new, never a part. JSON documents carry the SHA-256 of their canonical form.
"""

from __future__ import annotations

import errno
import hashlib
import itertools
import json
import math
import os
import re
import secrets
import shutil
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from benchmark.errors import UserError

CHECKSUM = "checksum"
"""Key of a JSON document under which its checksum stands."""

_FOREIGN_AGE = 24 * 3600.0
"""Seconds after which a temporary file of another machine counts as abandoned."""

_NON_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
_TEMPORARY = re.compile(r"\.tmp-(?P<host>[A-Za-z0-9-]+)-(?P<pid>\d+)-\d+-[0-9a-f]{8}$")
_numbers = itertools.count()


class StoreError(UserError):
    """The store can't write where it was told to: full, read-only or unreachable."""


class DamagedError(Exception):
    """What was read is not what was written."""


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn an ``OSError`` while writing ``path`` into one clear :class:`StoreError` line."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            message = f"can't write {path}: the disk is full; free some space and run again"
        else:
            message = f"can't write {path}: {error.strerror or error}"
        raise StoreError(message) from error


def host_name() -> str:
    """Return this machine's name, reduced to letters, digits and dashes."""
    return re.sub(r"[^A-Za-z0-9-]", "-", socket.gethostname()) or "localhost"


def temporary_name(name: str) -> str:
    """Return a hidden temporary name for ``name`` that no other process or thread makes."""
    unique = f"{os.getpid()}-{next(_numbers)}-{secrets.token_hex(4)}"
    return f".{name}.tmp-{host_name()}-{unique}"


def is_abandoned(path: Path) -> bool:
    """Return whether ``path`` is a temporary file or folder whose writer is gone.

    A writer of this machine is gone if its process is. One of another machine (a shared
    folder) can't be asked, and is taken for gone after a day.
    """
    found = _TEMPORARY.search(path.name)
    if found is None:
        return False
    if found["host"] == host_name():
        return not process_alive(int(found["pid"]))
    try:
        return time.time() - path.stat().st_mtime > _FOREIGN_AGE
    except OSError:
        return False


def process_alive(pid: int) -> bool:
    """Return whether a process of this machine is alive (a zombie is not)."""
    import psutil

    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:
        return True


def sweep(folder: Path) -> list[Path]:
    """Remove abandoned temporary files and folders directly in ``folder``; return them."""
    removed = []
    try:
        entries = sorted(folder.iterdir())
    except OSError:
        return []
    for path in entries:
        if is_abandoned(path):
            remove(path)
            removed.append(path)
    return removed


def remove(path: Path) -> None:
    """Remove a file or folder, as far as it is there and can be removed."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()


def make_folder(path: Path) -> Path:
    """Make a folder and its parents.

    Raises
    ------
    StoreError
        If it can't be made.
    """
    with writing(path):
        path.mkdir(parents=True, exist_ok=True)
    return path


def sync_folder(path: Path) -> None:
    """Flush a folder's list of names to the disk, where the system can."""
    try:
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0))
    except OSError:
        return
    try:
        # Some network file systems refuse to flush a folder; the rename stands anyway.
        with suppress(OSError):
            os.fsync(handle)
    finally:
        os.close(handle)


def sync_file(path: Path) -> None:
    """Flush a file's content to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file whole or not at all.

    Raises
    ------
    StoreError
        If the disk is full or the folder can't be written to; nothing is left behind
        and an older file of that name stays as it was.
    """
    temporary = path.parent / temporary_name(path.name)
    with writing(path):
        try:
            with temporary.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            remove(temporary)
            raise
    sync_folder(path.parent)


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file whole or not at all; see :func:`write_bytes`."""
    write_bytes(path, text.encode())


def plain(value: Any, where: str = "value") -> Any:
    """Return ``value`` as strict JSON values.

    Tuples become lists; NaN and infinities, which JSON does not know, become the
    strings ``"NaN"``, ``"Infinity"`` and ``"-Infinity"``.

    Raises
    ------
    TypeError
        If something in it is no JSON value; the message names where.
    """
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        number = float(value)
        if math.isfinite(number):
            return number
        return "NaN" if math.isnan(number) else ("Infinity" if number > 0 else "-Infinity")
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise TypeError(f"{where}: keys must be text, got {key!r}")
        return {key: plain(item, f"{where}.{key}") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item, f"{where}[{index}]") for index, item in enumerate(value)]
    kind = f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")
    raise TypeError(f"{where}: {kind} is no JSON value; give numbers, text, lists or mappings")


def restore_non_finite(value: Any) -> Any:
    """Return JSON values with the strings that :func:`plain` made turned back into floats."""
    if isinstance(value, str):
        return _NON_FINITE.get(value, value)
    if isinstance(value, Mapping):
        return {key: restore_non_finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [restore_non_finite(item) for item in value]
    return value


def canonical(value: Any) -> str:
    """Return the one JSON text of a value: sorted keys, no spaces, no bare NaN."""
    return json.dumps(
        plain(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )


def digest(value: Any) -> str:
    """Return the SHA-256 of a value's canonical JSON, in hexadecimal digits."""
    return hashlib.sha256(canonical(value).encode("utf-8", "surrogatepass")).hexdigest()


def write_json(path: Path, document: Mapping[str, Any]) -> None:
    """Write a JSON document with its checksum, whole or not at all.

    Raises
    ------
    StoreError
        If it can't be written.
    TypeError
        If something in it is no JSON value.
    """
    body = {key: plain(value, key) for key, value in document.items() if key != CHECKSUM}
    text = json.dumps({**body, CHECKSUM: digest(body)}, indent=1, allow_nan=False)
    write_text(path, text + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON document written by :func:`write_json`, without its checksum.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    DamagedError
        If it can't be read, is no JSON, or differs from what was written.
    """
    try:
        document = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise
    except OSError as error:
        raise DamagedError(f"{path.name} can't be read: {error.strerror or error}") from error
    except (ValueError, RecursionError):
        raise DamagedError(f"{path.name} is truncated or no JSON") from None
    if not isinstance(document, dict):
        raise DamagedError(f"{path.name} holds no JSON object")
    expected = document.pop(CHECKSUM, None)
    try:
        found = digest(document)
    except (TypeError, ValueError):
        found = None
    if expected is None or expected != found:
        raise DamagedError(f"{path.name} does not match its checksum")
    return document


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file's content, in hexadecimal digits, in constant memory."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def folder_size(path: Path) -> int:
    """Return the bytes of all files below ``path``; 0 if there is no such folder."""
    total = 0
    for folder, _, names in os.walk(path):
        for name in names:
            with suppress(OSError):
                total += (Path(folder) / name).lstat().st_size
    return total
