"""Processes: ending them for real, and saying in words how one ended."""

from __future__ import annotations

import os
import signal
import sys
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
    _, alive = psutil.wait_procs(family, timeout=grace)
    # What it started while it was being ended.
    late = [other for process in alive for other in descendants(process.pid)]
    _signal_all([*alive, *late], signal.SIGKILL)
    kill_group(pid)
    psutil.wait_procs([*alive, *late], timeout=grace)


def kill_group(pid: int) -> None:
    """Kill what is left of the process group that ``pid`` leads or led."""
    if pid > 1 and pid != os.getpgrp():
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)


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


def own_peak_memory() -> int:
    """Return the largest resident memory that this process has had, in bytes."""
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak if sys.platform == "darwin" else peak * 1024)


def die_with_parent() -> None:
    """Ask Linux to kill this process when the one that forked it ends; elsewhere nothing."""
    if not sys.platform.startswith("linux"):
        return
    import ctypes

    with suppress(OSError, AttributeError):
        set_parent_death_signal = 1
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGKILL, 0, 0, 0)
