"""Partition schemes: invariants, bounded time, and errors that say what is right."""

from __future__ import annotations

import json
import logging
import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datasets import partition as partitions
from datasets.dirichlet import open_clients, pieces, shares
from datasets.errors import PartitionError
from datasets.partition import SCHEMES, Partition, partition

COVERING = {"dirichlet", "dirichlet_uncapped", "iid"}


def make(
    scheme: str,
    labels: npt.NDArray[np.int64],
    clients: int,
    seed: int = 0,
    classes: int = 10,
    **options: Any,
) -> Partition:
    arguments = {"alpha": 0.1, "classes_per_client": 2} | options
    return partition(
        scheme,
        labels,
        clients,
        rng=np.random.default_rng(seed),
        num_classes=classes,
        **arguments,
    )


def check_invariants(result: Partition, labels: npt.NDArray[np.int64], clients: int) -> None:
    classes = result.counts.shape[1]
    assert len(result.client_indices) == clients
    joined = np.concatenate(result.client_indices)
    assert joined.dtype == np.int64
    assert len(np.unique(joined)) == len(joined)
    assert joined.min() >= 0
    assert joined.max() < len(labels)
    counted = [np.bincount(labels[own], minlength=classes) for own in result.client_indices]
    np.testing.assert_array_equal(result.counts, np.stack(counted))
    assert result.counts.dtype == np.int64
    assert min(result.sizes) >= result.min_samples >= 1
    for own in result.client_indices:
        assert np.all(np.diff(own) > 0)


@pytest.mark.parametrize("scheme", SCHEMES)
@settings(max_examples=25, deadline=None)
@given(
    samples=st.integers(1, 400),
    clients=st.integers(1, 30),
    classes=st.integers(1, 12),
    alpha=st.sampled_from([1e-300, 1e-3, 0.01, 0.1, 1.0, 1e3, 1e308]),
    held=st.integers(1, 12),
    seed=st.integers(0, 10**6),
)
def test_any_partition_is_disjoint_counted_and_repeatable(
    *, scheme: str, samples: int, clients: int, classes: int, alpha: float, held: int, seed: int
) -> None:
    labels = np.random.default_rng(seed).integers(0, classes, samples)
    clients, held = min(clients, samples), min(held, len(np.unique(labels)))
    options = {"alpha": alpha, "classes_per_client": held}
    if scheme == "classes_per_client" and clients * held < len(np.unique(labels)):
        held = len(np.unique(labels))  # what lacks samples for all clients has its own test
        options["classes_per_client"] = held
    result = make(scheme, labels, clients, seed, classes, **options)
    check_invariants(result, labels, clients)
    if scheme in COVERING:
        assert sum(result.sizes) == samples
    if scheme == "classes_per_client" and clients * held >= len(np.unique(labels)):
        assert sum(result.sizes) == samples
    if scheme.startswith("dirichlet_") and scheme not in COVERING:
        assert sum(result.sizes) == samples // clients * clients
    assert make(scheme, labels, clients, seed, classes, **options).digest == result.digest


@pytest.mark.parametrize("scheme", SCHEMES)
def test_seed_decides_the_digest(scheme: str) -> None:
    labels = np.arange(1000) % 10
    first, again, other = (make(scheme, labels, 5, seed) for seed in (3, 3, 4))
    assert first.digest == again.digest
    assert first.digest != other.digest
    assert first.scheme == scheme


@pytest.mark.parametrize("clients", [10, 20, 50, 100])
@pytest.mark.parametrize("scheme", ["dirichlet", "dirichlet_uncapped", "dirichlet_per_client"])
def test_alpha_of_one_hundredth_ends(
    scheme: str, clients: int, caplog: pytest.LogCaptureFixture
) -> None:
    labels = np.arange(50_000) % 10
    with caplog.at_level(logging.WARNING, "datasets.partition"):
        result = make(scheme, labels, clients, alpha=0.01)
    check_invariants(result, labels, clients)
    assert min(result.sizes) >= 10
    if clients >= 50 and scheme != "dirichlet_per_client":
        assert result.attempts == 200
        assert sum(result.topped_up) > 0
        assert "were moved" in caplog.text
    if not any(result.topped_up):
        assert not caplog.records


def test_topped_up_is_what_was_moved(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(partitions, "MAX_ATTEMPTS", 1)
    labels = np.arange(500) % 2
    result = make("dirichlet", labels, 20, classes=2, alpha=0.01)
    assert result.attempts == 1
    moved = np.array(result.topped_up)
    sizes = np.array(result.sizes)
    assert moved.sum() > 0
    # Who was topped up ends at the minimum exactly, and was given no more than that.
    assert np.all(sizes[moved > 0] == result.min_samples)
    assert np.all(moved <= result.min_samples)


@pytest.mark.parametrize(
    ("samples", "clients", "asked", "held"),
    [(1000, 10, 10, 10), (1000, 10, 30, 30), (100, 10, 10, 5), (15, 10, 10, 1), (10, 10, 10, 1)],
)
def test_minimum_adapts_to_little_data(samples: int, clients: int, asked: int, held: int) -> None:
    result = make("dirichlet", np.arange(samples) % 10, clients, min_samples=asked)
    assert result.min_samples == held
    assert min(result.sizes) >= held


def test_dirichlet_mean_share_and_concentration() -> None:
    # Per class over clients: every client's mean share of a class is 1/K, and smaller alpha
    # means a larger largest share.
    labels, largest = np.arange(2000) % 10, {}
    for alpha in (0.05, 1.0, 100.0):
        counts = np.stack(
            [
                make("dirichlet_uncapped", labels, 4, seed, alpha=alpha, min_samples=1).counts
                for seed in range(60)
            ]
        )
        largest[alpha] = counts.max(axis=1).mean() / 200
        np.testing.assert_allclose(counts.mean(axis=(0, 2)) / 200, 0.25, atol=0.04)
    assert largest[0.05] > 0.85 > largest[1.0] > 0.45 > largest[100.0] > 0.25


def test_cap_bounds_what_a_client_gets() -> None:
    # A client closes once it holds N/K, so it passes it by less than one class.
    labels = np.arange(3000) % 10
    for seed in range(10):
        sizes = make("dirichlet", labels, 5, seed, alpha=0.05).sizes
        assert max(sizes) < 600 + 300
    uncapped = [
        max(make("dirichlet_uncapped", labels, 5, seed, alpha=0.05).sizes) for seed in range(10)
    ]
    assert max(uncapped) >= 900


def test_per_client_prior_shows_and_sizes_are_equal() -> None:
    labels = np.arange(2003) % 10
    result = make("dirichlet_per_client", labels, 8, alpha=0.1)
    assert result.sizes == (250,) * 8
    assert (result.counts.max(axis=1) / 250).mean() > 0.4


def test_iid_is_near_equal_and_mixed() -> None:
    result = make("iid", np.arange(1003) % 10, 4)
    assert sorted(result.sizes) == [250, 251, 251, 251]
    assert result.counts.min() >= 10


@pytest.mark.parametrize(("clients", "held"), [(5, 3), (10, 2), (10, 5), (7, 1), (100, 2), (3, 10)])
def test_classes_per_client_ends_where_the_published_rule_hangs(clients: int, held: int) -> None:
    result = make("classes_per_client", np.arange(3000) % 10, clients, classes_per_client=held)
    assert np.all((result.counts > 0).sum(axis=1) == held)
    holders = (result.counts > 0).sum(axis=0)
    assert holders.max() - holders.min() <= 1
    assert not any(result.topped_up)


def test_classes_nobody_holds_stay_unused() -> None:
    labels = np.arange(300) % 10
    result = make("classes_per_client", labels, 3, classes_per_client=2)
    check_invariants(result, labels, 3)
    assert sum(result.sizes) == 6 * 30


def test_small_classes_are_topped_up_from_the_large_one() -> None:
    # Two clients hold one of three classes each; one of them often gets a single sample.
    labels = np.array([0] * 60 + [1] + [2])
    topped_up = []
    for seed in range(20):
        result = make("classes_per_client", labels, 2, seed, 3, classes_per_client=1)
        check_invariants(result, labels, 2)
        # Where nobody drew the large class, two samples are all there is to hold.
        assert sum(result.topped_up) == result.min_samples - 1
        topped_up.append(sum(result.topped_up))
    assert 9 in topped_up


def test_classes_that_nobody_has_are_passed_over() -> None:
    labels = np.repeat([2, 7], 50)
    for scheme in SCHEMES:
        result = make(scheme, labels, 3, alpha=0.5)
        check_invariants(result, labels, 3)
        assert set(np.flatnonzero(result.counts.sum(axis=0))) <= {2, 7}


def test_shares_survive_a_draw_without_mass() -> None:
    rng = np.random.RandomState(0)
    for alpha in (1e-6, 1e308):  # the legacy stream returns NaN for both
        free = np.array([False, True, True])
        drawn = shares(alpha, free, rng)
        assert drawn.sum() == pytest.approx(1)
        assert drawn[0] == 0
        assert drawn.max() == pytest.approx(1.0 if alpha < 1 else 0.5)


def test_pieces_floor_the_cumulative_share() -> None:
    assert pieces(np.array([0.25, 0.35, 0.4]), 10).tolist() == [2, 4, 4]
    assert open_clients(np.array([4, 5, 0]), 15).tolist() == [True, False, True]
    assert open_clients(np.array([4, 5, 0]), 15, capped=False).all()


def test_summary_is_json_and_complete() -> None:
    result = make("dirichlet", np.arange(300) % 10, 3)
    record = json.loads(json.dumps(result.summary()))
    assert record["scheme"] == "dirichlet"
    assert record["version"] == 1
    assert record["counts"] == result.counts.tolist()
    assert record["digest"] == result.digest
    assert len(record["topped_up"]) == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scheme": "dirichlet_uncaped"}, "did you mean 'dirichlet_uncapped'"),
        ({"scheme": "zebra"}, "one of: classes_per_client"),
        ({"alpha": 0.0}, "alpha must be a positive"),
        ({"alpha": -1.0}, "alpha must be a positive"),
        ({"alpha": math.nan}, "alpha must be a positive"),
        ({"alpha": math.inf}, "alpha must be a positive"),
        ({"alpha": None}, "alpha must be a positive"),
        ({"clients": 0}, "clients must be a whole number"),
        ({"clients": -3}, "clients must be a whole number"),
        ({"clients": 2.5}, "clients must be a whole number"),
        ({"clients": 101}, "at most 100 clients"),
        ({"min_samples": 0}, "min_samples must be"),
        ({"num_classes": 9}, "expected 0 to 8"),
        ({"labels": np.zeros(0, dtype=np.int64)}, "can't share 0 samples"),
        ({"labels": np.zeros(5)}, "vector of integers"),
        ({"scheme": "classes_per_client", "classes_per_client": 0}, "from 1 to 10, got 0"),
        ({"scheme": "classes_per_client", "classes_per_client": 11}, "from 1 to 10, got 11"),
        ({"scheme": "classes_per_client", "classes_per_client": None}, "got None"),
        ({"scheme": "classes_per_client", "classes_per_client": 2, "num_classes": 200,
          "labels": np.zeros(100, dtype=np.int64)}, "only 1 classes have samples"),
    ],
)  # fmt: skip
def test_wrong_arguments(change: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {
        "scheme": "dirichlet",
        "labels": np.arange(100) % 10,
        "clients": 4,
        "num_classes": 10,
        "alpha": 0.5,
    }
    partition(**arguments, rng=np.random.default_rng(0))  # right as it stands
    with pytest.raises(PartitionError, match=message) as caught:
        partition(**(arguments | change), rng=np.random.default_rng(0))
    assert "\n" not in str(caught.value)


def test_a_draw_without_mass_falls_on_every_open_client_alike() -> None:
    free = np.array([False, True, True])
    # The legacy stream has no mass at this alpha, whatever its seed.
    chosen = [int(shares(1e-6, free, np.random.RandomState(seed)).argmax()) for seed in range(30)]
    assert set(chosen) == {1, 2}
