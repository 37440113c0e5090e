"""Draws from a symmetric Dirichlet, and the size-capped rule of the published partitions.

One implementation for the schemes (``numpy.random.Generator``) and for the tests that replay
published splits (``numpy.random.RandomState``): the two differ in their random streams and in
nothing else.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

RandomSource = np.random.Generator | np.random.RandomState
Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]


def shares(alpha: float, open_: npt.NDArray[np.bool_], rng: RandomSource) -> Floats:
    """Draw a symmetric Dirichlet over all entries and renormalise it over the open ones.

    Parameters
    ----------
    alpha : float
        Concentration, positive.
    open_ : numpy.ndarray
        bool [K], at least one true.
    rng : numpy.random.Generator or numpy.random.RandomState
        Source of randomness.

    Returns
    -------
    numpy.ndarray
        float64 [K], zero where not open, sums to 1. Where the draw leaves no mass on any open
        entry (all of it underflowed, or fell on closed ones: possible at small ``alpha``), the
        published rule divides zero by zero. Then the limit law stands in: for ``alpha`` < 1 all
        mass on one open entry chosen at random, otherwise the same share for each.
    """
    drawn = rng.dirichlet(np.full(len(open_), alpha)) * open_
    total = drawn.sum()
    if np.isfinite(total) and total > 0:
        return np.asarray(drawn / total, dtype=np.float64)
    if alpha >= 1:
        return np.asarray(open_ / open_.sum(), dtype=np.float64)
    fallback = np.zeros(len(open_))
    fallback[rng.permutation(np.flatnonzero(open_))[0]] = 1.0
    return fallback


def cut_points(proportions: Floats, size: int) -> Counts:
    """Return where a list of ``size`` samples is cut: floor(cumulative share × size).

    Parameters
    ----------
    proportions : numpy.ndarray
        float64 [K], sums to 1.
    size : int
        Number of samples.

    Returns
    -------
    numpy.ndarray
        int64 [K - 1], non-decreasing; the last piece takes the rest.
    """
    return (np.cumsum(proportions) * size).astype(np.int64)[:-1]


def pieces(proportions: Floats, size: int) -> Counts:
    """Return the sizes of the pieces that :func:`cut_points` makes, int64 [K]."""
    return np.diff(cut_points(proportions, size), prepend=0, append=size)


def open_clients(sizes: Counts, samples: int, *, capped: bool = True) -> npt.NDArray[np.bool_]:
    """Return which clients may still get samples.

    Parameters
    ----------
    sizes : numpy.ndarray
        int64 [K], samples each client holds so far.
    samples : int
        Number of samples N of all clients together.
    capped : bool
        Whether a client that holds N/K or more is closed (Mosaic and DENSE, published code).

    Returns
    -------
    numpy.ndarray
        bool [K]; always one at least while samples are left.
    """
    if not capped:
        return np.ones(len(sizes), dtype=np.bool_)
    return sizes < samples / len(sizes)
