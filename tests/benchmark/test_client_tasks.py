"""Client tasks: idle workers train clients of the runs at work, and change no bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from grids import metrics_of, planned, run_grid

from benchmark.client_tasks import ClientTasks
from benchmark.executor import Job, Outcome
from benchmark.store import Status, Store

ONE_RUN: dict[str, Any] = {"methods": ["fedavg"], "clients": 6, "train_samples": 900, "epochs": 40}


def tasks(*, use_cache: bool = True, **settings: Any) -> tuple[ClientTasks, list[str]]:
    """Return client tasks of a grid whose runs have all begun, and their ids."""
    _, runs = planned(**settings)
    made = ClientTasks(timeout=9.0)
    for run in runs:
        made.began(run, {"spec": run.spec.canonical(), "use_cache": use_cache})
    return made, [run.spec.run_id for run in runs]


def clients_of(made: ClientTasks, most: int = 20) -> list[int]:
    found = []
    while (job := made.job()) is not None and len(found) < most:
        found.append(job.payload["client"])
    return found


def test_clients_are_handed_out_from_the_last_to_where_the_run_is() -> None:
    made, (run,) = tasks(methods=["fedavg"], clients=6)
    assert made.job() is None  # it is still loading, or at its warm-up
    made.heard(run, "loading data")
    assert made.job() is None
    made.heard(run, "training client 0")
    job = made.job()
    assert job is not None
    assert (job.payload["client"], job.timeout, job.optional) == (5, 9.0, True)
    made.heard(run, "client 2")
    assert clients_of(made) == [4, 3]


def test_a_run_that_has_left_its_clients_needs_no_help() -> None:
    made, (run,) = tasks(methods=["fedavg"], clients=6)
    made.heard(run, "training client 0")
    made.heard(run, "server")
    assert made.job() is None
    made.heard(run, "training client 1")  # and never again
    assert made.job() is None


def test_the_run_with_most_clients_left_is_helped_first() -> None:
    made, (first, second) = tasks(methods=["fedavg"], clients=6, seeds=[0, 1])
    made.heard(first, "training client 3")
    made.heard(second, "training client 0")
    job = made.job()
    assert job is not None
    assert job.run_id == f"{second}-client-5"


@pytest.mark.parametrize(
    "settings", [{"use_cache": False}, {"set": {"fedavg": {"rounds": 2}}}, {"clients": 1}]
)
def test_nothing_to_share(settings: dict[str, Any]) -> None:
    made, (run,) = tasks(methods=["fedavg"], **settings)
    made.heard(run, "training client 0")
    assert made.job() is None


def test_its_outcomes_are_told_apart() -> None:
    made, (run,) = tasks(methods=["fedavg"], clients=6)
    made.heard(run, "client 0")
    job = made.job()
    assert job is not None
    assert made.closes(Outcome(job.run_id, Status.FAILED, "killed", 1.0, lost=True))
    assert not made.closes(Outcome(run, Status.DONE, "", 1.0))


@pytest.mark.long
def test_an_idle_worker_trains_clients_and_changes_no_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[Job] = []
    take = ClientTasks.job

    def watched(self: ClientTasks) -> Job | None:
        job = take(self)
        given.extend([job] if job else [])
        return job

    monkeypatch.setattr(ClientTasks, "job", watched)
    alone, together = tmp_path / "alone", tmp_path / "together"
    run_grid(alone, **ONE_RUN)
    assert given == []
    result, listener = run_grid(together, options={"workers": 2}, **ONE_RUN)
    assert (result.done, result.failed, len(listener.ended)) == (1, 0, 1)
    assert given
    assert metrics_of(together) == metrics_of(alone)
    (record,) = Store(together).experiment("main").records()
    (before,) = Store(alone).experiment("main").records()
    assert before.timing["cached_client_seconds"] == 0
    assert record.timing["cached_client_seconds"] > 0  # made by nobody but the other worker
    assert record.communication == before.communication
    ids = [each.environment["client_cache_ids"] for each in (record, before)]
    assert ids[0] == ids[1]
