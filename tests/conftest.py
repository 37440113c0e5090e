"""Fixtures for all rooms."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
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
# Set by whoever wants colours in a log; a command then takes a pipe for a terminal.
for variable in ("FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
    os.environ.pop(variable, None)
# Servers of the tests are on this machine, and whatever else is asked for is not to be had.
for variable in ("no_proxy", "NO_PROXY"):
    os.environ[variable] = "127.0.0.1,localhost"
# The tests' plugin metadata stay out of the user's cache; some are read when tests are collected.
_PLUGIN_CACHE = tempfile.TemporaryDirectory(prefix="plugin-cache-")
os.environ["ONESHOT_FL_CACHE"] = _PLUGIN_CACHE.name


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    """Compute with one thread where torch is used at all."""
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(1)
