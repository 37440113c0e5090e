"""Full checksums, once per identity of a file instead of once per load.

A file's *identity* is its size, inode, and times of last modification and last change of
state. The last cannot be set by any program, so an edit, a copy or a restored time stamp
shows. A checksum that was computed for an identity is noted and believed as long as the
identity stands, but at most a week: disks decay, too. A file that changed within the last
two seconds gets no note, since its clock could not tell a further change from this one.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import time
from collections.abc import Sequence
from pathlib import Path

#: Seconds for which a note is believed.
BELIEVED_SECONDS = 7 * 86400.0
#: Seconds that a file must have been left alone before a note on it is written.
SETTLED_SECONDS = 2.0

_HEX_DIGITS = 64


def identity(files: Sequence[Path]) -> str:
    """Return the identities of files, as one SHA-256 in hexadecimal digits.

    Raises
    ------
    OSError
        If a file isn't there.
    """
    rows = []
    for file in files:
        stat = file.stat()
        rows.append([file.name, stat.st_size, stat.st_ino, stat.st_mtime_ns, stat.st_ctime_ns])
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


def settled(files: Sequence[Path]) -> bool:
    """Return whether files have been left alone for a moment."""
    newest = max(max(stat.st_mtime, stat.st_ctime) for stat in map(Path.stat, files))
    return time.time() - newest > SETTLED_SECONDS


def noted(note: Path, files: Sequence[Path]) -> str | None:
    """Return the checksum that was noted for files of this identity; None if there is none."""
    try:
        content = json.loads(note.read_text(encoding="utf-8"))
        checksum, seen, when = content["checksum"], content["identity"], float(content["time"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    fresh = 0 <= time.time() - when < BELIEVED_SECONDS
    if not fresh or not isinstance(checksum, str) or len(checksum) != _HEX_DIGITS:
        return None
    return checksum if seen == identity(files) else None


def take_note(note: Path, files: Sequence[Path], checksum: str, seen: str) -> None:
    """Note the checksum of files; quietly nothing where that can't be done.

    Parameters
    ----------
    note : Path
        The note's file.
    files : sequence of Path
        What was checked.
    checksum : str
        SHA-256 in hexadecimal digits.
    seen : str
        Their identity *before* the checksum was computed, so that a change meanwhile leaves
        a note that no identity will ever match.
    """
    content = json.dumps({"checksum": checksum, "identity": seen, "time": time.time()})
    temporary = note.with_name(f".{note.name}-{os.getpid()}-{secrets.token_hex(4)}")
    try:
        if not settled(files):
            return
        note.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(content, encoding="utf-8")
        temporary.replace(note)
    except OSError:  # a cache that can only be read is still a cache
        temporary.unlink(missing_ok=True)
