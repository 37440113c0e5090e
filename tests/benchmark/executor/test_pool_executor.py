from __future__ import annotations

import logging
import multiprocessing.forkserver
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from benchmark.executor import Event, Executor, Job, Outcome, PoolExecutor, forkserver
from benchmark.executor.processes import describe_exit
from benchmark.store import Status

RUN = "0" * 16


@pytest.fixture(scope="module", autouse=True)
def _warm(fork_server: None) -> None:
    """Let the fork server import torch before anything is timed."""
    compute("double", {"number": 0})


def compute(
    function: str,
    payload: dict[str, Any] | None = None,
    *,
    events: list[Event] | None = None,
    **job: Any,
) -> Outcome:
    executor: Executor = PoolExecutor(f"executor_targets:{function}", grace=0.5)
    on_event = None if events is None else events.append
    (outcome,) = executor.run([Job(RUN, payload or {}, **job)], on_event)
    return outcome


def gone(pid: int, within: float = 30.0) -> bool:
    limit = time.monotonic() + within
    while time.monotonic() < limit:
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.02)
    return False


def test_outcomes_come_in_order_with_their_results() -> None:
    jobs = [Job(f"{number:016x}", {"number": number}) for number in range(4)]
    outcomes = list(PoolExecutor("executor_targets:double").run(jobs))
    assert [outcome.run_id for outcome in outcomes] == [job.run_id for job in jobs]
    assert [outcome.result for outcome in outcomes] == [0, 2, 4, 6]
    assert {outcome.status for outcome in outcomes} == {Status.DONE}
    assert all(outcome.seconds > 0 and outcome.reason == "" for outcome in outcomes)


def test_events_arrive_in_order_and_talk_goes_to_the_log(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    events: list[Event] = []
    with caplog.at_level(logging.WARNING):
        assert compute("talk", events=events).status is Status.DONE
    assert [(event.kind, event.data) for event in events] == [
        ("progress", {"step": step}) for step in range(500)
    ]
    assert "careful with this" in caplog.text
    assert "deprecated" in caplog.text
    assert "noise" not in capfd.readouterr().out


@pytest.mark.parametrize(
    ("function", "status", "says", "traced"),
    [
        ("fail", Status.FAILED, "ValueError: wrong shape", True),
        ("user_error", Status.FAILED, "alpha must be positive, got -1", False),
        ("user_error_of_a_method", Status.FAILED, "all 10 weights are zero", True),
        ("diverge", Status.DIVERGED, "client 3 diverged at step 17: loss is nan", False),
        ("not_json", Status.FAILED, "TypeError: Object of type object is not JSON", True),
        ("leave", Status.FAILED, "the run called sys.exit(3)", True),
        ("vanish", Status.FAILED, "exit status 7", False),
        ("killed", Status.FAILED, "killed by signal 9 (out of memory?)", False),
        ("crash", Status.FAILED, "killed by signal 11 (segmentation fault)", False),
        ("nothing_here", Status.FAILED, "has no function 'nothing_here'", False),
    ],
)
def test_every_way_to_fail_has_its_words(
    function: str, status: Status, says: str, traced: bool
) -> None:
    outcome = compute(function)
    assert outcome.status is status
    assert says in outcome.reason
    assert "\n" not in outcome.reason
    assert ("Traceback" in outcome.detail) == traced
    assert outcome.step == (17 if status is Status.DIVERGED else None)


def test_a_failure_does_not_take_the_next_job_along() -> None:
    outcomes = [compute("killed"), compute("double", {"number": 4})]
    assert [outcome.status for outcome in outcomes] == [Status.FAILED, Status.DONE]


@pytest.mark.parametrize("deaf", [False, True])
def test_a_timeout_kills_the_job_and_all_it_started(tmp_path: Path, deaf: bool) -> None:
    noted = tmp_path / "pids"
    payload = {"pids": str(noted), "deaf": deaf}
    for timeout in (1.0, 5.0, 25.0):  # until it was long enough to start both processes
        began = time.monotonic()
        outcome = compute("sleep", payload, timeout=timeout)
        assert outcome.status is Status.TIMED_OUT
        assert "s, and was ended" in outcome.reason
        assert time.monotonic() - began < 60 + timeout  # it would sleep for 100
        if noted.exists():
            break
    pids = [int(pid) for pid in noted.read_text().split()]
    assert all(gone(pid) for pid in pids)


def test_what_a_job_leaves_behind_is_killed() -> None:
    outcome = compute("leave_child_behind")
    assert outcome.status is Status.DONE
    assert gone(outcome.result)


def test_a_job_that_is_done_but_does_not_close_down_is_done() -> None:
    began = time.monotonic()
    outcome = compute("hang_at_exit")
    assert (outcome.status, outcome.result) == (Status.DONE, 1)
    assert time.monotonic() - began < 60  # it would hang for 100


@pytest.mark.parametrize("threads", [1, 2])
def test_a_job_has_its_threads_and_path_and_never_our_main_module(threads: int) -> None:
    result = compute("setup", threads=threads).result
    assert result["threads"] == threads
    assert result["variable"] == str(threads)
    assert result["server_threads"] == 1
    assert result["path"] == str(Path(__file__).resolve().parents[3])
    assert result["main"] is None or "pytest" not in result["main"]


def test_the_environment_of_the_caller_stays_as_it_was() -> None:
    before = dict(os.environ)
    main = sys.modules["__main__"]
    compute("double", {"number": 1}, threads=2)
    assert dict(os.environ) == before
    assert sys.modules["__main__"] is main


def test_a_process_that_can_not_be_started_leaves_no_pipe_open(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(process: object) -> None:
        raise BlockingIOError("no more processes")

    monkeypatch.setattr(forkserver, "start", refuse)
    before = psutil.Process().num_fds()
    with pytest.raises(BlockingIOError) as held:  # with all that its frames hold
        list(PoolExecutor("executor_targets:double").run([Job(RUN, {"number": 1})]))
    assert psutil.Process().num_fds() == before
    assert held.traceback


def test_a_killed_job_tells_what_memory_it_was_seen_to_hold(tmp_path: Path) -> None:
    heard: list[Event] = []

    def hear(event: Event) -> None:
        heard.append(event)
        if len(heard) == 3:  # the looks before it found the memory full
            (tmp_path / "seen").touch()

    job = Job(RUN, {"seen": str(tmp_path / "seen")})
    (outcome,) = PoolExecutor("executor_targets:killed_while_large").run([job], hear)
    found = re.search(r"killed by signal 9 .*; seen to hold (\d\.\d) GiB", outcome.reason)
    assert found is not None
    assert float(found[1]) >= 0.5


def test_a_broken_pipe_does_not_end_the_job(tmp_path: Path) -> None:
    compute("talk_after_pipe_broke", {"file": str(tmp_path / "file")})
    assert (tmp_path / "file").read_text() == "survived"


def test_ctrl_c_is_not_lost_while_the_fork_server_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted_start() -> None:
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(multiprocessing.forkserver, "ensure_running", interrupted_start)
    with pytest.raises(KeyboardInterrupt):
        forkserver.ensure_running()
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks Linux's /proc")
def test_the_fork_server_never_hears_ctrl_c() -> None:
    # It ends with its starter: looked at before that.
    script = (
        "import multiprocessing.forkserver as server; from benchmark.executor import forkserver;"
        "forkserver.ensure_running();"
        "print(open(f'/proc/{server._forkserver._forkserver_pid}/status').read())"
    )
    said = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    ).stdout
    (blocked,) = (line for line in said.splitlines() if line.startswith("SigBlk"))
    assert int(blocked.split()[1], 16) & (1 << (signal.SIGINT - 1))


def test_ctrl_c_ends_the_job_yields_it_and_is_raised(tmp_path: Path) -> None:
    payload = {"pids": str(tmp_path / "pids")}
    jobs = [Job("a" * 16, payload), Job("b" * 16, payload)]
    executor = PoolExecutor("executor_targets:sleep", grace=0.5)

    def interrupt(event: Event) -> None:
        threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()

    found = executor.run(jobs, interrupt)
    outcome = next(found)
    assert (outcome.run_id, outcome.status) == ("a" * 16, Status.INTERRUPTED)
    with pytest.raises(KeyboardInterrupt):
        next(found)
    assert all(gone(int(pid)) for pid in (tmp_path / "pids").read_text().split())


def test_an_error_of_the_listener_ends_the_job_and_is_raised(tmp_path: Path) -> None:
    def complain(event: Event) -> None:
        raise RuntimeError("terminal gone")

    job = Job(RUN, {"pids": str(tmp_path / "pids")})
    with pytest.raises(RuntimeError, match="terminal gone"):
        list(PoolExecutor("executor_targets:sleep", grace=0.5).run([job], complain))
    assert all(gone(int(pid)) for pid in (tmp_path / "pids").read_text().split())


# --- several at once ---------------------------------------------------------------------


def names(count: int) -> list[str]:
    return [f"{number:016x}" for number in range(count)]


def test_workers_work_at_the_same_time(tmp_path: Path) -> None:
    jobs = [
        Job(name, {"folder": str(tmp_path), "name": name, "others": 3}, timeout=30)
        for name in names(3)
    ]
    outcomes = list(PoolExecutor("executor_targets:meet", workers=3).run(jobs))
    assert {outcome.status for outcome in outcomes} == {Status.DONE}
    assert {outcome.run_id for outcome in outcomes} == set(names(3))


def test_no_more_jobs_at_a_time_than_workers() -> None:
    jobs = [Job(name, {"seconds": 0.2}) for name in names(5)]
    spans = [
        outcome.result
        for outcome in PoolExecutor("executor_targets:span", workers=2).run(jobs)
        if outcome.status is Status.DONE
    ]
    assert len(spans) == 5
    for begin, _ in spans:
        at_work = sum(one <= begin < other for one, other in spans)
        assert 1 <= at_work <= 2


def test_one_dead_worker_leaves_the_others_alone() -> None:
    pool = PoolExecutor("executor_targets:by_name", workers=3)
    jobs = [
        Job(name, {"function": what, "number": 3})
        for name, what in zip(names(4), ("killed", "double", "fail", "double"), strict=True)
    ]
    outcomes = {outcome.run_id: outcome for outcome in pool.run(jobs)}
    assert [outcomes[name].status for name in names(4)] == [
        Status.FAILED,
        Status.DONE,
        Status.FAILED,
        Status.DONE,
    ]
    assert [outcomes[name].lost for name in names(4)] == [True, False, False, False]


def test_ctrl_c_ends_all_of_them(tmp_path: Path) -> None:
    jobs = [Job(name, {"pids": str(tmp_path / name)}) for name in names(3)]
    begun: list[str] = []

    def interrupt(event: Event) -> None:
        begun.append(event.run_id)
        if len(begun) == 2:
            threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()

    found = PoolExecutor("executor_targets:sleep", workers=2, grace=0.5).run(jobs, interrupt)
    ended = [next(found), next(found)]
    assert {outcome.status for outcome in ended} == {Status.INTERRUPTED}
    with pytest.raises(KeyboardInterrupt):
        next(found)
    pids = [int(pid) for path in tmp_path.iterdir() for pid in path.read_text().split()]
    assert len(pids) == 4
    assert all(gone(pid) for pid in pids)


def test_nothing_at_this_moment_is_asked_for_again_later() -> None:
    asked = iter([None, Job(RUN, {"number": 1}), None, None, Job("f" * 16, {"number": 2})])
    outcomes = list(PoolExecutor("executor_targets:double", workers=2).run(asked))
    assert sorted(outcome.result for outcome in outcomes) == [2, 4]


def test_gpus_are_dealt_out_evenly() -> None:
    pool = PoolExecutor("executor_targets:visible_gpus", workers=4, gpus=["3", "7"])
    jobs = [Job(name, {"seconds": 1.0}) for name in names(4)]
    assert sorted(outcome.result for outcome in pool.run(jobs)) == ["3", "3", "7", "7"]
    assert compute("visible_gpus").result == os.environ.get("CUDA_VISIBLE_DEVICES")


def test_a_pool_has_workers() -> None:
    with pytest.raises(ValueError, match="at least 1 worker, not 0"):
        PoolExecutor("executor_targets:double", workers=0)


@pytest.mark.parametrize(
    ("values", "error", "says"),
    [
        ({"payload": {"a": object()}}, TypeError, "the payload is not JSON"),
        ({"payload": {}, "timeout": 0.0}, ValueError, "a timeout is positive"),
        ({"payload": {}, "timeout": float("nan")}, ValueError, "a timeout is positive"),
        ({"payload": {}, "threads": 0}, ValueError, "at least 1 thread"),
    ],
)
def test_a_wrong_job_is_refused(values: dict[str, Any], error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        Job(RUN, **values)


@pytest.mark.parametrize(
    ("code", "says"),
    [
        (None, "vanished"),
        (-15, "signal 15 (terminated from outside)"),
        (-10, "signal 10 (SIGUSR1)"),
        (-99, "killed by signal 99"),
        (1, "exit status 1"),
    ],
)
def test_exits_in_words(code: int | None, says: str) -> None:
    assert says in describe_exit(code)


def test_an_optional_job_is_ended_when_no_other_is_left(tmp_path: Path) -> None:
    pids = tmp_path / "helper"
    helper = Job("a" * 16, {"pids": str(pids), "seconds": 300.0}, optional=True)
    main = Job("b" * 16, {"pids": str(tmp_path / "main"), "seconds": 0.0})

    def jobs() -> Iterator[Job | None]:
        yield helper
        while not pids.exists():
            yield None
        yield main

    pool = PoolExecutor("executor_targets:note_and_wait", workers=2, grace=0.5)
    (outcome,) = pool.run(jobs())
    assert (outcome.run_id, outcome.status) == (main.run_id, Status.DONE)
    assert gone(int(pids.read_text()))
