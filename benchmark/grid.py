"""The grid: what is done already, what is left, and one record for every cell."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from benchmark.executor import Event, Executor, Job, Outcome, SerialExecutor
from benchmark.experiment import ExperimentSpec, PlannedRun
from benchmark.registry import BrokenPlugin
from benchmark.store import Attempt, BusyError, Cell, ExperimentStore, Record, Status, Store

log = logging.getLogger(__name__)

TARGET = "benchmark.engine:execute"
"""What a child process calls for each run."""

PRELOAD = ("benchmark.engine", "torch._dynamo")
"""Imported once by the fork server, so that children start warm (optimisers import dynamo)."""


@dataclass(frozen=True)
class Options:
    """How a grid is run; nothing here changes a result.

    Parameters
    ----------
    results : Path
        The results folder; the cache lies in its ``.cache``.
    data_root : Path or None
        Where datasets are looked for first.
    inception_weights : Path or None
        The file of Inception's weights, where they are not in torch's cache.
    cache : bool
        Whether the cache is read and written.
    timeout : float or None
        Seconds after which a run is ended.
    force : frozenset of str
        Methods (or labels) whose finished runs are run again; ``all`` means every one.
    """

    results: Path
    data_root: Path | None = None
    inception_weights: Path | None = None
    cache: bool = True
    timeout: float | None = None
    force: frozenset[str] = frozenset()

    @property
    def cache_folder(self) -> Path:
        """Where artifacts are cached."""
        return self.results / ".cache"

    def forced(self, run: PlannedRun) -> bool:
        """Return whether a run is to be run again."""
        return bool(self.force & {"all", run.info.name, run.label})


class Listener(Protocol):
    """Who watches a grid."""

    def started(self, index: int, total: int, run: PlannedRun) -> None:
        """Take note that run ``index`` (1-based) of ``total`` starts."""

    def progress(
        self, run: PlannedRun, phase: str, step: int, total: int, scalars: dict[str, float]
    ) -> None:
        """Take note of a run's progress."""

    def finished(self, run: PlannedRun, record: Record, seconds: float) -> None:
        """Take note of how a run ended."""

    def note(self, text: str) -> None:
        """Take note of anything else worth a line."""


@dataclass(frozen=True)
class GridResult:
    """What became of a grid.

    Parameters
    ----------
    done, already, skipped, failed : int
        Runs finished now, finished before, not supported, and without a result.
    user_error : bool
        Whether a run failed for something that the user can mend.
    experiment : str
        Name of the experiment.
    """

    done: int
    already: int
    skipped: int
    failed: int
    user_error: bool
    experiment: str


@dataclass
class _Tally:
    done: int = 0
    already: int = 0
    skipped: int = 0
    failed: int = 0
    user_error: bool = False


@dataclass
class _Session:
    """One command at work on one experiment."""

    store: ExperimentStore
    options: Options
    listener: Listener
    total: int
    tally: _Tally = field(default_factory=_Tally)
    attempts: dict[str, tuple[PlannedRun, Attempt, ExitStack]] = field(default_factory=dict)

    def jobs(self, runs: Sequence[PlannedRun]) -> Iterator[Job]:
        """Yield a job for each run that has no result, holding the run's lock meanwhile."""
        busy: list[tuple[int, PlannedRun]] = []
        for index, run in enumerate(runs, start=1):
            try:
                job = self._open(index, run, wait=0.0)
            except BusyError:
                busy.append((index, run))
                continue
            if job is not None:
                yield job
        for index, run in busy:
            self.listener.note(f"{run.label}: another command is at it; waiting for its result")
            job = self._open(index, run, wait=None)
            if job is not None:
                yield job

    def _open(self, index: int, run: PlannedRun, wait: float | None) -> Job | None:
        with ExitStack() as stack:
            stack.enter_context(self.store.lock(run.spec.run_id, wait))
            if self._settled(run):
                return None
            attempt = self.store.begin(run.spec.run_id)
            self.listener.started(index, self.total, run)
            self.attempts[run.spec.run_id] = (run, attempt, stack.pop_all())
        return Job(
            run_id=run.spec.run_id,
            payload=_payload(run, attempt, self.options),
            timeout=self.options.timeout,
            threads=run.spec.compute.threads,
        )

    def _settled(self, run: PlannedRun) -> bool:
        """Count a run that needs no work: finished before, or not supported."""
        record = self.store.find(run.spec.run_id)
        if record is None and run.skip is not None:
            attempt = self.store.begin(run.spec.run_id)
            attempt.publish(_record(run, Status.SKIPPED, run.skip))
            record = self.store.find(run.spec.run_id)
        if record is None:
            return False
        if record.status is Status.SKIPPED:
            self.tally.skipped += 1
        elif record.status is Status.DIVERGED:
            self.tally.failed += 1
            self.listener.note(f"{run.label}: {record.reason} (use --force to try again)")
        else:
            self.tally.already += 1
        return True

    def close(self, outcome: Outcome) -> None:
        """Keep the record of a run that ended, whichever way."""
        run, attempt, stack = self.attempts.pop(outcome.run_id)
        with stack:
            record = self.store.find(outcome.run_id)
            if record is None:
                record = _record(run, _unfinished(outcome), outcome.reason, outcome)
                if outcome.detail:
                    attempt.write_bytes("traceback.txt", outcome.detail.encode())
                if record.status.is_final:
                    attempt.publish(record)
                else:
                    attempt.fail(record)
            if record.status is Status.DONE:
                self.tally.done += 1
            else:
                self.tally.failed += 1
                self.tally.user_error |= outcome.user_error
        self.listener.finished(run, record, outcome.seconds)

    def abandon(self) -> None:
        """Give back the locks of runs that never got an outcome."""
        for _, _, stack in self.attempts.values():
            stack.close()
        self.attempts.clear()


def execute(
    experiment: ExperimentSpec,
    runs: Sequence[PlannedRun],
    broken: Sequence[BrokenPlugin],
    options: Options,
    listener: Listener,
    *,
    executor: Executor | None = None,
) -> GridResult:
    """Run what has no result yet, one record a cell.

    Runs that are finished are not run again; failed, timed-out and interrupted ones are.
    Ctrl-C ends the current run, keeps everything that is finished, and passes on.

    Raises
    ------
    StoreError
        If the results folder can't be written to, or the disk is full.
    KeyboardInterrupt
        If the user interrupts.
    """
    store = Store(options.results)
    store.check_writable()
    session = _Session(store.experiment(experiment.experiment), options, listener, total=len(runs))
    session.store.update_manifest(
        _cells(runs),
        {plugin.name: plugin.reason for plugin in broken},
        {**experiment.canonical(), "profile": experiment.profile},
    )
    session.store.sweep()
    for plugin in broken:
        listener.note(f"method '{plugin.name}' is not installed: {plugin.reason}")
    for run in runs:
        if options.forced(run) and run.skip is None:
            session.store.supersede(run.spec.run_id)
    by_id = {run.spec.run_id: run for run in runs}

    def on_event(event: Event) -> None:
        if event.kind == "progress":
            data = event.data
            run = by_id[event.run_id]
            listener.progress(run, data["phase"], data["step"], data["total"], data["scalars"])

    executor = executor or SerialExecutor(TARGET, preload=PRELOAD)
    try:
        for outcome in executor.run(session.jobs(runs), on_event):
            session.close(outcome)
    finally:
        session.abandon()
    tally = session.tally
    return GridResult(
        tally.done,
        tally.already,
        tally.skipped,
        tally.failed,
        tally.user_error,
        experiment.experiment,
    )


def preview(
    experiment: ExperimentSpec, runs: Sequence[PlannedRun], options: Options
) -> list[tuple[PlannedRun, str]]:
    """Return what each run's status is, without running anything or writing a file."""
    store = Store(options.results).experiment(experiment.experiment)
    shown = []
    for run in runs:
        record = store.find(run.spec.run_id)
        if run.skip is not None:
            shown.append((run, f"skipped: {run.skip}"))
        elif record is None or options.forced(run):
            shown.append((run, "to run"))
        else:
            shown.append((run, str(record.status)))
    return shown


def _cells(runs: Sequence[PlannedRun]) -> dict[str, Cell]:
    return {
        run.spec.cell_id: Cell.of(run.spec.run_id, run.label, run.spec.canonical(), order)
        for order, run in enumerate(runs)
    }


def _payload(run: PlannedRun, attempt: Attempt, options: Options) -> dict[str, Any]:
    return {
        "spec": run.spec.canonical(),
        "info": run.info.model_dump(mode="json"),
        "label": run.label,
        "attempt": str(attempt.path.resolve()),
        "cache": str(options.cache_folder.resolve()),
        "use_cache": options.cache,
        "data_root": str(options.data_root.resolve()) if options.data_root else None,
        "inception_weights": (
            str(options.inception_weights.resolve()) if options.inception_weights else None
        ),
    }


def _unfinished(outcome: Outcome) -> Status:
    # A child that says it is done and left no record has failed all the same.
    return Status.FAILED if outcome.status is Status.DONE else outcome.status


def _record(
    run: PlannedRun, status: Status, reason: str | None, outcome: Outcome | None = None
) -> Record:
    return Record(
        run_id=run.spec.run_id,
        cell_id=run.spec.cell_id,
        status=status,
        reason=reason or "ended without a record",
        label=run.label,
        spec=run.spec.canonical(),
        method=run.info.for_record(),
        timing={"total_seconds": outcome.seconds} if outcome else {},
    )
