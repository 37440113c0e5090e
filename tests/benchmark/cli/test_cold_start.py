"""Verbs that only show something import no torch, and answer about as fast as Python can."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
HEAVY = ("torch", "torchvision", "timm", "sklearn", "matplotlib")

PROBE = """
import sys
from benchmark.__main__ import main
status = main(sys.argv[1:])
loaded = [name for name in {heavy!r} if name in sys.modules]
print("LOADED", status, *loaded)
"""


def ask(folder: Path, *argv: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", PROBE.format(heavy=(*HEAVY, "pandas")), *argv],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return done.stdout.splitlines()[-1].split()[1:]


@pytest.fixture(scope="module")
def warm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder; the plugins' metadata are cached by a first listing."""
    folder = tmp_path_factory.mktemp("cold")
    ask(folder, "list", "methods")
    return folder


@pytest.mark.parametrize(
    "argv",
    [
        ("--help",),
        ("run", "--help"),
        ("list",),
        ("list", "datasets"),
        ("describe", "fedavg"),
        ("clean",),
        ("split", "--help"),
        ("doctor", "--help"),
    ],
    ids=" ".join,
)
def test_nothing_heavy_is_loaded(warm: Path, argv: tuple[str, ...]) -> None:
    assert ask(warm, *argv) == ["0"]


def test_report_loads_no_torch(warm: Path) -> None:
    from benchmark.specs import CodeSpec, MethodSpec, RunSpec, ScenarioSpec
    from benchmark.store import Cell, Record, Status, Store

    spec = RunSpec(
        scenario=ScenarioSpec(dataset="digits"),
        method=MethodSpec(name="sample"),
        code=CodeSpec(plugin="0"),
    )
    experiment = Store(warm / "results").experiment("main")
    cell = Cell.of(spec.run_id, "sample", spec.canonical())
    experiment.update_manifest({spec.cell_id: cell})
    experiment.begin(spec.run_id).publish(
        Record(
            run_id=spec.run_id,
            cell_id=spec.cell_id,
            status=Status.SKIPPED,
            reason="it is a sample",
            label="sample",
            spec=spec.canonical(),
        )
    )
    status, *loaded = ask(warm, "report")
    assert status == "0"
    assert not set(loaded) & {"torch", "torchvision", "timm"}


def test_listing_is_not_much_slower_than_python(warm: Path) -> None:
    def best(*argv: str) -> float:
        seconds = []
        for _ in range(3):
            began = time.perf_counter()
            subprocess.run(
                [sys.executable, *argv],
                cwd=warm,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                capture_output=True,
                timeout=120,
                check=True,
            )
            seconds.append(time.perf_counter() - began)
        return min(seconds)

    # A ratio, since absolute times depend on the machine: pydantic, rich and NumPy are
    # what a listing may cost; torch alone would cost several times as much.
    unit = best("-c", "import numpy, pydantic, yaml, rich.console")
    assert best("-m", "benchmark", "list") < 8 * unit
    assert best("-m", "benchmark", "--help") < 2 * unit
