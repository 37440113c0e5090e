"""Floating-point operations: torch's counter on a sample of steps, at no bit's cost."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmark import flops
from benchmark.flops import EVERY, FlopMeter, counted
from benchmark.testing import Bench

FORWARD = 2 * 8 * 5 * 3
"""Of a layer from 5 to 3 features on 8 rows: a multiply-add counts two."""


def layer() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(5, 3)


def fit(model: nn.Module, steps: int, inputs: Tensor) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(steps):
        optimizer.zero_grad()
        model(inputs).square().mean().backward()
        optimizer.step()


def test_a_sample_of_equal_steps_gives_the_whole() -> None:
    meter, steps = FlopMeter(), 3 * EVERY
    with meter.section():
        fit(layer(), steps, torch.ones(8, 5))
    # The weight's gradient costs as much as the forward pass; the input wants none.
    assert meter.total == 2 * FORWARD * steps
    with FlopCounterMode(display=False) as theirs:
        fit(layer(), steps, torch.ones(8, 5))
    assert meter.total == theirs.get_total_flops()


def test_alternating_optimisers_are_told_apart() -> None:
    meter = FlopMeter()
    small, large = layer(), nn.Linear(50, 30)
    with meter.section():
        for _ in range(100):
            fit(small, 1, torch.ones(8, 5))
            fit(large, 1, torch.ones(8, 50))
    assert meter.total == 100 * (2 * FORWARD + 2 * 2 * 8 * 50 * 30)


def test_work_without_an_optimiser_is_counted_whole() -> None:
    meter = FlopMeter()
    with meter.section(), torch.no_grad():
        for _ in range(7):
            layer()(torch.ones(8, 5))
    assert meter.total == 7 * FORWARD


def test_sections_add_up_and_earlier_work_can_be_added() -> None:
    meter = FlopMeter()
    for _ in range(2):
        with meter.section():
            fit(layer(), 40, torch.ones(8, 5))
    layer()(torch.ones(8, 5))  # outside
    meter.add(11)
    assert meter.total == 2 * 40 * 2 * FORWARD + 11
    assert meter.known
    meter.add(None)
    assert not meter.known
    with meter.section(), pytest.raises(RuntimeError, match="open already"), meter.section():
        pass


def test_counting_changes_no_bit() -> None:
    inputs = torch.randn(64, 1, 12, 12, generator=torch.Generator().manual_seed(1))

    def trained() -> list[Tensor]:
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(800, 10)
        ).to(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16):
            fit(model, 40, inputs)
        return list(model.state_dict().values())

    plain = trained()
    with FlopMeter().section():
        counted = trained()
    assert all(torch.equal(a, b) for a, b in zip(plain, counted, strict=True))


def test_a_transformer_in_half_precision_is_counted_and_stays_as_it_is() -> None:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True).eval()
    tokens = torch.randn(4, 5, 16)

    def asked() -> Tensor:
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            return layer(tokens)  # type: ignore[no-any-return]

    meter, optimizer = FlopMeter(), torch.optim.SGD(layer.parameters(), lr=0.0)
    seen = []
    with meter.section():
        for _ in range(2 * EVERY):  # counted at first, then mostly not
            seen.append(asked())
            for parameter in layer.parameters():
                parameter.grad = torch.zeros_like(parameter)
            optimizer.step()
    assert all(torch.equal(one, seen[0]) for one in seen)
    assert meter.total > 0
    assert torch.backends.mha.get_fastpath_enabled()


def test_a_failure_inside_leaves_nothing_switched_on() -> None:
    meter = FlopMeter()

    def fail() -> None:
        with meter.section():
            fit(layer(), 2, torch.ones(8, 5))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    before = meter.total
    fit(layer(), 2, torch.ones(8, 5))
    assert meter.total == before


def test_preparations_are_not_taken_for_a_usual_step() -> None:
    meter, model = FlopMeter(), layer()
    with meter.section():
        with torch.no_grad():
            model(torch.ones(8_000, 5))
        fit(model, 3 * EVERY, torch.ones(8, 5))
    assert meter.total == 1_000 * FORWARD + 2 * FORWARD * 3 * EVERY


@pytest.mark.parametrize("every", [16, EVERY])
def test_work_in_pieces_is_counted_whole(every: int) -> None:
    """Whether or not the steps that are counted meet the pieces."""
    meter, model, steps = FlopMeter(), layer(), 10 * EVERY
    with meter.section():
        for step in range(steps):
            if step % every == 0:
                with counted(), torch.no_grad():
                    model(torch.ones(8 * every, 5))
            fit(model, 1, torch.ones(8, 5))
    pieces = -(-steps // every) * every
    assert meter.total == (pieces + 2 * steps) * FORWARD


def test_pieces_of_pieces_and_of_nothing() -> None:
    with counted():
        layer()(torch.ones(8, 5))  # nobody counts
    meter = FlopMeter()
    with meter.section(), counted(), counted():
        layer()(torch.ones(8, 5))
    assert meter.total == FORWARD


def test_attention_is_counted_on_a_cpu_too() -> None:
    query = torch.ones(2, 4, 64, 32, requires_grad=True)
    forward = 2 * (2 * 4 * 64 * 64 * 32) * 2  # two products, a multiply-add counts two

    def attend() -> Tensor:
        return torch.nn.functional.scaled_dot_product_attention(query, query, query)

    with torch.no_grad():
        assert flops.operations(attend) == forward
    assert flops.operations(lambda: attend().sum().backward()) >= 2 * forward


@pytest.mark.parametrize(
    ("method", "settings"),
    [
        pytest.param("co_boosting", {}, marks=pytest.mark.long),
        pytest.param("mosaic", {}, marks=pytest.mark.long),
        pytest.param("dense", {}, marks=pytest.mark.slow),
        pytest.param("mosaic", {"images_pool": "fresh"}, marks=pytest.mark.slow),
    ],
)
def test_the_estimate_is_close_to_the_count(
    method: str, settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    overrides = {
        **{"train_samples": 120, "epochs": 1, "generator_steps": 40, "distilled_images": 2880},
        "set": {method: settings},
    }

    def counts(folder: str) -> tuple[int | None, int | None]:
        result = Bench(method, overrides, folder=tmp_path / folder).run()
        return result.client_flops, result.server_flops

    estimate = counts("estimate")
    monkeypatch.setattr(flops, "FIRST", sys.maxsize)
    assert estimate == pytest.approx(counts("count"), rel=0.03)
