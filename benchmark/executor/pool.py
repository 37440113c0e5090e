"""The pool: some jobs at a time on this machine, each in a process of its own."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

from benchmark.executor import forkserver, worker
from benchmark.executor.base import Job, OnEvent, Outcome
from benchmark.executor.running import POLL, RunningJob


class PoolExecutor:
    """Computes up to ``workers`` jobs at once, each in a child process that can be killed.

    One thread waits for all of them, so events and outcomes come in the caller's own.

    Parameters
    ----------
    target : str
        ``"module:function"``; it is called in the child with the payload and an
        :class:`~benchmark.executor.worker.EventSender`, and may return a JSON value.
    workers : int
        Jobs at a time. It changes no job's result.
    gpus : sequence of str
        Names of the GPUs to deal out, as ``CUDA_VISIBLE_DEVICES`` takes them; job after job
        gets the next one that fewest others use. Empty: every job sees what the caller sees.
    grace : float
        Seconds that a job gets to end by itself before it is killed, and seconds that
        its process gets to close down after it.
    preload : sequence of str
        Modules that the fork server imports once.

    Raises
    ------
    ValueError
        If there is not at least one worker.
    """

    def __init__(
        self,
        target: str,
        *,
        workers: int = 1,
        gpus: Sequence[str] = (),
        grace: float = 2.0,
        preload: Sequence[str] = forkserver.PRELOAD,
    ) -> None:
        if workers < 1:
            raise ValueError(f"a pool has at least 1 worker, not {workers}")
        self._target = target
        self._workers = workers
        self._gpus = tuple(gpus)
        self._grace = grace
        self._context = forkserver.context(preload)

    def run(self, jobs: Iterable[Job | None], on_event: OnEvent | None = None) -> Iterator[Outcome]:
        """Compute jobs and yield each outcome as it comes; see :class:`Executor`.

        After the outcomes ``interrupted`` by Ctrl-C, asking for the next one raises
        ``KeyboardInterrupt``.
        """
        source = iter(jobs)
        running: list[RunningJob] = []
        over, ask = False, 0.0
        try:
            while not over or any(not job.optional for job in running):
                try:
                    if not over and len(running) < self._workers and time.monotonic() >= ask:
                        over = self._take(source, running, on_event)
                        ask = time.monotonic() + POLL
                    ended = _look(running)
                except KeyboardInterrupt:
                    for job in running:
                        job.end()
                    for job in running:
                        yield job.interrupted()
                    raise
                if ended:
                    ask = 0.0
                yield from ended
        finally:
            for job in running:
                job.end()

    def _take(
        self, source: Iterator[Job | None], running: list[RunningJob], on_event: OnEvent | None
    ) -> bool:
        """Start jobs for idle workers; return whether there are no more."""
        while len(running) < self._workers:
            try:
                job = next(source)
            except StopIteration:
                return True
            if job is None:
                if not running:
                    time.sleep(POLL)
                return False
            running.append(self._start(job, running, on_event))
        return False

    def _start(
        self, job: Job, others: Sequence[RunningJob], on_event: OnEvent | None
    ) -> RunningJob:
        gpu = None
        if self._gpus:
            used = [other.gpu for other in others]
            gpu = min(self._gpus, key=used.count)
        running = RunningJob(job, on_event, self._grace, gpu=gpu)
        reader, writer = self._context.Pipe(duplex=False)
        with writer:  # the process has an end of its own
            try:
                running.start(self._process(job, writer, gpu), reader)
            except BaseException:
                running.end()
                raise
        return running

    def _process(self, job: Job, writer: Connection[Any, Any], gpu: str | None) -> BaseProcess:
        options = {
            "threads": job.threads,
            "log_level": logging.getLogger().getEffectiveLevel(),
            "gpu": gpu,
        }
        return self._context.Process(
            target=worker.main,
            args=(self._target, job.payload_json(), writer),
            kwargs=options,
            name=f"run-{job.run_id}",
            # Not waited for when the caller's interpreter exits, but ended.
            daemon=True,
        )


def _look(running: list[RunningJob]) -> list[Outcome]:
    """Wait for news of any job; take those that ended out of the list."""
    if not running:
        return []
    sources = [source for job in running for source in job.sources()]
    patience = min([POLL, *(job.seconds_left() for job in running)])
    ready = wait(sources, max(patience, 0.0))
    outcomes = []
    for job in list(running):
        outcome = job.look(ready)
        if outcome is not None:
            running.remove(job)
            outcomes.append(outcome)
    return outcomes
