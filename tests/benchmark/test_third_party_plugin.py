"""A plugin of somebody else: installed, listed, run beside the built-in ones, and edited."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import plugin_lab
import pytest
from grids import Silent, planned, run_grid

from benchmark.cli.main import main
from benchmark.executor import Job, OnEvent, Outcome
from benchmark.grid import Options, execute
from benchmark.preview import made_by_other_code, preview
from benchmark.testing import check_method
from reports.api import write_report

TINY: dict[str, Any] = {"clients": 2, "train_samples": 100, "epochs": 1, "history_points": 0}


def cli(site: Path, *arguments: object) -> tuple[int, str, str]:
    done = plugin_lab.python(site, "-m", "benchmark", *map(str, arguments))
    return done.returncode, done.stdout, done.stderr


def grid(results: Path, *methods: str) -> list[object]:
    sizes = [(f"--{name.replace('_', '-')}", value) for name, value in TINY.items()]
    return [
        "--methods", *methods, "--profile", "smoke", "--precision", "fp32", "--results", results,
        *(item for pair in sizes for item in pair),
    ]  # fmt: skip


def records(results: Path) -> dict[str, dict[str, Any]]:
    files = (results / "main").glob("*/record.json")
    found = [json.loads(file.read_text()) for file in files]
    return {document["run_id"]: document for document in found}


@pytest.mark.long
def test_it_is_listed_and_described(site: Path) -> None:
    plugin_lab.install(site)
    status, out, err = cli(site, "list", "methods")
    assert status == 0, err
    assert "probe" in out
    assert "fedavg" in out
    status, out, err = cli(site, "describe", "probe")
    assert status == 0, err
    assert "uniform average of the clients' models" in out
    assert "factor on the average" in out


@pytest.mark.parametrize("clients", [3, 1])
def test_it_keeps_the_contract(site: Path, clients: int) -> None:
    plugin_lab.install(site)
    check_method("probe", train_samples=120, epochs=1, clients=[clients])


class Stopped:
    """An executor that is interrupted before its first job."""

    def run(self, jobs: Iterable[Job], on_event: OnEvent | None = None) -> Iterator[Outcome]:
        raise KeyboardInterrupt


@pytest.mark.long
def test_it_runs_beside_the_built_in_ones_and_goes_stale_when_edited(
    site: Path, tmp_path: Path
) -> None:
    results = tmp_path / "results"
    path = plugin_lab.install(site)
    status, out, err = cli(site, *grid(results, "fedavg", "probe"))
    assert status == 0, err
    assert "probe" in out
    first = records(results)
    assert {document["label"] for document in first.values()} == {"fedavg", "probe"}

    def states() -> list[str]:
        _, runs = planned(**TINY, methods=["fedavg", "probe"])
        return [state for _, state in preview(experiment, runs, Options(results))]

    experiment, _ = planned(**TINY, methods=["fedavg", "probe"])
    assert states() == ["done", "done"]
    path.write_text(path.read_text().replace("mean(0)\n", "mean(0) * 1.5\n"))
    sys.modules.pop(plugin_lab.MODULE)
    assert states() == ["done", "to run"]
    _, runs = planned(**TINY, methods=["fedavg", "probe"])
    assert made_by_other_code(runs, Options(results), "main") == 1

    # A command that was stopped before it came to the run: the old record is not passed off.
    _, runs = planned(**TINY, methods=["fedavg", "probe"])
    with pytest.raises(KeyboardInterrupt):
        execute(experiment, runs, [], Options(results), Silent(), executor=Stopped())
    report = write_report(results / "main", figures=False)
    rows = report.tables["runs"].set_index("label")
    assert rows.loc["probe", "shown"] == "stale"
    assert rows.loc["fedavg", "shown"] == "done"
    assert any("made by other code" in reason for reason in report.reasons)

    result, _ = run_grid(results, **TINY, methods=["fedavg", "probe"])
    assert (result.done, result.already) == (1, 1)
    second = records(results)
    assert first.items() < second.items()
    (new,) = second.keys() - first.keys()
    (old,) = [key for key, document in first.items() if document["label"] == "probe"]
    assert second[new]["cell_id"] == second[old]["cell_id"]
    assert second[new]["metrics"]["loss"] != second[old]["metrics"]["loss"]
    assert len({second[key]["spec"]["code"]["plugin"] for key in (new, old)}) == 2
    assert second[new]["timing"]["cached_client_seconds"] > 0, "clients were not trained again"
    rows = write_report(results / "main", figures=False).tables["runs"].set_index("run_id")
    assert rows.loc[new, "shown"] == "done"
    assert bool(rows.loc[old, "stale"])
    assert rows.loc[old, "shown"] == ""


def test_a_wrong_type_is_one_line_and_status_2(
    site: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plugin_lab.install(site)
    (site / "mode.txt").write_text("wrong model")
    assert main([*map(str, grid(tmp_path / "results", "probe"))]) == 2
    err = capsys.readouterr().err
    assert "method 'probe': server_update returned a CNN, expected GlobalModel" in err
    assert "Traceback" not in err
    assert sum(line.startswith("error: ") for line in err.splitlines()) == 1


def test_a_broken_one_is_reported_and_stops_no_other(
    site: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plugin_lab.install(site, "raise RuntimeError('no luck today')\n", module="unlucky")
    status, out, err = cli(site, "list", "methods")
    assert status == 0
    assert "no luck today" in out + err
    assert "fedavg" in out
    assert main([*map(str, grid(tmp_path / "results", "unlucky"))]) == 2
    err = capsys.readouterr().err
    assert "method 'unlucky' can't be used: RuntimeError: no luck today" in err
    assert "Traceback" not in err
