"""A node's side of the Ray engine: one job, computed as anywhere, and its files sent back."""

from __future__ import annotations

import json
import os
import queue
import shutil
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from benchmark.executor.base import Event, Job, Outcome
from benchmark.executor.pool import PoolExecutor
from benchmark.store import Attempt, read_record
from benchmark.store.files import make_folder, sweep, temporary_name

Message = tuple[str, str, dict[str, bytes]]
"""Kind (``event`` or ``outcome``), JSON text, and the run's files by name."""

EVENT, OUTCOME = "event", "outcome"


def compute(
    target: str, job: str, preload: Sequence[str], *, gpu: bool, ship: bool
) -> Iterator[Message]:
    """Compute a job in a child process of this Ray worker; yield what it says, then its outcome.

    The child is the same as a pool's on one machine: it has a time limit and words for every
    way to die, and it ends when this process does (with its node, or cancelled).

    Parameters
    ----------
    target : str
        What the child calls.
    job : str
        The fields of a :class:`Job`, as JSON.
    preload : sequence of str
        Modules that the fork server imports.
    gpu : bool
        Whether Ray gave this task a GPU.
    ship : bool
        Work in a folder of this node, and yield the finished run's files with the outcome.
    """
    messages: queue.SimpleQueue[Message | BaseException] = queue.SimpleQueue()

    def work() -> None:
        try:
            _work(target, Job(**json.loads(job)), preload, messages, gpu=gpu, ship=ship)
        except BaseException as error:  # noqa: BLE001 - raised again in the task's own thread
            messages.put(error)

    threading.Thread(target=work, name="ray-job", daemon=True).start()
    while True:
        message = messages.get()
        if isinstance(message, BaseException):
            raise message
        yield message
        if message[0] == OUTCOME:
            return


def _work(
    target: str,
    job: Job,
    preload: Sequence[str],
    messages: queue.SimpleQueue[Message | BaseException],
    *,
    gpu: bool,
    ship: bool,
) -> None:
    def on_event(event: Event) -> None:
        messages.put((EVENT, json.dumps(event.data | {"kind": event.kind}), {}))

    # Ray's worker lives on with other GPUs: each job is told its own.
    gpus = (os.environ["CUDA_VISIBLE_DEVICES"],) if gpu else ()
    pool = PoolExecutor(target, gpus=gpus, preload=preload)
    place = working_place() if ship else None
    try:
        here = job if place is None else _moved(job, place)
        (outcome,) = pool.run([here], on_event)
        files = {} if place is None else _files(place, outcome)
        messages.put((OUTCOME, json.dumps(asdict(outcome)), files))
    finally:
        if place is not None:
            shutil.rmtree(place, ignore_errors=True)


def own_folder() -> Path:
    """Return this user's folder on the node, where shipped jobs and their cache are."""
    return Path(tempfile.gettempdir()) / f"oneshot-fl-{os.getuid()}"


def working_place() -> Path:
    """Make a folder for one job; remove those of jobs that were killed with their worker.

    Raises
    ------
    PermissionError
        If another user has made this user's folder.
    """
    folder = own_folder()
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise PermissionError(f"{folder} belongs to somebody else")
    sweep(folder)
    return make_folder(folder / temporary_name("job"))


def _moved(job: Job, place: Path) -> Job:
    """Return the job with its attempt in ``place`` and its cache in this node's own folder."""
    attempt = place / "attempts" / Path(job.payload["attempt"]).name
    attempt.mkdir(parents=True)
    payload = job.payload | {"attempt": str(attempt), "cache": str(own_folder() / "cache")}
    return replace(job, payload=payload)


def _files(place: Path, outcome: Outcome) -> dict[str, bytes]:
    """Return the files of a run that was published in ``place``; none if it was not."""
    folder = place / outcome.run_id
    if not folder.is_dir():
        return {}
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}


def publish(attempt_path: Path, files: Mapping[str, bytes]) -> None:
    """Publish, in the caller's store, a run whose files came from a node.

    Raises
    ------
    StoreError
        If it can't be written.
    DamagedError
        If its record is not what the node wrote.
    """
    attempt = Attempt(attempt_path)
    for name, data in files.items():
        attempt.write_bytes(name, data)
    attempt.publish(read_record(attempt_path))


def encoded(job: Job) -> str:
    """Return a job as JSON text for :func:`compute`."""
    return json.dumps(asdict(job))


def decoded(text: str) -> dict[str, Any]:
    """Return a message's values."""
    values: dict[str, Any] = json.loads(text)
    return values
