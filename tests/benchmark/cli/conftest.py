"""The command line, called in this process or in one of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from cli_lab import Answer

from benchmark.__main__ import main

ROOT = Path(__file__).resolve().parents[3]


Cli = Callable[..., Answer]


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """Call ``main`` in this process, from an empty folder."""
    monkeypatch.chdir(tmp_path)
    # Recorded, so that what `main` does to the path ends with the test.
    monkeypatch.setattr(sys, "path", list(sys.path))

    def call(*argv: object) -> Answer:
        status = main([str(item) for item in argv])
        said = capsys.readouterr()
        return Answer(status, said.out, said.err)

    return call


@pytest.fixture
def shell(tmp_path: Path) -> Cli:
    """Call ``python -m benchmark`` in a process of its own, from the project's folder."""

    def call(*argv: object, path: Path | None = None, **env: str) -> Answer:
        places = [str(ROOT), *([str(path)] if path else [])]
        done = subprocess.run(
            [sys.executable, "-m", "benchmark", *map(str, argv)],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(places), **env},
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        return Answer(done.returncode, done.stdout, done.stderr)

    return call


def make_plugin(folder: Path, module: str, source: str, name: str) -> Path:
    """Write an installed-looking package with an entry point; return its folder."""
    about = folder / f"{module}-1.0.dist-info"
    about.mkdir(parents=True)
    (folder / f"{module}.py").write_text(source, encoding="utf-8")
    (about / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n", encoding="utf-8"
    )
    (about / "entry_points.txt").write_text(
        f"[oneshot_fl.methods]\n{name} = {module}\n", encoding="utf-8"
    )
    return folder


@pytest.fixture
def plugin(tmp_path: Path) -> Callable[[str, str, str], Path]:
    """Return a function that makes a plugin package in a folder of this test."""
    return lambda module, source, name: make_plugin(tmp_path / "site", module, source, name)
