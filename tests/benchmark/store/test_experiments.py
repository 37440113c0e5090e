"""Runs of an experiment: begun, published, failed, superseded, damaged."""

from __future__ import annotations

import json
import logging
import math
from pathlib import Path

import pytest
from store_lab import OTHER, RUN, publish, record

from benchmark.errors import UserError
from benchmark.store import (
    ExperimentStore,
    Status,
    Store,
    StoreError,
    read_record,
)
from benchmark.store.files import read_json, write_json


def test_a_published_run_is_found_with_raw_values(store: ExperimentStore) -> None:
    folder = publish(store)
    found = store.find(RUN)
    assert found is not None
    assert found.metrics["accuracy"] == 0.1 + 0.2
    assert found.attempt == 1
    assert {path.name for path in folder.iterdir()} == {"record.json", "history.csv"}
    assert list(store.attempts.iterdir()) == []
    assert store.history(RUN) == [
        {"step": 0.0, "loss": 1 / 3, "note": ""},
        {"step": 5.0, "loss": 0.25, "note": "a,b"},
    ]
    assert store.find(OTHER) is None
    assert store.history(OTHER) == []


def test_nothing_of_an_attempt_is_seen_before_it_is_published(store: ExperimentStore) -> None:
    attempt = store.begin(RUN)
    attempt.write_bytes("samples.png", b"png")
    assert store.find(RUN) is None
    assert store.records() == []
    latest = store.latest_attempt(RUN)
    assert latest is not None
    assert (latest.status, latest.reason) == (Status.NOT_RUN, "running now")
    folder = attempt.publish(record())
    assert (folder / "samples.png").read_bytes() == b"png"


def test_attempts_at_work_are_not_removed(store: ExperimentStore) -> None:
    dead = store.begin(OTHER)
    # Results that were copied from another machine, where a command was killed.
    write_json(dead.path / "started.json", {"host": "elsewhere", "pid": 1, "created": 0.0})
    command = ExperimentStore(store.folder)
    with command.lock(RUN):
        attempt = command.begin(RUN)
        assert store.running() == [RUN]
        assert store.idle_attempts() == [dead.path]
        store.remove_attempts()
        assert list(store.attempts.iterdir()) == [attempt.path]
        assert attempt.publish(record()).is_dir()
    assert store.running() == []
    store.remove_attempts()
    assert not store.attempts.exists()


def test_non_finite_metrics_survive_and_are_no_bare_nan(store: ExperimentStore) -> None:
    folder = publish(store, metrics={"fid": math.inf, "nested": [math.nan]})
    text = (folder / "record.json").read_text()
    assert json.loads(text)["metrics"] == {"fid": "Infinity", "nested": ["NaN"]}
    found = store.find(RUN)
    assert found is not None
    assert found.metrics["fid"] == math.inf
    assert math.isnan(found.metrics["nested"][0])


def test_what_is_no_json_is_refused_when_the_record_is_made() -> None:
    with pytest.raises(ValueError, match=r"metrics.a: .*object is no JSON value"):
        record(metrics={"a": object()})


def test_failed_attempts_are_numbered_and_never_in_the_way(store: ExperimentStore) -> None:
    for number in (1, 2):
        attempt = store.begin(RUN)
        assert attempt.number == number
        assert attempt.fail(record(status=Status.FAILED, reason=f"number {number}", metrics={}))
    latest = store.latest_attempt(RUN)
    assert latest is not None
    assert (latest.number, latest.status, latest.reason) == (2, Status.FAILED, "number 2")
    assert store.find(RUN) is None
    publish(store)
    found = store.find(RUN)
    assert found is not None
    assert found.attempt == 3
    # The number of the published attempt is not given again.
    assert store.begin(RUN).number == 4


def test_statuses_go_where_they_belong(store: ExperimentStore) -> None:
    attempt = store.begin(RUN)
    with pytest.raises(ValueError, match=r"publish\(\) takes final ones"):
        attempt.publish(record(status=Status.TIMED_OUT))
    with pytest.raises(ValueError, match=r"publish\(\) it instead"):
        attempt.fail(record(status=Status.DIVERGED))
    with pytest.raises(ValueError, match="got the record of"):
        attempt.publish(record(OTHER))
    attempt.publish(record(status=Status.DIVERGED, reason="client 3 diverged at step 7"))
    found = store.find(RUN)
    assert found is not None
    assert found.status is Status.DIVERGED


def test_failing_after_publishing_keeps_the_result(store: ExperimentStore) -> None:
    attempt = store.begin(RUN)
    attempt.publish(record())
    assert not attempt.fail(record(status=Status.TIMED_OUT))
    assert store.find(RUN) is not None


def test_force_keeps_the_old_record(store: ExperimentStore) -> None:
    publish(store, metrics={"accuracy": 0.5})
    kept = store.supersede(RUN)
    assert kept is not None
    assert read_record(kept).metrics == {"accuracy": 0.5}
    assert store.find(RUN) is None
    latest = store.latest_attempt(RUN)
    assert latest is not None
    assert (latest.status, latest.reason) == (Status.NOT_RUN, "superseded by --force")
    assert store.supersede(RUN) is None
    publish(store, metrics={"accuracy": 0.6})
    publish(store, metrics={"accuracy": 0.7})
    found = store.find(RUN)
    assert found is not None
    assert found.metrics == {"accuracy": 0.7}
    assert len(list(store.attempts.iterdir())) == 2


@pytest.mark.parametrize("harm", ["flip", "cut", "empty", "missing", "foreign", "history", "open"])
def test_a_damaged_run_is_reported_kept_and_run_again(
    store: ExperimentStore, caplog: pytest.LogCaptureFixture, harm: str
) -> None:
    folder = publish(store)
    path = folder / "record.json"
    data = bytearray(path.read_bytes())
    if harm == "flip":
        data[data.index(b"FedAvg")] ^= 4
        path.write_bytes(data)
    elif harm in ("cut", "empty"):
        path.write_bytes(data[: len(data) // 2 if harm == "cut" else 0])
    elif harm == "missing":
        path.unlink()
    elif harm == "history":
        (folder / "history.csv").write_text("step,loss\n0,9\n")
    else:
        changed = record(OTHER) if harm == "foreign" else record(status=Status.FAILED)
        write_json(path, changed.document())
    with caplog.at_level(logging.WARNING):
        assert store.find(RUN) is None
    assert f"run {RUN} is damaged" in caplog.text
    assert not folder.exists()
    assert store.latest_attempt(RUN) is not None
    publish(store)
    assert store.find(RUN) is not None


def test_a_file_removed_to_save_space_is_no_damage(store: ExperimentStore) -> None:
    (publish(store) / "history.csv").unlink()
    assert store.find(RUN) is not None


def test_a_record_of_a_newer_layout_is_left_alone(
    store: ExperimentStore, caplog: pytest.LogCaptureFixture
) -> None:
    folder = publish(store)
    write_json(folder / "record.json", {**record().document(), "schema_version": 99})
    assert store.find(RUN) is None
    assert "newer than this version's" in caplog.text
    assert folder.exists()


def test_other_folders_are_no_runs(store: ExperimentStore) -> None:
    publish(store)
    for name in ("tables", "figures", "attempts", ".locks", "deadbeef-1"):
        (store.folder / name).mkdir(exist_ok=True)
    (store.folder / "table.csv").write_text("a")
    assert [found.run_id for found in store.records()] == [RUN]


def test_experiments_are_listed_and_names_checked(tmp_path: Path) -> None:
    store = Store(tmp_path / "results")
    assert store.experiments() == []
    publish(store.experiment("one"))
    store.experiment("two").update_manifest({})
    (tmp_path / "results" / "empty").mkdir()
    assert store.experiments() == ["one", "two"]
    for name in ("", "../x", ".hidden", "a/b", "-x"):
        with pytest.raises(UserError, match="a name starts with"):
            store.experiment(name)
    with pytest.raises(ValueError, match="is no run id"):
        store.experiment("one").find("../../etc")


def test_an_unwritable_results_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    store = Store(tmp_path / "file" / "results")
    with pytest.raises(StoreError, match=r"can't write .*results: Not a directory"):
        store.check_writable()
    with pytest.raises(StoreError, match="can't write"):
        store.experiment("a").begin(RUN)
    with pytest.raises(StoreError, match="can't write"), store.experiment("a").lock(RUN):
        pass
    Store(tmp_path / "fine").check_writable()
    assert list((tmp_path / "fine").iterdir()) == []


def test_the_tenth_attempt_comes_after_the_ninth(store: ExperimentStore) -> None:
    for _ in range(10):
        store.begin(RUN).fail(record(status=Status.FAILED, reason="no luck", metrics={}))
    latest = store.latest_attempt(RUN)
    assert latest is not None
    assert latest.number == 10


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"host": "another", "pid": 2**30}, Status.NOT_RUN),  # who can tell from here?
        ({"created": 1.0}, Status.INTERRUPTED),  # the number was given to another process
    ],
)
def test_whether_an_attempt_is_worked_on(
    store: ExperimentStore, change: dict[str, object], status: Status
) -> None:
    note = store.begin(RUN).path / "started.json"
    write_json(note, {**read_json(note), **change})
    latest = store.latest_attempt(RUN)
    assert latest is not None
    assert latest.status is status
