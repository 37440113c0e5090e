"""The warm-up by hand, continued from the cache, shared by all methods, and its traffic."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from federation_lab import SMALL, UNEQUAL, State, bench, equal, start_of, window
from torch import Tensor

from benchmark.client_tasks import AT_CLIENT
from benchmark.contract import Broadcast, Upload
from benchmark.events import Events
from benchmark.federation import client as client_module
from benchmark.federation.client import state_digest
from benchmark.federation.federation import Federation
from benchmark.seeds import Streams
from benchmark.store import Cache
from benchmark.testing import Bench
from benchmark.training.trainer import train
from benchmark.wire import encode


def trained(federation: Federation, index: int, state: State, round_index: int) -> State:
    """Train one client's warm-up round by hand."""
    client = federation.client(index)
    model = client.initial_model()
    model.load_state_dict(state)
    train(
        model,
        client.images,
        client.labels,
        recipe=client.recipe,
        normalization=client.task.normalization,
        augmentation=federation.augmentation,
        generator=Streams(0).torch("warm-up", client=index, round=round_index),
        compute=federation.compute,
        steps=3,
        lr=0.02,
    )
    return dict(model.state_dict())


def rounded(value: Tensor, like: Tensor) -> Tensor:
    if like.dtype.is_floating_point:
        return value.to(like.dtype)
    return (value + 1e-9).trunc().to(like.dtype)


def test_warm_up_of_equal_widths_is_fedavg(tmp_path: Path) -> None:
    warm = {"rounds_warmup": 2, "warmup_steps": 3, "warmup_lr": 0.02}
    federation = bench(tmp_path, **warm).federation()
    plain = bench(tmp_path).federation()
    state = start_of(plain)
    sizes = federation.data.partition.sizes
    assert len(set(sizes)) > 1
    for round_index in range(2):
        made = [trained(plain, index, state, round_index) for index in range(3)]
        state = {
            name: rounded(
                sum(
                    (size * one[name].double() for size, one in zip(sizes, made, strict=True)),
                    torch.zeros(()),
                )
                / sum(sizes),
                value,
            )
            for name, value in state.items()
        }
    warmed = start_of(federation)
    for name, value in state.items():
        assert torch.allclose(warmed[name], value, rtol=1e-6, atol=1e-7), name
    assert not equal(warmed, start_of(plain))


def fedrolex(state: State, uploads: list[tuple[State, list[int]]], shift: int) -> State:
    """Average each entry over the clients that hold it, rows of the head by class."""
    result = {}
    for name, old in state.items():
        if not old.dim():
            counts = [float(part[name]) for part, _ in uploads]
            result[name] = rounded(torch.tensor(sum(counts) / len(counts)), old)
            continue
        total, owners = torch.zeros_like(old).double(), torch.zeros_like(old).double()
        for part, classes in uploads:
            sets = [
                (torch.arange(kept) - shift) % size if kept != size else torch.arange(size)
                for kept, size in zip(part[name].shape, old.shape, strict=True)
            ]
            value = part[name].double()
            if name.startswith("head."):
                sets[0] = torch.tensor(classes)
                value = value[classes]
            where = tuple(
                index.view([-1 if dim == axis else 1 for axis in range(old.dim())])
                for dim, index in enumerate(sets)
            )
            total[where] += value
            owners[where] += 1
        mean = (total / owners.clamp(min=1)).to(old.dtype)
        result[name] = torch.where(owners > 0, mean, old)
    return result


def test_warm_up_of_unequal_widths_is_fedrolexs_aggregation(tmp_path: Path) -> None:
    warm = {"rounds_warmup": 2, "warmup_steps": 3, "warmup_lr": 0.02, "alpha": [0.1]}
    federation = bench(tmp_path, widths=UNEQUAL, **warm).federation()
    plain = bench(tmp_path, widths=UNEQUAL, alpha=[0.1]).federation()
    state = start_of(plain)
    for round_index in range(2):
        uploads = []
        for info in plain.infos:
            client = plain.client(info.index)
            shapes = client.initial_model().state_dict()
            begin = window(state, shapes, round_index)
            classes = torch.nonzero(client.label_counts).flatten().tolist()
            uploads.append((trained(plain, info.index, begin, round_index), classes))
        assert any(len(classes) < 10 for _, classes in uploads)
        state = fedrolex(state, uploads, round_index)
    warmed = start_of(federation)
    for name, value in state.items():
        assert torch.allclose(warmed[name], value, rtol=1e-6, atol=1e-7), name


@pytest.mark.parametrize("widths", ["1/4", UNEQUAL])
def test_a_longer_warm_up_goes_on_from_a_shorter_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, widths: Any
) -> None:
    done: list[int] = []
    original = Federation._warm_up_round

    def counted(self: Federation, state: Any, round_index: int) -> Any:
        done.append(round_index)
        return original(self, state, round_index)

    monkeypatch.setattr(Federation, "_warm_up_round", counted)
    whole = bench(tmp_path / "at once", widths=widths, rounds_warmup=3).federation()
    assert done == [0, 1, 2]
    bench(tmp_path / "in parts", widths=widths, rounds_warmup=2).federation()
    done.clear()
    parts = bench(tmp_path / "in parts", widths=widths, rounds_warmup=3).federation()
    assert done == [2]
    assert equal(start_of(whole), start_of(parts))
    done.clear()
    again = bench(tmp_path / "in parts", widths=widths, rounds_warmup=3).federation()
    assert done == []
    assert equal(start_of(whole), start_of(again))
    assert again.warmup_seconds == parts.warmup_seconds > 0
    assert again.warmup_traffic == whole.warmup_traffic


@pytest.mark.parametrize(
    "change",
    [
        {"warmup_steps": 5},
        {"warmup_lr": 0.05},
        {"momentum": 0.5},
        {"batch_size": 8},
        {"alpha": [5.0]},
        {"seeds": [1], "split_seeds": [0]},
    ],
    ids=str,
)
def test_another_warm_up_is_not_taken_from_the_cache(
    tmp_path: Path, change: dict[str, Any]
) -> None:
    warm = {"rounds_warmup": 1, "warmup_steps": 3, "warmup_lr": 0.02}
    first = start_of(bench(tmp_path, **warm).federation())
    assert not equal(first, start_of(bench(tmp_path, **{**warm, **change}).federation()))


def test_a_warm_up_is_no_work_that_others_can_help_with(tmp_path: Path) -> None:
    phases: list[str] = []

    class Heard:
        def send(self, kind: str, **data: Any) -> None:
            phases.append(data["phase"])

    place = bench(tmp_path, rounds_warmup=2, warmup_steps=3)
    run = place.spec
    Federation(run.scenario, run.compute, place.data, Cache(tmp_path), Events(Heard()))
    clients = [f"warm-up of client {index}" for index in range(3)]
    assert list(dict.fromkeys(phases)) == [*clients, "warm-up"]
    assert not any(AT_CLIENT.fullmatch(phase) for phase in phases)


def test_warm_up_and_models_are_shared_by_all_methods(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = Bench("fedavg", {**SMALL, "rounds_warmup": 1}, folder=tmp_path).run()
    assert first.cached_client_seconds == 0

    def refuse(*args: Any, **settings: Any) -> None:
        raise AssertionError("trained again")

    # The state that was just made and the one from the cache are one state.
    monkeypatch.setattr(client_module, "train", refuse)
    second = Bench("ensemble", {**SMALL, "rounds_warmup": 1}, folder=tmp_path).run()
    assert second.cache_ids == first.cache_ids


def test_the_digest_of_a_state_knows_no_order() -> None:
    state = {"b": torch.ones(2), "a": torch.zeros(3)}
    assert state_digest(state) == state_digest(dict(sorted(state.items())))
    for other in (
        {"b": torch.ones(2), "c": torch.zeros(3)},
        {"b": torch.ones(2), "a": torch.zeros(3, dtype=torch.float64)},
        {"b": torch.ones(1, 2), "a": torch.zeros(3)},
        {"b": torch.ones(2), "a": torch.tensor([0.0, 0.0, -0.0])},
    ):
        assert state_digest(other) != state_digest(state)


@pytest.mark.parametrize("widths", ["1/4", UNEQUAL])
def test_the_warm_ups_traffic_is_booked(tmp_path: Path, widths: Any) -> None:
    federation = bench(tmp_path, widths=widths, rounds_warmup=2).federation()
    traffic = federation.warmup_traffic
    assert set(traffic.uploads) == {(r, c) for r in (0, 1) for c in range(3)}
    # The first broadcast is a seed; the one after the last round is the state to start from.
    assert set(traffic.broadcasts) == {(r, c) for r in (1, 2) for c in range(3)}
    for info in federation.infos:
        client = federation.client(info.index)
        state = client.initial_model().state_dict()
        size = sum(value.numel() * value.element_size() for value in state.values())
        held = torch.nonzero(client.label_counts).flatten().tolist()
        values: dict[str, Any] = {"samples": client.num_samples}
        if widths == UNEQUAL:
            values = {"classes": held}
        up, down = traffic.uploads[1, info.index], traffic.broadcasts[2, info.index]
        assert up["model"] == down["model"] == size
        assert sum(up.values()) == len(encode(Upload({"model": state}, values)))
        assert sum(down.values()) == len(encode(Broadcast({"model": state})))
    assert bench(tmp_path, widths=widths).federation().warmup_traffic.totals() == (0, 0)


def test_a_warm_up_round_is_not_annealed(tmp_path: Path) -> None:
    warm = {"rounds_warmup": 1, "warmup_steps": 3}
    annealed, constant = (
        start_of(bench(tmp_path / schedule, schedule=schedule, **warm).federation())
        for schedule in ("cosine", "constant")
    )
    assert equal(annealed, constant)
