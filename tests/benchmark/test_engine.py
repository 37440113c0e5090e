"""What one run leaves behind: a record with all that a report needs, and a passive history."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from grids import ROOT, planned, run_grid
from torch import Tensor, nn

from benchmark import engine
from benchmark.contract import Broadcast, GlobalModel, Upload
from benchmark.engine import _history, _Judged, configured_method
from benchmark.errors import DivergedError, UserError
from benchmark.evaluation import Evaluation
from benchmark.events import Events
from benchmark.federation.server import Snapshot
from benchmark.models.build import build
from benchmark.registry import PluginError
from benchmark.seeds import Streams
from benchmark.specs import RunSpec, digest_of
from benchmark.store import Cache, Store
from benchmark.testing import Bench
from benchmark.wire import encode

TINY: dict[str, Any] = {"train_samples": 120, "epochs": 1, "clients": 2, "rounds_warmup": 1}
METHODS = ("best_client", "fedavg")
SET = {"fedavg": {"rounds": 3}}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("engine")
    result, listener = run_grid(folder, methods=METHODS, set=SET, **TINY)
    assert result.done == 2, listener.ended
    return folder


@pytest.fixture(scope="module")
def documents(results: Path) -> dict[str, dict[str, Any]]:
    """The records by method, as they stand on the disk."""
    files = (results / "main").glob("*/record.json")
    found = [json.loads(file.read_text()) for file in files]
    return {document["label"]: document for document in found}


def test_the_records_keys(documents: dict[str, dict[str, Any]]) -> None:
    for document in documents.values():
        assert {
            "spec",
            "status",
            "metrics",
            "communication",
            "timing",
            "environment",
            "run_id",
            "cell_id",
            "method",
            "warnings",
        } <= set(document)
        assert document["status"] == "done"
        assert document["attempt"] == 1


def test_a_record_can_be_traced_to_its_spec(documents: dict[str, dict[str, Any]]) -> None:
    _, runs = planned(methods=METHODS, set=SET, **TINY)
    for run in runs:
        document = documents[run.label]
        spec = RunSpec.parse(document["spec"], "record")
        assert spec == run.spec
        assert spec.run_id == document["run_id"] == digest_of(document["spec"])
        assert spec.cell_id == document["cell_id"]
        assert document["metrics"]["scenario_id"] == spec.scenario.digest()


def test_metrics(documents: dict[str, dict[str, Any]]) -> None:
    for document in documents.values():
        metrics = document["metrics"]
        confusion = torch.tensor(metrics["confusion"])
        assert confusion.shape == (10, 10)
        assert int(confusion.sum()) == metrics["test_samples"]
        assert metrics["accuracy"] == int(confusion.diagonal().sum()) / metrics["test_samples"]
        assert metrics["per_class_accuracy"][3] == int(confusion[3, 3]) / int(confusion[3].sum())
        assert metrics["selection"] == "last"
        assert metrics["teacher"] is None
        assert metrics["inference_flops"]["teacher"] is None
        assert metrics["loss"] > 0
        split = metrics["split"]
        assert split["widths"] == ["1/4", "1/4"]
        assert split["windows"] == [1, 1]
        assert sum(split["sizes"]) == split["pool"] == 108
        assert split["held_out"] == 12
        assert [sum(row) for row in split["counts"]] == split["sizes"]
        assert len(split["id"]) == 16
        assert len(metrics["class_names"]) == 10
    asked = {document["metrics"]["inference_flops"]["model"] for document in documents.values()}
    # Three convolutions, at 32, 16 and 8 pixels, and the ten classes' layer.
    products = 9 * 8 * 32**2 + 9 * 8 * 16 * 16**2 + 9 * 16 * 32 * 8**2 + 32 * 10
    assert asked == {2 * products}
    assert documents["best_client"]["metrics"]["details"]["client"] in (0, 1)
    splits = [document["metrics"]["split"] for document in documents.values()]
    assert splits[0] == splits[1]


def test_communication_equals_the_closed_form(documents: dict[str, dict[str, Any]]) -> None:
    state: dict[str, Tensor] = dict(
        build(
            "cnn", num_classes=10, channels=1, width="1/4", generator=Streams(0).torch("x")
        ).state_dict()
    )
    parameters = 9 * 8 + 9 * 8 * 16 + 9 * 16 * 32 + 2 * (8 + 16 + 32) + 32 * 10 + 10
    model = 4 * (parameters + 2 * (8 + 16 + 32)) + 3 * 8
    account = documents["fedavg"]["communication"]
    sizes = documents["fedavg"]["metrics"]["split"]["sizes"]
    assert account["rounds"] == 3
    assert [entry["up"]["model"] for entry in account["per_round"]] == [2 * model] * 3
    assert [entry["down"].get("model", 0) for entry in account["per_round"]] == [
        0,
        2 * model,
        2 * model,
    ]
    # Over three rounds and two clients, and as many counters of batch norm.
    assert account["elements"]["up"] == {
        "model": {"float32": 6 * (model - 24) // 4, "int64": 6 * 3},
    }
    assert account["elements"]["down"]["model"]["float32"] == 4 * (model - 24) // 4
    uploads = [len(encode(Upload({"model": state}, {"samples": size}))) for size in sizes]
    down = len(encode(Broadcast({"model": state})))
    for entry, upload in zip(account["per_client"], uploads, strict=True):
        assert entry["up"] == 3 * upload
        assert entry["down"] == 2 * down
        for way in ("up", "down"):
            assert sum(entry["parts"][way].values()) == entry[way]
        assert entry["parts"]["up"]["model"] == 3 * model
    assert account["up"] == 3 * sum(uploads)
    warmup = account["warmup"]
    assert (warmup["rounds"], warmup["up"], warmup["down"]) == (1, sum(uploads), 2 * down)
    assert [entry["up"] for entry in warmup["per_client"]] == uploads
    assert [entry["down"] for entry in warmup["per_client"]] == [down, down]
    sent, returned = warmup["per_round"]
    assert (sum(sent["up"].values()), sum(returned["down"].values())) == (sum(uploads), 2 * down)
    assert account["total_up"] == account["up"] + sum(uploads)
    assert account["total_down"] == account["down"] + 2 * down
    assert documents["best_client"]["communication"]["warmup"] == account["warmup"]


def test_timing_adds_up(documents: dict[str, dict[str, Any]]) -> None:
    for document in documents.values():
        timing = document["timing"]
        client = timing["client_seconds"]
        assert client["sum"] == pytest.approx(sum(client["per_client"].values()))
        assert client["max"] == max(client["per_client"].values())
        assert timing["warmup_seconds"] > 0
        worked = client["sum"] - timing["cached_client_seconds"]
        known = timing["data_seconds"] + timing["evaluation_seconds"] + timing["server_seconds"]
        assert 0 < worked + known <= timing["total_seconds"]
        assert timing["engine_seconds"] <= timing["total_seconds"] - worked - known
    assert documents["best_client"]["timing"]["cached_client_seconds"] == 0


def test_the_environment(documents: dict[str, dict[str, Any]], results: Path) -> None:
    for document in documents.values():
        environment = document["environment"]
        assert environment["precision"] == "fp32"
        assert environment["threads"] == 1
        assert environment["device"] == "cpu"
        assert environment["versions"]["torch"].split("+")[0] == torch.__version__.split("+")[0]
        assert set(environment["git"]) == {"commit", "dirty"}
        assert environment["hardware"]["cores"] >= 1
        assert environment["peak_memory_bytes"] > 2**24
        assert environment["other_processors"] == []
    ids = documents["best_client"]["environment"]["client_cache_ids"]
    assert set(ids) == {"0", "1"}
    for (key,) in ids.values():
        assert (results / ".cache" / "client" / key[:2] / key / "data.safetensors").is_file()
    assert (ROOT / ".git").exists() == (environment["git"]["commit"] is not None)


def test_the_history_ends_at_the_accuracy_of_record(
    results: Path, documents: dict[str, dict[str, Any]]
) -> None:
    document = documents["fedavg"]
    rows = Store(results).experiment("main").history(document["run_id"])
    assert [row["step"] for row in rows][-1] == 3
    assert rows[-1]["accuracy"] == document["metrics"]["accuracy"]
    assert "history.csv" in document["files"]


def test_the_history_is_passive(tmp_path: Path, documents: dict[str, dict[str, Any]]) -> None:
    run_grid(tmp_path, methods=["fedavg"], set=SET, history_points=0, **TINY)
    (record,) = Store(tmp_path).experiment("main").records()
    assert record.metrics == documents["fedavg"]["metrics"]
    assert record.communication == documents["fedavg"]["communication"]
    history = Store(tmp_path).experiment("main").history(record.run_id)
    assert all("accuracy" not in row for row in history)
    assert record.run_id != documents["fedavg"]["run_id"]


@dataclass
class FakeServer:
    snapshots: list[Snapshot]


@dataclass
class FakeResult:
    server: FakeServer
    client_reports: dict[int, Any] = field(default_factory=dict)


class FakeEvaluator:
    """Finds a model's accuracy in its weight; NaN is no accuracy."""

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self, model: nn.Module) -> Evaluation:
        self.asked += 1
        value = float(next(model.parameters()).detach().flatten()[0])
        if value != value:  # noqa: PLR0124 - NaN
            raise DivergedError("evaluation", 0, "no finite logits")
        return Evaluation(value, 0.0, (), (), 1)


def model_of(value: float) -> nn.Module:
    model = nn.Linear(1, 1)
    nn.init.constant_(model.weight, value)
    nn.init.zeros_(model.bias)
    return model


def history_of(*snapshots: Snapshot, **reports: Any) -> tuple[list[dict[str, Any]], int]:
    evaluator: Any = FakeEvaluator()
    result: Any = FakeResult(FakeServer(list(snapshots)), **reports)
    return _history(result, evaluator), evaluator.asked


def test_a_model_that_is_not_finite_on_the_way_decides_nothing() -> None:
    nan = float("nan")
    rows, _ = history_of(
        Snapshot(0, 1, {"loss": nan}, model_of(nan), model_of(nan)),
        Snapshot(0, 2, {}, model_of(0.5), model_of(0.25)),
        Snapshot(0, 3, {}, None),
    )
    assert rows[0]["accuracy"] is None
    assert rows[0]["teacher_accuracy"] is None
    assert (rows[1]["accuracy"], rows[1]["teacher_accuracy"]) == (0.5, 0.25)
    assert rows[2] == {"round": 0, "step": 3}


def test_a_teacher_that_stands_still_is_evaluated_once() -> None:
    shots = [Snapshot(0, step, {}, None, model_of(0.25)) for step in range(3)]
    rows, asked = history_of(*shots, Snapshot(0, 3, {}, None, model_of(0.75)))
    assert asked == 2
    assert [row["teacher_accuracy"] for row in rows] == [0.25, 0.25, 0.25, 0.75]


def test_losses_of_clients_are_rows_too() -> None:
    rows, _ = history_of(client_reports={1: {(0, 5): {"gan": 2.0}}, 0: {(0, 5): {"gan": 1.0}}})
    assert rows == [
        {"round": 0, "step": 5, "client": 0, "gan": 1.0},
        {"round": 0, "step": 5, "client": 1, "gan": 2.0},
    ]


def test_what_a_method_reports_is_not_taken_for_what_is_measured() -> None:
    shot = Snapshot(0, 2, {"accuracy": 0.9, "loss": 3.0}, None)
    rows, _ = history_of(shot, client_reports={0: {(0, 5): {"accuracy": 0.97, "step": 1.0}}})
    assert rows == [
        {"round": 0, "step": 2, "reported_accuracy": 0.9, "reported_loss": 3.0},
        {"round": 0, "step": 5, "client": 0, "reported_accuracy": 0.97, "reported_step": 1.0},
    ]


def test_a_run_planned_with_other_code_is_refused() -> None:
    _, (run,) = planned(methods=["fedavg"])
    other = run.spec.model_copy(update={"code": run.spec.code.model_copy(update={"plugin": "x"})})
    assert configured_method(run.info, run.spec).name == "fedavg"
    with pytest.raises(PluginError, match="'fedavg' changed since the run was planned"):
        configured_method(run.info, other)


def test_a_node_without_the_weights_fails_before_it_trains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, (run,) = planned(methods=["fedavg"], extractors=["inception"], **TINY)
    payload = {
        "spec": run.spec.canonical(),
        "info": run.info.model_dump(mode="json"),
        "cache": str(tmp_path),
        "use_cache": False,
        "inception_weights": str(tmp_path / "none.pth"),
    }

    def refuse(*_: object) -> None:
        raise AssertionError("it went on")

    monkeypatch.setattr(engine, "configured_method", refuse)
    with pytest.raises(UserError, match=r"there is no file .*none\.pth"):
        engine.execute(payload)


class LenientEvaluator(FakeEvaluator):
    """Finds no fault with a model, and no cost."""

    def inference_flops(self, model: nn.Module | None) -> int:
        return 0

    def batch_gap(self, model: nn.Module) -> float:
        return 0.0


def test_the_accuracy_of_record_is_the_finished_models_however_good_it_was_before(
    tmp_path: Path,
) -> None:
    place = Bench("fedavg", TINY, folder=tmp_path)
    result = place.run()
    result.server.snapshots[:] = [
        Snapshot(0, step, {}, model_of(value)) for step, value in ((1, 0.75), (2, 0.25))
    ]
    result.output = GlobalModel(model_of(0.25))
    judged = _Judged({}, place.spec, place.federation(), result)
    judged.evaluator = LenientEvaluator()  # type: ignore[assignment]
    judged.measure(Cache(tmp_path), Events())
    assert [row["accuracy"] for row in judged.history] == [0.75, 0.25]
    assert judged.metrics["accuracy"] == 0.25
