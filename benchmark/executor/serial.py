"""The serial executor: one job at a time, each in a process of its own."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

from benchmark.executor import forkserver, worker
from benchmark.executor.base import Job, OnEvent, Outcome
from benchmark.executor.running import RunningJob


class SerialExecutor:
    """Computes jobs one after the other, each in a child process that can be killed.

    Parameters
    ----------
    target : str
        ``"module:function"``; it is called in the child with the payload and an
        :class:`~benchmark.executor.worker.EventSender`, and may return a JSON value.
    grace : float
        Seconds that a job gets to end by itself before it is killed, and seconds that
        its process gets to close down after it.
    preload : sequence of str
        Modules that the fork server imports once.
    progress_interval : float
        Seconds between two progress events of a job.
    """

    def __init__(
        self,
        target: str,
        *,
        grace: float = 2.0,
        preload: Sequence[str] = forkserver.PRELOAD,
        progress_interval: float = 0.1,
    ) -> None:
        self._target = target
        self._grace = grace
        self._interval = progress_interval
        self._context = forkserver.context(preload)

    def warm_up(self) -> None:
        """Start the fork server now, so that it imports while the caller prepares."""
        forkserver.ensure_running()

    def run(self, jobs: Iterable[Job], on_event: OnEvent | None = None) -> Iterator[Outcome]:
        """Compute jobs and yield each outcome in turn; see :class:`~benchmark.executor.Executor`.

        After an outcome ``interrupted`` by Ctrl-C, asking for the next one raises
        ``KeyboardInterrupt``.
        """
        for job in jobs:
            running = RunningJob(job, on_event, self._grace)
            try:
                reader, writer = self._context.Pipe(duplex=False)
                running.start(self._process(job, writer), reader)
                writer.close()
                outcome = running.outcome()
            except KeyboardInterrupt:
                running.end()
                yield running.interrupted()
                raise
            finally:
                running.end()
            yield outcome

    def _process(self, job: Job, writer: Connection[Any, Any]) -> BaseProcess:
        options = {
            "threads": job.threads,
            "log_level": logging.getLogger().getEffectiveLevel(),
            "interval": self._interval,
        }
        return self._context.Process(
            target=worker.main,
            args=(self._target, job.payload_json(), writer),
            kwargs=options,
            name=f"run-{job.run_id}",
            # Not waited for when the caller's interpreter exits, but ended.
            daemon=True,
        )
