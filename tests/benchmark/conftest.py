"""What tests of one process share: the fork server, finished grids, a place for plugins."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import plugin_lab
import pytest
from grids import METHODS, TINY, run_grid

from benchmark.executor import forkserver
from benchmark.grid import PRELOAD


@pytest.fixture(scope="session")
def fork_server() -> None:
    """Start the fork server with the imports of a grid.

    Whoever starts it decides for the rest of the session what it has imported; without the
    engine in it, each run of each later grid would import that by itself, for seconds.
    """
    forkserver.context(PRELOAD)
    forkserver.ensure_running()


@pytest.fixture(scope="session")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the results of one smoke grid from a cold cache, which nothing interrupted."""
    results = tmp_path_factory.mktemp("unbroken")
    result, _ = run_grid(results)
    assert (result.done, result.failed) == (len(METHODS), 0)
    return results


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the results of one finished run, to be copied."""
    folder = tmp_path_factory.mktemp("finished")
    result, _ = run_grid(folder, **TINY)
    assert result.done == 1
    return folder


@pytest.fixture
def results(finished: Path, tmp_path: Path) -> Path:
    """Return a copy of them, to be worked on."""
    shutil.copytree(finished, tmp_path / "results")
    return tmp_path / "results"


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return a folder like site-packages, on the path of this process too."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    yield folder
    sys.modules.pop(plugin_lab.MODULE, None)
