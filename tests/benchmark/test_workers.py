"""Several workers: the same records as one, whoever dies; shared work is done once."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import plugin_lab
import psutil
import pytest
import torch
from grids import (
    METHODS,
    command,
    finish,
    metrics_of,
    planned,
    run_grid,
    smoke_arguments,
)

from benchmark.cli.main import main
from benchmark.store import BusyError, Cache, Status, Store
from benchmark.testing import Bench

GRID: dict[str, Any] = {
    "methods": ["fedavg", "fedrolex", "mosaic"],
    "seeds": [0],
}
PROBE: dict[str, Any] = {"train_samples": 100, "epochs": 1, "clients": 2, "methods": ["probe"]}


@pytest.fixture(scope="module")
def serial(tmp_path_factory: pytest.TempPathFactory) -> Path:
    results = tmp_path_factory.mktemp("serial")
    run_grid(results, **GRID)
    return results


@pytest.fixture
def mode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The file that tells the installed probe how to misbehave."""
    folder = tmp_path / "site"
    plugin_lab.install(folder)
    monkeypatch.syspath_prepend(folder)
    yield folder / "mode.txt"
    sys.modules.pop(plugin_lab.MODULE, None)


@pytest.mark.long
def test_two_workers_make_the_records_of_one(serial: Path, tmp_path: Path) -> None:
    result, listener = run_grid(tmp_path, options={"workers": 2}, **GRID)
    assert (result.done, result.failed) == (3, 0)
    assert metrics_of(tmp_path) == metrics_of(serial)
    communications = [
        {r.run_id: r.communication for r in Store(where).experiment("main").records()}
        for where in (tmp_path, serial)
    ]
    assert communications[0] == communications[1]
    assert len(listener.ended) == 3
    # Each client of each scenario was trained by one of them only.
    clients = [path for path in (tmp_path / ".cache" / "client").iterdir() if path.is_dir()]
    assert len(clients) == len([p for p in (serial / ".cache" / "client").iterdir() if p.is_dir()])


def test_the_longest_runs_of_a_scenario_begin() -> None:
    _, runs = planned(**GRID)
    work = {run.label: run.work for run in runs}
    assert work["mosaic"] > work["fedavg"]


def test_a_worker_that_dies_costs_one_retry(tmp_path: Path, mode: Path) -> None:
    mode.write_text("die once")
    result, listener = run_grid(
        tmp_path, options={"workers": 2}, **{**PROBE, "methods": ["probe", "fedavg"]}
    )
    assert (result.done, result.failed) == (2, 0)
    assert any("killed by signal 9" in note and "once more" in note for note in listener.notes)
    (record,) = [r for r in Store(tmp_path).experiment("main").records() if r.label == "probe"]
    assert record.attempt == 2


@pytest.mark.long
def test_a_worker_that_dies_twice_is_a_failure(tmp_path: Path, mode: Path) -> None:
    mode.write_text("die")
    result, listener = run_grid(
        tmp_path, options={"workers": 2}, **{**PROBE, "methods": ["probe", "fedavg"]}
    )
    assert (result.done, result.failed) == (1, 1)
    (failed,) = [record for label, record in listener.ended if label == "probe"]
    assert failed.status is Status.FAILED
    assert "killed by signal 9" in str(failed.reason)
    mode.unlink()
    again, _ = run_grid(tmp_path, **{**PROBE, "methods": ["probe", "fedavg"]})
    assert (again.done, again.already) == (1, 1)


# --- shared work -------------------------------------------------------------------------


def test_whoever_finds_a_client_in_other_hands_asks_the_next_one_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench("fedavg", folder=tmp_path)
    first = bench.federation().client(0)
    asked: list[tuple[int, bool]] = []
    made = type(first)._made_once
    busy = [True]

    def watched(self: Any, *values: Any) -> Any:
        asked.append((self.info.index, self.patient))
        if self.info.index == 0 and busy.pop():
            busy.append(False)
            raise BusyError("client 0")
        busy.append(False)
        return made(self, *values)

    monkeypatch.setattr(type(first), "_made_once", watched)
    result = bench.run()
    assert [index for index, _ in asked] == [0, 1, 2, 0]
    monkeypatch.undo()
    plain = Bench("fedavg", folder=tmp_path / "other").run()
    states = [run.output.model.state_dict() for run in (result, plain)]
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


def test_with_nothing_else_to_do_one_waits(tmp_path: Path) -> None:
    cache, other = Cache(tmp_path), Cache(tmp_path)
    value = {"x": torch.ones(1)}
    entered, release = threading.Event(), threading.Event()

    def slow() -> Any:
        entered.set()
        release.wait(60)
        return value, {}

    worker = threading.Thread(target=lambda: other.get_or_make("client", {"a": 1}, slow))
    worker.start()
    entered.wait(60)
    with pytest.raises(BusyError):
        cache.get_or_make("client", {"a": 1}, lambda: (value, {}), wait=0.0)
    threading.Timer(0.3, release.set).start()
    entry = cache.get_or_make("client", {"a": 1}, lambda: pytest.fail("made twice"))
    worker.join()
    assert torch.equal(entry.load()["x"], value["x"])


# --- the command -------------------------------------------------------------------------


def workers_of(results: Path) -> list[psutil.Process]:
    """Return the living processes of a command that compute a run."""
    found = []
    for process in psutil.process_iter(["environ", "cmdline"]):
        environment = process.info["environ"] or {}
        line = " ".join(process.info["cmdline"] or [])
        if environment.get("KILL_TEST") == str(results) and "forkserver" in line:
            with suppress(psutil.Error):  # it may end while we look
                parent = process.parent()
                if parent is not None and "forkserver" in " ".join(parent.cmdline()):
                    found.append(process)
    return found


PATIENCE = 600.0
"""Seconds that a command of a few small runs has, on a machine that has much else to do."""


def wait_for_work(process: subprocess.Popen[str], results: Path) -> bool:
    """Wait until a worker computes; return whether one does."""
    limit = time.monotonic() + PATIENCE
    while process.poll() is None and time.monotonic() < limit:
        if workers_of(results):
            return True
        time.sleep(0.1)
    return False


def kill(process: psutil.Process | subprocess.Popen[str]) -> bool:
    """Kill a process; return whether it still lived."""
    try:
        if isinstance(process, subprocess.Popen) and process.poll() is not None:
            return False
        process.send_signal(signal.SIGKILL)
    except psutil.NoSuchProcess:
        return False
    return True


def kill_workers_and_parents(
    results: Path, kills: int, chance: random.Random, seeds: Sequence[int] = (0,)
) -> Counter[str]:
    """Run the grid to its end, killing workers, or the command itself, at random moments.

    Returns
    -------
    Counter
        Kills of ``"worker"`` and of ``"command"``.
    """
    killed: Counter[str] = Counter()
    arguments = [*smoke_arguments(results), "--seeds", *map(str, seeds), "--workers", "2"]
    arguments.append("--no-report")
    while killed.total() < kills and len(metrics_of(results)) < len(METHODS) * len(seeds):
        process = command(*arguments, KILL_TEST=str(results))
        if wait_for_work(process, results):
            time.sleep(chance.uniform(0.0, 2.0))
            victims = workers_of(results)
            if victims and chance.random() < 0.8:
                killed["worker"] += kill(chance.choice(victims))
                time.sleep(chance.uniform(0.0, 3.0))
            if chance.random() < 0.8:
                killed["command"] += kill(process)
        # One whose worker alone was killed goes on, and ends well: that costs one retry.
        status, _, err = finish(process, PATIENCE)
        assert status in (0, -signal.SIGKILL), err
        deadline = time.monotonic() + 60
        while workers_of(results) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert workers_of(results) == [], "a process outlived the killed command"
    status, _, err = finish(command(*arguments), PATIENCE)
    assert status == 0, err
    assert "damaged" not in err
    leftovers = [path for folder in results.rglob(".tmp") for path in folder.iterdir()]
    assert leftovers == []
    return killed


@pytest.mark.long
def test_kills_of_workers_and_of_the_command(tmp_path: Path, unbroken: Path) -> None:
    killed = kill_workers_and_parents(tmp_path, 2, random.Random(1))
    assert killed.total() >= 1
    assert metrics_of(tmp_path) == metrics_of(unbroken)


@pytest.mark.slow
def test_twenty_kills_of_workers_and_of_the_command(tmp_path: Path) -> None:
    alone = tmp_path / "alone"
    run_grid(alone, seeds=[0, 1])
    killed: Counter[str] = Counter()
    grids = 0
    while killed.total() < 20:
        results = tmp_path / str(grids)
        killed += kill_workers_and_parents(results, 4, random.Random(grids), (0, 1))
        assert metrics_of(results) == metrics_of(alone)
        grids += 1
        print(f"{dict(killed)} kills over {grids} grids", flush=True)  # noqa: T201
    assert min(killed["worker"], killed["command"]) >= 4


@pytest.mark.parametrize(("text", "says"), [("0", "'0' is no number"), ("many", "'many' is no")])
def test_a_wrong_number_of_workers_is_refused(
    text: str, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", "--workers", text, "--results", str(tmp_path)]) == 2
    assert says in capsys.readouterr().err
