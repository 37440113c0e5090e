from __future__ import annotations

import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mosaic_golden import close, load, random_tiny
from torch import Tensor

from methods.mosaic.prototypes import (
    Prototypes,
    class_prototypes,
    collect_features,
    join_prototypes,
    scatter_features,
)


def stream(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def in_order(rows: Tensor) -> Tensor:
    return torch.tensor(sorted(rows.tolist()))


def test_golden_prototypes() -> None:
    golden = load("prototypes.npz")
    made = class_prototypes(golden["proto_features"], golden["proto_labels"], int(golden["k"]))
    assert torch.unique(made.labels).tolist() == [0, 1, 2]
    for label in range(3):
        ours = in_order(made.features[made.labels == label])
        assert close(ours, in_order(golden[f"prototypes_class{label}"])), label


@pytest.mark.parametrize("clusters", [1, 3, 12])
def test_k_is_what_is_asked_for(clusters: int) -> None:
    """The published upload is cut to ten centres, and fails below ten."""
    features = torch.randn(20, 4, generator=stream())
    made = class_prototypes(features, torch.zeros(20, dtype=torch.int64), clusters)
    assert made.features.shape == (clusters, 4)


def test_small_classes_give_their_mean_and_absent_ones_nothing() -> None:
    features = torch.arange(12.0).view(4, 3)
    made = class_prototypes(features, torch.tensor([5, 5, 5, 2]), 4)
    assert made.labels.tolist() == [2, 5]
    assert torch.equal(made.features, torch.stack([features[3], features[:3].mean(0)]))
    assert len(class_prototypes(features[:0], torch.zeros(0, dtype=torch.int64), 4)) == 0


def test_repeatable_and_quiet_on_repeated_points() -> None:
    features = torch.randn(60, 5, generator=stream())
    labels = torch.arange(60) % 2
    first, second = (class_prototypes(features, labels, 7) for _ in range(2))
    assert torch.equal(first.features, second.features)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made = class_prototypes(torch.ones(6, 2), torch.zeros(6, dtype=torch.int64), 3)
    assert torch.equal(made.features, torch.ones(3, 2))


@given(st.integers(1, 25), st.integers(1, 6))
@settings(max_examples=15, deadline=None)
def test_centres_lie_in_the_hull_of_the_points(count: int, clusters: int) -> None:
    features = torch.randn(count, 3, generator=stream(count))
    made = class_prototypes(features, torch.zeros(count, dtype=torch.int64), clusters)
    assert len(made) == (clusters if count >= clusters else 1)
    assert (made.features <= features.max(0).values + 1e-5).all()
    assert (made.features >= features.min(0).values - 1e-5).all()


def test_features_are_those_before_the_head_in_evaluation_mode() -> None:
    model = random_tiny(0).train()
    images = torch.randn(5, 3, 8, 8, generator=stream())
    before = {k: v.clone() for k, v in model.state_dict().items()}
    features = collect_features(model, images.split(2))  # type: ignore[no-untyped-call]
    assert model.training
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    assert not features.requires_grad
    assert torch.allclose(model.head(features), model.eval()(images), atol=1e-6)


def test_joining_keeps_order_and_refuses_different_spaces() -> None:
    first = Prototypes(torch.ones(2, 3), torch.tensor([0, 1]))
    second = Prototypes(torch.zeros(1, 3), torch.tensor([4]))
    assert join_prototypes([first, second]).labels.tolist() == [0, 1, 4]
    with pytest.raises(ValueError, match=r"\[2, 3\]"):
        join_prototypes([first, Prototypes(torch.zeros(1, 2), torch.tensor([4]))])
    with pytest.raises(ValueError, match="no prototypes"):
        join_prototypes([])


def test_narrow_features_are_placed_where_they_are_owned() -> None:
    full = scatter_features(torch.tensor([[1.0, 2.0]]), torch.tensor([3, 0]), 4)
    assert full.tolist() == [[2.0, 0.0, 0.0, 1.0]]
    with pytest.raises(ValueError, match="positions"):
        scatter_features(torch.ones(1, 2), torch.tensor([1]), 4)


@pytest.mark.parametrize(
    "call",
    [
        lambda: class_prototypes(torch.ones(2, 2), torch.zeros(2), 0),
        lambda: Prototypes(torch.ones(2, 3), torch.tensor([0])),
        lambda: Prototypes(torch.ones(3), torch.tensor([0, 0, 0])),
    ],
)
def test_impossible_prototypes_are_refused(call: object) -> None:
    assert callable(call)
    with pytest.raises(ValueError, match="prototype"):
        call()
