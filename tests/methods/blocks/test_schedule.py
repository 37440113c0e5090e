from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmark.errors import UserError
from methods.blocks.schedule import (
    Budget,
    derive_schedule,
    published_budget,
    shares,
    single_epoch,
    split_epoch,
)


@pytest.mark.parametrize(("epochs", "steps", "batch"), [(200, 30, 256), (200, 30, 128), (5, 3, 8)])
def test_published_budget_gives_the_published_schedule(epochs: int, steps: int, batch: int) -> None:
    plans = derive_schedule(published_budget(epochs, steps, batch), batch)
    assert len(plans) == epochs
    for e, plan in enumerate(plans):
        assert (plan.index, plan.epochs) == (e, epochs)
        assert plan.generator_steps == steps
        assert plan.generated_images == batch
        assert plan.distilled_images == (e + 1) * batch


def test_published_total_is_20100_passes_of_a_batch() -> None:
    assert published_budget(200, 30, 256).distilled_images == 20_100 * 256


@settings(max_examples=60, deadline=None)
@given(
    steps=st.integers(1, 3000),
    images=st.integers(1, 5000),
    distilled=st.integers(1, 100_000),
    batch=st.integers(1, 700),
)
def test_schedule_meets_its_budget_exactly(
    steps: int, images: int, distilled: int, batch: int
) -> None:
    budget = Budget(steps, images, distilled)
    epochs = -(-images // batch)
    if steps < epochs:
        with pytest.raises(UserError, match="too small"):
            derive_schedule(budget, batch)
        return
    plans = derive_schedule(budget, batch)
    assert len(plans) == epochs
    assert sum(plan.generator_steps for plan in plans) == steps
    assert sum(plan.generated_images for plan in plans) == images
    assert sum(plan.distilled_images for plan in plans) == distilled
    assert all(1 <= plan.generated_images <= batch for plan in plans)
    assert all(plan.generator_steps >= 1 for plan in plans)
    pool, whole = 0, 0
    for plan in plans:
        pool += plan.generated_images
        whole += pool
    pool = 0
    for plan in plans:
        pool += plan.generated_images
        assert abs(plan.distilled_images - distilled * pool / whole) < 1


@given(total=st.integers(0, 10**7), weights=st.lists(st.integers(1, 10**4), min_size=1))
@settings(max_examples=40, deadline=None)
def test_shares_sum_to_the_total(total: int, weights: list[int]) -> None:
    parts = shares(total, weights)
    assert sum(parts) == total
    assert min(parts) >= 0


def test_scaled_budget() -> None:
    assert Budget(10, 20, 31).scaled(2) == Budget(20, 40, 62)
    assert Budget(10, 20, 31).scaled(0.01) == Budget(1, 1, 1)


def test_single_epoch() -> None:
    (plan,) = single_epoch(320)
    assert (plan.generator_steps, plan.generated_images, plan.distilled_images) == (0, 0, 320)


@pytest.mark.parametrize("bad", [(0, 1, 1), (1, 0, 1), (1, 1, -5)])
def test_budget_refuses_nothing_to_spend(bad: tuple[int, int, int]) -> None:
    with pytest.raises(UserError, match="at least 1"):
        Budget(*bad)


def test_schedule_refuses_bad_batch_and_empty_distillation() -> None:
    with pytest.raises(UserError, match="synthesis batch is 0"):
        derive_schedule(Budget(1, 1, 1), 0)
    with pytest.raises(UserError, match="at least 1"):
        single_epoch(0)


def test_one_epoch_split_over_several_spends_the_same() -> None:
    plans = split_epoch(single_epoch(1003)[0], 10)
    assert len(plans) == 10
    assert [plan.index for plan in plans] == list(range(10))
    assert {plan.epochs for plan in plans} == {10}
    assert sum(plan.distilled_images for plan in plans) == 1003
    assert {plan.generated_images for plan in plans} == {0}
    assert [plan.distilled_images for plan in split_epoch(single_epoch(3)[0], 10)] == [1, 1, 1]
