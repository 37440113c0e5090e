"""``--force``: a record stands until its run's turn comes, and is made again once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from grids import TINY, Silent, attempts_of, metrics_of, planned, records_of, run_grid

from benchmark.grid import Options, execute
from benchmark.store import Store


def test_forced_runs_are_run_again_and_the_old_one_is_kept(results: Path) -> None:
    before = metrics_of(results)
    result, _ = run_grid(results, options={"force": frozenset({"all"})}, **TINY)
    assert result.done == 1
    assert metrics_of(results) == before
    (record,) = records_of(results)
    assert record.attempt == 2
    assert attempts_of(results) == {f"{record.run_id}-1"}
    assert (results / "main" / "attempts" / f"{record.run_id}-1" / "record.json").is_file()


class Break(Silent):
    """A listener that breaks the command off when its run number ``at`` begins."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self.at = at

    def started(self, index: int, total: int, run: Any) -> None:
        if index == self.at:
            raise KeyboardInterrupt


@pytest.mark.parametrize("at", [1, 2])
def test_a_forced_run_keeps_its_record_until_its_turn_comes(results: Path, at: int) -> None:
    both = {**TINY, "seeds": [0, 1]}
    run_grid(results, **both)
    experiment, runs = planned(**both)
    options = Options(results, force=frozenset({"all"}))
    with pytest.raises(KeyboardInterrupt):
        execute(experiment, runs, [], options, Break(at))
    attempts = {record.spec["scenario"]["seed"]: record.attempt for record in records_of(results)}
    assert attempts == ({1: 1} if at == 1 else {0: 2})
    again, _ = run_grid(results, **both)
    assert (again.done, again.already) == (1, 1), "without --force, only what has no result"


class Meanwhile(Silent):
    """A listener under which another forced command makes all runs when the first one begins."""

    def __init__(self, results: Path) -> None:
        super().__init__()
        self.results = results

    def started(self, index: int, total: int, run: Any) -> None:
        store = Store(self.results).experiment("main")
        for record in store.records():
            attempt = store.begin(record.run_id)
            attempt.publish(record)


def test_what_another_forced_command_made_meanwhile_is_not_made_again(results: Path) -> None:
    both = {**TINY, "seeds": [0, 1]}
    run_grid(results, **both)
    experiment, runs = planned(**both)
    options = Options(results, force=frozenset({"all"}))
    result = execute(experiment, runs, [], options, Meanwhile(results))
    # The first was this command's own: set aside, so out of the other's reach.
    assert (result.done, result.already) == (1, 1)
    assert {record.attempt for record in records_of(results)} == {2}


def test_forced_runs_are_made_once_by_several_workers(results: Path) -> None:
    both = {**TINY, "methods": ["fedavg", "ensemble"], "seeds": [0, 1]}
    run_grid(results, **both)
    before = metrics_of(results)
    options = {"force": frozenset({"fedavg"}), "workers": 2}
    result, _ = run_grid(results, options=options, **both)
    assert (result.done, result.already) == (2, 2)
    assert metrics_of(results) == before
    attempts = [(record.label, record.attempt) for record in records_of(results)]
    assert sorted(attempts) == [("ensemble", 1)] * 2 + [("fedavg", 2)] * 2
