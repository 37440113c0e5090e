"""The one vocabulary for what became of a run."""

from __future__ import annotations

from enum import StrEnum


class Status(StrEnum):
    """What became of a run; the value is what reports print."""

    DONE = "done"
    SKIPPED = "skipped"
    NOT_INSTALLED = "not installed"
    FAILED = "failed"
    DIVERGED = "diverged"
    TIMED_OUT = "timed out"
    INTERRUPTED = "interrupted"
    NOT_RUN = "not run yet"

    @property
    def is_final(self) -> bool:
        """Whether the same command does not try again (a diverged run would diverge again)."""
        return self in (Status.DONE, Status.SKIPPED, Status.DIVERGED)
