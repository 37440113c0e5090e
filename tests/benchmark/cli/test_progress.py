"""Listeners: plain lines, bars, silence; what they remember of failed runs."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from rich.console import Console

from benchmark.cli import progress
from benchmark.cli.naming import run_titles, titles
from benchmark.experiment import ExperimentSpec, PlannedRun
from benchmark.registry import MethodInfo
from benchmark.specs import CodeSpec, MethodSpec, RunSpec
from benchmark.store import Record, Status


@dataclass
class Clock:
    """A clock that is set by hand."""

    now: float = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[Clock]:
    made = Clock()
    monkeypatch.setattr(progress.time, "monotonic", made)
    return made


def info() -> MethodInfo:
    texts = ("name", "summary", "kind", "uploads", "implemented", "scenarios", "module")
    more = ("attribute", "path", "plugin")
    return MethodInfo.model_construct(**dict.fromkeys((*texts, *more), "sample"))


def runs(**settings: object) -> list[PlannedRun]:
    made = ExperimentSpec.parse(settings, "test").scenarios()
    return [
        PlannedRun(
            "sample",
            RunSpec(scenario=item, method=MethodSpec(name="sample"), code=CodeSpec(plugin="0")),
            info(),
            None,
        )
        for item in made
    ]


def record(run: PlannedRun, status: Status, reason: str | None = None, **metrics: float) -> Record:
    return Record(
        run_id=run.spec.run_id,
        cell_id=run.spec.cell_id,
        status=status,
        reason=reason,
        label=run.label,
        metrics=metrics,
    )


def console(*, terminal: bool = False) -> Console:
    return Console(file=io.StringIO(), force_terminal=terminal, width=100)


def text(of: Console) -> str:
    file = of.file
    assert isinstance(file, io.StringIO)
    return file.getvalue()


def test_titles_name_what_varies() -> None:
    grid = ExperimentSpec.parse({"alpha": (0.1, 1.0), "seeds": 7, "clients": 4}, "test")
    assert titles(grid.scenarios()) == ["digits, alpha 0.1, seed 7", "digits, alpha 1, seed 7"]
    assert titles([]) == []


def test_titles_tell_runs_apart() -> None:
    grid = runs(
        alpha=(0.1, 1.0), clients=(3, 4), widths=("1", "1,1/2"), seeds=(0, 1), rounds_warmup=(0, 2)
    )
    assert len(set(run_titles(grid).values())) == len(grid) == 32


def test_plain_lines(clock: Clock) -> None:
    (run,) = runs()
    talk = console()
    with progress.listening(run_titles([run]), talk, quiet=False, todo=3) as listener:
        listener.started(2, 5, run)
        listener.progress(run, "client 0", 1, 400, {})
        clock.now += progress.PLAIN_INTERVAL
        listener.progress(run, "client 0", 101, 400, {"loss": 0.5})
        clock.now += 1
        listener.progress(run, "client 0", 111, 400, {"loss": 0.4})  # too soon for a line
        clock.now += 1
        listener.finished(run, record(run, Status.DONE, accuracy=0.87654), 61.0)
        listener.note("a remark\nof two lines")
    assert text(talk).splitlines() == [
        "[0/3] sample (digits, seed 0): started",
        "[0/3] sample (digits, seed 0): client 0 101/400 (10.0/s, 30 s left) loss 0.5",
        "[1/3] sample (digits, seed 0): done, accuracy 0.8765, 1 min 1 s",
        "note: a remark of two lines",
    ]
    assert listener.problems == {}


def test_plain_lines_count_runs_that_ended_in_whatever_order_they_begin() -> None:
    grid = runs(seeds=(0, 1, 2))
    talk = console()
    with progress.listening({}, talk, quiet=False, todo=3) as listener:
        for index in (3, 1):
            listener.started(index, 3, grid[index - 1])
        listener.started(3, 3, grid[2])  # its worker died: it is tried once more
        for index in (1, 3):
            listener.finished(grid[index - 1], record(grid[index - 1], Status.DONE), 1.0)
    places = [line.split()[0] for line in text(talk).splitlines()]
    assert places == ["[0/3]", "[0/3]", "[0/3]", "[1/3]", "[2/3]"]


def test_a_new_phase_has_its_own_rate(clock: Clock) -> None:
    (run,) = runs()
    talk = console()
    with progress.listening({}, talk, quiet=False) as listener:
        listener.started(1, 1, run)
        listener.progress(run, "server", 90, 100, {})
        clock.now += 20
        listener.progress(run, "evaluation", 0, 10, {})
        clock.now += 20
        listener.progress(run, "evaluation", 5, 10, {})
    assert "evaluation 0/10\n" in text(talk)
    assert "evaluation 5/10 (0.2/s, 20 s left)" in text(talk)


@pytest.mark.parametrize("terminal", [False, True])
def test_failures_are_remembered_by_reason(terminal: bool) -> None:
    first, second, third = runs(seeds=(0, 1, 2))
    talk = console(terminal=terminal)
    with progress.listening(run_titles([first, second, third]), talk, quiet=False) as listener:
        for index, run in enumerate((first, second, third), start=1):
            listener.started(index, 3, run)
            listener.progress(run, "client 0 [bold]", 1, 2, {"loss": 1.0})
            listener.progress(run, "client 0 [bold]", 2, 2, {"loss": 1.0})
        listener.finished(first, record(first, Status.FAILED, "no\nmemory"), 1.0)
        listener.finished(second, record(second, Status.FAILED, "no memory"), 1.0)
        listener.finished(third, record(third, Status.SKIPPED, "widths"), 1.0)
    assert listener.problems == {
        "no memory": ["sample (digits, seed 0)", "sample (digits, seed 1)"]
    }
    assert "failed: no memory" in text(talk)


def test_the_bar_counts_runs_that_ended_in_whatever_order_they_begin() -> None:
    """Several workers begin the longest runs first."""
    grid = runs(seeds=tuple(range(4)))
    talk = console(terminal=True)
    with progress.listening(run_titles(grid), talk, quiet=False, todo=3) as listener:
        assert isinstance(listener, progress.BarListener)
        for index in (4, 2):
            listener.started(index, 4, grid[index - 1])
        (runs_bar, *bars) = listener.bars.tasks
        assert (runs_bar.completed, runs_bar.total, len(bars)) == (0, 3, 2)
        listener.started(4, 4, grid[3])  # its worker died: it is tried once more
        assert len(listener.bars.tasks) == 3
        for index in (4, 2):
            listener.finished(grid[index - 1], record(grid[index - 1], Status.DONE), 1.0)
        listener.started(1, 4, grid[0])
        listener.finished(grid[0], record(grid[0], Status.DONE), 1.0)
        (runs_bar,) = listener.bars.tasks
        assert (runs_bar.completed, runs_bar.total) == (3, 3)


def test_quiet_says_nothing_and_remembers() -> None:
    (run,) = runs()
    talk = console(terminal=True)
    with progress.listening(run_titles([run]), talk, quiet=True) as listener:
        listener.started(1, 1, run)
        listener.progress(run, "client 0", 1, 2, {})
        listener.note("a remark")
        listener.finished(run, record(run, Status.TIMED_OUT), 1.0)
    assert text(talk) == ""
    assert listener.problems == {"timed out": ["sample (digits, seed 0)"]}


def test_loading_is_silent_when_quick(clock: Clock) -> None:
    talk = console()
    with progress.loading(talk, quiet=False) as loading:
        loading("x.zip", 1, 2_000_000)
        clock.now += progress.PLAIN_INTERVAL
        loading("x.zip", 1_000_000, 2_000_000)
        clock.now += progress.PLAIN_INTERVAL
        loading("x.zip", 1_500_000, 0)
        loading("decoding x.zip", 1, 100)
        clock.now += progress.PLAIN_INTERVAL
        loading("decoding x.zip", 70, 100)
    assert text(talk).splitlines() == [
        "x.zip: 1.0 MB of 2.0 MB",
        "x.zip: 1.5 MB of ?",
        "decoding x.zip: 70 of 100 pictures",
    ]


def test_loading_has_a_bar_on_a_terminal_and_none_when_quiet() -> None:
    for quiet in (False, True):
        talk = console(terminal=True)
        with progress.loading(talk, quiet=quiet) as loading:
            loading("a.zip", 10**6, 2 * 10**6)
            loading("decoding a[bold].zip", 5, 10)
        assert ("decoding a[bold].zip" in text(talk)) is not quiet
        assert ("5 of 10 pictures" in text(talk)) is not quiet
