"""Stratified draws: exact sizes, proportions, sorted and repeatable."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datasets import DataError, stratified_split, stratified_subset
from datasets.sampling import largest_remainder


@settings(max_examples=40, deadline=None)
@given(
    sizes=st.lists(st.integers(0, 40), min_size=1, max_size=8).filter(sum),
    part=st.floats(0, 1),
    seed=st.integers(0, 1000),
)
def test_subset_is_exact_and_within_one_of_its_quota(
    sizes: list[int], part: float, seed: int
) -> None:
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(sizes)), sizes))
    n = round(part * len(labels))
    chosen = stratified_subset(labels, n, np.random.default_rng(seed))
    assert len(chosen) == n
    assert chosen.dtype == np.int64
    assert np.all(np.diff(chosen) > 0)
    quotas = np.array(sizes) * n / len(labels)
    taken = np.bincount(labels[chosen], minlength=len(sizes))
    assert np.all(np.abs(taken - quotas) < 1)
    again = stratified_subset(labels, n, np.random.default_rng(seed))
    np.testing.assert_array_equal(chosen, again)


def test_largest_remainder() -> None:
    assert largest_remainder(np.array([5, 3, 2]), 5).tolist() == [3, 1, 1]
    assert largest_remainder(np.array([1, 1, 1]), 2).tolist() == [1, 1, 0]
    assert largest_remainder(np.array([0, 7]), 7).tolist() == [0, 7]


def test_split_is_a_partition() -> None:
    labels = np.arange(1000) % 10
    kept, held_out = stratified_split(labels, 0.1, np.random.default_rng(0))
    assert np.bincount(labels[held_out]).tolist() == [10] * 10
    np.testing.assert_array_equal(np.sort(np.concatenate([kept, held_out])), np.arange(1000))
    kept, held_out = stratified_split(labels, 0.0, np.random.default_rng(0))
    assert (len(kept), len(held_out)) == (1000, 0)


def test_seed_decides() -> None:
    labels = np.arange(100) % 4
    one, two = (stratified_subset(labels, 20, np.random.default_rng(s)).tolist() for s in (0, 1))
    assert one != two


@pytest.mark.parametrize("n", [-1, 11])
def test_wrong_size(n: int) -> None:
    with pytest.raises(DataError, match="0 to 10 are right"):
        stratified_subset(np.zeros(10, dtype=np.int64), n, np.random.default_rng(0))


@pytest.mark.parametrize("fraction", [-0.1, 1.0, float("nan")])
def test_wrong_fraction(fraction: float) -> None:
    with pytest.raises(DataError, match=r"in \[0, 1\)"):
        stratified_split(np.zeros(10, dtype=np.int64), fraction, np.random.default_rng(0))
