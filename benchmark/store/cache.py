"""The cache: artifacts of tensors, addressed by all that determines them.

Layout: ``<root>/<kind>/<key[:2]>/<key>/{data.safetensors, manifest.json}``, the key being
the hash of a JSON description. Entries appear by one rename; a damaged one is found by its
checksum, reported and made again. Nothing is ever unpickled.
"""

from __future__ import annotations

import errno
import logging
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmark.store.files import (
    DamagedError,
    StoreError,
    canonical,
    digest,
    file_digest,
    folder_size,
    make_folder,
    plain,
    read_json,
    remove,
    sweep,
    sync_file,
    sync_folder,
    temporary_name,
    write_json,
    writing,
)
from benchmark.store.locks import BusyError, Locks

if TYPE_CHECKING:
    from torch import Tensor

log = logging.getLogger(__name__)

DATA_NAME = "data.safetensors"
MANIFEST_NAME = "manifest.json"
KEY_LENGTH = 32
"""Hexadecimal digits of a key."""

_KIND = re.compile(r"[a-z0-9][a-z0-9_-]*")

Made = tuple[Mapping[str, "Tensor"], Mapping[str, Any]]
"""What a maker returns: tensors by name, and small JSON values about the making."""


@dataclass(frozen=True)
class Entry:
    """One artifact.

    Parameters
    ----------
    kind, key : str
        What it is, and the hash of its description.
    info : dict
        JSON values noted when it was made, such as seconds and steps.
    path : Path or None
        Its folder; ``None`` if it was made without a cache.
    """

    kind: str
    key: str
    info: dict[str, Any]
    path: Path | None = None
    _tensors: dict[str, Tensor] = field(default_factory=dict, repr=False)

    def load(self) -> dict[str, Tensor]:
        """Return fresh, contiguous CPU tensors by name, in order of name.

        They are the same whether they come from the disk or were made just now.
        """
        if self.path is None:
            return {name: tensor.clone() for name, tensor in self._tensors.items()}
        from safetensors.torch import load_file

        loaded = load_file(self.path / DATA_NAME)
        return {name: loaded[name].clone() for name in sorted(loaded)}


class Cache:
    """Artifacts in one folder, shared by all processes that name it.

    Parameters
    ----------
    root : Path
        The cache's folder; it need not be there before something is put.
    disabled : bool
        Neither read nor write (``--no-cache``): everything is made anew.
    """

    def __init__(self, root: Path, *, disabled: bool = False) -> None:
        self.root = root
        self.disabled = disabled
        self._temporary = root / ".tmp"
        self._locks = Locks(root / ".locks")

    @property
    def scratch(self) -> Path | None:
        """Folder for temporary files of a run; ``None`` if the cache's own is not to be used."""
        return None if self.disabled else self._temporary

    @property
    def datasets(self) -> Path | None:
        """Folder for decoded datasets; ``None`` if they are not to be kept."""
        return None if self.disabled else self.root / "data"

    def key(self, description: Mapping[str, Any]) -> str:
        """Return the key of a description: the hash of its canonical JSON."""
        return digest(description)[:KEY_LENGTH]

    def get(self, kind: str, description: Mapping[str, Any]) -> Entry | None:
        """Return an entry whose checksum was verified, or ``None`` if there is none.

        A damaged entry is reported by a warning and removed.
        """
        if self.disabled:
            return None
        path = self._path(kind, description)
        try:
            return self._verified(path, kind, description)
        except FileNotFoundError:
            return None
        except DamagedError as error:
            self._remove_damaged(path, kind, description, error)
            return None

    def put(
        self,
        kind: str,
        description: Mapping[str, Any],
        tensors: Mapping[str, Tensor],
        info: Mapping[str, Any] | None = None,
    ) -> Entry:
        """Store an artifact and return its entry; one that is there already is kept.

        Raises
        ------
        StoreError
            If the disk is full or can't be written to; nothing is left behind.
        TypeError
            If description or info are no JSON values.
        """
        if self.disabled:
            kept = _portable(tensors)
            return Entry(kind, self.key(description), plain(info or {}, "info"), None, kept)
        path = self._path(kind, description)
        make_folder(self._temporary)
        sweep(self._temporary)
        working = self._temporary / temporary_name(path.name)
        try:
            self._write(working, description, tensors, info or {})
            make_folder(path.parent)
            self._move(working, path)
        finally:
            remove(working)
        sync_folder(path.parent)
        entry = self.get(kind, description)
        if entry is None:
            raise StoreError(f"{path}: what was just written can't be read back")
        return entry

    def get_or_make(
        self,
        kind: str,
        description: Mapping[str, Any],
        make: Callable[[], Made],
        *,
        wait: float | None = None,
    ) -> Entry:
        """Return an entry, making it if there is none.

        Whoever comes first makes it, the others wait for it. If ``make`` raises, nothing
        is kept and the next one tries.

        Parameters
        ----------
        kind : str
            What it is.
        description : mapping of str to JSON value
            Everything that determines it.
        make : callable
            Returns tensors by name, and JSON values about them.
        wait : float, optional
            Seconds to wait at most while somebody else makes it; for ever if not given.

        Raises
        ------
        BusyError
            If somebody else was making it all the time.
        """
        entry = self.get(kind, description)
        if entry is not None:
            return entry
        if self.disabled:
            return self.put(kind, description, *make())
        with self._locks.hold(self._lock_name(kind, description), wait):
            entry = self.get(kind, description)
            return entry or self.put(kind, description, *make())

    @contextmanager
    def alone(self, kind: str, description: Mapping[str, Any]) -> Iterator[None]:
        """Keep others from making an artifact meanwhile; they wait. Nothing without a cache."""
        if self.disabled:
            yield
            return
        with self._locks.hold(self._lock_name(kind, description)):
            yield

    def sizes(self) -> dict[str, int]:
        """Return the bytes on the disk of each kind of artifact."""
        return {path.name: folder_size(path) for path in self._kinds()}

    def remove(self, kind: str) -> int:
        """Remove all entries of a kind; return the bytes freed."""
        freed = 0
        for path in self._kinds():
            if kind == path.name:
                freed += folder_size(path)
                remove(path)
        sweep(self._temporary)
        return freed

    def _kinds(self) -> list[Path]:
        try:
            return sorted(path for path in self.root.iterdir() if _KIND.fullmatch(path.name))
        except OSError:
            return []

    def _path(self, kind: str, description: Mapping[str, Any]) -> Path:
        if not _KIND.fullmatch(kind):
            raise ValueError(f"'{kind}' is no kind of artifact: use a-z, 0-9, '_' and '-'")
        key = self.key(description)
        return self.root / kind / key[:2] / key

    def _lock_name(self, kind: str, description: Mapping[str, Any]) -> str:
        return f"{kind}-{self.key(description)}"

    def _verified(self, path: Path, kind: str, description: Mapping[str, Any]) -> Entry:
        """Return the entry in ``path``; ``FileNotFoundError`` if there is none."""
        try:
            manifest = read_json(path / MANIFEST_NAME)
        except (FileNotFoundError, NotADirectoryError):
            if path.is_dir():
                raise DamagedError(f"{MANIFEST_NAME} is missing") from None
            raise FileNotFoundError(path) from None
        if canonical(manifest.get("description")) != canonical(description):
            raise DamagedError("it describes another artifact")
        data = path / DATA_NAME
        try:
            if data.stat().st_size != manifest.get("size"):
                raise DamagedError(f"{DATA_NAME} is truncated")
            if file_digest(data) != manifest.get("sha256"):
                raise DamagedError(f"{DATA_NAME} does not match its checksum")
        except OSError as error:
            raise DamagedError(f"{DATA_NAME} can't be read: {error.strerror}") from None
        return Entry(kind, path.name, dict(manifest.get("info", {})), path)

    def _remove_damaged(
        self, path: Path, kind: str, description: Mapping[str, Any], error: DamagedError
    ) -> None:
        # Under the lock and read once more: somebody may have made it again meanwhile.
        try:
            with self._locks.hold(self._lock_name(kind, description), wait=0.0):
                try:
                    self._verified(path, kind, description)
                except DamagedError:
                    log.warning("cache entry %s is damaged (%s); it is made again", path, error)
                    self._discard(path)
                except FileNotFoundError:
                    pass
        except (BusyError, StoreError) as busy:
            log.warning("cache entry %s is damaged (%s); left there: %s", path, error, busy)

    def _discard(self, path: Path) -> None:
        make_folder(self._temporary)
        aside = self._temporary / temporary_name(path.name)
        with writing(path):
            path.rename(aside)
        remove(aside)

    def _write(
        self,
        folder: Path,
        description: Mapping[str, Any],
        tensors: Mapping[str, Tensor],
        info: Mapping[str, Any],
    ) -> None:
        from safetensors import SafetensorError
        from safetensors.torch import save_file

        data = folder / DATA_NAME
        portable = _portable(tensors)
        with writing(data):
            folder.mkdir()
            try:
                save_file(portable, data)
            except SafetensorError as error:
                raise _os_error(error) from error
            sync_file(data)
            size, checksum = data.stat().st_size, file_digest(data)
        about = {"size": size, "sha256": checksum, "created": time.time()}
        values = {"description": plain(description, "description"), "info": plain(info, "info")}
        write_json(folder / MANIFEST_NAME, {**values, **about})

    def _move(self, working: Path, path: Path) -> None:
        try:
            with writing(path):
                working.rename(path)
        except StoreError as error:
            cause = error.__cause__
            occupied = isinstance(cause, OSError) and cause.errno in (
                errno.ENOTEMPTY,
                errno.EEXIST,
                errno.ENOTDIR,
            )
            if not occupied:
                raise


def _portable(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return contiguous CPU copies that share no memory, in order of name."""
    return {
        name: tensors[name].detach().resolve_neg().cpu().contiguous().clone()
        for name in sorted(tensors)
    }


def _os_error(error: Exception) -> OSError:
    """Return the ``OSError`` that safetensors' own error wraps as text."""
    text = str(error)
    found = re.search(r"os error (\d+)", text)
    return OSError(int(found[1]), text) if found else OSError(text)
