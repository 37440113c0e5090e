"""Progress out of a run: phases, steps and losses, thinned out here; nothing comes back."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

INTERVAL = 0.1
"""Seconds between two progress events of one phase."""


class Sink(Protocol):
    """Where events go, such as the pipe to the parent process."""

    def send(self, kind: str, **data: object) -> None:
        """Deliver one event; never raises."""


class Events:
    """Sends progress to a sink.

    Parameters
    ----------
    sink : Sink or None
        ``None`` drops everything.
    """

    def __init__(self, sink: Sink | None = None) -> None:
        self._sink = sink
        self._phase = ""
        self._last = 0.0

    def progress(self, phase: str, step: int, total: int, **scalars: float) -> None:
        """Report that ``step`` of ``total`` steps of a phase are done."""
        if self._sink is None:
            return
        now = time.monotonic()
        if phase == self._phase and now - self._last < INTERVAL and step != total:
            return
        self._phase, self._last = phase, now
        self._sink.send(
            "progress",
            phase=phase,
            step=step,
            total=total,
            scalars={name: float(value) for name, value in scalars.items()},
        )

    def on_step(self, phase: str) -> Callable[[int, int, object], None]:
        """Return the trainer's callback that reports a phase.

        The loss that the trainer passes is left alone: reading it would wait for the device.
        """

        def report(step: int, total: int, loss: object) -> None:
            self.progress(phase, step, total)

        return report
