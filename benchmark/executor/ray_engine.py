"""The Ray engine: jobs as tasks on a cluster, each still in a child process of its own."""

from __future__ import annotations

import importlib
import logging
import socket
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmark.errors import UserError
from benchmark.executor import ray_node
from benchmark.executor.base import Event, Job, OnEvent, Outcome
from benchmark.store.status import Status

POLL = 0.5
"""Seconds between two looks at silent tasks, and at whether the cluster has grown."""

PATIENCE = 10.0
"""Seconds that the cluster's head has to answer; Ray itself would try for minutes."""

RETRIES = 3
"""Times that a run is tried again whose node or worker died: clusters lose more than one."""


class _Task:
    """A job at work somewhere: its job, the stream of its messages, and when it was sent."""

    def __init__(self, job: Job, stream: Any) -> None:
        self.job = job
        self.stream = stream
        self.began = time.monotonic()

    def outcome(self, status: Status, reason: str, **more: Any) -> Outcome:
        seconds = time.monotonic() - self.began
        return Outcome(self.job.run_id, status, reason, seconds, **more)


class RayExecutor:
    """Computes jobs on a Ray cluster, as many at once as it has CPUs (or GPUs) for.

    A job whose node or worker died comes back as ``lost``, for the grid to try again in a new
    attempt; Ray's own retry would write into the folder of the one that may still live.

    Parameters
    ----------
    target : str
        What is called with each payload; see :class:`PoolExecutor`.
    address : str
        Of the cluster's head, ``host:port``; ``auto`` for the one that this machine belongs to.
    workers : int or None
        Jobs at a time at most; as many as fit if not given.
    gpu : bool
        Whether each job needs a GPU.
    ship : bool
        Whether nodes work in folders of their own and send finished runs back through Ray's
        object store; otherwise they write to the results folder, which all must share.
    preload : sequence of str
        Modules that each node's fork server imports.

    Raises
    ------
    UserError
        If Ray is not installed, or there is no such cluster.
    """

    def __init__(
        self,
        target: str,
        *,
        address: str = "auto",
        workers: int | None = None,
        gpu: bool = False,
        ship: bool = False,
        preload: Sequence[str] = (),
    ) -> None:
        self._ray = _connected(address)
        self._target = target
        self._workers = workers
        self._gpu = gpu
        self._ship = ship
        self._preload = tuple(preload)

    def room(self, threads: int) -> int:
        """Return how many jobs of so many threads the living nodes can compute at once.

        A job runs on one node, so CPUs that several nodes have left over count nothing.
        """
        total = 0
        for node in self._ray.nodes():
            if not node["Alive"]:
                continue
            fits = int(node["Resources"].get("CPU", 0)) // threads
            if self._gpu:
                fits = min(fits, int(node["Resources"].get("GPU", 0)))
            total += fits
        return total if self._workers is None else min(total, self._workers)

    def run(self, jobs: Iterable[Job | None], on_event: OnEvent | None = None) -> Iterator[Outcome]:
        """Compute jobs and yield each outcome as it comes; see :class:`Executor`.

        Raises
        ------
        UserError
            If no node of the cluster has the CPUs, or the GPU, that a job needs.
        """
        source = iter(jobs)
        running: list[_Task] = []
        over = False
        threads = 1
        try:
            while not over or any(not task.job.optional for task in running):
                try:
                    while not over and (not running or len(running) < self.room(threads)):
                        job, over = _next(source)
                        if job is None:
                            break
                        threads = max(threads, job.threads)
                        running.append(self._submit(job, idle=not running))
                    ended = self._look(running, on_event)
                except KeyboardInterrupt:
                    self._cancel(running)
                    for task in running:
                        yield task.outcome(Status.INTERRUPTED, "interrupted (Ctrl-C or SIGTERM)")
                    running.clear()
                    raise
                yield from ended
        finally:
            self._cancel(running)

    def _submit(self, job: Job, *, idle: bool) -> _Task:
        if idle and not self.room(job.threads):
            what = f"{job.threads} CPUs" + (" and a GPU" if self._gpu else "")
            raise UserError(f"--engine ray: no node of the cluster has {what} for a run")
        task = self._ray.remote(ray_node.compute).options(
            num_cpus=job.threads,
            num_gpus=1 if self._gpu else 0,
            max_retries=0,
            num_returns="streaming",
            scheduling_strategy="SPREAD",
            name=f"run-{job.run_id}",
        )
        sent = ray_node.encoded(job)
        stream = task.remote(self._target, sent, self._preload, gpu=self._gpu, ship=self._ship)
        return _Task(job, stream)

    def _look(self, running: list[_Task], on_event: OnEvent | None) -> list[Outcome]:
        """Wait for news of any task; take those that ended out of the list."""
        if not running:
            time.sleep(POLL)
            return []
        streams = [task.stream for task in running]
        ready, _ = self._ray.wait(streams, timeout=POLL, fetch_local=True)
        outcomes = []
        for task in [task for task in running if any(task.stream is each for each in ready)]:
            outcome = self._receive(task, on_event)
            if outcome is not None:
                running.remove(task)
                outcomes.append(outcome)
        return outcomes

    def _receive(self, task: _Task, on_event: OnEvent | None) -> Outcome | None:
        """Take a task's next message; return its outcome if that is what it was."""
        errors = self._ray.exceptions
        try:
            kind, text, files = self._ray.get(next(task.stream))
        except StopIteration:
            return task.outcome(Status.FAILED, "its task ended without a word", lost=True)
        except errors.RayTaskError as error:  # the suite is not on that node, for instance
            reason = " ".join(str(error.cause).split()) or "unknown"
            return task.outcome(Status.FAILED, f"on its node: {reason}", detail=str(error))
        except errors.RayError as error:
            reason = f"its node or worker died ({type(error).__name__})"
            return task.outcome(Status.FAILED, reason, lost=True)
        data = ray_node.decoded(text)
        if kind == ray_node.EVENT:
            if on_event is not None:
                on_event(Event(task.job.run_id, data.pop("kind"), data))
            return None
        if files:
            ray_node.publish(Path(task.job.payload["attempt"]), files)
        return Outcome(**data | {"status": Status(data["status"])})

    def _cancel(self, running: Sequence[_Task]) -> None:
        """End tasks for good: their worker processes die, and with them the jobs."""
        for task in running:
            self._ray.cancel(task.stream, force=True)


def _next(source: Iterator[Job | None]) -> tuple[Job | None, bool]:
    """Return the next job (or ``None``), and whether there are no more."""
    try:
        return next(source), False
    except StopIteration:
        return None, True


def _check_reachable(address: str) -> None:
    """Refuse an address of another form, or one where nobody listens."""
    host, _, port = address.rpartition(":")
    if not host or "/" in host or not (port.isascii() and port.isdigit()):
        raise UserError(f"--address: '{address}' is not of the form host:port, such as head:6379")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=PATIENCE).close()
    except (OSError, OverflowError) as error:
        raise UserError(f"--engine ray: nobody answers at '{address}' ({error})") from None


def _connected(address: str) -> Any:
    """Return the module ``ray``, connected to a cluster."""
    try:
        ray: Any = importlib.import_module("ray")
    except ImportError:
        raise UserError(
            "--engine ray: Ray is not installed; run `pip install -e '.[ray]'` in the project's "
            "folder, on every node"
        ) from None
    if ray.is_initialized():
        return ray
    if address != "auto":
        _check_reachable(address)
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.WARNING)
    except (ConnectionError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"--engine ray: no cluster at '{address}' ({reason}); start one with "
            "`ray start --head`, or name its head with --address host:port"
        ) from None
    return ray
