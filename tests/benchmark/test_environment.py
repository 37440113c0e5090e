"""Where a number was made: versions, git state, hardware."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmark import environment

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    environment.git_state.cache_clear()
    yield
    environment.git_state.cache_clear()


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"]
    done = subprocess.run(
        ["git", "-C", str(folder), *identity, *arguments],
        env={name: value for name, value in os.environ.items() if not name.startswith("GIT_")},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository that holds a file in the place of the suite's module."""
    module = tmp_path / "suite" / "benchmark" / "environment.py"
    module.parent.mkdir(parents=True)
    module.write_text("")
    monkeypatch.setattr(environment, "project_root", lambda: tmp_path / "suite")
    git(tmp_path, "init", "--quiet")
    return tmp_path


def test_versions_are_those_that_are_installed() -> None:
    found = environment.versions()
    assert found["python"] == platform.python_version()
    assert found["torch"] == importlib.metadata.version("torch")
    assert set(found) == {"python", *environment.PACKAGES}


def test_a_package_that_is_absent_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "PACKAGES", ("no-such-package-at-all",))
    assert environment.versions()["no-such-package-at-all"] == "not installed"


def test_commit_and_changes(checkout: Path) -> None:
    git(checkout, "add", "--all")
    git(checkout, "commit", "--quiet", "--message", "one")
    commit = git(checkout, "rev-parse", "HEAD")
    assert environment.git_state() == {"commit": commit, "dirty": False}
    (checkout / "suite" / "benchmark" / "environment.py").write_text("changed = 1\n")
    environment.git_state.cache_clear()
    assert environment.git_state() == {"commit": commit, "dirty": True}


@pytest.mark.parametrize(
    ("file", "dirty"),
    [
        ("methods/my_method.py", True),
        ("benchmark/new.py", True),
        ("datasets/new.py", True),
        ("methods/__pycache__/my_method.pyc", False),
        ("notes.txt", False),
        ("results/main/record.json", False),
    ],
)
def test_a_file_that_git_does_not_know_counts_where_code_lies(
    checkout: Path, file: str, dirty: bool
) -> None:
    (checkout / ".gitignore").write_text("__pycache__/\n")
    git(checkout, "add", "--all")
    git(checkout, "commit", "--quiet", "--message", "one")
    path = checkout / "suite" / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("")
    assert environment.git_state()["dirty"] is dirty


def test_in_a_hook_of_another_repository_the_commit_is_ours(
    checkout: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    git(checkout, "add", "--all")
    git(checkout, "commit", "--quiet", "--message", "one")
    theirs = tmp_path_factory.mktemp("theirs")
    git(theirs, "init", "--quiet")
    monkeypatch.setenv("GIT_DIR", str(theirs / ".git"))
    monkeypatch.setenv("GIT_INDEX_FILE", str(theirs / ".git" / "index"))
    commit = git(checkout, "rev-parse", "HEAD")
    assert environment.git_state() == {"commit": commit, "dirty": False}


def test_what_runs_write_into_the_checkout_is_no_change_of_the_code(checkout: Path) -> None:
    manifest = checkout / "suite" / "results" / "reference" / "main" / "experiment.json"
    manifest.parent.mkdir(parents=True)
    manifest.write_text("{}")
    git(checkout, "add", "--all")
    git(checkout, "commit", "--quiet", "--message", "one")
    manifest.write_text('{"cells": {}}')
    assert environment.git_state()["dirty"] is False


def test_the_commit_of_a_project_around_it_is_not_taken(checkout: Path) -> None:
    (checkout / "theirs.txt").write_text("")
    git(checkout, "add", "theirs.txt")
    git(checkout, "commit", "--quiet", "--message", "theirs")
    assert environment.git_state() == {"commit": None, "dirty": None}


def test_outside_git_there_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "project_root", lambda: tmp_path)
    assert environment.git_state() == {"commit": None, "dirty": None}


def test_without_git_there_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert shutil.which("git") is None
    assert environment.git_state() == {"commit": None, "dirty": None}


def test_hardware() -> None:
    found = environment.hardware()
    assert found["cores"] == os.cpu_count()
    assert found["memory_bytes"] > 2**28
    assert found["cpu"]
    assert platform.machine() in found["system"]


def test_peak_memory_is_in_bytes_and_grows() -> None:
    code = (
        "from benchmark.environment import peak_memory_bytes as peak; before = peak();"
        "block = b'x' * (before + 2**26); del block; print(before, peak())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    before, after = map(int, done.stdout.split())
    assert 2**22 < before < 2**30
    assert after >= 2 * before


def test_it_imports_no_torch_by_itself() -> None:
    code = (
        "import json, sys; from benchmark import environment as e;"
        "from benchmark.specs import ComputeSpec;"
        "e.versions(), e.git_state(), e.hardware(), e.computed_with(ComputeSpec());"
        "print(json.dumps('torch' in sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout) is False
