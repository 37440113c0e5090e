"""The fork server: imports torch once, then each worker starts in milliseconds.

A worker never runs the caller's main module again, whatever that was (``python -m``, a
console script, pytest): nothing it needs is there, and importing it would cost time.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.forkserver
import multiprocessing.resource_tracker
import os
import signal
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from types import ModuleType

from benchmark.executor.worker import THREAD_VARIABLES
from benchmark.import_path import project_root

PRELOAD = (
    "numpy",
    "pydantic",
    "torch",
    "torch.nn.functional",
    "torch.optim",
    "safetensors.torch",
    "benchmark.executor.worker",
    "benchmark.contract",
    "benchmark.specs",
)
"""What the fork server imports: heavy modules that start no threads and touch no device."""

_starting = threading.RLock()


def context(preload: Sequence[str]) -> ForkServerContext:
    """Return the multiprocessing context whose fork server imports ``preload``.

    A fork server that is running already keeps what it has imported.
    """
    found = multiprocessing.get_context("forkserver")
    found.set_forkserver_preload(list(preload))
    return found


def ensure_running() -> None:
    """Start the fork server if it is not running; returns at once, it imports meanwhile."""
    with _starting, _blank_main(), _environment(_server_environment()):
        # Started first: it would open the ears that are closed for the fork server.
        multiprocessing.resource_tracker.ensure_running()
        with _deaf_to_ctrl_c():
            multiprocessing.forkserver.ensure_running()


def start(process: BaseProcess) -> None:
    """Start a worker process, and the fork server if need be."""
    ensure_running()
    with _starting, _blank_main(), _environment(_server_environment()):
        process.start()


@contextmanager
def _deaf_to_ctrl_c() -> Iterator[None]:
    """Let the fork server, started inside, never hear Ctrl-C: it would print a traceback.

    It inherits a blocked signal, from its first moment on, before Python's own handler is
    there. Here the signal waits, and is heard at the end: one that was ignored would be lost.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _server_environment() -> dict[str, str]:
    path = [str(project_root()), *filter(None, [os.environ.get("PYTHONPATH")])]
    # One thread: a pool of threads that starts on import would not survive the fork.
    threads = dict.fromkeys(THREAD_VARIABLES, "1")
    return {"PYTHONPATH": os.pathsep.join(path), **threads}


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """Lend environment variables to a process that is started inside."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def _blank_main() -> Iterator[None]:
    """Hide the main module from multiprocessing, which would run it again in the worker."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main
