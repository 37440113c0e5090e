"""Peak memory and seconds of a piece of work, each in a process of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from benchmark.environment import peak_memory_bytes
from benchmark.errors import UserError
from benchmark.executor import forkserver
from benchmark.executor.worker import watch_parent

INTERVAL = 0.005
"""Seconds between two looks at this process's memory."""


@dataclass(frozen=True)
class Memory:
    """Bytes of resident memory.

    Parameters
    ----------
    private : int
        Of this process alone, and not backed by a file.
    total : int
        With pages of files and libraries.
    """

    private: int
    total: int


def memory_now() -> Memory:
    """Return what this process holds; private is total where the system does not tell."""
    import psutil

    found = psutil.Process().memory_info()
    return Memory(found.rss - getattr(found, "shared", 0), found.rss)


class PeakMemory:
    """Watches this process's memory from a thread, as a context.

    Attributes
    ----------
    before : Memory
        On entering.
    peak : Memory
        The most that was seen inside. Total is the system's own peak since the process
        began, if that is higher.
    """

    def __init__(self) -> None:
        self.before = self.peak = Memory(0, 0)
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        self.before = self.peak = memory_now()
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._done.set()
        self._thread.join()
        self._look()
        self.peak = Memory(self.peak.private, max(self.peak.total, peak_memory_bytes()))

    def _watch(self) -> None:
        while not self._done.wait(INTERVAL):
            self._look()

    def _look(self) -> None:
        now = memory_now()
        self.peak = Memory(max(self.peak.private, now.private), max(self.peak.total, now.total))


def in_child(work: Callable[..., Any], *arguments: Any) -> Any:
    """Return what ``work`` returns in a fresh process: a peak of memory never falls.

    Parameters
    ----------
    work : callable
        Importable by name, from another module than the one that was started.
    *arguments
        Its arguments; they and the result are pickled.

    Raises
    ------
    UserError
        If the process died, or ``work`` raised.
    """
    context = forkserver.context((*forkserver.PRELOAD, work.__module__))
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_answer, args=(sender, work, arguments))
    forkserver.start(process)
    sender.close()
    try:
        done, value = receiver.recv()
    except EOFError:
        process.join()
        raise UserError(f"{work.__name__} died with exit code {process.exitcode}") from None
    process.join()
    if not done:
        raise UserError(f"{work.__name__} failed: {value}")
    return value


def _answer(sender: Any, work: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    # A point can take minutes: it must not outlive a script that was stopped.
    watch_parent()
    try:
        answer = (True, work(*arguments))
    except Exception as error:  # noqa: BLE001 - whatever it is, the parent is to say it
        answer = (False, f"{type(error).__name__}: {error}")
    sender.send(answer)
