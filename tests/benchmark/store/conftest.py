from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmark.store import ExperimentStore, Store


@pytest.fixture
def store(tmp_path: Path) -> ExperimentStore:
    return Store(tmp_path / "results").experiment("grid")


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "tiny"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(place)]
    try:
        mounted = subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        mounted = False
    if not mounted:
        pytest.skip("no right to mount a small tmpfs")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=False)
