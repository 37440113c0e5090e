"""Processes: ending them for real, and saying in words how one ended."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterable
from contextlib import suppress

import psutil

_WORDS = {
    signal.SIGKILL: "out of memory?",
    signal.SIGSEGV: "segmentation fault",
    signal.SIGBUS: "bus error",
    signal.SIGABRT: "aborted",
    signal.SIGILL: "illegal instruction: built for another processor?",
    signal.SIGFPE: "arithmetic error",
    signal.SIGTERM: "terminated from outside",
}


def describe_exit(code: int | None) -> str:
    """Return in words how a process ended that did not say so itself.

    Parameters
    ----------
    code : int or None
        Its exit status; negative for a signal, ``None`` if unknown.
    """
    if code is None:
        return "the process vanished"
    if code < 0:
        with suppress(ValueError):
            word = _WORDS.get(signal.Signals(-code), signal.Signals(-code).name)
            return f"killed by signal {-code} ({word})"
        return f"killed by signal {-code}"
    return f"the process ended with exit status {code} before the run did"


def descendants(pid: int) -> list[psutil.Process]:
    """Return a process and all that descend from it, as far as they are alive."""
    try:
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def end_tree(pid: int, grace: float) -> None:
    """End a process, its descendants and its process group.

    Parameters
    ----------
    pid : int
        A process that leads its own process group.
    grace : float
        Seconds between asking (SIGTERM) and killing (SIGKILL).
    """
    family = descendants(pid)
    _signal_all(family, signal.SIGTERM)
    alive = _still_alive(family, grace)
    # What it started while it was being ended.
    late = [other for process in alive for other in descendants(process.pid)]
    _signal_all([*alive, *late], signal.SIGKILL)
    kill_group(pid)
    _still_alive([*alive, *late], grace)


def kill_group(pid: int) -> None:
    """Kill what is left of the process group that ``pid`` leads or led."""
    if pid > 1 and pid != os.getpgrp():
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)


def _still_alive(processes: Iterable[psutil.Process], timeout: float) -> list[psutil.Process]:
    """Wait for processes to end; return those that have not by then.

    A zombie has ended: in a container there may be nobody who collects orphans.
    """
    limit = time.monotonic() + timeout
    alive = [process for process in processes if _runs(process)]
    while alive and time.monotonic() < limit:
        time.sleep(0.01)
        alive = [process for process in alive if _runs(process)]
    return alive


def _runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:
        return True


def _signal_all(processes: Iterable[psutil.Process], number: signal.Signals) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            process.send_signal(number)


def resident_memory(pid: int) -> int:
    """Return a process's resident memory now, in bytes; 0 if it is gone."""
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:
        return 0
