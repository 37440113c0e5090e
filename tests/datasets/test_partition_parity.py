"""Published splits, replayed index by index from NumPy's legacy stream."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import partition_parity
import pytest
from partition_parity import (
    chunked_iid,
    coboosting_dir,
    coboosting_n_cls,
    dense_split,
    mosaic_split,
)

from datasets.errors import PartitionError

GOLDEN = Path(__file__).parents[1] / "golden"
MOSAIC = np.load(GOLDEN / "mosaic" / "partition.npz")
DENSE = np.load(GOLDEN / "dense_coboost" / "dense_partition.npz")
COBOOST = np.load(GOLDEN / "dense_coboost" / "cb_partition.npz")

Hands = tuple[npt.NDArray[np.int64], ...]


def count(labels: npt.NDArray[np.int64], hands: Hands, classes: int) -> npt.NDArray[np.int64]:
    return np.stack([np.bincount(labels[hand], minlength=classes) for hand in hands])


def offsets(hands: Hands) -> list[int]:
    return [0, *np.cumsum([len(hand) for hand in hands]).tolist()]


def sha256(hands: Hands) -> str:
    return hashlib.sha256(np.concatenate(hands).astype("<i8").tobytes()).hexdigest()


@pytest.mark.parametrize("tag", ["a01_n4", "a1_n5", "a001_n5_reject"])
def test_mosaic_indices_and_stream(tag: str) -> None:
    labels, test_labels = MOSAIC["labels"], MOSAIC["test_labels"]
    rng = np.random.RandomState(int(MOSAIC[f"{tag}.seed"]))
    split = mosaic_split(
        labels,
        test_labels,
        int(MOSAIC[f"{tag}.n_clients"]),
        float(MOSAIC[f"{tag}.alpha"]),
        rng=rng,
        num_classes=6,
    )
    assert split.attempts == int(MOSAIC[f"{tag}.attempts"])
    assert [len(hand) for hand in split.train] == MOSAIC[f"{tag}.sizes"].tolist()
    assert [len(hand) for hand in split.test] == MOSAIC[f"{tag}.test_sizes"].tolist()
    np.testing.assert_array_equal(count(labels, split.train, 6), MOSAIC[f"{tag}.label_counts"])
    np.testing.assert_array_equal(np.concatenate(split.train), MOSAIC[f"{tag}.train_index_concat"])
    np.testing.assert_array_equal(np.concatenate(split.test), MOSAIC[f"{tag}.test_index_concat"])
    assert rng.uniform() == float(MOSAIC[f"{tag}.next_uniform"])


@pytest.mark.parametrize("alpha", ["0.01", "0.1", "1.0"])
@pytest.mark.parametrize(("dataset", "classes"), [("cifar10", 10), ("cifar100", 100)])
def test_mosaic_tables_of_real_size(dataset: str, classes: int, alpha: str) -> None:
    tag = f"{dataset}_n10_seed5363_alpha{alpha}"
    labels, test_labels = np.arange(50_000) % classes, np.arange(10_000) % classes
    split = mosaic_split(
        labels,
        test_labels,
        10,
        float(alpha),
        rng=np.random.RandomState(5363),
        num_classes=classes,
    )
    assert split.attempts == int(MOSAIC[f"{tag}.attempts"])
    expected = MOSAIC[f"{tag}.label_counts"]
    np.testing.assert_array_equal(count(labels, split.train, classes), expected)


@pytest.mark.parametrize(("beta", "clients", "seed"), [(0.5, 5, 1), (0.1, 4, 3), (0.05, 6, 0)])
def test_dense_small(beta: float, clients: int, seed: int) -> None:
    tag, labels = f"small_b{beta}_m{clients}_s{seed}", DENSE["labels_small"]
    hands = dense_split(labels, clients, beta, rng=np.random.RandomState(seed), num_classes=7)
    np.testing.assert_array_equal(np.concatenate(hands), DENSE[f"{tag}_idx"])
    assert offsets(hands) == DENSE[f"{tag}_offsets"].tolist()
    np.testing.assert_array_equal(count(labels, hands, 7), DENSE[f"{tag}_counts"])


def test_dense_iid() -> None:
    hands = chunked_iid(600, 5, rng=np.random.RandomState(7))
    np.testing.assert_array_equal(np.concatenate(hands), DENSE["small_iid_m5_s7_idx"])
    assert offsets(hands) == DENSE["small_iid_m5_s7_offsets"].tolist()


@pytest.mark.parametrize(("beta", "clients", "seed"), [(0.5, 5, 1), (0.1, 5, 1), (0.3, 10, 2)])
def test_dense_of_real_size(beta: float, clients: int, seed: int) -> None:
    tag, labels = f"cifarlike_b{beta}_m{clients}_s{seed}", np.arange(50_000) % 10
    hands = dense_split(labels, clients, beta, rng=np.random.RandomState(seed), num_classes=10)
    np.testing.assert_array_equal(count(labels, hands, 10), DENSE[f"{tag}_counts"])
    first = np.stack([hand[:5] for hand in hands])
    np.testing.assert_array_equal(first, DENSE[f"{tag}_first5_per_client"])
    assert sha256(hands) == str(DENSE[f"{tag}_sha256_int64"])


def check_coboost(tag: str, hands: Hands) -> None:
    np.testing.assert_array_equal(np.concatenate(hands), COBOOST[f"{tag}_idx"])
    assert offsets(hands) == COBOOST[f"{tag}_offsets"].tolist()
    np.testing.assert_array_equal(count(COBOOST["labels"], hands, 6), COBOOST[f"{tag}_counts"])


@pytest.mark.parametrize(
    ("tag", "beta", "clients", "seed", "sigma"),
    [("dir_b0.6_m7_s42_sig0.0", 0.6, 7, 42, 0.0), ("dir_b0.6_m5_s1_sig0.5", 0.6, 5, 1, 0.5)],
)
def test_coboost_dir(tag: str, beta: float, clients: int, seed: int, sigma: float) -> None:
    rng = np.random.RandomState(seed)
    hands = coboosting_dir(COBOOST["labels"], clients, beta, rng=rng, num_classes=6, sigma=sigma)
    check_coboost(tag, hands)


@pytest.mark.parametrize(("k", "clients", "seed"), [(3, 4, 42), (2, 3, 42), (6, 7, 3)])
def test_coboost_n_cls(k: int, clients: int, seed: int) -> None:
    hands = coboosting_n_cls(
        COBOOST["labels"],
        clients,
        k,
        rng=np.random.RandomState(seed),
        python_rng=random.Random(seed),
        num_classes=6,
    )
    check_coboost(f"n_cls_b{k}_m{clients}_s{seed}_sig0.0", hands)


def test_coboost_iid() -> None:
    check_coboost("iid_b0.5_m7_s42_sig0.0", chunked_iid(600, 7, rng=np.random.RandomState(42)))


def test_coboost_dir_of_real_size() -> None:
    tag, labels = "cifarlike_dir_b0.6_m10_s42", np.arange(50_000) % 10
    hands = coboosting_dir(labels, 10, 0.6, rng=np.random.RandomState(42), num_classes=10)
    np.testing.assert_array_equal(count(labels, hands, 10), COBOOST[f"{tag}_counts"])
    first = np.stack([hand[:5] for hand in hands])
    np.testing.assert_array_equal(first, COBOOST[f"{tag}_first5_per_client"])
    assert sha256(hands) == str(COBOOST[f"{tag}_sha256_int64"])


def test_coboost_loop_that_never_ends_is_stopped() -> None:
    # Two of three clients want class 0, which has samples for one.
    labels = np.repeat([0, 1], 15)
    with pytest.raises(PartitionError, match="does not end"):
        coboosting_n_cls(
            labels,
            3,
            1,
            rng=np.random.RandomState(0),
            python_rng=random.Random(0),
            num_classes=2,
        )


@pytest.mark.parametrize("replay", ["mosaic", "dense"])
def test_unbounded_published_loops_are_stopped(
    replay: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert partition_parity._MAX_ATTEMPTS == 10_000
    monkeypatch.setattr(partition_parity, "_MAX_ATTEMPTS", 20)
    labels, rng = np.arange(12) % 2, np.random.RandomState(0)
    call: Callable[[], object] = {
        "mosaic": lambda: mosaic_split(labels, labels, 6, 0.01, rng=rng, num_classes=2),
        "dense": lambda: dense_split(labels, 6, 0.01, rng=rng, num_classes=2),
    }[replay]
    with pytest.raises(PartitionError, match="no draw in 20 left"):
        call()
