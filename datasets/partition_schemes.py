"""The partition schemes: each is a law on count matrices, with a name and a version.

A scheme says how many samples of each class each client gets; which samples these are is
dealt afterwards, the same way for all (:mod:`datasets.partition`). So an attempt that is
rejected costs a few draws and touches no sample.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np

from datasets.dirichlet import Counts, open_clients, pieces, shares
from datasets.errors import PartitionError


@dataclass(frozen=True, eq=False)
class Problem:
    """What is to be divided among whom.

    Parameters
    ----------
    class_sizes : numpy.ndarray
        int64 [C], samples of each class.
    clients : int
        Number of clients K.
    """

    class_sizes: Counts
    clients: int

    @property
    def samples(self) -> int:
        """Number of samples N."""
        return int(self.class_sizes.sum())

    @property
    def classes(self) -> int:
        """Number of classes C, those without samples included."""
        return len(self.class_sizes)


class Scheme(Protocol):
    """A named and versioned partition scheme."""

    name: ClassVar[str]
    version: ClassVar[int]

    def draw(self, problem: Problem, rng: np.random.Generator) -> Counts:
        """Draw one count matrix, int64 [K, C]; column sums are at most the class sizes."""
        ...


def _per_class(problem: Problem, alpha: float, rng: np.random.Generator, *, capped: bool) -> Counts:
    counts = np.zeros((problem.clients, problem.classes), dtype=np.int64)
    for label, size in enumerate(problem.class_sizes.tolist()):
        if size == 0:
            continue
        free = open_clients(counts.sum(axis=1), problem.samples, capped=capped)
        counts[:, label] = pieces(shares(alpha, free, rng), size)
    return counts


@dataclass(frozen=True)
class Dirichlet:
    """Per class over clients; clients that reached N/K get no more.

    The scheme of DENSE and Mosaic (published code, ``non_iid_dirichlet_unbalanced``).

    Parameters
    ----------
    alpha : float
        Concentration; the Mosaic paper writes ω.
    """

    alpha: float
    name: ClassVar[str] = "dirichlet"
    version: ClassVar[int] = 1

    def draw(self, problem: Problem, rng: np.random.Generator) -> Counts:
        """Draw one count matrix, int64 [K, C], columns sum to the class sizes."""
        return _per_class(problem, self.alpha, rng, capped=True)


@dataclass(frozen=True)
class DirichletUncapped:
    """Per class over clients, without a cap on their sizes.

    Parameters
    ----------
    alpha : float
        Concentration.
    """

    alpha: float
    name: ClassVar[str] = "dirichlet_uncapped"
    version: ClassVar[int] = 1

    def draw(self, problem: Problem, rng: np.random.Generator) -> Counts:
        """Draw one count matrix, int64 [K, C], columns sum to the class sizes."""
        return _per_class(problem, self.alpha, rng, capped=False)


@dataclass(frozen=True)
class DirichletPerClient:
    """Per client over classes; the ``dir`` law of Co-Boosting (published code), in one draw.

    Sizes are equal, as the published ones at a ``sigma`` of 0; what doesn't divide stays unused.
    Until all clients are full, a client with room is drawn uniformly and gets a sample of a
    class drawn from its prior. The published code draws again while the class is used up; here
    the prior is renormalised over the classes that are left, which is the same law. A prior
    without mass on them is replaced by a uniform one, where the published loop spins.

    Parameters
    ----------
    alpha : float
        Concentration of the clients' class priors.
    """

    alpha: float
    name: ClassVar[str] = "dirichlet_per_client"
    version: ClassVar[int] = 1

    def draw(self, problem: Problem, rng: np.random.Generator) -> Counts:
        """Draw one count matrix, int64 [K, C], each row sums to floor(N/K)."""
        clients, classes = problem.clients, problem.classes
        everything = np.ones(classes, dtype=np.bool_)
        priors = np.stack([shares(self.alpha, everything, rng) for _ in range(clients)])
        left = problem.class_sizes.tolist()
        room = [problem.samples // clients] * clients
        counts = [[0] * classes for _ in room]
        free = list(range(clients))

        def ladders() -> list[list[float]]:
            live = problem.class_sizes.astype(np.bool_) & (np.array(left) > 0)
            masked = priors * live
            masked[masked.sum(axis=1) <= 0] = live
            return [row.tolist() for row in np.cumsum(masked, axis=1)]

        ladder = ladders()
        for pick, level in rng.random((sum(room), 2)).tolist():
            client = free[int(pick * len(free))]
            steps = ladder[client]
            label = bisect_right(steps, level * steps[-1])
            if label == len(steps):  # rounding took the level to the very top
                label = bisect_left(steps, steps[-1])
            counts[client][label] += 1
            room[client] -= 1
            left[label] -= 1
            if room[client] == 0:
                free.remove(client)
            if left[label] == 0:
                ladder = ladders()
        return np.array(counts, dtype=np.int64)


@dataclass(frozen=True)
class Iid:
    """A random permutation cut into near-equal chunks (DENSE and Co-Boosting, published code)."""

    name: ClassVar[str] = "iid"
    version: ClassVar[int] = 1

    def draw(self, problem: Problem, rng: np.random.Generator) -> Counts:
        """Draw one count matrix, int64 [K, C], columns sum to the class sizes."""
        labels = rng.permutation(np.repeat(np.arange(problem.classes), problem.class_sizes))
        chunks = np.array_split(labels, problem.clients)
        return np.stack([np.bincount(chunk, minlength=problem.classes) for chunk in chunks])


@dataclass(frozen=True)
class ClassesPerClient:
    """Every client holds a fixed number of classes, each class divided evenly (ours).

    Clients in order take the classes with the fewest holders so far, ties at random; so the
    numbers of holders differ by one at most, and every class is held when K × k ≥ C (otherwise
    some stay unused). It always ends; the published rule of Co-Boosting (``n_cls``) does so
    only where demand equals supply class by class.

    Parameters
    ----------
    classes_per_client : int
        Number of classes k that a client holds.
    """

    classes_per_client: int
    name: ClassVar[str] = "classes_per_client"
    version: ClassVar[int] = 1

    def draw(self, problem: Problem, rng: np.random.Generator) -> Counts:
        """Draw one count matrix, int64 [K, C], at most k non-zero entries a row."""
        present = np.flatnonzero(problem.class_sizes)
        if self.classes_per_client > len(present):
            raise PartitionError(
                f"classes_per_client is {self.classes_per_client}, but only {len(present)} "
                "classes have samples"
            )
        holders: list[list[int]] = [[] for _ in range(problem.classes)]
        for client in range(problem.clients):
            shuffled = rng.permutation(present)
            by_holders = sorted(shuffled.tolist(), key=lambda label: len(holders[label]))
            for label in by_holders[: self.classes_per_client]:
                holders[label].append(client)
        counts = np.zeros((problem.clients, problem.classes), dtype=np.int64)
        for label in present.tolist():
            owners = rng.permutation(np.array(holders[label], dtype=np.int64))
            if len(owners):  # who gets the odd samples is left to chance
                share, odd = divmod(int(problem.class_sizes[label]), len(owners))
                counts[owners, label] = share
                counts[owners[:odd], label] += 1
        return counts
