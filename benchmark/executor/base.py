"""What every executor takes and gives: jobs, events, outcomes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

from benchmark.store.status import Status


@dataclass(frozen=True)
class Job:
    """One run to compute, as plain values that any process or machine can be sent.

    Parameters
    ----------
    run_id : str
        The run.
    payload : dict of JSON values
        What the target function is called with.
    timeout : float or None
        Seconds of wall time after which it is ended, start-up included.
    threads : int
        CPU threads it computes with; they change bits, so no executor changes them.
    optional : bool
        Whether it only helps the others: once none of those is left it is ended, without an
        outcome.

    Raises
    ------
    ValueError
        If the timeout or the number of threads is not positive.
    TypeError
        If the payload is not made of JSON values.
    """

    run_id: str
    payload: dict[str, Any]
    timeout: float | None = None
    threads: int = 1
    optional: bool = False

    def __post_init__(self) -> None:
        if self.timeout is not None and not self.timeout > 0:
            raise ValueError(f"run {self.run_id}: a timeout is positive, not {self.timeout}")
        if self.threads < 1:
            raise ValueError(f"run {self.run_id}: at least 1 thread, not {self.threads}")
        self.payload_json()

    def payload_json(self) -> str:
        """Return the payload as JSON text."""
        try:
            return json.dumps(self.payload)
        except (TypeError, ValueError) as error:
            raise TypeError(f"run {self.run_id}: the payload is not JSON: {error}") from None


@dataclass(frozen=True)
class Event:
    """Something a running job reports.

    Parameters
    ----------
    run_id : str
        The run.
    kind : str
        What it is; runs send ``"progress"``.
    data : dict of JSON values
        The rest.
    """

    run_id: str
    kind: str
    data: dict[str, Any]


OnEvent = Callable[[Event], None]
"""What is told of events, in the caller's process and thread."""


@dataclass(frozen=True)
class Outcome:
    """What became of a job.

    Parameters
    ----------
    run_id : str
        The run.
    status : Status
        ``done``, ``failed``, ``diverged``, ``timed out`` or ``interrupted``.
    reason : str
        Why it is not done, one line; empty if it is.
    seconds : float
        Wall time, start-up included.
    detail : str
        The full traceback of a failure that is a programming error; else empty.
    step : int or None
        The optimiser step at which a diverged run met NaN or infinity.
    user_error : bool
        Whether it failed for something that the user can mend.
    result : JSON value
        What the target function returned. A run returns nothing: what it made is in the store.
    lost : bool
        Whether its process died without a word (killed, out of memory, its machine gone), which
        says nothing of the job: it may be tried once more.
    """

    run_id: str
    status: Status
    reason: str
    seconds: float
    detail: str = ""
    step: int | None = None
    user_error: bool = False
    result: Any = field(default=None)
    lost: bool = False


class Executor(Protocol):
    """Computes jobs: in processes of this machine, or on a cluster."""

    def run(self, jobs: Iterable[Job | None], on_event: OnEvent | None = None) -> Iterator[Outcome]:
        """Compute jobs and yield each outcome as it comes, in any order.

        ``jobs`` is asked for the next one when there is room for it; ``None`` says that there
        is none at this moment, and that it should be asked again a little later.
        Optional jobs that are still at work when all others have ended are ended too, and have
        no outcome.

        A job that fails, dies or takes too long costs its own outcome, never the others.
        On Ctrl-C the running jobs are ended and yielded as ``interrupted``, and then
        ``KeyboardInterrupt`` is raised.
        """
