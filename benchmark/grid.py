"""The grid: what is done already, what is left, and one record for every cell."""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from benchmark.client_tasks import ClientTasks
from benchmark.executor import Event, Executor, Job, Outcome, PoolExecutor
from benchmark.experiment import ExperimentSpec, PlannedRun
from benchmark.grid_types import GridResult, Listener, Options
from benchmark.preview import check_judge
from benchmark.registry import BrokenPlugin
from benchmark.store import (
    TRACEBACK_NAME,
    Attempt,
    BusyError,
    Cell,
    Elsewhere,
    ExperimentStore,
    Record,
    Status,
    Store,
)

__all__ = ["GridResult", "Listener", "Options", "execute"]

log = logging.getLogger(__name__)

TARGET = "benchmark.engine:execute"
"""What a child process calls for each run."""

PRELOAD = ("benchmark.engine", "torch._dynamo", "torch_fidelity")
"""Imported once by the fork server, so that children start warm.

The last two are what engine and scores import late: optimisers need dynamo."""


@dataclass
class _Tally:
    done: int = 0
    already: int = 0
    skipped: int = 0
    failed: int = 0
    user_error: bool = False


@dataclass(frozen=True)
class _Opened:
    """A run at work: its number, its attempt, and the stack that holds its lock."""

    run: PlannedRun
    index: int
    attempt: Attempt
    stack: ExitStack


@dataclass
class _Session:
    """One command at work on one experiment."""

    store: ExperimentStore
    elsewhere: Elsewhere
    options: Options
    listener: Listener
    total: int
    tally: _Tally = field(default_factory=_Tally)
    attempts: dict[str, _Opened] = field(default_factory=dict)
    again: deque[tuple[PlannedRun, int, ExitStack]] = field(default_factory=deque)
    lost: Counter[str] = field(default_factory=Counter)
    sources: set[str] = field(default_factory=set)
    standing: dict[str, int | None] = field(default_factory=dict)
    clients: ClientTasks = field(init=False)

    def __post_init__(self) -> None:
        self.clients = ClientTasks(self.options.timeout)

    def note_standing(self, runs: Sequence[PlannedRun]) -> None:
        """Note which records are to be made again: those that stand now.

        One that another command makes meanwhile is as fresh as this one's would be.
        """
        for run in runs:
            if self.options.forced(run) and run.skip is None:
                self.standing[run.spec.run_id] = self._attempt_of(run.spec.run_id)

    def _attempt_of(self, run_id: str) -> int | None:
        record = self.store.find(run_id)
        return None if record is None else record.attempt

    def jobs(self, runs: Sequence[PlannedRun]) -> Iterator[Job | None]:
        """Yield a job for each run that has no result, holding the run's lock meanwhile.

        Whoever asks when all of them are at work gets a client of one of those. ``None`` where
        all that is left is in other hands: another command's, or this one's own workers', whose
        death would make a run come back.
        """
        waiting = deque(self._ordered(runs))
        told: set[str] = set()
        while waiting or self.attempts or self.again:
            job = self._once_more() or self._next(waiting, told) or self.clients.job()
            if job is not None or waiting or self.attempts:
                yield job

    def _ordered(self, runs: Sequence[PlannedRun]) -> list[tuple[int, PlannedRun]]:
        """Return the runs with their numbers, for several workers the longest ones first.

        Scenario after scenario; the longest one last would leave the other workers idle.
        """
        numbered = list(enumerate(runs, start=1))
        if self.options.workers == 1:
            return numbered
        first: dict[str, int] = {}
        for index, run in numbered:
            first.setdefault(run.spec.scenario.digest(), index)
        return sorted(
            numbered, key=lambda pair: (first[pair[1].spec.scenario.digest()], -pair[1].work)
        )

    def _next(self, waiting: deque[tuple[int, PlannedRun]], told: set[str]) -> Job | None:
        """Return the first run's job that nobody else is at; forget those that need none."""
        for _ in range(len(waiting)):
            index, run = waiting.popleft()
            try:
                job = self._open(index, run)
            except BusyError:
                waiting.append((index, run))
                if run.spec.run_id not in told:
                    told.add(run.spec.run_id)
                    self.listener.note(
                        f"{run.label}: another command is at it; waiting for its result"
                    )
                continue
            if job is not None:
                return job
        return None

    def _open(self, index: int, run: PlannedRun) -> Job | None:
        with ExitStack() as stack:
            stack.enter_context(self.store.lock(run.spec.run_id, 0.0))
            self._supersede(run)
            if self._settled(run):
                return None
            return self._begin(run, index, stack.pop_all())

    def _supersede(self, run: PlannedRun) -> None:
        """Set a record aside that is to be made again: only now that it is this run's turn.

        Whatever ends the command before keeps it. The caller holds the run's lock.
        """
        run_id = run.spec.run_id
        if run_id not in self.standing:
            return
        if self._attempt_of(run_id) == self.standing.pop(run_id):
            outdated = run_id in self.options.outdated
            self.store.supersede(
                run_id, "made from other data" if outdated else "superseded by --force"
            )

    def _once_more(self) -> Job | None:
        """Return a job whose worker died, in a new attempt; its lock was never given back."""
        if not self.again:
            return None
        return self._begin(*self.again.popleft())

    def _begin(self, run: PlannedRun, index: int, stack: ExitStack) -> Job:
        with stack:
            attempt = self.store.begin(run.spec.run_id)
            self.listener.started(index, self.total, run)
            self.attempts[run.spec.run_id] = _Opened(run, index, attempt, stack.pop_all())
        payload = _payload(run, attempt, self.options)
        if self.options.share_clients:
            self.clients.began(run, payload)
        return Job(
            run_id=run.spec.run_id,
            payload=payload,
            timeout=self.options.timeout,
            threads=run.spec.compute.threads,
        )

    def _settled(self, run: PlannedRun) -> bool:
        """Count a run that needs no work: finished before, or not supported."""
        record = self.store.find(run.spec.run_id) or self._taken_over(run)
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

    def _taken_over(self, run: PlannedRun) -> Record | None:
        """Return the record of another experiment that has finished this very run."""
        if not self.options.cache or self.options.forced(run):
            return None
        source = self.elsewhere.holder(run.spec.run_id)
        if source is None:
            return None
        if source not in self.sources:
            self.sources.add(source)
            self.listener.note(f"runs that experiment '{source}' has finished are taken from there")
        return self.elsewhere.take_over(run.spec.run_id, source, self.store, run.label)

    def close(self, outcome: Outcome) -> None:
        """Keep the record of a run that ended, whichever way; a lost one has another try."""
        if self.clients.closes(outcome):
            return
        self.clients.ended(outcome.run_id)
        opened = self.attempts.pop(outcome.run_id)
        run, attempt = opened.run, opened.attempt
        with opened.stack as stack:
            record = self.store.find(outcome.run_id)
            if record is None:
                record = _record(run, _unfinished(outcome), outcome.reason, outcome)
                if outcome.detail:
                    attempt.write_bytes(TRACEBACK_NAME, outcome.detail.encode())
                if record.status.is_final:
                    attempt.publish(record)
                else:
                    attempt.fail(record)
            tried_again = self.lost[outcome.run_id]
            may_again = outcome.lost and tried_again < self.options.retries
            if may_again and record.status is Status.FAILED:
                self.lost[outcome.run_id] += 1
                self.again.append((run, opened.index, stack.pop_all()))
                self.listener.note(f"{run.label}: {outcome.reason}; trying it once more")
                return
            if record.status is Status.DONE:
                self.tally.done += 1
            else:
                self.tally.failed += 1
                self.tally.user_error |= outcome.user_error
        self.listener.finished(run, record, outcome.seconds)

    def abandon(self) -> None:
        """Give back the locks of runs that never got an outcome."""
        for opened in self.attempts.values():
            opened.stack.close()
        for _, _, stack in self.again:
            stack.close()
        self.attempts.clear()
        self.again.clear()


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

    A run whose worker died without a word is tried again (``options.retries``). Runs that are
    finished are not run again; failed, timed-out and interrupted ones are. Ctrl-C ends the runs
    at work, keeps everything that is finished, and passes on.

    Raises
    ------
    StoreError
        If the results folder can't be written to, or the disk is full.
    UserError
        If the experiment holds runs that were judged on other images.
    KeyboardInterrupt
        If the user interrupts.
    """
    store = Store(options.results)
    store.check_writable()
    name = experiment.experiment
    session = _Session(
        store.experiment(name), Elsewhere(store, name), options, listener, total=len(runs)
    )
    check_judge(session.store, experiment)
    session.store.update_manifest(
        _cells(runs),
        {plugin.name: plugin.reason for plugin in broken},
        {**experiment.canonical(), "profile": experiment.profile},
        {run.info.name: run.defaults for run in runs},
    )
    session.store.sweep()
    for plugin in broken:
        listener.note(f"method '{plugin.name}' is not installed: {plugin.reason}")
    session.note_standing(runs)
    by_id = {run.spec.run_id: run for run in runs}

    def on_event(event: Event) -> None:
        run = by_id.get(event.run_id)  # none for a client's own job
        if event.kind == "progress" and run is not None:
            data = event.data
            session.clients.heard(event.run_id, data["phase"])
            listener.progress(run, data["phase"], data["step"], data["total"], data["scalars"])

    executor = executor or PoolExecutor(
        TARGET, workers=options.workers, gpus=options.gpus, preload=PRELOAD
    )
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


def _cells(runs: Sequence[PlannedRun]) -> dict[str, Cell]:
    return {
        run.spec.cell_id: Cell.of(
            run.spec.run_id,
            run.label,
            run.spec.canonical(),
            order,
            run.info.kind,
            uses=run.info.uses,
        )
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
