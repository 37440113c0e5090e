"""Attempts at a run: numbered folders that become the run, or stay as evidence."""

from __future__ import annotations

import csv
import io
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmark.store.files import (
    DamagedError,
    StoreError,
    file_digest,
    host_name,
    make_folder,
    read_json,
    remove,
    sync_file,
    sync_folder,
    write_bytes,
    write_json,
    write_text,
    writing,
)
from benchmark.store.records import (
    RECORD_NAME,
    Record,
    UnknownSchemaError,
    read_record_of,
    write_record,
)
from benchmark.store.status import Status

HISTORY_NAME = "history.csv"
STARTED_NAME = "started.json"
TRACEBACK_NAME = "traceback.txt"
MOVED_NAME = "moved.json"
RUN_ID = re.compile(r"[0-9a-f]{8,64}")
_FOLDER = re.compile(r"(?P<run_id>[0-9a-f]{8,64})-(?P<number>\d+)")


class Attempt:
    """The working folder of one attempt at a run.

    Files written into :attr:`path` become the run's when it is published.

    Parameters
    ----------
    path : Path
        ``<experiment>/attempts/<run id>-<number>``, made by ``ExperimentStore.begin``;
        another process opens the same attempt by this path.
    """

    def __init__(self, path: Path) -> None:
        self.run_id, self.number = split_name(path.name)
        self.path = path

    @property
    def final_path(self) -> Path:
        """The run's folder: where a finished attempt appears."""
        return self.path.parent.parent / self.run_id

    def write_bytes(self, name: str, data: bytes) -> None:
        """Write a file of the run, such as a sample grid, whole or not at all."""
        write_bytes(self.path / name, data)

    def write_history(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write ``history.csv``; columns are the rows' keys, in order of appearance."""
        write_text(self.path / HISTORY_NAME, history_text(rows))

    def publish(self, record: Record) -> Path:
        """Make this attempt the run, all at once, and return the run's folder.

        A record that stands there already is kept among the attempts.

        Raises
        ------
        ValueError
            If the record is another run's, or its status is not final.
        StoreError
            If it can't be written; the attempt stays as it is.
        """
        self._check(record, final=True)
        with writing(self.path):
            names = [path for path in sorted(self.path.iterdir()) if path.is_file()]
            beside = {path.name: path for path in names if path.name not in _OWN_FILES}
            for path in beside.values():
                sync_file(path)
            files = {name: file_digest(path) for name, path in beside.items()}
        write_record(self.path, record.changed(attempt=self.number, files=files))
        if self.final_path.exists():
            set_aside(self.final_path, f"superseded by attempt {self.number}")
        with writing(self.final_path):
            self.path.rename(self.final_path)
        remove(self.final_path / STARTED_NAME)
        sync_folder(self.path.parent)
        sync_folder(self.final_path.parent)
        return self.final_path

    def fail(self, record: Record) -> bool:
        """Keep this attempt's record among the attempts.

        Returns
        -------
        bool
            ``False`` if the attempt was published meanwhile (it finished before it was
            ended), and so has not failed.

        Raises
        ------
        ValueError
            If the record is another run's, or its status is final.
        StoreError
            If it can't be written.
        """
        self._check(record, final=False)
        if not self.path.is_dir():
            if self.final_path.is_dir():
                return False
            make_folder(self.path)
        write_record(self.path, record.changed(attempt=self.number))
        remove(self.path / STARTED_NAME)
        return True

    def _check(self, record: Record, *, final: bool) -> None:
        if record.run_id != self.run_id:
            raise ValueError(f"attempt at run {self.run_id} got the record of {record.run_id}")
        if record.status.is_final != final:
            todo = "publish() takes final ones" if final else "publish() it instead"
            raise ValueError(f"run {self.run_id}: status '{record.status}': {todo}")


_OWN_FILES = (RECORD_NAME, STARTED_NAME, MOVED_NAME)


@dataclass(frozen=True)
class AttemptInfo:
    """What is known of an attempt that is not (or no longer) the run.

    Parameters
    ----------
    run_id : str
        The run that was attempted.
    number : int
        The attempt's number, from 1.
    path : Path
        Its folder.
    status : Status
        ``interrupted`` if it ended without a record, ``not run yet`` if it is still going
        on, or was a record that has been set aside.
    reason : str
        Why, one line.
    record : Record or None
        Its record, if it has a sound one.
    """

    run_id: str
    number: int
    path: Path
    status: Status
    reason: str
    record: Record | None = None


def split_name(name: str) -> tuple[str, int]:
    """Return run id and number of an attempt's folder name.

    Raises
    ------
    ValueError
        If it is no such name.
    """
    found = _FOLDER.fullmatch(name)
    if found is None:
        raise ValueError(f"'{name}' is no attempt's folder: expected <run id>-<number>")
    return found["run_id"], int(found["number"])


def attempts_of(folder: Path, run_id: str | None = None) -> Iterator[tuple[str, int, Path]]:
    """Yield run id, number and path of the attempts in ``folder``, in order of number."""
    found = []
    with suppress(FileNotFoundError, NotADirectoryError):
        for path in folder.iterdir():
            with suppress(ValueError):
                name, number = split_name(path.name)
                if run_id in (None, name):
                    found.append((name, number, path))
    yield from sorted(found)


def allocate(folder: Path, run_id: str, last: int = 0) -> Path:
    """Make and return the folder of a run's next attempt.

    Making the folder is what takes the number, so that two processes never share one.

    Parameters
    ----------
    folder : Path
        The experiment's ``attempts`` folder.
    run_id : str
        The run.
    last : int
        A number that is taken elsewhere (by the run's final record).

    Raises
    ------
    StoreError
        If it can't be made.
    """
    make_folder(folder)
    number = max([last, *(number for _, number, _ in attempts_of(folder, run_id))]) + 1
    while True:
        path = folder / f"{run_id}-{number}"
        try:
            with writing(path):
                path.mkdir()
        except StoreError as error:
            if not isinstance(error.__cause__, FileExistsError):
                raise
            number += 1
        else:
            return path


def mark_started(path: Path) -> None:
    """Note in an attempt's folder which process works on it."""
    import psutil

    process = psutil.Process()
    started = {"host": host_name(), "pid": process.pid, "created": process.create_time()}
    write_json(path / STARTED_NAME, {**started, "time": time.time()})


def set_aside(folder: Path, reason: str) -> Path | None:
    """Move a run's folder among the attempts, with the reason beside it.

    Returns
    -------
    Path or None
        Where it is now; ``None`` if it was gone already.
    """
    attempts = make_folder(folder.parent / "attempts")
    target = allocate(attempts, folder.name)
    try:
        with writing(folder):
            # Renaming onto the empty folder that holds the number: one step, nothing lost.
            folder.rename(target)
    except StoreError as error:
        remove(target)
        if isinstance(error.__cause__, FileNotFoundError):
            return None
        raise
    sync_folder(attempts)
    sync_folder(folder.parent)
    # The reason is a courtesy: on a full disk the move must still count.
    with suppress(StoreError):
        write_json(target / MOVED_NAME, {"reason": reason, "time": time.time()})
    return target


def inspect(path: Path) -> AttemptInfo:
    """Return what is known of the attempt in ``path``."""
    run_id, number = split_name(path.name)
    try:
        record: Record | None = read_record_of(path, run_id)
    except (FileNotFoundError, NotADirectoryError, DamagedError, UnknownSchemaError):
        record = None
    with suppress(FileNotFoundError, NotADirectoryError, DamagedError):
        reason = str(read_json(path / MOVED_NAME).get("reason", "set aside"))
        return AttemptInfo(run_id, number, path, Status.NOT_RUN, reason, record)
    if record is not None and not record.status.is_final:
        return AttemptInfo(run_id, number, path, record.status, record.reason or "", record)
    if record is None and _worked_on(path):
        return AttemptInfo(run_id, number, path, Status.NOT_RUN, "running now")
    if record is not None and not (path / STARTED_NAME).exists():
        return AttemptInfo(run_id, number, path, Status.NOT_RUN, "set aside", record)
    reason = "ended without a record (killed?)"
    return AttemptInfo(run_id, number, path, Status.INTERRUPTED, reason)


def _worked_on(path: Path) -> bool:
    import psutil

    try:
        started = read_json(path / STARTED_NAME)
    except (FileNotFoundError, NotADirectoryError, DamagedError):
        return False
    if started.get("host") != host_name():
        return True
    try:
        created = psutil.Process(int(started["pid"])).create_time()
    except (psutil.Error, KeyError, ValueError):
        return False
    # Numbers of dead processes are given again: the same one was also born then.
    return abs(created - float(started.get("created", 0.0))) < 1.0


def history_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return rows as CSV; floats with all their digits."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({key: "" if value is None else value for key, value in row.items()})
    return text.getvalue()


def read_history(path: Path) -> list[dict[str, float | str]]:
    """Read a history, numbers as floats; empty if there is no such file."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return []
    return [{key: _number(value) for key, value in row.items()} for row in _rows(text)]


def _rows(text: str) -> list[dict[str, str]]:
    return [
        {key: value for key, value in row.items() if key is not None and value is not None}
        for row in csv.DictReader(io.StringIO(text))
    ]


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text
