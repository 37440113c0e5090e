from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[2]

SCRIPT = """
import sys
from benchmark.executor import Job, PoolExecutor
executor = PoolExecutor("executor_targets:{function}", preload=(), grace=0.5)
payload = {{"pids": sys.argv[1], "number": 21, "deaf": True}}
try:
    for outcome in executor.run([Job("0" * 16, payload)]):
        print(outcome.status, outcome.result, flush=True)
except KeyboardInterrupt:
    print("stopped", flush=True)
"""


def launch(place: Path, function: str) -> subprocess.Popen[str]:
    script = place / "script.py"
    # No `if __name__` guard: a worker that ran the main module again would start workers.
    script.write_text(SCRIPT.format(function=function))
    path = os.pathsep.join([str(ROOT), str(HERE)])
    return subprocess.Popen(
        [sys.executable, str(script), str(place / "pids")],
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def family(process: subprocess.Popen[str], place: Path) -> list[psutil.Process]:
    """Return all processes below, once the job and its own child run."""
    noted: set[int] = set()
    limit = time.monotonic() + 120
    while len(noted) < 2 and time.monotonic() < limit:
        time.sleep(0.02)
        with suppress(FileNotFoundError):
            noted = {int(pid) for pid in (place / "pids").read_text().split()}
    found = psutil.Process(process.pid).children(recursive=True)
    assert len(noted) == 2
    assert noted <= {each.pid for each in found}
    return found


def alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def assert_gone(processes: list[psutil.Process]) -> None:
    limit = time.monotonic() + 30
    left = processes
    while left and time.monotonic() < limit:
        time.sleep(0.02)
        left = [process for process in left if alive(process)]
    for process in left:
        process.kill()
    assert left == []


def test_kill_9_of_the_caller_leaves_no_process(tmp_path: Path) -> None:
    process = launch(tmp_path, "sleep")
    below = family(process, tmp_path)
    assert len(below) >= 3  # fork server, job, the job's child
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert_gone(below)


def test_kill_9_of_the_fork_server_fails_the_job(tmp_path: Path) -> None:
    process = launch(tmp_path, "sleep")
    below = family(process, tmp_path)
    job = int((tmp_path / "pids").read_text().split()[0])
    server = psutil.Process(job).parent()
    assert server is not None
    assert server.pid != process.pid
    server.kill()
    output, _ = process.communicate(timeout=120)
    assert output.startswith("failed")
    assert_gone(below)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_no_signal_leaves_a_process(tmp_path: Path, number: signal.Signals) -> None:
    process = launch(tmp_path, "sleep")
    below = family(process, tmp_path)
    os.killpg(process.pid, number)  # as a terminal does: to the whole group
    output, _ = process.communicate(timeout=120)
    if number is signal.SIGINT:
        assert output.split() == ["interrupted", "None", "stopped"]
    assert_gone(below)


def test_a_script_without_a_main_guard_is_not_run_again(tmp_path: Path) -> None:
    process = launch(tmp_path, "double")
    output, _ = process.communicate(timeout=120)
    assert output.splitlines() == ["done 42"]
