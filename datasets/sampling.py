"""Stratified draws of sample indices: exact sizes, own random stream."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from datasets.errors import DataError

Indices = npt.NDArray[np.int64]


def largest_remainder(weights: npt.NDArray[np.int64], total: int) -> Indices:
    """Divide ``total`` seats by integer weights with the largest-remainder rule.

    Parameters
    ----------
    weights : numpy.ndarray
        int64 [C], not all zero.
    total : int
        Seats to give, 0 or more.

    Returns
    -------
    numpy.ndarray
        int64 [C], sums to ``total``. Ties go to the lower index, and all arithmetic is on
        integers, so the result is the same on every machine.
    """
    whole = int(weights.sum())
    seats = weights * total // whole
    remainders = weights * total % whole
    order = np.argsort(-remainders, kind="stable")
    seats[order[: total - int(seats.sum())]] += 1
    return seats


def stratified_subset(labels: npt.NDArray[np.integer], n: int, rng: np.random.Generator) -> Indices:
    """Draw ``n`` samples whose class proportions are those of ``labels``.

    Parameters
    ----------
    labels : numpy.ndarray
        Integer class labels [N].
    n : int
        Number of samples to draw, 0 to N.
    rng : numpy.random.Generator
        Source of randomness.

    Returns
    -------
    numpy.ndarray
        int64 [n], sorted positions in ``labels``; class sizes by largest remainder.

    Raises
    ------
    DataError
        If ``n`` is negative or larger than the number of samples.
    """
    if not 0 <= n <= len(labels):
        raise DataError(f"can't draw {n} samples from {len(labels)}; 0 to {len(labels)} are right")
    if n == 0:
        return np.empty(0, dtype=np.int64)
    classes, sizes = np.unique(labels, return_counts=True)
    quotas = largest_remainder(sizes.astype(np.int64), n)
    drawn = [
        rng.permutation(np.flatnonzero(labels == label))[:quota]
        for label, quota in zip(classes, quotas, strict=True)
    ]
    return np.sort(np.concatenate(drawn)).astype(np.int64)


def stratified_split(
    labels: npt.NDArray[np.integer], fraction: float, rng: np.random.Generator
) -> tuple[Indices, Indices]:
    """Take a stratified ``fraction`` of the samples away.

    Parameters
    ----------
    labels : numpy.ndarray
        Integer class labels [N].
    fraction : float
        Part to hold out, 0 ≤ fraction < 1. ``round(fraction × N)`` samples are held out.
    rng : numpy.random.Generator
        Source of randomness.

    Returns
    -------
    kept, held_out : numpy.ndarray
        int64, sorted; together every position of ``labels`` once.

    Raises
    ------
    DataError
        If ``fraction`` is outside [0, 1) or not a number.
    """
    if not 0 <= fraction < 1:
        raise DataError(f"the held-out fraction must be in [0, 1), got {fraction}")
    held_out = stratified_subset(labels, round(fraction * len(labels)), rng)
    kept = np.setdiff1d(np.arange(len(labels), dtype=np.int64), held_out, assume_unique=True)
    return kept, held_out
