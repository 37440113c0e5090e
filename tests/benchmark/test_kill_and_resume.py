"""``kill -9`` loses nothing, doubles nothing, leaves nothing half-written and no process behind."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import psutil
import pytest
from grids import (
    METHODS,
    attempts_of,
    command,
    finish,
    metrics_of,
    run_grid,
    smoke_arguments,
    wait_for_a_run,
)

from benchmark.store import Store

EARLY = 0.25
"""Share of the kills that hit a command before it has begun a run."""


def arguments(results: Path, seeds: Sequence[int] = (0,)) -> list[str]:
    return [*smoke_arguments(results), "--seeds", *map(str, seeds), "--no-report"]


def family(results: Path) -> list[psutil.Process]:
    """Return all living processes that work on a results folder."""
    found = []
    for process in psutil.process_iter(["cmdline", "environ"]):
        environment = process.info["environ"] or {}
        if environment.get("KILL_TEST") == str(results):
            found.append(process)
    return found


def kill_at_random_moments(
    results: Path, kills: int, chance: random.Random, seeds: Sequence[int] = (0,)
) -> int:
    """Start the grid and kill its parent, again and again; return how often it was killed."""
    killed = 0
    for _ in range(kills):
        before = attempts_of(results)
        process = command(*arguments(results, seeds), KILL_TEST=str(results))
        try:
            if chance.random() < EARLY:
                process.wait(timeout=chance.uniform(0.0, 3.0))  # in its first imports, too
            wait_for_a_run(process, results, before)
            process.wait(timeout=chance.uniform(0.0, 2.0))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            killed += 1
        process.communicate()
        deadline = time.monotonic() + 60
        while family(results) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert family(results) == [], "a process outlived the killed command"
        for record in (results / "main").glob("*/record.json"):
            json.loads(record.read_text())  # whole, or not there
    return killed


def check_resumed_grid(results: Path, unbroken: Path, seeds: Sequence[int] = (0,)) -> None:
    status, _, err = finish(command(*arguments(results, seeds)))
    assert status == 0, err
    assert "damaged" not in err
    assert metrics_of(results) == metrics_of(unbroken)
    store = Store(results).experiment("main")
    assert len(store.records()) == len(METHODS) * len(seeds)
    leftovers = [path for folder in results.rglob(".tmp") for path in folder.iterdir()]
    assert leftovers == []


@pytest.mark.long
def test_a_few_kills(tmp_path: Path, unbroken: Path) -> None:
    assert kill_at_random_moments(tmp_path, kills=2, chance=random.Random(10)) >= 1
    check_resumed_grid(tmp_path, unbroken)


@pytest.mark.slow
def test_twenty_kills(tmp_path: Path) -> None:
    killed = grids = 0
    unbroken, seeds = tmp_path / "unbroken", (0, 1)
    run_grid(unbroken, seeds=list(seeds))
    while killed < 20:  # a start that had nothing left to do was no kill
        results = tmp_path / str(grids)
        chance = random.Random(grids)
        killed += kill_at_random_moments(results, kills=4, chance=chance, seeds=seeds)
        check_resumed_grid(results, unbroken, seeds)
        grids += 1
    print(f"{killed} kills over {grids} grids")  # noqa: T201


@pytest.mark.long
def test_ctrl_c_says_how_to_go_on(tmp_path: Path) -> None:
    process = command(*arguments(tmp_path))
    wait_for_a_run(process, tmp_path, set())
    process.send_signal(signal.SIGINT)
    status, _, err = finish(process)
    assert status == 130
    assert "same command" in err
    assert "Traceback" not in err
