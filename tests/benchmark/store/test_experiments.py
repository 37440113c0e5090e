from __future__ import annotations

import json
import logging
import math
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from benchmark.errors import UserError
from benchmark.executor import Job, PoolExecutor
from benchmark.store import (
    BusyError,
    Cell,
    ExperimentStore,
    Record,
    Status,
    Store,
    StoreError,
    files,
    read_record,
)
from benchmark.store.files import write_json

ROOT = Path(__file__).parents[3]
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


@pytest.fixture
def store(tmp_path: Path) -> ExperimentStore:
    return Store(tmp_path / "results").experiment("grid")


def publish(store: ExperimentStore, run_id: str = RUN, **values: Any) -> Path:
    attempt = store.begin(run_id)
    attempt.write_history([{"step": 0, "loss": 1 / 3}, {"step": 5, "loss": 0.25, "note": "a,b"}])
    return attempt.publish(record(run_id, **values))


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


def cell(run_id: str, method: str = "fedavg", order: int = 0) -> Cell:
    return Cell(run_id=run_id, label=method, method=method, order=order)


def test_manifests_of_two_commands_add_up(store: ExperimentStore) -> None:
    store.update_manifest({"a": cell(RUN), "b": cell(OTHER, "dense", 1)}, {"mosaic": "no timm"})
    merged = store.update_manifest({"c": cell("a" * 16, "mosaic")}, settings={"profile": "smoke"})
    assert [name for name, _ in merged.in_order()] == ["a", "b", "c"]
    assert merged.not_installed == {}
    assert store.manifest() == merged
    # After an edit of the plugin, the cell points at the new run and keeps its place.
    edited = store.update_manifest({"a": cell("b" * 16)})
    assert [name for name, _ in edited.in_order()] == ["a", "b", "c"]
    assert edited.cells["a"].run_id == "b" * 16
    assert edited.settings == {"profile": "smoke"}


def test_records_of_other_code_are_stale(store: ExperimentStore) -> None:
    publish(store, cell_id="a")
    publish(store, OTHER, cell_id="b")
    store.update_manifest({"a": cell("b" * 16), "b": cell(OTHER)})
    assert [found.run_id for found in store.stale()] == [RUN]


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


def test_a_full_disk_while_publishing_loses_nothing(
    store: ExperimentStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempt = store.begin(RUN)

    def fail(path: Path, record: Record) -> None:
        raise StoreError(f"can't write {path}: the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr("benchmark.store.attempts.write_record", fail)
        with pytest.raises(StoreError, match="the disk is full"):
            attempt.publish(record())
    assert store.find(RUN) is None
    attempt.publish(record())
    assert store.find(RUN) is not None


def fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file:
        while True:
            file.write(b"x" * 4096)


def test_a_really_full_disk_is_one_line_and_no_damage(tiny_disk: Path) -> None:
    store = Store(tiny_disk / "results").experiment("grid")
    publish(store)
    attempt = store.begin(OTHER)
    with pytest.raises(OSError, match="No space"):
        fill(tiny_disk / "ballast")
    with pytest.raises(StoreError, match="the disk is full") as caught:
        attempt.publish(record(OTHER, metrics={"long": list(range(3000))}))
    assert "\n" not in str(caught.value)
    assert store.find(RUN) is not None
    assert store.find(OTHER) is None
    assert not [path for path in attempt.path.iterdir() if ".tmp-" in path.name]
    (tiny_disk / "ballast").unlink()
    attempt.publish(record(OTHER, metrics={"long": list(range(3000))}))
    assert store.find(OTHER) is not None


def test_two_processes_never_share_an_attempt(store: ExperimentStore) -> None:
    from threading import Thread

    results: list[list[int]] = []

    def work() -> None:
        job = Job(RUN, {"folder": str(store.folder), "times": 25})
        (outcome,) = PoolExecutor("store_targets:begin_many").run([job])
        results.append(outcome.result)

    threads = [Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted([*results[0], *results[1]]) == list(range(1, 51))


HOLD = """
import sys, time
from pathlib import Path
from benchmark.store import ExperimentStore
with ExperimentStore(Path(sys.argv[1])).lock(sys.argv[2]):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_lock_keeps_others_out_and_dies_with_its_holder(store: ExperimentStore) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(store.folder), RUN],
        cwd=ROOT, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline().strip() == "held"
    with pytest.raises(BusyError), store.lock(RUN, wait=0.0):
        pass
    with store.lock(OTHER, wait=0.0):
        pass
    process.kill()
    process.wait()
    with store.lock(RUN, wait=2.0), store.lock(RUN, wait=0.0):
        assert store.find(RUN) is None


PUBLISH = """
import sys, itertools
from pathlib import Path
from benchmark.store import ExperimentStore, Record
store = ExperimentStore(Path(sys.argv[1]))
print("ready", flush=True)
for number in itertools.count():
    run_id = f"{number % 20:016x}"
    attempt = store.begin(run_id)
    attempt.write_history([{"step": step} for step in range(50)])
    attempt.publish(Record(run_id=run_id, cell_id=run_id, status="done", label="x",
                           metrics={"values": list(range(500))}))
"""


def test_kill_9_at_any_moment_leaves_no_half_record(
    store: ExperimentStore, caplog: pytest.LogCaptureFixture
) -> None:
    chance = random.Random(0)
    for _ in range(5):
        process = subprocess.Popen(
            [sys.executable, "-c", PUBLISH, str(store.folder)],
            cwd=ROOT, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(chance.uniform(0.02, 0.2))
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        runs = [path.name for path in store.folder.iterdir() if len(path.name) == 16]
        assert all(store.find(run) is not None for run in runs)
        for path in store.attempts.iterdir():
            state = store.latest_attempt(path.name.split("-")[0])
            assert state is not None
            assert state.status in (Status.INTERRUPTED, Status.NOT_RUN)
    assert "damaged" not in caplog.text
    store.sweep()
    assert not [path for path in store.folder.rglob("*") if ".tmp-" in path.name]


def test_temporary_files_of_the_living_are_not_swept(store: ExperimentStore) -> None:
    folder = publish(store)
    living = folder / files.temporary_name("record.json")
    living.write_text("x")
    store.sweep()
    assert living.exists()
