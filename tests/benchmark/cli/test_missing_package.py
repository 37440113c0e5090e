"""An interpreter that lacks the suite's dependencies is told so in one line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize("argv", [("list",), ("--methods", "all"), ("--help",)], ids=" ".join)
def test_python_without_the_suite_says_how_to_install_it(
    argv: tuple[str, ...], tmp_path: Path
) -> None:
    done = subprocess.run(
        # -S: the standard library alone, as in an interpreter nothing was installed for.
        [sys.executable, "-S", "-m", "benchmark", *argv],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 2
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: package '")
    assert f"pip install -e '{ROOT}'" in line
    assert sys.executable in line


def failing(error: Exception) -> object:
    def execute(*_: object, **__: object) -> None:
        raise error

    return execute


def test_a_package_missed_on_the_way_is_one_line(cli, monkeypatch: pytest.MonkeyPatch) -> None:
    error = ModuleNotFoundError("No module named 'plotly'", name="plotly.graph_objects")
    monkeypatch.setattr("benchmark.cli.verb_list.execute", failing(error))
    answer = cli("list", "methods")
    assert answer.status == 2
    (line,) = answer.err_lines
    assert "package 'plotly' is missing" in line


@pytest.mark.parametrize("name", ["benchmark.no_such_part", "methods", "tomllib", None])
def test_what_no_installation_mends_stays_a_defect(
    cli, monkeypatch: pytest.MonkeyPatch, name: str | None
) -> None:
    error = ModuleNotFoundError(f"No module named {name!r}", name=name)
    monkeypatch.setattr("benchmark.cli.verb_list.execute", failing(error))
    answer = cli("list", "methods")
    assert answer.status == 70
    assert "Traceback" in answer.err
