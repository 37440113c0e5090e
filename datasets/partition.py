"""Who holds which training sample: one call, for every scheme, that always ends.

A scheme draws a count matrix; it is drawn again, a bounded number of times, while a client is
left with fewer than the minimum; after that the smallest clients are topped up from the
largest, which is reported. Then each class is shuffled once and dealt by the accepted counts.
"""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeGuard

import numpy as np
import numpy.typing as npt

from datasets import partition_schemes as schemes
from datasets.dirichlet import Counts
from datasets.errors import PartitionError, closest
from datasets.partition_schemes import Problem, Scheme

_LOG = logging.getLogger(__name__)

#: Draws after which the smallest clients are topped up. At alpha 0.01 and ten classes the
#: published rule needs 1 to 13 for 10 clients and practically never ends for 50.
MAX_ATTEMPTS = 200


@dataclass(frozen=True, eq=False)
class Partition:
    """A partition, and all that a record says of it.

    Parameters
    ----------
    client_indices : tuple of numpy.ndarray
        For each client its positions in the label vector, int64, sorted.
    counts : numpy.ndarray
        int64 [K, C], samples of each class each client holds.
    scheme : str
        Name of the scheme.
    version : int
        Its version; raised when a change gives other partitions for the same seed.
    attempts : int
        Draws made, the accepted one included.
    min_samples : int
        The minimum that held: what was asked for, or half the mean client size if less.
    topped_up : tuple of int
        Samples each client was given from the largest ones, because the bounded draws left it
        below the minimum. All zero in the usual case.
    digest : str
        SHA-256 of the index lists, in hexadecimal digits.
    """

    client_indices: tuple[npt.NDArray[np.int64], ...]
    counts: Counts
    scheme: str
    version: int
    attempts: int
    min_samples: int
    topped_up: tuple[int, ...]
    digest: str

    @property
    def sizes(self) -> tuple[int, ...]:
        """Samples of each client."""
        return tuple(len(indices) for indices in self.client_indices)

    def summary(self) -> dict[str, Any]:
        """Return what a record keeps, as JSON-ready values (no index lists)."""
        return {
            "scheme": self.scheme,
            "version": self.version,
            "attempts": self.attempts,
            "min_samples": self.min_samples,
            "topped_up": list(self.topped_up),
            "counts": self.counts.tolist(),
            "digest": self.digest,
        }


def _need_alpha(alpha: float | None) -> float:
    if alpha is None or not math.isfinite(alpha) or alpha <= 0:
        raise PartitionError(f"alpha must be a positive finite number, got {alpha}")
    return float(alpha)


def _need_classes(wanted: int | None, num_classes: int) -> int:
    if not _is_whole(wanted) or not 1 <= wanted <= num_classes:
        raise PartitionError(
            f"classes_per_client must be a whole number from 1 to {num_classes}, got {wanted}"
        )
    return int(wanted)


def _is_whole(value: object) -> TypeGuard[int]:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


@dataclass(frozen=True)
class _Arguments:
    """The scheme-specific arguments of one call; each scheme checks those it uses."""

    alpha: float | None
    classes_per_client: int | None
    num_classes: int


SCHEMES: dict[str, Callable[[_Arguments], Scheme]] = {
    "dirichlet": lambda a: schemes.Dirichlet(_need_alpha(a.alpha)),
    "dirichlet_uncapped": lambda a: schemes.DirichletUncapped(_need_alpha(a.alpha)),
    "dirichlet_per_client": lambda a: schemes.DirichletPerClient(_need_alpha(a.alpha)),
    "iid": lambda _: schemes.Iid(),
    "classes_per_client": lambda a: schemes.ClassesPerClient(
        _need_classes(a.classes_per_client, a.num_classes)
    ),
}
"""What makes each scheme, by its name."""


def partition(
    scheme: str,
    labels: npt.NDArray[np.integer],
    clients: int,
    *,
    rng: np.random.Generator,
    num_classes: int,
    alpha: float | None = None,
    classes_per_client: int | None = None,
    min_samples: int = 10,
) -> Partition:
    """Divide training samples among clients.

    Parameters
    ----------
    scheme : str
        ``dirichlet``, ``dirichlet_uncapped``, ``dirichlet_per_client``, ``iid`` or
        ``classes_per_client``.
    labels : numpy.ndarray
        Integer class labels [N], 0 to ``num_classes - 1``.
    clients : int
        Number of clients K, 1 to N.
    rng : numpy.random.Generator
        Source of randomness; the same state gives the same partition.
    num_classes : int
        Number of classes C.
    alpha : float, optional
        Dirichlet concentration; needed by the Dirichlet schemes, not looked at by the others.
    classes_per_client : int, optional
        Classes each client holds; needed by ``classes_per_client`` only.
    min_samples : int
        Smallest client size, 1 or more (10 in the published codes). Where N is small for K,
        half the mean client size (at least 1) takes its place, so that the minimum never
        forces equal sizes.

    Returns
    -------
    Partition
        Disjoint, sorted index lists. They cover all samples, except that ``dirichlet_per_client``
        leaves what doesn't divide among the clients, and ``classes_per_client`` leaves classes
        that nobody holds.

    Raises
    ------
    PartitionError
        If an argument is out of its range, or the scheme is unknown (names the closest one).
    """
    labels = _check(labels, clients, num_classes, min_samples)
    if scheme not in SCHEMES:
        raise PartitionError(f"unknown partition scheme '{scheme}': {closest(scheme, SCHEMES)}")
    law = SCHEMES[scheme](_Arguments(alpha, classes_per_client, num_classes))
    sizes = np.bincount(labels, minlength=num_classes).astype(np.int64)
    problem = Problem(sizes, int(clients))
    minimum = max(1, min(int(min_samples), problem.samples // (2 * clients)))
    for attempt in range(1, MAX_ATTEMPTS + 1):  # noqa: B007 - how many it took is reported
        counts = law.draw(problem, rng)
        if int(counts.sum(axis=1).min()) >= minimum:
            break
    # Classes may stay unused; what is dealt holds a sample for every client all the same.
    minimum = min(minimum, int(counts.sum()) // clients)
    counts, topped_up = _top_up(counts, minimum, rng)
    if any(topped_up):
        _LOG.warning(
            "partition %s (%d clients): after %d draws some clients had fewer than %d samples; "
            "%d samples were moved to %d of them from the largest",
            scheme, clients, attempt, minimum, sum(topped_up), sum(n > 0 for n in topped_up),
        )  # fmt: skip
    indices = _deal(labels, counts, rng)
    return Partition(
        client_indices=indices,
        counts=counts,
        scheme=law.name,
        version=law.version,
        attempts=attempt,
        min_samples=minimum,
        topped_up=topped_up,
        digest=digest(indices),
    )


def digest(client_indices: tuple[npt.NDArray[np.int64], ...]) -> str:
    """Return the SHA-256 of index lists: for each client its size, then its indices."""
    sha = hashlib.sha256()
    for indices in client_indices:
        sha.update(len(indices).to_bytes(8, "little"))
        sha.update(np.ascontiguousarray(indices, dtype="<i8").tobytes())
    return sha.hexdigest()


def _check(
    labels: npt.NDArray[np.integer],
    clients: int,
    num_classes: int,
    min_samples: int,
) -> npt.NDArray[np.int64]:
    labels = np.asarray(labels)
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise PartitionError(
            f"labels must be a vector of integers, got {labels.dtype} {labels.shape}"
        )
    for name, value in (
        ("clients", clients),
        ("num_classes", num_classes),
        ("min_samples", min_samples),
    ):
        if not _is_whole(value) or value < 1:
            raise PartitionError(f"{name} must be a whole number of 1 or more, got {value}")
    if clients > len(labels):
        raise PartitionError(
            f"{clients} clients can't share {len(labels)} samples; "
            f"at most {len(labels)} clients are right"
        )
    if int(labels.min()) < 0 or int(labels.max()) >= num_classes:
        raise PartitionError(
            f"labels run from {int(labels.min())} to {int(labels.max())}, "
            f"expected 0 to {num_classes - 1}"
        )
    return labels.astype(np.int64)


def _top_up(
    counts: Counts, minimum: int, rng: np.random.Generator
) -> tuple[Counts, tuple[int, ...]]:
    """Move samples, one by one and drawn uniformly, from the largest client to the smallest."""
    counts = counts.copy()
    sizes = counts.sum(axis=1)
    moved = [0] * len(sizes)
    while int(sizes.min()) < minimum:
        poor, rich = int(sizes.argmin()), int(sizes.argmax())
        position = int(rng.integers(sizes[rich]))
        label = int(np.searchsorted(np.cumsum(counts[rich]), position, side="right"))
        counts[rich, label] -= 1
        counts[poor, label] += 1
        sizes[rich] -= 1
        sizes[poor] += 1
        moved[poor] += 1
    return counts, tuple(moved)


def _deal(
    labels: npt.NDArray[np.int64], counts: Counts, rng: np.random.Generator
) -> tuple[npt.NDArray[np.int64], ...]:
    """Shuffle each class once and cut it into the pieces that ``counts`` states."""
    hands: list[list[npt.NDArray[np.int64]]] = [[] for _ in range(len(counts))]
    for label in range(counts.shape[1]):
        pool = rng.permutation(np.flatnonzero(labels == label))
        cuts = np.cumsum(counts[:, label])
        # What lies after the last cut is unused: some schemes do not cover.
        for hand, piece in zip(hands, np.split(pool, cuts)[:-1], strict=True):
            hand.append(piece)
    return tuple(np.sort(np.concatenate(hand)).astype(np.int64) for hand in hands)
