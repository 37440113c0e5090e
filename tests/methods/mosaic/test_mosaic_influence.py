"""Influence: which expert decides on images of a class, and whether its clients hold the class."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from methods.mosaic.influence import MOST_EXPERTS, Influence, expert_influence
from methods.mosaic.meta import OwnClass


def own_class(logits: Tensor) -> Tensor:
    return OwnClass()(logits)


def first_only(logits: Tensor) -> Tensor:
    return logits[:, 0]


def drawn(images: int = 60, experts: int = 4, classes: int = 4) -> Tensor:
    random = torch.Generator().manual_seed(0)
    return 3 * torch.randn(images, experts, classes, generator=random)


def test_an_expert_that_is_not_heard_has_no_influence() -> None:
    found = expert_influence(drawn(), first_only)
    assert found is not None
    assert bool((found.matrix[:, 0] > 0).all())
    assert bool((found.matrix[:, 1:] == 0).all())


def test_the_fall_of_the_probability_by_hand() -> None:
    # Both experts say class 0, the second more weakly; the teacher is their mean.
    logits = torch.tensor([[[4.0, 0.0], [2.0, 0.0]]])
    found = expert_influence(logits, lambda given: given.mean(dim=1))
    assert found is not None

    def sigmoid(x: float) -> float:
        return 1 / (1 + math.exp(-x))

    expected = [sigmoid(3) - sigmoid(2), sigmoid(3) - sigmoid(4)]
    assert found.matrix[0].tolist() == pytest.approx(expected)
    assert found.images.tolist() == [1, 0]
    assert bool(torch.isnan(found.matrix[1]).all()), "no image of class 1"
    record = found.for_record(torch.eye(2))
    assert record["matrix"][1] is None
    assert record["own_share"] == 1.0, "what the second expert takes away is not influence"


def test_where_each_expert_speaks_for_its_class_it_decides_there() -> None:
    # On images of class c every expert says c: only expert c is asked for it.
    labels = torch.arange(4).repeat(5)
    logits = torch.zeros(20, 4, 4)
    logits[torch.arange(20), labels, labels] = 6.0
    found = expert_influence(logits, own_class)
    assert found is not None
    assert found.images.tolist() == [5, 5, 5, 5]
    assert found.own_share() == pytest.approx(1.0, abs=0.02)
    holders = torch.tensor([[0.9, 0.1], [0.2, 0.8], [1.0, 0.0], [0.5, 0.5]])
    assert found.follows_holders(holders) == pytest.approx(1.0, abs=0.01)


def test_experts_that_all_decide_alike_follow_nobody() -> None:
    matrix = torch.full((3, 3), 0.1, dtype=torch.float64)
    found = Influence(torch.tensor([1, 1, 1]), matrix)
    assert found.own_share() == pytest.approx(1 / 3)
    # Shares of influence are the same in each class then: no correlation is defined, or none is.
    assert found.follows_holders(torch.full((3, 2), 0.5)) is None
    swapped = Influence(torch.tensor([1, 1]), torch.tensor([[0.0, 1.0], [1.0, 0.0]]))
    assert swapped.follows_holders(torch.eye(2)) == pytest.approx(-1.0)


def test_influence_does_not_depend_on_the_order_of_images() -> None:
    logits = drawn()
    turned = logits.flip(0)
    first, second = (expert_influence(given, own_class) for given in (logits, turned))
    assert first is not None
    assert second is not None
    assert torch.allclose(first.matrix, second.matrix, equal_nan=True)


@pytest.mark.parametrize("experts", [1, MOST_EXPERTS + 1])
def test_one_expert_or_very_many_are_not_asked(experts: int) -> None:
    assert expert_influence(drawn(experts=experts), first_only) is None


def test_no_positive_influence_is_no_share() -> None:
    found = Influence(torch.tensor([1, 1]), torch.tensor([[-0.1, 0.0], [0.0, -0.2]]))
    assert found.own_share() is None
    assert found.follows_holders(torch.eye(2)) is None
