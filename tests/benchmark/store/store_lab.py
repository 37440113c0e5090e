"""Runs and records of a made-up experiment, for the tests of the store."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmark.store import (
    Cell,
    ExperimentStore,
    Record,
    Status,
)

RUN = "0123456789abcdef"


OTHER = "fedcba9876543210"


def record(run_id: str = RUN, status: Status = Status.DONE, **values: Any) -> Record:
    given = {
        "run_id": run_id,
        "cell_id": "c" + run_id[1:],
        "status": status,
        "label": "FedAvg",
        "spec": {"method": {"name": "fedavg"}, "scenario": {"dataset": "digits", "seed": 3}},
        "metrics": {"accuracy": 0.1 + 0.2},
        **values,
    }
    return Record(**given)


def publish(store: ExperimentStore, run_id: str = RUN, **values: Any) -> Path:
    attempt = store.begin(run_id)
    attempt.write_history([{"step": 0, "loss": 1 / 3}, {"step": 5, "loss": 0.25, "note": "a,b"}])
    return attempt.publish(record(run_id, **values))


def cell(run_id: str, method: str = "fedavg", order: int = 0) -> Cell:
    return Cell(run_id=run_id, label=method, method=method, order=order)
