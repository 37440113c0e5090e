"""One experiment of the store: one folder a run, whole or not there.

Layout::

    <root>/<experiment>/experiment.json           the manifest: which run answers each cell
    <root>/<experiment>/<run id>/record.json      a final record, history.csv and more beside
    <root>/<experiment>/attempts/<run id>-<n>/    what failed, was killed, damaged or replaced
    <root>/<experiment>/.locks/                   locks between commands
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmark.store.attempts import (
    HISTORY_NAME,
    RUN_ID,
    Attempt,
    AttemptInfo,
    allocate,
    attempts_of,
    inspect,
    mark_started,
    read_history,
    set_aside,
)
from benchmark.store.files import (
    DamagedError,
    StoreError,
    file_digest,
    folder_size,
    make_folder,
    remove,
    sweep,
)
from benchmark.store.locks import BusyError, Locks
from benchmark.store.manifest import (
    MANIFEST_NAME,
    Cell,
    Manifest,
    read_manifest,
    rebuilt,
    write_manifest,
)
from benchmark.store.records import RECORD_NAME, Record, UnknownSchemaError, read_record_of
from benchmark.store.status import Status

log = logging.getLogger(__name__)

_MANIFEST_LOCK = "experiment"


@dataclass(frozen=True)
class CellState:
    """One cell of the grid and what became of it.

    Parameters
    ----------
    cell_id : str
        The cell's id.
    cell : Cell
        What it asks.
    status : Status
        Of the run that answers it now.
    reason : str
        Why it is not done, one line; empty if it is.
    record : Record or None
        The final record, or the last attempt's.
    """

    cell_id: str
    cell: Cell
    status: Status
    reason: str
    record: Record | None


class ExperimentStore:
    """The records, attempts and manifest of one experiment.

    Parameters
    ----------
    folder : Path
        The experiment's folder; it need not be there before something is written.
    read_only : bool
        Whether a damaged record is left where it is, for whoever only looks.
    """

    def __init__(self, folder: Path, *, read_only: bool = False) -> None:
        self.folder = folder
        self._read_only = read_only
        self.attempts = folder / "attempts"
        self._locks = Locks(folder / ".locks")

    def exists(self) -> bool:
        """Return whether it holds a manifest or a run."""
        return (self.folder / MANIFEST_NAME).exists() or bool(self._run_folders())

    def size(self) -> int:
        """Return the bytes it takes on the disk, attempts included."""
        return folder_size(self.folder)

    def sweep(self) -> None:
        """Remove temporary files of processes that were killed while writing."""
        sweep(self.folder)
        for path in self._run_folders():
            sweep(path)
        for _, _, path in attempts_of(self.attempts):
            sweep(path)

    def running(self) -> list[str]:
        """Return the ids of the attempted runs that some command works on: it holds their locks."""
        ids = {run_id for run_id, _, _ in attempts_of(self.attempts)}
        return sorted(run_id for run_id in ids if self._held(run_id))

    def idle_attempts(self) -> list[Path]:
        """Return the folders of attempts at runs that nobody works on."""
        busy = self.running()
        return [path for run_id, _, path in attempts_of(self.attempts) if run_id not in busy]

    def remove_attempts(self) -> None:
        """Remove the attempts at runs that nobody works on; all records stay."""
        for run_id, _, path in attempts_of(self.attempts):
            with suppress(BusyError), self.lock(run_id, 0.0):
                remove(path)
        with suppress(OSError):  # not empty: somebody is at work
            self.attempts.rmdir()

    def _held(self, run_id: str) -> bool:
        try:
            with self.lock(run_id, 0.0):
                return False
        except BusyError:
            return True

    def lock(self, run_id: str, wait: float | None = None) -> AbstractContextManager[None]:
        """Return the context in which no other command works on a run.

        Call :meth:`find` again inside: somebody else may have finished it meanwhile. A
        killed command's lock is free at once.

        Parameters
        ----------
        run_id : str
            The run.
        wait : float, optional
            Seconds to wait at most; for ever if not given.

        Raises
        ------
        benchmark.store.locks.BusyError
            On entering, if another command held it all the time.
        StoreError
            On entering, if the folder can't be written to.
        """
        return self._locks.hold(_checked(run_id), wait)

    def begin(self, run_id: str) -> Attempt:
        """Return a new, numbered attempt at a run, with its own working folder.

        Raises
        ------
        StoreError
            If it can't be made.
        """
        last = 0
        with suppress(FileNotFoundError, NotADirectoryError, DamagedError, UnknownSchemaError):
            last = read_record_of(self.folder / _checked(run_id), run_id).attempt
        path = allocate(self.attempts, run_id, last)
        mark_started(path)
        return Attempt(path)

    def find(self, run_id: str) -> Record | None:
        """Return a run's final record, or ``None`` if there is none.

        A damaged one is reported by a warning and set aside, so that it is run again.
        """
        return self._read(self.folder / _checked(run_id), beside=True)

    def records(self) -> list[Record]:
        """Return all final records, by the time they were published.

        Damaged ones are reported and set aside; the files beside them are not read.
        """
        found = (self._read(path, beside=False) for path in self._run_folders())
        return [record for record in found if record is not None]

    def history(self, run_id: str) -> list[dict[str, float | str]]:
        """Return the rows of a run's ``history.csv``; empty if it has none."""
        return read_history(self.folder / _checked(run_id) / HISTORY_NAME)

    def latest_attempt(self, run_id: str) -> AttemptInfo | None:
        """Return what became of a run's last attempt that is not its final record."""
        found = list(attempts_of(self.attempts, _checked(run_id)))
        return inspect(found[-1][2]) if found else None

    def supersede(self, run_id: str, reason: str = "superseded by --force") -> Path | None:
        """Set a run's final record aside, so that it is run again.

        Returns
        -------
        Path or None
            Where it is kept now; ``None`` if there was none.

        Raises
        ------
        StoreError
            If it can't be moved.
        """
        folder = self.folder / _checked(run_id)
        return set_aside(folder, reason) if folder.is_dir() else None

    def manifest(self) -> Manifest:
        """Return the manifest; a missing or damaged one is rebuilt from the records."""
        try:
            return read_manifest(self.folder)
        except FileNotFoundError:
            return rebuilt(self.records())
        except DamagedError as error:
            log.warning(
                "%s: the manifest is damaged (%s); rebuilt from the records", self.folder, error
            )
            return rebuilt(self.records())

    def update_manifest(
        self,
        cells: Mapping[str, Cell],
        not_installed: Mapping[str, str] | None = None,
        settings: Mapping[str, Any] | None = None,
        defaults: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> Manifest:
        """Add a command's cells to the manifest and return it; see ``Manifest.merged``.

        Raises
        ------
        StoreError
            If it can't be written.
        """
        make_folder(self.folder)
        with self._locks.hold(_MANIFEST_LOCK):
            manifest = self.manifest().merged(cells, not_installed, settings, defaults)
            write_manifest(self.folder, manifest)
        return manifest

    def states(self) -> list[CellState]:
        """Return every cell of the grid, in order, and what became of it."""
        records = {record.run_id: record for record in self.records()}
        return [
            self._state(cell_id, cell, records.get(cell.run_id))
            for cell_id, cell in self.manifest().in_order()
        ]

    def _state(self, cell_id: str, cell: Cell, record: Record | None) -> CellState:
        if record is not None:
            return CellState(cell_id, cell, record.status, record.reason or "", record)
        attempt = self.latest_attempt(cell.run_id) if RUN_ID.fullmatch(cell.run_id) else None
        if attempt is None:
            return CellState(cell_id, cell, Status.NOT_RUN, "", None)
        kept = None if attempt.status is Status.NOT_RUN else attempt.record
        return CellState(cell_id, cell, attempt.status, attempt.reason, kept)

    def _run_folders(self) -> list[Path]:
        def age(path: Path) -> tuple[float, str]:
            try:
                return (path / RECORD_NAME).stat().st_mtime, path.name
            except OSError:
                return 0.0, path.name

        try:
            found = [path for path in self.folder.iterdir() if RUN_ID.fullmatch(path.name)]
        except OSError:
            return []
        return sorted(found, key=age)

    def _read(self, folder: Path, *, beside: bool) -> Record | None:
        try:
            return _verified(folder, beside=beside)
        except UnknownSchemaError as error:
            log.warning("%s: %s; it is left alone", folder, error)
        except DamagedError as error:
            if self._read_only:
                log.warning("run %s is damaged (%s): it will be run again", folder.name, error)
            else:
                self._set_damaged_aside(folder, str(error), beside=beside)
        return None

    def _set_damaged_aside(self, folder: Path, reason: str, *, beside: bool) -> None:
        # Under the lock and read once more: somebody may have mended it meanwhile.
        try:
            with self.lock(folder.name, wait=0.0):
                try:
                    _verified(folder, beside=beside)
                except DamagedError:
                    kept = set_aside(folder, f"damaged: {reason}")
                    log.warning(
                        "run %s is damaged (%s); kept in %s, will be run again",
                        *(folder.name, reason, kept),
                    )
        except (BusyError, StoreError, UnknownSchemaError) as error:
            log.warning("run %s is damaged (%s); left there: %s", folder.name, reason, error)


def _verified(folder: Path, *, beside: bool) -> Record | None:
    try:
        record = read_record_of(folder, folder.name)
    except FileNotFoundError:
        if folder.is_dir():
            raise DamagedError(f"{RECORD_NAME} is missing") from None
        return None
    except NotADirectoryError:
        return None
    if not record.status.is_final:
        raise DamagedError(f"status '{record.status}' is not final")
    for name, expected in record.files.items() if beside else ():
        path = folder / name
        # A file that was removed on purpose (to save space) does no harm; a changed one does.
        if path.is_file() and file_digest(path) != expected:
            raise DamagedError(f"{name} does not match its checksum")
    return record


def _checked(run_id: str) -> str:
    if not RUN_ID.fullmatch(run_id):
        raise ValueError(f"'{run_id}' is no run id")
    return run_id
