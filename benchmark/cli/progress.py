"""Progress on stderr: bars on a terminal, plain lines elsewhere, nothing when quiet."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from benchmark.cli.output import human_bytes, human_seconds, one_line, say

if TYPE_CHECKING:
    from benchmark.experiment import PlannedRun
    from benchmark.store import Record

PLAIN_INTERVAL = 10.0
"""Seconds between two progress lines of one run where stderr is no terminal."""


def scalars_text(scalars: Mapping[str, float]) -> str:
    """Return losses as text, such as ``loss 0.532``."""
    return " ".join(f"{name} {value:.4g}" for name, value in scalars.items())


def outcome(record: Record, seconds: float) -> str:
    """Return what became of a run, one line."""
    accuracy = record.metrics.get("accuracy")
    parts = [str(record.status) if not record.reason else f"{record.status}: {record.reason}"]
    if isinstance(accuracy, float):
        parts.append(f"accuracy {accuracy:.4f}")
    parts.append(human_seconds(seconds))
    return one_line(", ".join(parts))


class Listener:
    """Counts what happens and says nothing; the base of the two that do.

    Parameters
    ----------
    titles : mapping of str to str
        Names of the runs, by run id.

    Attributes
    ----------
    problems : dict of str to list of str
        Labels of the runs that ended badly, by reason, in the order of their appearance.
    examples : dict of str to PlannedRun
        The first of those runs, by reason.
    """

    def __init__(self, titles: Mapping[str, str]) -> None:
        self.titles = titles
        self.problems: dict[str, list[str]] = {}
        self.examples: dict[str, PlannedRun] = {}

    def title(self, run: PlannedRun) -> str:
        """Return a run's name."""
        return self.titles.get(run.spec.run_id, run.label)

    def started(self, index: int, total: int, run: PlannedRun) -> None:
        """Take note that the run number ``index`` (from 1) of ``total`` begins."""

    def progress(
        self, run: PlannedRun, phase: str, step: int, total: int, scalars: dict[str, float]
    ) -> None:
        """Take note that ``step`` of ``total`` steps of a phase are done."""

    def finished(self, run: PlannedRun, record: Record, seconds: float) -> None:
        """Take note of what became of a run."""
        if str(record.status) not in ("done", "skipped"):
            reason = one_line(record.reason or record.status)
            self.problems.setdefault(reason, []).append(self.title(run))
            self.examples.setdefault(reason, run)

    def note(self, text: str) -> None:
        """Pass on a remark."""


@dataclass
class _Said:
    """What was said of a run at work."""

    at: float
    phase: str = ""
    phase_began: tuple[float, int] = (0.0, 0)


class PlainListener(Listener):
    """One line when a run begins and ends, and one every ten seconds between.

    Each says first how many runs have ended of those that were left: several workers begin the
    longest ones first, so that a run's place in the grid would tell nothing.
    """

    def __init__(self, titles: Mapping[str, str], console: Console, todo: int) -> None:
        super().__init__(titles)
        self.console = console
        self._ended, self._todo = 0, todo
        self._runs: dict[str, _Said] = {}

    def started(self, index: int, total: int, run: PlannedRun) -> None:
        """Say that a run begins."""
        self._runs[run.spec.run_id] = _Said(time.monotonic())
        self._say(run, "started")

    def progress(
        self, run: PlannedRun, phase: str, step: int, total: int, scalars: dict[str, float]
    ) -> None:
        """Say how far a phase is, every ten seconds."""
        now = time.monotonic()
        said = self._runs[run.spec.run_id]
        if phase != said.phase or step < said.phase_began[1]:
            said.phase, said.phase_began = phase, (now, step)
        if now - said.at < PLAIN_INTERVAL:
            return
        said.at = now
        began, first = said.phase_began
        rate = (step - first) / max(now - began, 1e-9)
        left = f", {human_seconds((total - step) / rate)} left" if rate > 0 else ""
        pace = f" ({rate:.1f}/s{left})" if rate > 0 else ""
        losses = f" {scalars_text(scalars)}" if scalars else ""
        self._say(run, f"{phase} {step}/{total}{pace}{losses}")

    def finished(self, run: PlannedRun, record: Record, seconds: float) -> None:
        """Say what became of a run."""
        super().finished(run, record, seconds)
        self._runs.pop(run.spec.run_id, None)
        self._ended += 1
        self._say(run, outcome(record, seconds))

    def _say(self, run: PlannedRun, text: str) -> None:
        say(self.console, f"[{self._ended}/{self._todo}] {self.title(run)}: {text}")

    def note(self, text: str) -> None:
        """Print the remark."""
        say(self.console, f"note: {one_line(text)}")


class _RateColumn(ProgressColumn):
    """Steps, or images, per second of the running phase."""

    def render(self, task: Task) -> Text:
        """Return the rate, empty for the bar of the runs."""
        if not task.fields.get("steps") or not task.speed:
            return Text("")
        return Text(f"{task.speed:.1f}/s")


class BarListener(Listener):
    """A bar for the runs of the grid, and one for each run at work."""

    def __init__(self, titles: Mapping[str, str], console: Console, todo: int) -> None:
        super().__init__(titles)
        self.bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.completed:.0f}/{task.total:.0f}"),
            _RateColumn(),
            TimeRemainingColumn(compact=True),
            TextColumn("{task.fields[losses]}"),
            console=console,
            transient=True,
        )
        self._all = self.bars.add_task("runs", total=todo, losses="", steps=False)
        self._runs: dict[str, tuple[TaskID, str, int]] = {}

    def started(self, index: int, total: int, run: PlannedRun) -> None:
        """Give the run a bar; one that is tried once more has a new one."""
        if run.spec.run_id in self._runs:
            self.bars.remove_task(self._runs.pop(run.spec.run_id)[0])
        title = f"  {escape(self.title(run))}"
        bar = self.bars.add_task(title, total=1, losses="", steps=True)
        self._runs[run.spec.run_id] = (bar, "", 0)

    def progress(
        self, run: PlannedRun, phase: str, step: int, total: int, scalars: dict[str, float]
    ) -> None:
        """Move the run's bar on."""
        bar, last, before = self._runs[run.spec.run_id]
        if phase != last or step < before:
            self.bars.reset(bar, total=max(total, 1))
        self._runs[run.spec.run_id] = (bar, phase, step)
        self.bars.update(
            bar,
            completed=step,
            description=f"  {escape(self.title(run))}: {escape(phase)}",
            losses=scalars_text(scalars),
        )

    def finished(self, run: PlannedRun, record: Record, seconds: float) -> None:
        """Print what became of a run above the bars."""
        super().finished(run, record, seconds)
        say(self.bars.console, f"{self.title(run)}: {outcome(record, seconds)}")
        if run.spec.run_id in self._runs:
            self.bars.remove_task(self._runs.pop(run.spec.run_id)[0])
        self.bars.advance(self._all)

    def note(self, text: str) -> None:
        """Print the remark above the bars."""
        say(self.bars.console, f"note: {one_line(text)}")


@contextmanager
def listening(
    titles: Mapping[str, str], console: Console, *, quiet: bool, todo: int = 1
) -> Iterator[Listener]:
    """Return the listener that fits: silent, bars on a terminal, or plain lines.

    Parameters
    ----------
    titles : mapping of str to str
        Names of the runs, by run id.
    console : Console
        Where to talk (stderr).
    quiet : bool
        Whether only errors shall be printed.
    todo : int
        Runs that are not done yet.
    """
    if quiet:
        yield Listener(titles)
    elif console.is_terminal:
        listener = BarListener(titles, console, todo)
        with listener.bars:
            yield listener
    else:
        yield PlainListener(titles, console, todo)


@contextmanager
def loading(console: Console, *, quiet: bool) -> Iterator[Callable[[str, int, int], None]]:
    """Return what shows downloads and decoding: a bar on a terminal, or plain lines.

    Parameters
    ----------
    console : Console
        Where to talk (stderr).
    quiet : bool
        Whether nothing shall be shown.
    """
    if quiet:
        yield lambda what, done, total: None
    elif console.is_terminal:
        bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[amount]}"),
            TimeRemainingColumn(compact=True),
            console=console,
            transient=True,
        )
        with bars:
            yield _BarLoading(bars)
    else:
        yield _PlainLoading(console)


class _BarLoading:
    """One bar, which begins anew with each thing that is loaded."""

    def __init__(self, bars: Progress) -> None:
        self._bars = bars
        self._task = bars.add_task("", total=None, amount="", visible=False)
        self._what = ""

    def __call__(self, what: str, done: int, total: int) -> None:
        if what != self._what:
            self._bars.reset(self._task, visible=True)
            self._what = what
        self._bars.update(
            self._task,
            completed=done,
            total=total or None,
            description=escape(what),
            amount=_amount(what, done, total),
        )


class _PlainLoading:
    """A line every ten seconds; nothing for what is quicker."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._said = time.monotonic()

    def __call__(self, what: str, done: int, total: int) -> None:
        if time.monotonic() - self._said >= PLAIN_INTERVAL:
            self._said = time.monotonic()
            say(self._console, f"{one_line(what)}: {_amount(what, done, total)}")


def _amount(what: str, done: int, total: int) -> str:
    if what.startswith("decoding"):
        return f"{done} of {total or '?'} pictures"
    return f"{human_bytes(done)} of {human_bytes(total) if total else '?'}"
