"""Tuning: sweeps, equal numbers of trials, and a test set that stays closed (rule 2)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from federation_lab import bench
from grids import planned, run_grid

from benchmark.entries import count_entries, entries
from benchmark.errors import UserError
from benchmark.evaluator import Evaluator
from benchmark.experiment import resolve
from benchmark.federation.data import ScenarioData
from benchmark.registry import discover
from benchmark.specs import MeasureSpec, RunSpec

TRIALS = {"dense": {"generator_lr": [0.001, 0.01], "batch_norm": [1, 10]}}
JUDGED = {"judged_on": "holdout", "holdout": 0.2}


def labels(**settings: Any) -> list[str]:
    return [run.label for run in planned(**settings)[1]]


def test_a_sweep_is_the_product_of_its_values() -> None:
    _, runs = planned(methods="fedavg", sweep=TRIALS, set={"dense": {"synthesis_batch": 8}})
    assert [run.label for run in runs] == [
        "fedavg",
        "dense (generator_lr=0.001, batch_norm=1)",
        "dense (generator_lr=0.001, batch_norm=10)",
        "dense (generator_lr=0.01, batch_norm=1)",
        "dense (generator_lr=0.01, batch_norm=10)",
    ]
    last = runs[-1].spec.method.config
    assert (last["generator_lr"], last["batch_norm"], last["synthesis_batch"]) == (0.01, 10, 8)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"sweep": {"densee": {"batch_norm": [1]}}}, "did you mean 'dense'?"),
        ({"sweep": {"dense": {"batch_nrm": [1]}}}, "did you mean 'batch_norm'?"),
        ({"sweep": {"dense": {"batch_norm": []}}}, "sweep.dense.batch_norm"),
        ({"sweep": {"dense": {"batch_norm": [1, -1]}}}, "batch_norm"),
        ({"sweep": {"dense": {"batch_norm": [1, 1]}}}, "named twice"),
        ({"judged_on": "holdout", "holdout": 0}, "needs a holdout above 0"),
        ({"judged_on": "validation"}, "judged_on"),
        ({**JUDGED, "sweep": TRIALS}, "as many trials for every method: dense 4, fedavg 1"),
    ],
)
def test_what_is_refused(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError) as caught:
        planned(**{"methods": ["fedavg", "ensemble"], **settings})
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_holdout_may_come_from_the_profile() -> None:
    file = {"profile": "cpu", "judged_on": "holdout"}
    assert resolve({}, file, "file.yaml").measure_spec().judged_on == "holdout"


def test_a_flag_does_not_lose_to_a_sweep_in_silence() -> None:
    file = {"sweep": {"dense": {"batch_norm": [0, 1]}}, "set": {"dense": {"batch_norm": 5}}}
    with pytest.raises(UserError, match=r"file.yaml sweeps dense.batch_norm: it can't be set"):
        resolve({"set": {"dense": {"batch_norm": 2}}}, file, "file.yaml")
    del file["set"]
    with pytest.raises(UserError, match=r"file.yaml sweeps dense.batch_norm: it can't be set"):
        resolve({"set": {"dense": {"batch_norm": 2}}}, file, "file.yaml")
    assert resolve({"set": {"dense": {"synthesis_batch": 2}}}, file, "file.yaml")


def test_a_files_own_setting_does_not_lose_to_its_sweep_in_silence() -> None:
    file = {"sweep": {"dense": {"batch_norm": [0, 1]}}, "set": {"dense": {"batch_norm": 3}}}
    with pytest.raises(UserError, match=r"file.yaml sweeps dense.batch_norm: it can't be set"):
        resolve({}, file, "file.yaml")
    # A profile's settings are defaults: a sweep may have others.
    sweep = {"dense": {"synthesis_batch": [8, 16]}}
    assert resolve({"profile": "smoke"}, {"sweep": sweep}, "file.yaml")


def test_rows_are_counted_without_opening_plugins() -> None:
    file = {"methods": ["ensemble"], "sweep": TRIALS, "variants": {"a": {"method": "fedavg"}}}
    experiment = resolve({"profile": "smoke"}, file, "file.yaml")
    assert count_entries(experiment) == len(list(entries(experiment, discover()))) == 6


def test_references_are_not_tuned() -> None:
    sweep = {"fedavg": {"weights": ["samples", "uniform"]}, "fedrolex": {"rounds": [1, 2]}}
    assert len(labels(**JUDGED, methods=["ensemble", "best_client"], sweep=sweep)) == 6


def test_the_test_sets_ids_are_those_from_before_there_was_a_choice() -> None:
    _, (run, *_) = planned(methods="fedavg", holdout=0.2)
    assert "judged_on" not in run.spec.canonical()["measure"]
    _, (tuning, *_) = planned(methods="fedavg", **JUDGED)
    assert tuning.spec.cell_id != run.spec.cell_id
    assert tuning.spec.scenario == run.spec.scenario, "clients are shared"
    assert RunSpec.from_yaml(tuning.spec.to_yaml()) == tuning.spec


def test_a_run_is_judged_on_one_of_both() -> None:
    _, (run, *_) = planned(methods="fedavg", holdout=0)
    values = run.spec.canonical()
    values["measure"] = {"judged_on": "holdout"}
    with pytest.raises(UserError, match="holdout above 0"):
        RunSpec.parse(values, "run")
    values["scenario"]["holdout"] = 0.2
    values["measure"]["extractors"] = ["classifier"]
    with pytest.raises(UserError, match="compare with test images"):
        RunSpec.parse(values, "run")
    assert MeasureSpec(judged_on="test").canonical() == MeasureSpec().canonical()


def test_the_evaluator_opens_one_set_only(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    federation = bench(tmp_path, holdout=0.2).federation()

    def closed(*_: Any) -> None:
        raise AssertionError("the test set was opened")

    with monkeypatch.context() as patch:
        patch.setattr(ScenarioData, "test", closed)
        judge = Evaluator(federation, torch.device("cpu"), "holdout")
    model = federation.client(0).initial_model()
    assert judge(model).n == len(federation.data.held_out) > 0
    tested = Evaluator(federation, torch.device("cpu"))
    assert tested(model).n == len(federation.data.dataset.test.labels)


@pytest.mark.long
def test_a_tuning_grid_ends_in_a_choice(tmp_path: Path) -> None:
    sweep = {"fedavg": {"weights": ["samples", "uniform"]}, "dense": {"batch_norm": [1, 10]}}
    settings: dict[str, Any] = {"methods": "ensemble", "sweep": sweep, **JUDGED}
    result, listener = run_grid(tmp_path, train_samples=200, epochs=1, clients=2, **settings)
    assert result.done == 5, listener.ended
    records = [json.loads(path.read_text()) for path in tmp_path.glob("main/*/record.json")]
    for record in records:
        assert record["metrics"]["judged_on"] == "holdout"
        assert record["metrics"]["test_samples"] == record["metrics"]["split"]["held_out"] == 40
        assert record["metrics"]["generation"] == []
    for again in ({}, {"options": {"force": frozenset({"all"})}}):
        with pytest.raises(UserError, match="judged on the holdout, these are on the test"):
            run_grid(tmp_path, **again, methods="ensemble", train_samples=200, epochs=1, clients=2)
