"""Records' metrics are the same bits whatever ran before, in which order, or what was killed."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from grids import METHODS, command, finish, metrics_of, run_grid, smoke_arguments

from benchmark.registry import discover
from benchmark.store import Store

Metrics = dict[str, dict[str, Any]]


def test_the_reference_grid_learns_something(unbroken: Path) -> None:
    accuracies = [metrics["accuracy"] for metrics in metrics_of(unbroken).values()]
    assert len(accuracies) == len(METHODS)
    assert max(accuracies) > 0.2


@pytest.mark.long
@pytest.mark.parametrize("method", METHODS)
def test_a_method_alone_with_a_cold_cache(method: str, unbroken: Path, tmp_path: Path) -> None:
    run_grid(tmp_path, methods=[method])
    alone, together = metrics_of(tmp_path), metrics_of(unbroken)
    assert len(alone) == 1
    assert all(together[run_id] == metrics for run_id, metrics in alone.items())


@pytest.mark.long
def test_another_order(unbroken: Path, tmp_path: Path) -> None:
    run_grid(tmp_path, methods=METHODS[::-1])
    assert metrics_of(tmp_path) == metrics_of(unbroken)


def test_a_warm_cache(unbroken: Path, tmp_path: Path) -> None:
    shutil.copytree(unbroken / ".cache", tmp_path / ".cache")
    _, listener = run_grid(tmp_path)
    assert metrics_of(tmp_path) == metrics_of(unbroken)
    assert not any(phase.startswith("training") for phase in listener.phases)


@pytest.mark.long
def test_no_cache_at_all(unbroken: Path, tmp_path: Path) -> None:
    run_grid(tmp_path, options={"cache": False}, methods=["fedavg"])
    alone, together = metrics_of(tmp_path), metrics_of(unbroken)
    assert alone == {run_id: together[run_id] for run_id in alone}
    assert not (tmp_path / ".cache" / "client").exists()


def test_forced_runs_give_the_same_numbers(unbroken: Path, tmp_path: Path) -> None:
    shutil.copytree(unbroken, tmp_path / "again")
    result, _ = run_grid(tmp_path / "again", options={"force": frozenset({"fedavg"})})
    assert (result.done, result.already) == (1, len(METHODS) - 1)
    assert metrics_of(tmp_path / "again") == metrics_of(unbroken)


@pytest.mark.long
def test_the_main_methods_in_another_process_and_with_another_hash_seed(tmp_path: Path) -> None:
    methods = ["fedrolex", "dense", "co_boosting", "mosaic"]
    tiny = {"train_samples": 150, "epochs": 1, "distilled_images": 640, "history_points": 0}
    run_grid(tmp_path / "here", methods=methods, extractors=[], **tiny)
    flags = ["--extractors", "none"]
    for name, value in tiny.items():
        flags += [f"--{name.replace('_', '-')}", str(value)]
    there = tmp_path / "there"
    arguments = [*smoke_arguments(there, methods), *flags, "--no-report"]
    status, _, err = finish(command(*arguments, PYTHONHASHSEED="4711"))
    assert status == 0, err
    assert len(metrics_of(there)) == len(methods)
    assert metrics_of(there) == metrics_of(tmp_path / "here")


@pytest.mark.long
def test_all_methods_run_by_one_command(tmp_path: Path) -> None:
    """README's main command, at the smallest profile."""
    arguments = smoke_arguments(tmp_path, ["all"])
    status, out, err = finish(command(*arguments))
    assert status == 0, err
    done = {record.label for record in Store(tmp_path).experiment("main").records()}
    assert done == set(discover().methods)
    assert (tmp_path / "main" / "report" / "index.html").is_file()
    assert all(name in out for name in ("mosaic (meta=prototypes)", "co_boosting", "centralized"))


@pytest.mark.long
def test_another_hash_seed(unbroken: Path, tmp_path: Path) -> None:
    status, _, err = finish(
        command(*smoke_arguments(tmp_path), "--no-report", PYTHONHASHSEED="4711")
    )
    assert status == 0, err
    assert metrics_of(tmp_path) == metrics_of(unbroken)
