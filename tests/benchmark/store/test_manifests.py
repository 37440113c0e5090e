"""The manifest: which cells an experiment has, and what became of each."""

from __future__ import annotations

import os

import pytest
from store_lab import OTHER, RUN, cell, publish, record

from benchmark.store import (
    ExperimentStore,
    Status,
)


def stale(store: ExperimentStore) -> list[str]:
    """Return the runs with a record made by other code than their cell's run by now."""
    manifest = store.manifest()
    cells = {found.run_id: manifest.cell_of(found.cell_id) for found in store.records()}
    return [run for run, cell in cells.items() if cell and manifest.cells[cell].run_id != run]


def test_manifests_of_two_commands_add_up(store: ExperimentStore) -> None:
    store.update_manifest({"a": cell(RUN), "b": cell(OTHER, "dense", 1)}, {"mosaic": "no timm"})
    merged = store.update_manifest(
        {"c": cell("a" * 16, "mosaic")}, settings={"profile": "smoke"}, defaults={"x": {"rate": 1}}
    )
    assert [name for name, _ in merged.in_order()] == ["a", "b", "c"]
    assert merged.not_installed == {}
    assert store.manifest() == merged
    # After an edit of the plugin, the cell points at the new run and keeps its place.
    edited = store.update_manifest({"a": cell("b" * 16)}, defaults={"y": {"rate": 2}})
    assert edited.defaults == {"x": {"rate": 1}, "y": {"rate": 2}}
    assert [name for name, _ in edited.in_order()] == ["a", "b", "c"]
    assert edited.cells["a"].run_id == "b" * 16
    assert edited.settings == {"profile": "smoke"}


def test_records_of_other_code_are_stale(store: ExperimentStore) -> None:
    publish(store, cell_id="a")
    publish(store, OTHER, cell_id="b")
    store.update_manifest({"a": cell("b" * 16), "b": cell(OTHER)})
    assert stale(store) == [RUN]


def test_a_record_from_before_a_parameter_was_there_is_stale(store: ExperimentStore) -> None:
    before = cell(RUN).model_copy(update={"config": {"rate": 1}})
    other = cell(OTHER).model_copy(update={"config": {"rate": 2}, "order": 1})
    publish(store, cell_id="a")
    publish(store, OTHER, cell_id="b")
    store.update_manifest({"a": before, "b": other})
    assert stale(store) == []
    now = cell("a" * 16).model_copy(update={"config": {"rate": 1, "floor": 0}})
    manifest = store.update_manifest({"c": now})
    # In its place; what was asked for at another rate is another question, asked by nobody yet.
    assert [name for name, _ in manifest.in_order()] == ["c", "b"]
    assert [manifest.cell_of(name) for name in "abcd"] == ["c", "b", "c", None]
    assert stale(store) == [RUN]
    assert [state.status for state in store.states()] == [Status.NOT_RUN, Status.DONE]
    # And over a second change of the method, and the manifest's loss.
    last = now.model_copy(update={"run_id": "b" * 16, "config": {"rate": 1, "slope": 0}})
    assert store.update_manifest({"d": last}).cells["d"].earlier == ("a", "c")
    assert stale(store) == [RUN]


@pytest.mark.parametrize("harm", ["cut", "missing", "no json"])
def test_a_damaged_manifest_is_rebuilt_from_the_records(
    store: ExperimentStore, caplog: pytest.LogCaptureFixture, harm: str
) -> None:
    publish(store, cell_id="a")
    store.update_manifest({"a": cell(RUN)})
    path = store.folder / "experiment.json"
    if harm == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:40] if harm == "cut" else b"\xff\xfe")
    manifest = store.manifest()
    assert manifest.cells["a"].run_id == RUN
    assert manifest.cells["a"].scenario == {"dataset": "digits", "seed": 3}
    assert ("damaged" in caplog.text) == (harm != "missing")
    store.update_manifest({"b": cell(OTHER)})
    assert set(store.manifest().cells) == {"a", "b"}


def test_states_say_what_became_of_every_cell(store: ExperimentStore) -> None:
    failed, never, killed = "1" * 16, "2" * 16, "3" * 16
    publish(store, cell_id="a")
    store.begin(failed).fail(record(failed, status=Status.FAILED, reason="ValueError: x"))
    dead = store.begin(killed)
    (dead.path / "started.json").unlink()
    runs = {"a": RUN, "b": failed, "c": never, "d": killed}
    store.update_manifest(
        {name: cell(run, order=order) for order, (name, run) in enumerate(runs.items())}
    )
    states = store.states()
    assert [state.status for state in states] == [
        Status.DONE,
        Status.FAILED,
        Status.NOT_RUN,
        Status.INTERRUPTED,
    ]
    assert states[1].reason == "ValueError: x"
    assert states[0].record is not None
    assert states[3].record is None


def test_the_later_of_two_records_wins_the_cell_of_a_rebuilt_manifest(
    store: ExperimentStore,
) -> None:
    for age, run_id in ((100, OTHER), (0, RUN)):
        folder = publish(store, run_id, cell_id="a")
        os.utime(folder / "record.json", (2e9 - age, 2e9 - age))
    assert store.manifest().cells["a"].run_id == RUN
