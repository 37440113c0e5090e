"""Full disks, two processes at once, and ``kill -9``: nothing half-written, nothing lost."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from store_lab import OTHER, RUN, publish, record

from benchmark.executor import Job, PoolExecutor
from benchmark.store import (
    BusyError,
    ExperimentStore,
    Record,
    Status,
    Store,
    StoreError,
    files,
)

ROOT = Path(__file__).parents[3]


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


@pytest.mark.usefixtures("fork_server")
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
