"""Verbs that only show something import no torch, and answer about as fast as Python can."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import plugin_lab
import pytest

ROOT = Path(__file__).resolve().parents[3]
HEAVY = ("torch", "torchvision", "timm", "sklearn", "matplotlib")

LIGHT = (
    "--help",
    "run --help",
    "list",
    "list datasets",
    "describe fedavg",
    "clean",
    "split --help",
    "doctor --help",
)

PROBE = """
import sys
from benchmark.__main__ import main
before = set()
for line in sys.argv[1:]:
    status = main(line.split())
    loaded = {{name for name in {heavy!r} if name in sys.modules}}
    print("LOADED", status, *sorted(loaded - before))
    before |= loaded
"""


def ask(folder: Path, *lines: str) -> list[list[str]]:
    """Give commands one after another in one new process.

    Returns for each its exit status and the heavy modules that it was the first to load.
    """
    done = subprocess.run(
        [sys.executable, "-c", PROBE.format(heavy=(*HEAVY, "pandas")), *lines],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=600,
        check=True,
    )
    answers = [line for line in done.stdout.splitlines() if line.startswith("LOADED ")]
    assert len(answers) == len(lines)
    return [line.split()[1:] for line in answers]


@pytest.fixture(scope="module")
def warm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder; the plugins' metadata are cached by a first listing."""
    folder = tmp_path_factory.mktemp("cold")
    ask(folder, "list methods")
    return folder


def test_nothing_heavy_is_loaded(warm: Path) -> None:
    answers = dict(zip(LIGHT, ask(warm, *LIGHT), strict=True))
    assert answers == {line: ["0"] for line in LIGHT}


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
    ((status, *loaded),) = ask(warm, "report")
    assert status == "0"
    assert not set(loaded) & {"torch", "torchvision", "timm"}


def test_the_engine_waits_for_no_compiler_or_image_library(warm: Path) -> None:
    """They cost as much as torch itself, and only scores of generated images need them."""
    late = {"torch._dynamo", "torchvision", "torch_fidelity", "pytorch_fid", "sympy"}
    code = f"import sys, benchmark.grid, benchmark.engine; print({late!r} & sys.modules.keys())"
    done = plugin_lab.python(warm, "-c", code)
    assert done.stdout == "set()\n", done.stderr


@pytest.mark.long
def test_listing_is_not_much_slower_than_python(warm: Path) -> None:
    def cost(*argv: str) -> float:
        """Return the processor seconds of a process: other work on the machine is not in them."""
        seconds = []
        for _ in range(2):
            process = subprocess.Popen(
                [sys.executable, *argv],
                cwd=warm,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            assert process.returncode == 0
            seconds.append(usage.ru_utime + usage.ru_stime)
        return min(seconds)

    # A ratio, since seconds depend on the machine: pydantic, rich and NumPy are
    # what a listing may cost; torch alone would cost several times as much.
    unit = cost("-c", "import numpy, pydantic, yaml, rich.console")
    assert cost("-m", "benchmark", "list") < 8 * unit
    assert cost("-m", "benchmark", "--help") < 2 * unit
