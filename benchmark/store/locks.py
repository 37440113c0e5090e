"""Locks between processes, which a kill never leaves behind."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from benchmark.store.files import make_folder, writing


class BusyError(Exception):
    """Another process holds the lock."""


class Locks:
    """Named locks of a folder, between processes; the system frees those of a killed one.

    A lock that this thread holds already is entered again without waiting.

    Parameters
    ----------
    folder : Path
        Where the (empty) lock files live; made when the first lock is asked for.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._locks: dict[str, FileLock] = {}

    @contextmanager
    def hold(self, name: str, wait: float | None = None) -> Iterator[None]:
        """Hold a lock.

        Parameters
        ----------
        name : str
            Name of the lock, a valid file name.
        wait : float, optional
            Seconds to wait at most; for ever if not given.

        Raises
        ------
        BusyError
            If another process held it all the time.
        StoreError
            If the lock file can't be made.
        """
        path = make_folder(self.folder) / f"{name}.lock"
        if name not in self._locks:
            self._locks[name] = FileLock(path)
        lock = self._locks[name]
        with writing(path):
            try:
                lock.acquire(timeout=-1 if wait is None else wait)
            except Timeout:  # an OSError too, but no trouble with writing
                raise BusyError(name) from None
        try:
            yield
        finally:
            lock.release()
