"""Downloading with resume and checksum: a file is there whole and verified, or not at all."""

from __future__ import annotations

import hashlib
import http.client
import io
import logging
import os
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets.errors import DataError
from datasets.progress import Progress, silent

_LOG = logging.getLogger(__name__)
_BLOCK = 1 << 18
_AGENT = "oneshot-fl (dataset download)"
_GONE = frozenset({400, 401, 403, 404, 410, 451})


@dataclass(frozen=True)
class Remote:
    """A published file.

    Parameters
    ----------
    name : str
        File name it gets here.
    urls : tuple of str
        Its address and mirrors, in order of preference.
    md5 : str
        Published checksum, 32 hexadecimal digits.
    size : int
        Published size in bytes.
    repacked : bool
        Whether the same content goes round in other packings (Debian's gzip files are not the
        published ones), so that only a file of the published size can be told from it.
    """

    name: str
    urls: tuple[str, ...]
    md5: str
    size: int
    repacked: bool = False


@dataclass(frozen=True)
class Patience:
    """How long to try.

    Parameters
    ----------
    attempts : int
        Failures in a row, without a byte gained, after which an address is given up.
    pause : float
        Seconds before the second attempt; doubled each time, up to 30.
    timeout : float
        Seconds without a byte after which a connection is broken off.
    """

    attempts: int = 4
    pause: float = 1.0
    timeout: float = 30.0


class _InterruptedError(Exception):
    """A transfer that may go on where it stopped."""


class _RefusedError(Exception):
    """An address that will not give the file."""


def fetch_all(
    remotes: Sequence[Remote],
    folder: Path,
    progress: Progress = silent,
    patience: Patience | None = None,
) -> None:
    """Fetch files into a folder; see :func:`fetch`."""
    for remote in remotes:
        fetch(remote, folder / remote.name, progress, patience)


def fetch(
    remote: Remote,
    target: Path,
    progress: Progress = silent,
    patience: Patience | None = None,
) -> None:
    """Fetch one file, going on where an earlier attempt stopped.

    What has arrived stands in ``<target>.part``, also after a kill; the next attempt asks the
    server for the rest. Only a file with the published checksum gets its name. A part that
    was continued and fails the check is fetched once more from the start; an address whose
    file fails it is given up for the next one.

    Parameters
    ----------
    remote : Remote
        What to fetch.
    target : Path
        Where to. A file there with the right checksum is kept; another one is replaced.
    progress : callable
        Called with the name, the bytes here and the published size.
    patience : Patience, optional
        Attempts and waiting times.

    Raises
    ------
    DataError
        If no address gives the file with the published checksum, or it can't be written; names
        the reason for each address.
    """
    if target.is_file():
        if _md5(target) == remote.md5:
            return
        _LOG.warning("%s has not the published checksum; it is fetched again", target)
    part = target.with_name(f"{target.name}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _complete(remote, part, progress, patience or Patience())
        _flush(part)
        part.replace(target)
    except OSError as error:
        raise DataError(f"{part}: can't be written ({error.strerror or error})") from error


def differing(remotes: Sequence[Remote], files: Sequence[Path]) -> list[Path]:
    """Return the files that bear a published name but have not the published checksum.

    Parameters
    ----------
    remotes : sequence of Remote
        What is published.
    files : sequence of Path
        What was found; those of other names (unpacked ones) are passed over.

    Raises
    ------
    OSError
        If a file can't be read.
    """
    known = {remote.name: remote for remote in remotes}
    found = []
    for file in files:
        remote = known.get(file.name)
        if remote is None or (remote.repacked and _size(file) != remote.size):
            continue
        if _size(file) != remote.size or _md5(file) != remote.md5:
            found.append(file)
    return found


def _complete(remote: Remote, part: Path, progress: Progress, patience: Patience) -> None:
    """Fill ``part`` with the published file, or raise a DataError with every address's reason."""
    reasons: list[str] = []
    for url in remote.urls:
        reason = _from_address(url, remote, part, progress, patience)
        if reason is None:
            return
        reasons.append(f"{url}: {reason}")
    arrived = _size(part)
    kept = f"; {arrived} bytes are kept, the same command goes on from there" if arrived else ""
    raise DataError(f"{remote.name} can't be fetched ({'; '.join(reasons)}{kept})")


def _from_address(
    url: str, remote: Remote, part: Path, progress: Progress, patience: Patience
) -> str | None:
    """Fill ``part`` from one address and check it; return why that failed, if it did."""
    while True:
        continued = _size(part) > 0
        reason = _filled(url, remote, part, progress, patience)
        if reason is not None:
            return reason
        found = _md5(part)
        if found == remote.md5:
            return None
        part.unlink()
        if not continued:
            return (
                f"checksum md5 {found} instead of the published {remote.md5}; damaged on the way, "
                "or no longer the published file"
            )
        _LOG.warning("%s: checksum differs after a resumed download; from the start", part)


def _filled(
    url: str, remote: Remote, part: Path, progress: Progress, patience: Patience
) -> str | None:
    """Append all that one address has to give; return why there is no more, if it failed."""
    failures, pause = 0, patience.pause
    while True:
        before = _size(part)
        try:
            _transfer(url, remote, part, progress, patience.timeout)
        except _RefusedError as refusal:
            return str(refusal)
        except _InterruptedError as reason:
            gained = _size(part) > before
            failures = 1 if gained else failures + 1
            pause = patience.pause if gained else min(2 * pause, 30.0)
            if failures >= patience.attempts:
                return f"{reason}, {failures} times in a row"
            _LOG.info("%s: %s; going on at byte %d", remote.name, reason, _size(part))
            time.sleep(pause)
        else:
            return None


def _transfer(url: str, remote: Remote, part: Path, progress: Progress, timeout: float) -> None:
    """Append what is missing to ``part``; returns when the server has no more to give."""
    offset = _size(part)
    request = urllib.request.Request(url, headers={"User-Agent": _AGENT})
    if offset:
        request.add_header("Range", f"bytes={offset}-")
    try:
        with urllib.request.urlopen(request, timeout=timeout) as response:
            offset, total = _position(response, offset)
            _receive(
                response,
                part,
                offset=offset,
                total=total or remote.size,
                name=remote.name,
                progress=progress,
            )
            if total and _size(part) < total:
                raise _InterruptedError(f"the server broke off at byte {_size(part)} of {total}")
    except urllib.error.HTTPError as error:
        _judge(error, part, offset)
    except _DiskError as error:
        raise error.cause from error
    except urllib.error.URLError as error:
        raise _InterruptedError(str(error.reason)) from error
    except (OSError, http.client.HTTPException) as error:
        raise _InterruptedError(str(error) or type(error).__name__) from error


class _DiskError(Exception):
    """The disk's error, told apart from the network's."""

    def __init__(self, cause: OSError) -> None:
        super().__init__(str(cause))
        self.cause = cause


def _position(response: Any, offset: int) -> tuple[int, int]:
    """Return where the server begins, and the size of the whole (0 if it doesn't say)."""
    length = int(response.headers.get("Content-Length") or 0)
    if response.status != http.HTTPStatus.PARTIAL_CONTENT:
        return 0, length  # the server knows no ranges: all over again
    span, _, whole = str(response.headers.get("Content-Range", "")).partition("/")
    begin = span.removeprefix("bytes ").partition("-")[0].strip()
    if not begin.isdigit() or int(begin) != offset:
        raise _InterruptedError(f"asked for byte {offset}, the server answered with '{span}'")
    return offset, int(whole) if whole.isdigit() else offset + length


def _judge(error: urllib.error.HTTPError, part: Path, offset: int) -> None:
    """Raise what an HTTP error means; return if the part is whole already."""
    if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and offset:
        whole = str(error.headers.get("Content-Range", "")).rpartition("/")[2]
        if whole.isdigit() and int(whole) == offset:
            return
        part.unlink()
        raise _InterruptedError(
            "what had arrived is longer than the file; from the start"
        ) from error
    reason = f"HTTP {error.code} {error.reason}"
    if error.code in _GONE:
        raise _RefusedError(reason) from error
    raise _InterruptedError(reason) from error


def _receive(
    response: Any, part: Path, *, offset: int, total: int, name: str, progress: Progress
) -> None:
    try:
        stream = part.open("r+b" if part.exists() else "wb", buffering=0)
    except OSError as error:
        raise _DiskError(error) from error
    with stream:
        stream.truncate(offset)
        stream.seek(offset)
        progress(name, offset, total)
        while block := response.read(_BLOCK):
            try:
                _write(stream, block)
            except OSError as error:
                raise _DiskError(error) from error
            offset += len(block)
            progress(name, offset, total)


def _write(stream: io.FileIO, block: bytes) -> None:
    view = memoryview(block)
    while view:  # an unbuffered write may take only a part
        view = view[stream.write(view) :]


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _md5(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _flush(path: Path) -> None:
    with path.open("rb+") as stream:
        os.fsync(stream.fileno())
