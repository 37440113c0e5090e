"""Trackers hear a grid, keep what it says, and can't harm it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from grids import Silent, planned

from benchmark.cli.main import main
from benchmark.errors import UserError
from benchmark.grid import GridResult, Options, execute
from benchmark.trackers import TrackedListener, check_tracker, make_tracker

TINY: dict[str, Any] = {
    "methods": ["mosaic"],
    "train_samples": 100,
    "epochs": 1,
    "clients": 2,
    "generator_steps": 2,
}


def tracked(name: str, results: Path) -> tuple[Any, Silent]:
    """Run a small grid with a tracker."""
    experiment, runs = planned(**TINY)
    heard = Silent()
    folder = results / experiment.experiment
    listener = TrackedListener(heard, make_tracker(name, folder, experiment.experiment), folder)
    result = execute(experiment, runs, [], Options(results), listener)
    listener.close()
    return result, heard


def test_tensorboard_keeps_scalars_images_and_the_spec(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    result, heard = tracked("tensorboard", tmp_path)
    assert result.done == 1
    ((_, record),) = heard.ended
    folder = tmp_path / "main" / "trackers" / "tensorboard" / record.run_id
    events = EventAccumulator(str(folder))
    events.Reload()
    tags = events.Tags()
    assert events.Scalars("result/accuracy")[0].value == pytest.approx(record.metrics["accuracy"])
    assert any(tag.endswith("/loss") for tag in tags["scalars"])
    assert set(tags["images"]) == {"grid-client-0-generated", "grid-client-1-generated"}
    text = events.Tensors("spec/text_summary")[0].tensor_proto.string_val[0].decode()
    spec = json.loads(text.split("```json")[1].rsplit("```", 1)[0])
    assert spec["method"]["name"] == "mosaic"


@pytest.mark.slow
def test_mlflow_keeps_metrics_and_artifacts(tmp_path: Path) -> None:
    mlflow = pytest.importorskip("mlflow")
    result, heard = tracked("mlflow", tmp_path)
    assert result.done == 1
    assert heard.notes == []
    ((_, record),) = heard.ended
    place = f"sqlite:///{tmp_path / 'main' / 'trackers' / 'mlflow.db'}"
    client = mlflow.MlflowClient(tracking_uri=place)
    found = client.get_experiment_by_name("oneshot-fl/main")
    (run,) = client.search_runs([found.experiment_id])
    assert run.data.metrics["result/accuracy"] == pytest.approx(record.metrics["accuracy"])
    assert run.info.status == "FINISHED"
    assert {item.path for item in client.list_artifacts(run.info.run_id)} == {"images", "spec.json"}


@pytest.mark.slow
def test_wandb_writes_an_offline_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    result, heard = tracked("wandb", tmp_path)
    assert result.done == 1
    assert heard.notes == []
    kept = list((tmp_path / "main" / "trackers").glob("wandb/offline-run-*/run-*.wandb"))
    assert len(kept) == 1
    assert kept[0].stat().st_size > 1000


def test_a_tracker_that_fails_is_switched_off_and_harms_nothing(tmp_path: Path) -> None:
    calls: list[str] = []

    class Broken:
        def __getattr__(self, name: str) -> Any:
            def fail(*_: Any) -> None:
                calls.append(name)
                raise ConnectionError("server gone")

            return fail

    experiment, runs = planned(**{**TINY, "methods": ["fedavg"]})
    heard = Silent()
    listener = TrackedListener(heard, Broken(), tmp_path / "main")
    result = execute(experiment, runs, [], Options(tmp_path), listener)
    listener.close()
    assert result.done == 1
    assert len(heard.ended) == 1
    assert heard.notes == ["the tracker failed and is switched off: server gone"]
    assert listener.failure == heard.notes[0], "for a command that says errors only"
    # Told once, closed once, and then left alone.
    assert calls == ["begin", "close"]


@pytest.mark.parametrize("quiet", [[], ["--quiet"]])
def test_a_tracker_that_cant_be_reached_is_switched_off_and_harms_nothing(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    quiet: list[str],
) -> None:
    def unreachable(folder: Path, experiment: str) -> Any:
        raise ConnectionError("no server at localhost:5000")

    def ran(*values: Any, **_: Any) -> GridResult:
        values[4].note("the grid ran")
        return GridResult(1, 0, 0, 0, False, "main")

    monkeypatch.setattr("benchmark.trackers._TRACKERS", {"mlflow": unreachable})
    monkeypatch.setattr("benchmark.trackers.check_tracker", lambda name: None)
    monkeypatch.setattr("benchmark.cli.verb_run.check_tracker", lambda name: None)
    monkeypatch.setattr("benchmark.grid.execute", ran)
    monkeypatch.setattr("benchmark.cli.verb_run.load_data", lambda *_: None)
    flags = ["--methods", "fedavg", "--profile", "smoke", "--no-report", *quiet]
    assert main([*flags, "--tracker", "mlflow", "--results", str(tmp_path)]) == 0
    said = capsys.readouterr().err
    off = "the tracker failed and is switched off: no server at localhost:5000"
    assert off in said
    assert ("the grid ran" in said) == (not quiet)
    assert "Traceback" not in said


def test_a_run_that_is_tried_again_is_begun_once(tmp_path: Path) -> None:
    told: list[str] = []

    class Told:
        def __getattr__(self, name: str) -> Any:
            return lambda *_: told.append(name)

    _, (run,) = planned(**{**TINY, "methods": ["fedavg"]})
    listener = TrackedListener(Silent(), Told(), tmp_path)
    listener.started(1, 1, run)
    listener.started(1, 1, run)
    assert told == ["begin"]


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install -e '\.\[wandb\]'` in the project's folder"):
        check_tracker("wandb")


def test_an_unknown_tracker_is_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["run", "--tracker", "tensorbord", "--results", str(tmp_path)]) == 2
    assert "tensorboard" in capsys.readouterr().err
