"""What a command says of runs that failed: the plugin's line, and the traceback's file."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from benchmark.cli.failures import say_failures
from benchmark.cli.progress import Listener
from benchmark.experiment import ExperimentSpec, PlannedRun
from benchmark.registry import MethodInfo, own_frame
from benchmark.specs import CodeSpec, MethodSpec, RunSpec
from benchmark.store import ExperimentStore, Record, Status


def traceback_of(plugin: Path) -> str:
    return (
        "Traceback (most recent call last):\n"
        '  File "/suite/benchmark/protocol.py", line 9, in run_protocol\n    call()\n'
        f'  File "{plugin}", line 20, in server_update\n    self.average(uploads)\n'
        f'  File "{plugin}", line 41, in average\n    weighted_average(uploads)\n'
        '  File "/suite/benchmark/aggregation.py", line 3, in weighted_average\n    x / 0\n'
        "ZeroDivisionError: division by zero\n"
    )


@pytest.fixture
def plugin(tmp_path: Path) -> Path:
    path = tmp_path / "my_method.py"
    path.write_text("")
    return path


def test_the_last_frame_of_the_plugin_is_named(plugin: Path, tmp_path: Path) -> None:
    assert own_frame(traceback_of(plugin), plugin) == "my_method.py:41, in average"
    assert own_frame(traceback_of(tmp_path / "other.py"), plugin) == ""
    assert own_frame("", plugin) == ""


def test_a_folder_is_its_plugins_own(tmp_path: Path) -> None:
    for name in ("__init__.py", "server.py"):
        (tmp_path / name).write_text("")
    text = traceback_of(tmp_path / "server.py")
    assert own_frame(text, tmp_path / "__init__.py") == "server.py:41, in average"


def failed(plugin: Path) -> PlannedRun:
    (scenario,) = ExperimentSpec.parse({}, "test").scenarios()
    code = CodeSpec(plugin="0")
    spec = RunSpec(scenario=scenario, method=MethodSpec(name="my_method"), code=code)
    known: dict[str, Any] = {"name": "my_method", "path": str(plugin)}
    info = MethodInfo.model_construct(**known)
    return PlannedRun("my_method", spec, info, None)


def record(run: PlannedRun, status: Status, reason: str) -> Record:
    ids = {"run_id": run.spec.run_id, "cell_id": run.spec.cell_id}
    return Record(status=status, reason=reason, label=run.label, **ids)


@pytest.mark.parametrize("debugging", [False, True])
def test_failures_name_the_traceback_and_show_it_when_debugging(
    plugin: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    debugging: bool,
) -> None:
    store, run = ExperimentStore(tmp_path / "main"), failed(plugin)
    run_id = run.spec.run_id
    with store.lock(run_id):
        attempt = store.begin(run_id)
    text = traceback_of(plugin)
    attempt.write_bytes("traceback.txt", text.encode())
    listener = Listener({run_id: "my_method (seed 0)"})
    listener.finished(run, record(run, Status.FAILED, "division by zero"), 1.0)
    caplog.set_level(logging.DEBUG if debugging else logging.WARNING)
    say_failures(listener, store)
    said = capsys.readouterr().err
    file = tmp_path / "main" / "attempts" / f"{run_id}-1" / "traceback.txt"
    line = (
        "error: my_method (seed 0): division by zero "
        f"(my_method.py:41, in average; traceback: {file})\n"
    )
    assert said == (line + text if debugging else line)


def test_a_failure_without_a_traceback_is_its_reason_alone(
    plugin: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = failed(plugin)
    listener = Listener({})
    listener.finished(run, record(run, Status.TIMED_OUT, "out of time"), 1.0)
    say_failures(listener, ExperimentStore(tmp_path / "main"))
    assert capsys.readouterr().err == "error: my_method: out of time\n"


def test_of_a_run_that_diverged_its_own_traceback_is_named(
    plugin: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not that of an attempt before, which failed for another reason."""
    store, run = ExperimentStore(tmp_path / "main"), failed(plugin)
    run_id = run.spec.run_id
    with store.lock(run_id):
        attempt = store.begin(run_id)
        attempt.write_bytes("traceback.txt", b"another reason")
        attempt.fail(record(run, Status.FAILED, "another reason"))
        attempt = store.begin(run_id)
        attempt.write_bytes("traceback.txt", traceback_of(plugin).encode())
        attempt.publish(record(run, Status.DIVERGED, "diverged"))
    listener = Listener({})
    listener.finished(run, record(run, Status.DIVERGED, "diverged"), 1.0)
    say_failures(listener, store)
    file = tmp_path / "main" / run_id / "traceback.txt"
    assert f"(my_method.py:41, in average; traceback: {file})" in capsys.readouterr().err
