"""One job in its process, seen from the caller's side."""

from __future__ import annotations

import json
import logging
import time
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

from benchmark.executor import forkserver, worker
from benchmark.executor.base import Event, Job, OnEvent, Outcome
from benchmark.executor.processes import describe_exit, end_tree, kill_group, resident_memory
from benchmark.store.status import Status

POLL = 0.5
"""Seconds between two looks at a silent job's memory."""

MAX_LATE_MESSAGES = 1000
"""Messages taken after the end, at most: a job out of time may still be talking."""

_SERVER_GONE = 255
"""Exit status that multiprocessing gives a worker whose fork server vanished."""


class RunningJob:
    """One job in its process: started, listened to, and ended for certain.

    Parameters
    ----------
    job : Job
        What is computed.
    on_event : callable or None
        Told of each event.
    grace : float
        Seconds between asking the process to end and killing it.
    """

    def __init__(self, job: Job, on_event: OnEvent | None, grace: float) -> None:
        self._job = job
        self._on_event = on_event
        self._grace = grace
        self._began = time.monotonic()
        self._process: BaseProcess | None = None
        self._reader: Connection[Any, Any] | None = None
        self._ending: dict[str, Any] | None = None
        self._peak = 0
        self._over = False

    def start(self, process: BaseProcess, reader: Connection[Any, Any]) -> None:
        """Start the process that writes to the other end of ``reader``."""
        self._process, self._reader = process, reader
        forkserver.start(process)

    def outcome(self) -> Outcome:
        """Wait for the end, or for the time limit, and return what became of the job."""
        process = self._started()
        timed_out = self._listen(process)
        self._drain()
        code = process.exitcode
        self.end()
        if self._ending is not None:
            return self._said(self._ending)
        if timed_out:
            return self._outcome(
                Status.TIMED_OUT, f"took over {self._job.timeout:g} s, and was ended"
            )
        reason = describe_exit(code)
        if code == _SERVER_GONE:
            reason += " (or its fork server was killed)"
        return self._outcome(Status.FAILED, reason)

    def interrupted(self) -> Outcome:
        """Return the outcome of a job that was ended by Ctrl-C."""
        return self._outcome(Status.INTERRUPTED, "interrupted by Ctrl-C")

    def end(self) -> None:
        """End the process and all it started, if it has not ended; then close the pipe."""
        process = self._process
        if process is None or self._over:
            return
        pid = process.pid
        if pid is not None:
            if process.is_alive():
                end_tree(pid, self._grace)
                process.join(self._grace)
            kill_group(pid)
        self._over = True
        if self._reader is not None:
            self._reader.close()
        with suppress(ValueError):  # it is still dying; its resources go with this process
            process.close()

    def _started(self) -> BaseProcess:
        if self._process is None:
            raise RuntimeError(f"run {self._job.run_id} has not been started")
        return self._process

    def _listen(self, process: BaseProcess) -> bool:
        """Pass events on until the process has ended; return whether time ran out."""
        limit = float("inf") if self._job.timeout is None else self._began + self._job.timeout
        reader = self._reader
        while True:
            if self._ending is not None:
                # It has said how it ended: what remains is closing down.
                limit = min(limit, time.monotonic() + self._grace)
            left = limit - time.monotonic()
            if left <= 0:
                return True
            sources: list[Any] = (
                [process.sentinel] if reader is None else [process.sentinel, reader]
            )
            ready = wait(sources, min(left, POLL))
            self._peak = max(self._peak, resident_memory(process.pid or 0))
            if reader is not None and reader in ready:
                if not self._receive(reader):
                    reader = None
            elif ready:
                return False

    def _drain(self) -> None:
        """Take what it said in its last moment."""
        for _ in range(MAX_LATE_MESSAGES):
            with suppress(OSError):
                if self._reader and self._reader.poll() and self._receive(self._reader):
                    continue
            return

    def _receive(self, reader: Connection[Any, Any]) -> bool:
        """Take one message; return whether more may come."""
        try:
            message = json.loads(reader.recv_bytes())
        except (EOFError, OSError):
            return False
        kind, data = message["kind"], message["data"]
        if kind == worker.END:
            self._ending = data
        elif kind == worker.LOG:
            logging.getLogger(data["logger"]).log(data["level"], "%s", data["text"])
        elif self._on_event is not None:
            self._on_event(Event(self._job.run_id, kind, data))
        return True

    def _said(self, ending: dict[str, Any]) -> Outcome:
        self._peak = max(self._peak, int(ending["peak_memory"]))
        return self._outcome(
            Status(ending["status"]),
            ending["reason"],
            detail=ending.get("detail", ""),
            user_error=bool(ending.get("user_error", False)),
            step=ending.get("step"),
            result=ending.get("result"),
        )

    def _outcome(self, status: Status, reason: str, **more: Any) -> Outcome:
        seconds = time.monotonic() - self._began
        return Outcome(self._job.run_id, status, reason, seconds, self._peak or None, **more)
