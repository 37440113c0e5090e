"""Rows that other code made are named beside a report: no table can tell by itself."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from benchmark.cli.stale import SHOWN, say_stale, stale_rows
from benchmark.registry import discover
from benchmark.specs import CodeSpec
from benchmark.store import Cell, ExperimentStore, Record, Status, Store


def add(store: ExperimentStore, label: str, method: str, code: dict[str, Any] | None) -> None:
    """Add a finished run made by some code; planned alone if there is none."""
    spec = {"scenario": {"dataset": "digits", "seed": 0}, "method": {"name": method}, "code": code}
    number = len(store.manifest().cells)
    run_id = f"{number:016x}"
    store.update_manifest({f"cell {label}": Cell.of(run_id, label, spec, number, "method")})
    if code is not None:
        record = Record(
            run_id=run_id,
            cell_id=f"cell {label}",
            status=Status.DONE,
            label=label,
            spec=spec,
            method={"kind": "method", "uses": []},
            metrics={"accuracy": 0.5},
        )
        store.begin(run_id).publish(record)


@pytest.fixture
def store(tmp_path: Path) -> ExperimentStore:
    made = Store(tmp_path / "results").experiment("main")
    info = discover().info("fedavg")
    now = CodeSpec(plugin=info.plugin, parts=info.parts).model_dump(mode="json")
    add(made, "fresh", "fedavg", now)
    add(made, "edited", "fedavg", {**now, "plugin": "0" * 16})
    add(made, "earlier engine", "fedavg", {**now, "engine": "0"})
    add(made, "to come", "fedavg", None)
    add(made, "gone", "no_such_method", now)
    return made


def test_what_other_code_made_is_counted(store: ExperimentStore) -> None:
    assert stale_rows(store, discover()) == {"edited": 1, "earlier engine": 1}


def test_few_are_named_and_many_counted(store: ExperimentStore) -> None:
    def said() -> str:
        talk = Console(file=io.StringIO(), width=1000)
        say_stale(store.folder, discover(), talk)
        assert isinstance(talk.file, io.StringIO)
        return talk.file.getvalue()

    begins = "made by other code than the present, and kept as it was: edited (1 run), earlier"
    assert said() == f"{begins} engine (1 run)\n"
    for number in range(SHOWN):
        add(store, f"old {number}", "fedavg", {"plugin": "0" * 16})
    assert said().endswith("old 3 (1 run), 2 more\n")
