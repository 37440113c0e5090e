"""One job in its process, seen from the caller's side."""

from __future__ import annotations

import json
import logging
import signal
import time
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
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
    gpu : str, optional
        The GPU that it was given.
    """

    def __init__(
        self, job: Job, on_event: OnEvent | None, grace: float, *, gpu: str | None = None
    ) -> None:
        self.gpu = gpu
        self._job = job
        self._on_event = on_event
        self._grace = grace
        self._began = time.monotonic()
        self._limit = float("inf") if job.timeout is None else self._began + job.timeout
        self._process: BaseProcess | None = None
        self._reader: Connection[Any, Any] | None = None
        self._listening: Connection[Any, Any] | None = None
        self._ending: dict[str, Any] | None = None
        self._peak = 0
        self._over = False

    @property
    def optional(self) -> bool:
        """Whether the job only helps others."""
        return self._job.optional

    def start(self, process: BaseProcess, reader: Connection[Any, Any]) -> None:
        """Start the process that writes to the other end of ``reader``."""
        self._process, self._reader, self._listening = process, reader, reader
        forkserver.start(process)

    def sources(self) -> list[Any]:
        """Return what to wait on for news: the process's end, and what it says."""
        process = self._started()
        return [process.sentinel] if self._listening is None else [process.sentinel, self._reader]

    def seconds_left(self) -> float:
        """Return the seconds until its time is up; infinite without a limit."""
        return self._limit - time.monotonic()

    def look(self, ready: Sequence[Any]) -> Outcome | None:
        """Take what is new; return what became of the job if it has ended or ran out of time.

        Parameters
        ----------
        ready : sequence
            Those of :meth:`sources` (and of other jobs) that have news.
        """
        process = self._started()
        self._peak = max(self._peak, resident_memory(process.pid or 0))
        if self._listening is not None and self._listening in ready:
            if not self._receive(self._listening):
                self._listening = None
        elif process.sentinel in ready:
            return self._concluded(timed_out=False)
        if self._ending is not None:
            # It has said how it ended: what remains is closing down.
            self._limit = min(self._limit, time.monotonic() + self._grace)
        if self.seconds_left() <= 0:
            return self._concluded(timed_out=True)
        return None

    def _concluded(self, *, timed_out: bool) -> Outcome:
        process = self._started()
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
        if code == -signal.SIGKILL and self._peak:  # perhaps killed for its memory: how much?
            reason += f"; seen to hold {self._peak / 2**30:.1f} GiB"
        return self._outcome(Status.FAILED, reason, lost=True)

    def interrupted(self) -> Outcome:
        """Return the outcome of a job that was ended by Ctrl-C or SIGTERM."""
        return self._outcome(Status.INTERRUPTED, "interrupted (Ctrl-C or SIGTERM)")

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
        return Outcome(self._job.run_id, status, reason, seconds, **more)
