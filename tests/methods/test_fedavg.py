"""FedAvg: averages by hand, steps shared out over rounds, bytes, and the golden vectors."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from benchmark.contract import Broadcast, Upload
from benchmark.errors import UserError
from benchmark.federation import client as client_module
from benchmark.protocol import ProtocolResult
from benchmark.testing import Bench
from benchmark.training.trainer import train
from benchmark.wire import encode
from methods.fedavg import FedAvg, FedAvgConfig

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "mosaic"
SMALL = {"train_samples": 150, "epochs": 2}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fedavg")


def bench(folder: Path, config: dict[str, Any] | None = None, **overrides: Any) -> Bench:
    return Bench("fedavg", {**SMALL, **overrides, "set": {"fedavg": config or {}}}, folder=folder)


def mean(states: list[dict[str, Tensor]], weights: list[float]) -> dict[str, Tensor]:
    """Average by hand, in double precision; counters are cut to whole numbers."""
    whole = sum(weights)
    result = {}
    for name, first in states[0].items():
        total = sum(w * s[name].double() for w, s in zip(weights, states, strict=True)) / whole
        value = total if first.dtype.is_floating_point else (total + 1e-9).trunc()
        result[name] = value.to(first.dtype)
    return result


def check_state(model: nn.Module, expected: dict[str, Tensor]) -> None:
    state = model.state_dict()
    assert state.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.allclose(state[name], value, rtol=1e-6, atol=1e-7), name


def local_states(place: Bench) -> tuple[list[dict[str, Tensor]], list[int]]:
    federation = place.federation()
    clients = [federation.client(info.index) for info in federation.infos]
    return (
        [dict(client.local_model().state_dict()) for client in clients],
        [client.num_samples for client in clients],
    )


@pytest.mark.parametrize("weights", ["samples", "uniform"])
def test_one_round_is_the_average_of_the_local_models(folder: Path, weights: str) -> None:
    place = bench(folder, {"weights": weights})
    states, sizes = local_states(place)
    assert len(set(sizes)) == 3
    counters = [int(state["norm1.num_batches_tracked"]) for state in states]
    assert len(set(counters)) > 1
    result = place.run()
    check_state(result.output.model, mean(states, sizes if weights == "samples" else [1, 1, 1]))
    assert result.traffic.broadcasts == {}


def test_one_round_uploads_model_and_sample_count(folder: Path) -> None:
    place = bench(folder)
    states, sizes = local_states(place)
    result = place.run()
    for index, (state, size) in enumerate(zip(states, sizes, strict=True)):
        booked = result.traffic.uploads[0, index]
        model = sum(value.numel() * value.element_size() for value in state.values())
        assert booked["model"] == model
        assert booked["values"] == len(f'{{"values":{{"samples":{size}}}}}')
        assert sum(booked.values()) == len(encode(Upload({"model": state}, {"samples": size})))
    parameters = sum(p.numel() for p in result.output.model.parameters())
    # Running means and variances of norms of 8, 16 and 32 channels, and three int64 counters.
    assert model == 4 * (parameters + 2 * (8 + 16 + 32)) + 3 * 8


@pytest.mark.parametrize("rounds", [2, 5])
def test_rounds_share_out_the_local_steps_exactly(
    folder: Path, rounds: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: dict[str, list[int]] = {}

    def counted(*args: Any, **settings: Any) -> Any:
        summary = train(*args, **settings)
        steps.setdefault(settings["where"], []).append(summary.steps)
        return summary

    monkeypatch.setattr(client_module, "train", counted)
    place = bench(folder, {"rounds": rounds})
    result = place.run()
    federation = place.federation()
    for info in federation.infos:
        full = federation.client(info.index).local_steps()
        taken = steps[f"client {info.index}"]
        assert sum(taken) == full, "as many as one-shot, not one more"
        assert max(taken) - min(taken) <= 1
    assert result.server.rounds == rounds


def test_more_rounds_than_steps_leave_rounds_without_training(folder: Path) -> None:
    place = bench(folder, {"rounds": 12}, epochs=1, batch_size=64)
    federation = place.federation()
    assert min(federation.client(index).local_steps() for index in range(3)) < 12
    result = place.run()
    assert {key[0] for key in result.traffic.uploads} == set(range(12))


def test_two_rounds_by_hand(folder: Path) -> None:
    place = bench(folder, {"rounds": 2})
    federation = place.federation()
    state = dict(federation.client(0).initial_model().state_dict())
    sizes = [federation.client(index).num_samples for index in range(3)]
    for round_index in range(2):
        made = []
        for index in range(3):
            client = federation.client(index)
            client.round = round_index
            model = client.initial_model()
            model.load_state_dict(state)
            full = client.local_steps()
            client.train(model, steps=full // 2 if round_index == 0 else full - full // 2)
            made.append(dict(model.state_dict()))
        state = mean(made, sizes)
    check_state(place.run().output.model, state)


def test_the_global_model_is_sent_from_the_second_round_on(folder: Path) -> None:
    result = bench(folder, {"rounds": 3}).run()
    assert set(result.traffic.broadcasts) == {(r, c) for r in (1, 2) for c in range(3)}
    state = result.output.model.state_dict()
    size = sum(value.numel() * value.element_size() for value in state.values())
    for parts in result.traffic.broadcasts.values():
        assert parts["model"] == size
        assert sum(parts.values()) == len(encode(Broadcast({"model": state})))


def test_a_warm_start_is_where_it_begins(folder: Path) -> None:
    place = bench(folder, {"rounds": 2}, rounds_warmup=1)
    cold = bench(folder, {"rounds": 2})
    warm_start = place.federation().client(0).initial_model().state_dict()
    cold_start = cold.federation().client(0).initial_model().state_dict()
    assert not torch.equal(warm_start["head.weight"], cold_start["head.weight"])
    first, second = place.run(), cold.run()
    assert first.traffic == second.traffic, "the warm-up is booked by itself"


def test_masked_training_is_another_model(folder: Path) -> None:
    def head(result: ProtocolResult) -> Tensor:
        return result.output.model.state_dict()["head.weight"]

    plain = bench(folder, alpha=[0.1]).run()
    masked = bench(folder, {"label_masked": True}, alpha=[0.1]).run()
    assert not torch.equal(head(plain), head(masked))
    assert plain.traffic == masked.traffic


def test_the_head_can_be_averaged_by_class(folder: Path) -> None:
    place = bench(folder, {"label_head": True}, alpha=[0.1])
    states, sizes = local_states(place)
    federation = place.federation()
    held = [federation.client(index).label_counts > 0 for index in range(3)]
    expected = mean(states, sizes)
    before = federation.client(0).initial_model().state_dict()
    for name in ("head.weight", "head.bias"):
        for label in range(10):
            owners = [index for index in range(3) if bool(held[index][label])]
            whole = sum(sizes[index] for index in owners)
            rows = [sizes[index] * states[index][name][label].double() for index in owners]
            value = sum(rows) / whole if owners else before[name][label].double()
            expected[name][label] = torch.as_tensor(value).float()
    result = place.run()
    check_state(result.output.model, expected)
    assert result.output.details == {"also_uses": ["label sets"]}


class GoldenModel(nn.Module):
    """The layers of the golden vectors."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 3, bias=False)
        self.bn = nn.BatchNorm2d(2)
        self.linear = nn.Linear(2, 4)


class GoldenServer:
    """What the plugin asks of a server."""

    round, rounds = 0, 1

    def __init__(self) -> None:
        self.global_model = GoldenModel()

    def initial_model(self) -> GoldenModel:
        return GoldenModel()

    def report(self, *values: Any, **scalars: float) -> None:
        assert values[:2] == (1, 1)


def test_it_meets_the_golden_average() -> None:
    golden = np.load(GOLDEN / "aggregation.npz")
    names = [key.removeprefix("global.") for key in golden.files if key.startswith("global.")]
    assert set(names) == set(GoldenModel().state_dict())
    uploads = {
        index: Upload(
            {"model": {name: torch.as_tensor(golden[f"client{index}.{name}"]) for name in names}},
            {"samples": int(golden["dataset_sizes"][index])},
        )
        for index in range(3)
    }
    server: Any = GoldenServer()
    model = FedAvg(FedAvgConfig()).server_update(uploads, server).model
    for name, value in model.state_dict().items():
        expected = torch.as_tensor(golden[f"global.{name}"])
        assert value.dtype == GoldenModel().state_dict()[name].dtype
        assert torch.allclose(value.double(), expected.double(), rtol=1e-6, atol=1e-7), name


def test_unequal_widths_are_skipped_with_a_reason(folder: Path) -> None:
    assert bench(folder, widths=("1/2,1/4",)).skip == "averaging needs clients of equal width"
    assert bench(folder, widths=("1/2",)).skip is None
    assert bench(folder, widths=(("1/4", Fraction(1, 4)),)).skip is None


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"rounds": 0}, "rounds: "),
        ({"weights": "size"}, "weights: "),
        ({"round": 1}, "did you mean 'rounds'"),
        ({"label_head": "maybe"}, "label_head: "),
    ],
)
def test_wrong_parameters_are_refused(folder: Path, config: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says):
        bench(folder, config).spec  # noqa: B018 - made when asked for


def test_the_dry_runs_estimate(folder: Path) -> None:
    place = bench(folder)
    assert place.method().workload(place.spec.scenario, 100, place.spec.budget) == 0
    more = bench(folder, {"rounds": 3})
    assert more.method().workload(more.spec.scenario, 100, more.spec.budget) == 200
