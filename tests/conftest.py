"""Fixtures for all rooms."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# `datasets` is also the name of a popular package: ours comes first.
sys.path.insert(0, str(ROOT))
# A shell's background ignores Ctrl-C, and what is started there inherits that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
# One thread: tests share few cores with each other, and bits depend on the thread count.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Test runners in parallel set the width of their own terminal; tables then cut their cells.
os.environ["COLUMNS"] = "250"


@pytest.fixture(scope="session", autouse=True)
def _own_plugin_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep the tests' plugin metadata out of the user's cache."""
    folder = tmp_path_factory.mktemp("plugin-cache")
    before = os.environ.get("ONESHOT_FL_CACHE")
    os.environ["ONESHOT_FL_CACHE"] = str(folder)
    yield
    if before is None:
        del os.environ["ONESHOT_FL_CACHE"]
    else:
        os.environ["ONESHOT_FL_CACHE"] = before


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    """Compute with one thread where torch is used at all."""
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(1)
