"""Distances between feature sets, against values that can be worked out by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from pytorch_fid.fid_score import calculate_frechet_distance
from torch import Tensor
from torch_fidelity import metric_prc

from benchmark.errors import UserError
from benchmark.generation import (
    Statistics,
    frechet_distance,
    inception_score,
    kernel_distance,
    precision_recall,
    scores,
    statistics_of,
)


def normal(count: int, features: int = 6, seed: int = 0) -> Tensor:
    return torch.randn(count, features, generator=torch.Generator().manual_seed(seed))


def gaussian(mean: list[float], deviations: list[float]) -> Statistics:
    return Statistics(np.array(mean), np.diag(np.square(deviations)), 100)


@pytest.mark.parametrize(
    ("first", "second", "distance"),
    [
        (gaussian([0, 0], [1, 1]), gaussian([0, 0], [1, 1]), 0.0),
        # |m1 - m2|² + Σ (σ1 - σ2)² where covariances are diagonal
        (gaussian([0, 0], [1, 1]), gaussian([3, 4], [1, 1]), 25.0),
        (gaussian([0, 0], [1, 2]), gaussian([0, 0], [4, 2]), 9.0),
        (gaussian([1, 0, 2], [1, 2, 3]), gaussian([0, 0, 0], [2, 2, 1]), 10.0),
    ],
)
def test_the_frechet_distance_of_known_gaussians(
    first: Statistics, second: Statistics, distance: float
) -> None:
    assert frechet_distance(first, second) == pytest.approx(distance, abs=1e-9)
    assert frechet_distance(second, first) == pytest.approx(distance, abs=1e-9)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_distance_is_the_one_of_pytorch_fid() -> None:
    first = statistics_of(normal(300) @ normal(6, seed=8))
    second = statistics_of(normal(200, seed=1) @ normal(6, seed=9) + 1)
    theirs = calculate_frechet_distance(
        first.mean, first.covariance, second.mean, second.covariance
    )
    assert frechet_distance(first, second) == pytest.approx(float(theirs), rel=1e-9)


def test_rotating_both_sides_changes_no_distance() -> None:
    turn = torch.linalg.qr(normal(6, seed=3).double())[0].float()
    first, second = normal(200), normal(300, seed=1) * 2 + 1
    plain = frechet_distance(statistics_of(first), statistics_of(second))
    turned = frechet_distance(statistics_of(first @ turn), statistics_of(second @ turn))
    assert turned == pytest.approx(plain, rel=1e-4)


def test_identical_sets_are_at_distance_zero() -> None:
    features = normal(500)
    statistics = statistics_of(features)
    assert frechet_distance(statistics, statistics) == pytest.approx(0, abs=1e-6)
    shares = precision_recall(features, features)
    assert shares == (1.0, 1.0)


def test_a_collapsed_generator_has_a_distance() -> None:
    real = statistics_of(normal(300, 20))
    same = statistics_of(torch.ones(300, 20))
    # |1 - m|² + tr(Σ): a point has no spread to share.
    gap = float(np.square(1 - real.mean).sum() + np.trace(real.covariance))
    assert frechet_distance(same, real) == pytest.approx(gap, rel=1e-3)
    assert frechet_distance(statistics_of(normal(1, 20)), real) > 0


def test_statistics_are_unbiased_and_know_when_they_are_too_few() -> None:
    features = normal(50)
    statistics = statistics_of(features)
    assert np.allclose(statistics.mean, features.double().mean(0))
    assert np.allclose(statistics.covariance, np.cov(features.double().numpy().T))
    assert statistics.enough
    assert not statistics_of(normal(6)).enough


@pytest.mark.parametrize(
    "features", [torch.empty(0, 3), torch.ones(3), torch.full((2, 2), math.nan)]
)
def test_what_has_no_statistics_is_refused(features: Tensor) -> None:
    with pytest.raises(ValueError, match=r"features|NaN"):
        statistics_of(features)


def test_different_numbers_of_features_are_refused() -> None:
    with pytest.raises(ValueError, match="6 features against 5"):
        frechet_distance(statistics_of(normal(20)), statistics_of(normal(20, 5)))


def test_the_inception_score_of_sure_and_of_clueless_predictions() -> None:
    even = torch.arange(10_000) % 10
    sure = torch.nn.functional.one_hot(even, 10).float() * 100
    score = inception_score(sure)
    assert score is not None
    assert score[0] == pytest.approx(10, rel=0.03), "ten classes, each image sure of its own"
    flat = inception_score(torch.zeros(1000, 10))
    assert flat == pytest.approx((1.0, 0.0))
    one = inception_score(sure[:1].expand(1000, -1))
    assert one == pytest.approx((1.0, 0.0)), "one class only is no better"
    assert inception_score(sure[:9]) is None, "fewer images than splits"


def test_precision_and_recall_tell_missing_quality_from_missing_variety() -> None:
    generator = torch.Generator().manual_seed(0)
    left = torch.randn(400, 4, generator=generator)
    right = torch.randn(400, 4, generator=generator) + 50
    real = torch.cat([left, right])
    half = precision_recall(torch.randn(400, 4, generator=generator), real)
    assert half is not None
    assert half[0] > 0.8, "what is generated is real enough"
    assert 0.2 < half[1] < 0.55, "but half of what is real is never generated"
    wild = precision_recall(torch.randn(400, 4, generator=generator) - 80, real)
    assert wild == (0.0, 0.0)
    assert precision_recall(real[:3], real) is None


def test_a_library_that_swaps_precision_and_recall_is_found_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    right = metric_prc.prc_features_to_metric

    def swapped(first: Tensor, second: Tensor, **settings: Any) -> Any:
        return right(second, first, **settings)

    monkeypatch.setattr(metric_prc, "prc_features_to_metric", swapped)
    scores._check_order.cache_clear()
    with pytest.raises(UserError, match=r"0\.5 and 1, not 1 and 0\.5 .*torch-fidelity>=0\.4\.0"):
        precision_recall(normal(20), normal(20))


def test_the_kernel_distance_grows_with_the_shift_and_repeats() -> None:
    real = normal(200)
    near, far = kernel_distance(normal(200, seed=1) + 0.2, real), kernel_distance(real + 2, real)
    assert near is not None
    assert far is not None
    assert 0 < near < far
    same = kernel_distance(normal(200, seed=1), real)
    assert same == pytest.approx(0, abs=far / 1000), "unbiased, so on either side of zero"
    assert kernel_distance(real + 2, real) == far
    assert kernel_distance(real[:1], real) is None
