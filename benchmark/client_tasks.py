"""Client tasks: idle workers train clients of the runs that are at work.

A run trains its clients one after another. Where a worker has nothing else to do (the grid is
small, the cluster large), it does one client's work of such a run, as a job of its own. What it
makes lands in the shared cache, where the run finds it. So nothing depends on these jobs: one
that is late, fails or dies costs nobody anything, and no bit of a record.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from benchmark.executor import Job, Outcome
from benchmark.experiment import PlannedRun
from benchmark.store import Status

log = logging.getLogger(__name__)

AT_CLIENT = re.compile(r"(?:training )?client (\d+)")
"""Phases of a run that works at a client."""


@dataclass
class _Front:
    """Where a run and its helpers are: it comes from the first client, they from the last."""

    run: PlannedRun
    payload: Mapping[str, Any]
    at: int | None
    end: int


class ClientTasks:
    """Hands out the clients of the runs at work, each at most once.

    Parameters
    ----------
    timeout : float or None
        Seconds after which a job is ended.
    """

    def __init__(self, timeout: float | None) -> None:
        self._timeout = timeout
        self._fronts: dict[str, _Front] = {}
        self._given: set[str] = set()

    def began(self, run: PlannedRun, payload: Mapping[str, Any]) -> None:
        """Take note that a run begins, with the payload of its job.

        Nothing is to be shared of a run without a cache, and little of one of many rounds.
        """
        if payload["use_cache"] and run.rounds == 1:
            clients = run.spec.scenario.partition.clients
            self._fronts[run.spec.run_id] = _Front(run, payload, None, clients)

    def heard(self, run_id: str, phase: str) -> None:
        """Take note of what a run is at; once it has left its clients there is no more to do."""
        front = self._fronts.get(run_id)
        if front is None:
            return
        at = AT_CLIENT.fullmatch(phase)
        if at is not None:
            front.at = int(at[1])
        elif front.at is not None:
            self.ended(run_id)

    def ended(self, run_id: str) -> None:
        """Take note that a run needs no more help."""
        self._fronts.pop(run_id, None)

    def job(self) -> Job | None:
        """Return a job for an idle worker: the next client of the run with most of them left."""
        open_fronts = [front for front in self._fronts.values() if front.at is not None]
        front = max(open_fronts, key=lambda front: front.end - (front.at or 0), default=None)
        if front is None or front.at is None or front.end - 1 <= front.at:
            return None
        front.end -= 1
        job = Job(
            run_id=f"{front.run.spec.run_id}-client-{front.end}",
            payload={**front.payload, "client": front.end},
            timeout=self._timeout,
            threads=front.run.spec.compute.threads,
            optional=True,
        )
        self._given.add(job.run_id)
        return job

    def closes(self, outcome: Outcome) -> bool:
        """Return whether an outcome is that of a client's job; then it needs no record."""
        if outcome.run_id not in self._given:
            return False
        if outcome.status is not Status.DONE:
            # Its run comes to that client by itself, and says what is wrong with it.
            log.info("%s: %s", outcome.run_id, outcome.reason or outcome.status)
        return True
