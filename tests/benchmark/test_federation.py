"""The federation: who holds what, the shared start, local models, and the data dealt out."""

from __future__ import annotations

import tracemalloc
from collections import Counter
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from federation_lab import UNEQUAL, State, bench, equal, start_of, window
from torch import Tensor, nn

from benchmark.contract import Broadcast
from benchmark.events import Events
from benchmark.federation import client as client_module
from benchmark.federation.data import Samples, load_scenario_data
from benchmark.federation.federation import FederationOracle, assign_widths
from benchmark.federation.traffic import account_for
from benchmark.models.build import build
from benchmark.seeds import Streams
from benchmark.specs import BudgetSpec, ScenarioSpec
from benchmark.training.trainer import train


def scenario(**values: Any) -> ScenarioSpec:
    return ScenarioSpec.parse({"dataset": "digits", **values}, "test")


# --- widths ------------------------------------------------------------------------------


def test_widths_are_dealt_out_per_split() -> None:
    plan = {"widths": ["1", "1/2", "1/4"], "partition": {"clients": 10}}
    first = assign_widths(scenario(**plan))
    assert first == assign_widths(scenario(**plan, seed=5)), "training's seed changes nothing"
    assert Counter(first) == {Fraction(1): 4, Fraction(1, 2): 3, Fraction(1, 4): 3}
    others = [assign_widths(scenario(**plan, split_seed=seed)) for seed in range(1, 6)]
    assert any(other != first for other in others)
    assert all(Counter(other) == Counter(first) for other in others)


def test_one_width_for_all() -> None:
    assert assign_widths(scenario(widths=["1/2"], partition={"clients": 3})) == [Fraction(1, 2)] * 3


# --- the common start --------------------------------------------------------------------


def test_the_start_is_drawn_from_the_training_seed_alone(tmp_path: Path) -> None:
    federation = bench(tmp_path, widths="1/4").federation()
    model = build(
        "cnn",
        num_classes=10,
        channels=1,
        width="1/4",
        generator=Streams(0).torch("initial weights"),
    )
    assert equal(start_of(federation), model.state_dict())
    for info in federation.infos:
        assert equal(federation.client(info.index).initial_model().state_dict(), model.state_dict())
    other = bench(tmp_path, widths="1/4", seeds=[1]).federation()
    assert not equal(start_of(other), model.state_dict())


@pytest.mark.parametrize("rounds", [0, 2])
def test_narrow_clients_start_from_their_window_of_one_state(tmp_path: Path, rounds: int) -> None:
    federation = bench(tmp_path, widths=UNEQUAL, rounds_warmup=rounds).federation()
    whole = start_of(federation)
    assert {info.window for info in federation.infos} == {rounds}
    assert {info.width for info in federation.infos} == {
        Fraction(1, 4),
        Fraction(1, 8),
        Fraction(1, 16),
    }
    for info in federation.infos:
        mine = federation.client(info.index).initial_model().state_dict()
        assert equal(mine, window(whole, mine, rounds))
        again = federation.server("x", 1, BudgetSpec()).initial_model(info.width).state_dict()
        assert equal(mine, again)


# --- clients -----------------------------------------------------------------------------


def test_a_local_model_is_trained_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[int] = []

    def counted(*args: Any, **settings: Any) -> Any:
        summary = train(*args, **settings)
        steps.append(summary.steps)
        return summary

    monkeypatch.setattr(client_module, "train", counted)
    federation = bench(tmp_path).federation()
    client = federation.client(0)
    first = client.local_model()
    assert steps == [client.local_steps()]
    assert client.ledger.cost.cached_seconds == 0
    second = client.local_model()
    third = bench(tmp_path).federation().client(0)
    assert equal(first.state_dict(), second.state_dict())
    assert equal(first.state_dict(), third.local_model().state_dict())
    assert len(steps) == 1
    assert third.ledger.cost.cached_seconds > 0
    assert third.ledger.cost.cache_ids == [client.ledger.cost.cache_ids[0]]
    assert not first.training
    with torch.no_grad():
        next(first.parameters()).add_(1)
    assert not equal(first.state_dict(), client.local_model().state_dict()), "each has its own"


@pytest.mark.parametrize(
    "change",
    [
        {"epochs": 3},
        {"lr": 0.04},
        {"seeds": [1], "split_seeds": [0]},
        {"split_seeds": [1]},
        {"widths": "1/8"},
        {"norm": "group"},
        {"batch_size": 8},
        {"alpha": [5.0]},
        {"rounds_warmup": 1},
        {"holdout": 0.2},
    ],
    ids=str,
)
def test_another_scenario_has_other_models(tmp_path: Path, change: dict[str, Any]) -> None:
    def key(overrides: Mapping[str, Any]) -> str:
        client = bench(tmp_path, **overrides).federation().client(0)
        client.local_model()
        return client.ledger.cost.cache_ids[0]

    assert key(change) != key({})


def test_the_local_model_is_the_same_in_every_round(tmp_path: Path) -> None:
    first = bench(tmp_path / "a").federation().client(0)
    late = bench(tmp_path / "b").federation().client(0)
    late.round = 3
    assert equal(first.local_model().state_dict(), late.local_model().state_dict())


def test_own_training_has_a_stream_for_each_round(tmp_path: Path) -> None:
    federation = bench(tmp_path).federation()

    def own(round_index: int) -> State:
        client = federation.client(0)
        client.round = round_index
        model = client.initial_model()
        client.train(model)
        return dict(model.state_dict())

    assert equal(own(0), federation.client(0).local_model().state_dict())
    assert equal(own(1), own(1))
    assert not equal(own(0), own(1))


def test_own_training_may_have_a_loss_of_its_own(tmp_path: Path) -> None:
    client = bench(tmp_path).federation().client(0)
    plain, same, still = (client.initial_model() for _ in range(3))

    def given(model: nn.Module, images: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(logits, labels)

    client.train(plain)
    client.train(same, loss=given)
    client.train(still, loss=lambda *batch: 0.0 * given(*batch))
    assert equal(plain.state_dict(), same.state_dict())
    start = client.initial_model().head.weight
    assert torch.equal(still.head.weight, start)
    assert not torch.equal(plain.head.weight, start)


@pytest.mark.parametrize("steps", [0, -1])
def test_no_steps_are_no_training(tmp_path: Path, steps: int) -> None:
    client = bench(tmp_path).federation().client(0)
    with pytest.raises(ValueError, match="steps must be at least 1"):
        client.train(client.initial_model(), steps=steps)


def test_a_client_with_a_single_sample_trains(tmp_path: Path) -> None:
    client = bench(tmp_path).federation().client(0)
    single = Samples(client.images[:1], client.labels[:1])
    client.images, client.labels = single.images, single.labels
    model = client.initial_model()
    client.train(model)
    assert client.local_steps() == client.recipe.epochs
    assert all(torch.isfinite(v).all() for v in model.state_dict().values())
    assert int(client.label_counts.sum()) == 1


def test_warm_started_clients_may_train_a_few_steps_only(tmp_path: Path) -> None:
    few = {"rounds_warmup": 1, "warmup_steps": 4, "warmup_local": "steps"}
    assert bench(tmp_path, **few).federation().client(0).local_steps() == 4
    full = bench(tmp_path, rounds_warmup=1, warmup_steps=4).federation().client(0)
    assert full.local_steps() == 2 * -(-full.num_samples // 16)


def test_a_few_steps_after_a_warm_up_are_one_more_of_its_rounds(tmp_path: Path) -> None:
    def client(**values: Any) -> client_module.LocalClient:
        few = {"rounds_warmup": 1, "warmup_steps": 4, "warmup_lr": 0.01, **values}
        return bench(tmp_path, **few).federation().client(0)

    annealed = client(warmup_local="steps", lr=0.05, schedule="cosine")
    constant = client(warmup_local="steps", lr=0.01, schedule="constant")
    trained = annealed.local_model().state_dict()
    assert equal(trained, constant.local_model().state_dict())
    by_hand = annealed.initial_model()
    annealed.train(by_hand)
    assert equal(trained, by_hand.state_dict()), "a method's own training is the same"
    full = client(lr=0.05, schedule="cosine")
    assert full.recipe.lr == 0.05
    assert full.recipe.schedule == "cosine"


def test_after_a_warm_up_a_client_knows_its_own_window_only(tmp_path: Path) -> None:
    client = bench(tmp_path, widths=UNEQUAL, rounds_warmup=1).federation().client(0)
    with pytest.raises(ValueError, match="own window only"):
        client.initial_model(scheme="static")


def test_streams_leave_the_method_out_on_clients_and_carry_it_on_the_server(
    tmp_path: Path,
) -> None:
    federation = bench(tmp_path).federation()
    client = federation.client(1)
    assert client.generator("x").initial_seed() == Streams(0).integer("x", client=1, round=0)
    servers = [federation.server(name, 1, BudgetSpec()) for name in ("dense", "mosaic")]
    seeds = [server.generator("x").initial_seed() for server in servers]
    assert seeds == [Streams(0, name).integer("x", round=0) for name in ("dense", "mosaic")]
    fresh = [server.new_model().state_dict() for server in servers]
    assert not equal(*fresh)
    assert equal(servers[0].new_model().state_dict(), fresh[0])
    assert equal(*(dict(server.initial_model().state_dict()) for server in servers))


# --- data --------------------------------------------------------------------------------


def test_holdout_clients_and_test_share_nothing(tmp_path: Path) -> None:
    data = bench(tmp_path, train_samples=None, holdout=0.2).data
    shares = [data.pool[indices] for indices in data.partition.client_indices]
    together = np.concatenate([*shares, data.held_out])
    assert len(np.unique(together)) == len(together) == len(data.dataset.train.labels)
    assert len(data.held_out) == round(0.2 * len(together))
    assert set(np.concatenate(shares)) == set(data.pool)
    cpu = torch.device("cpu")
    assert len(data.test(cpu)) == len(data.dataset.test.labels)
    assert data.dataset.test.images is not data.dataset.train.images
    counts = torch.bincount(data.validation(cpu).labels, minlength=10)
    assert int(counts.min()) >= 20, "stratified"


@pytest.mark.parametrize("samples", [100, 333])
def test_a_part_of_the_training_set_is_stratified(tmp_path: Path, samples: int) -> None:
    data = bench(tmp_path, train_samples=samples, holdout=0.1).data
    assert len(data.pool) + len(data.held_out) == samples
    everything = np.concatenate([data.pool, data.held_out])
    counts = np.bincount(np.asarray(data.dataset.train.labels)[everything], minlength=10)
    assert counts.max() - counts.min() <= max(2, samples // 50)


def test_each_draw_of_data_has_its_own_stream(tmp_path: Path) -> None:
    plain = bench(tmp_path, holdout=0.0).data
    other_alpha = bench(tmp_path, holdout=0.0, alpha=[5.0]).data
    assert np.array_equal(plain.pool, other_alpha.pool)
    assert plain.partition.digest != other_alpha.partition.digest
    again = bench(tmp_path, holdout=0.0, seeds=[9], split_seeds=[0]).data
    assert again.partition.digest == plain.partition.digest
    assert plain.client_digest(0) != plain.client_digest(1)


def test_what_a_reference_sees_is_all_clients_and_the_holdout(tmp_path: Path) -> None:
    federation = bench(tmp_path, holdout=0.2).federation()
    oracle = FederationOracle(federation, Events())
    sizes = federation.data.partition.sizes
    assert len(oracle.images) == len(oracle.labels) == sum(sizes)
    assert len(oracle.validation_images) == len(oracle.validation_labels) == 30
    clients = [federation.client(index) for index in range(3)]
    counts = sum(client.label_counts for client in clients)
    assert torch.equal(counts, torch.bincount(oracle.labels, minlength=10))
    images = {row.numpy().tobytes() for row in oracle.images}
    assert {row.numpy().tobytes() for client in clients for row in client.images} == images


def test_an_empty_broadcast_costs_nothing() -> None:
    assert sum(account_for(Broadcast()).values()) == 0


def test_samples_are_copied_once() -> None:
    data = load_scenario_data(scenario(), None, None)
    images = data.dataset.train.images
    tracemalloc.start()
    try:
        samples = data.training_set(torch.device("cpu"))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1.5 * images.nbytes
    samples.images.zero_()
    assert images.any(), "what is handed out is no view of the dataset"


def test_fresh_weights_have_a_stream_for_each_round(tmp_path: Path) -> None:
    server = bench(tmp_path).federation().server("dense", 2, BudgetSpec())
    first = server.new_model().state_dict()
    server.round = 1
    assert not equal(first, server.new_model().state_dict())
