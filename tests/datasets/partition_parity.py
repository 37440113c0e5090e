"""Parity modes: replay the splits of the published codes index by index.

They check the rules that the schemes are made of (:mod:`datasets.dirichlet`) against published
numbers: they take NumPy's legacy stream (``numpy.random.RandomState``, whose values are frozen
for good), keep the published order of samples and, for Co-Boosting, the published rejection
loop. The schemes that experiments use are in :mod:`datasets.partition`.
"""

from __future__ import annotations

import random
from bisect import bisect_left
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from datasets.dirichlet import cut_points, open_clients, shares
from datasets.errors import PartitionError

Indices = npt.NDArray[np.int64]
Labels = npt.NDArray[np.integer]

_MIN_SAMPLES = 10
_MAX_ATTEMPTS = 10_000
# Draws for each sample after which Co-Boosting's loop counts as one that never ends.
_MAX_DRAWS_PER_SAMPLE = 2_000


@dataclass(frozen=True, eq=False)
class MosaicSplit:
    """A replayed split of the published Mosaic code.

    Parameters
    ----------
    train, test : tuple of numpy.ndarray
        For each client its sample positions, int64, in the published order.
    attempts : int
        Draws of the training split, the accepted one included.
    """

    train: tuple[Indices, ...]
    test: tuple[Indices, ...]
    attempts: int


def mosaic_split(
    labels: Labels,
    test_labels: Labels,
    clients: int,
    alpha: float,
    *,
    rng: np.random.RandomState,
    num_classes: int,
) -> MosaicSplit:
    """Replay ``non_iid_dirichlet_unbalanced`` of Mosaic, then its test split.

    Parameters
    ----------
    labels, test_labels : numpy.ndarray
        Integer class labels of the two parts.
    clients : int
        Number of clients K.
    alpha : float
        Dirichlet concentration (ω).
    rng : numpy.random.RandomState
        Legacy stream; the published seed is the user's seed + 5363. It is left where the
        published code leaves NumPy's global one.
    num_classes : int
        Number of classes C.

    Returns
    -------
    MosaicSplit
        Both splits.

    Raises
    ------
    PartitionError
        If no draw in 10,000 leaves each client 10 samples: the published loop has no bound.
    """
    for attempt in range(1, _MAX_ATTEMPTS + 1):
        hands = _capped_dirichlet(labels, clients, alpha, rng, num_classes)
        for hand in hands:  # rejected attempts use up randomness here as well
            rng.shuffle(hand)
        if min(len(hand) for hand in hands) >= _MIN_SAMPLES:
            for hand in hands:
                rng.shuffle(hand)
            test = _mosaic_iid(test_labels, clients, rng, num_classes)
            return MosaicSplit(tuple(hands), test, attempt)
    raise _endless(clients, alpha)


def dense_split(
    labels: Labels, clients: int, alpha: float, *, rng: np.random.RandomState, num_classes: int
) -> tuple[Indices, ...]:
    """Replay ``--partition dirichlet`` of DENSE.

    Parameters
    ----------
    labels : numpy.ndarray
        Integer class labels.
    clients : int
        Number of clients m.
    alpha : float
        Dirichlet concentration (beta).
    rng : numpy.random.RandomState
        Legacy stream, seeded with the user's seed.
    num_classes : int
        Number of classes.

    Returns
    -------
    tuple of numpy.ndarray
        For each client its sample positions, int64, in the published order.

    Raises
    ------
    PartitionError
        If no draw in 10,000 leaves each client 10 samples: the published loop has no bound.
    """
    for _ in range(_MAX_ATTEMPTS):
        hands = _capped_dirichlet(labels, clients, alpha, rng, num_classes)
        if min(len(hand) for hand in hands) >= _MIN_SAMPLES:
            for hand in hands:
                rng.shuffle(hand)
            return tuple(hands)
    raise _endless(clients, alpha)


def chunked_iid(samples: int, clients: int, *, rng: np.random.RandomState) -> tuple[Indices, ...]:
    """Replay the iid split of DENSE and Co-Boosting: a permutation in near-equal chunks.

    Parameters
    ----------
    samples, clients : int
        Numbers of samples and clients.
    rng : numpy.random.RandomState
        Legacy stream.

    Returns
    -------
    tuple of numpy.ndarray
        For each client its sample positions, int64, in the published order.
    """
    return tuple(np.array_split(rng.permutation(samples), clients))


def coboosting_dir(
    labels: Labels,
    clients: int,
    alpha: float,
    *,
    rng: np.random.RandomState,
    num_classes: int,
    sigma: float = 0.0,
) -> tuple[Indices, ...]:
    """Replay ``--partition dir`` of Co-Boosting, its rejection loop included.

    Parameters
    ----------
    labels : numpy.ndarray
        Integer class labels.
    clients : int
        Number of clients m.
    alpha : float
        Concentration (beta) of the clients' class priors.
    rng : numpy.random.RandomState
        Legacy stream, seeded with the user's seed.
    num_classes : int
        Number of classes.
    sigma : float
        Log-normal spread of client sizes.

    Returns
    -------
    tuple of numpy.ndarray
        For each client its sample positions, int64, in the published order.

    Raises
    ------
    PartitionError
        If the loop has made 2,000 draws for each sample: the published one would go on.
    """
    sizes = _lognormal_sizes(len(labels), clients, sigma, rng)
    priors = rng.dirichlet([alpha] * num_classes, clients)
    return _reject_and_assign(labels, sizes, priors, rng, num_classes)


def coboosting_n_cls(
    labels: Labels,
    clients: int,
    classes_per_client: int,
    *,
    rng: np.random.RandomState,
    python_rng: random.Random,
    num_classes: int,
) -> tuple[Indices, ...]:
    """Replay ``--partition n_cls`` of Co-Boosting, its rejection loop included.

    Parameters
    ----------
    labels : numpy.ndarray
        Integer class labels.
    clients : int
        Number of clients m. Up to 5 they take consecutive classes, beyond that random ones.
    classes_per_client : int
        Classes k each client draws from (beta).
    rng : numpy.random.RandomState
        Legacy stream, seeded with the user's seed.
    python_rng : random.Random
        Stream of Python's own generator, seeded alike: it chooses classes for over 5 clients.
    num_classes : int
        Number of classes C.

    Returns
    -------
    tuple of numpy.ndarray
        For each client its sample positions, int64, in the published order.

    Raises
    ------
    PartitionError
        If the loop has made 2,000 draws for each sample. It ends only where demand equals
        supply class by class.
    """
    sizes = _lognormal_sizes(len(labels), clients, 0.0, rng)
    priors = np.zeros((clients, num_classes))
    for client in range(clients):
        if clients <= 5:
            start = classes_per_client * client
            held = [(start + step) % num_classes for step in range(classes_per_client)]
        else:
            held = python_rng.sample(range(num_classes), classes_per_client)
        priors[client, held] = 1.0 / classes_per_client
    return _reject_and_assign(labels, sizes, priors, rng, num_classes)


def _capped_dirichlet(
    labels: Labels, clients: int, alpha: float, rng: np.random.RandomState, num_classes: int
) -> list[Indices]:
    """One attempt of the rule that Mosaic and DENSE share; pieces in order of classes."""
    hands = [np.empty(0, dtype=np.int64) for _ in range(clients)]
    for label in range(num_classes):
        pool = np.flatnonzero(labels == label)
        rng.shuffle(pool)
        sizes = np.array([len(hand) for hand in hands], dtype=np.int64)
        proportions = shares(alpha, open_clients(sizes, len(labels)), rng)
        parts = np.split(pool, cut_points(proportions, len(pool)))
        hands = [np.concatenate(pair) for pair in zip(hands, parts, strict=True)]
    return hands


def _mosaic_iid(
    labels: Labels, clients: int, rng: np.random.RandomState, num_classes: int
) -> tuple[Indices, ...]:
    """Equal consecutive chunks of each shuffled class; what doesn't divide is dropped."""
    hands: list[list[Indices]] = [[] for _ in range(clients)]
    for label in range(num_classes):
        pool = np.flatnonzero(labels == label)
        rng.shuffle(pool)
        step = max(1, len(pool) // clients)
        for client, hand in enumerate(hands):
            hand.append(pool[client * step : (client + 1) * step])
    joined = [np.concatenate(hand) for hand in hands]
    for hand_indices in joined:
        rng.shuffle(hand_indices)
    return tuple(joined)


def _lognormal_sizes(
    samples: int, clients: int, sigma: float, rng: np.random.RandomState
) -> list[int]:
    weights = rng.lognormal(np.log(samples / clients), sigma, clients)
    return [int(size) for size in weights / weights.sum() * samples]


def _reject_and_assign(
    labels: Labels,
    sizes: list[int],
    priors: npt.NDArray[np.float64],
    rng: np.random.RandomState,
    num_classes: int,
) -> tuple[Indices, ...]:
    """Deal samples one by one, drawing clients and classes again while they are used up."""
    pools = [np.flatnonzero(labels == label).tolist() for label in range(num_classes)]
    ladders = [row.tolist() for row in np.cumsum(priors, axis=1)]
    room = list(sizes)
    hands: list[list[int]] = [[] for _ in room]
    left, budget = sum(room), _MAX_DRAWS_PER_SAMPLE * len(labels)
    uniform, which = rng.random_sample, rng.randint
    while left:
        client = which(len(room))
        if room[client] <= 0:
            continue
        room[client] -= 1
        left -= 1
        label = _first_at_least(ladders[client], uniform())
        while not pools[label]:
            label = _first_at_least(ladders[client], uniform())
            budget -= 1
            if budget < 0:
                raise PartitionError(
                    "the rejection loop of Co-Boosting does not end on this partition; "
                    "use the scheme dirichlet_per_client or classes_per_client"
                )
        hands[client].append(pools[label].pop())
    return tuple(np.array(hand, dtype=np.int64) for hand in hands)


def _first_at_least(ladder: list[float], level: float) -> int:
    """Return the first class whose cumulative prior reaches ``level``, 0 if none does."""
    label = bisect_left(ladder, level)
    return label if label < len(ladder) else 0


def _endless(clients: int, alpha: float) -> PartitionError:
    return PartitionError(
        f"no draw in {_MAX_ATTEMPTS} left each of {clients} clients {_MIN_SAMPLES} samples at "
        f"alpha {alpha}; the scheme dirichlet tops clients up instead"
    )
