"""Small grids for tests: run in-process or as a user's command, and read back."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmark.experiment import PlannedRun, plan, resolve
from benchmark.grid import GridResult, Options, execute
from benchmark.registry import discover
from benchmark.specs import ComputeSpec
from benchmark.store import Record, Store

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 600.0
"""Seconds until a test gives up on a process: a net under it, no claim about speed."""
METHODS = ("fedavg", "ensemble", "best_client")


TINY: dict[str, Any] = {
    "train_samples": 100,
    "epochs": 1,
    "clients": 2,
    "history_points": 0,
    "methods": ["fedavg"],
}
"""One short run, or as many as a test makes of it."""


class Silent:
    """A listener that only remembers."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.ended: list[tuple[str, Record]] = []
        self.phases: list[str] = []

    def started(self, index: int, total: int, run: PlannedRun) -> None: ...

    def progress(
        self, run: PlannedRun, phase: str, step: int, total: int, scalars: dict[str, float]
    ) -> None:
        self.phases.append(phase)

    def finished(self, run: PlannedRun, record: Record, seconds: float) -> None:
        self.ended.append((run.label, record))

    def note(self, text: str) -> None:
        self.notes.append(text)


def planned(**settings: Any) -> tuple[Any, list[PlannedRun]]:
    """Return experiment and runs of a smoke grid."""
    experiment = resolve({"profile": "smoke", "methods": METHODS, **settings}, {}, "test")
    runs, _ = plan(experiment, discover(), ComputeSpec(precision="fp32", threads=1))
    return experiment, runs


def run_grid(
    results: Path, *, options: Mapping[str, Any] | None = None, **settings: Any
) -> tuple[GridResult, Silent]:
    """Run a smoke grid with child processes, as the command line does."""
    experiment, runs = planned(**settings)
    listener = Silent()
    result = execute(
        experiment,
        runs,
        [],
        Options(results=results, **(options or {})),
        listener,
    )
    return result, listener


def metrics_of(results: Path, experiment: str = "main") -> dict[str, dict[str, Any]]:
    """Return the metrics of all finished runs by run id."""
    records = Store(results).experiment(experiment).records()
    return {record.run_id: record.metrics for record in records}


def command(*arguments: str, **environment: str) -> subprocess.Popen[str]:
    """Start ``python -m benchmark`` as a user does."""
    return subprocess.Popen(
        [sys.executable, "-m", "benchmark", *arguments],
        cwd=ROOT,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def attempts_of(results: Path, experiment: str = "main") -> set[str]:
    """Return the attempts that lie in a results folder: begun, killed or failed."""
    folder = results / experiment / "attempts"
    return {path.name for path in folder.iterdir()} if folder.is_dir() else set()


def wait_for_a_run(
    process: subprocess.Popen[str], results: Path, before: set[str], timeout: float = PATIENCE
) -> None:
    """Wait until a command has begun a run that was not there before, or has ended.

    A moment of its work, then, however long this machine takes to start Python.
    """
    limit = time.monotonic() + timeout
    while process.poll() is None and not attempts_of(results) - before:
        if time.monotonic() > limit:
            raise TimeoutError(f"no run was begun within {timeout} s")
        time.sleep(0.02)


def finish(process: subprocess.Popen[str], timeout: float = PATIENCE) -> tuple[int, str, str]:
    """Wait for a command; return exit status, stdout and stderr."""
    out, err = process.communicate(timeout=timeout)
    return process.returncode, out, err


def smoke_arguments(results: Path, methods: Sequence[str] = METHODS) -> list[str]:
    """Return the arguments of the smoke grid for :func:`command`."""
    return [
        "--methods", *methods, "--profile", "smoke", "--precision", "fp32", "--device", "cpu",
        "--results", str(results),
    ]  # fmt: skip


def records_of(results: Path) -> list[Record]:
    """Return the final records of a smoke grid."""
    return Store(results).experiment("main").records()
