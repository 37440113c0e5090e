"""Statistics of few seeds: spreads, intervals, paired tests, and who can't be told from the best.

Everything here works on plain numbers. SciPy is imported where it is needed, so that a
report without tests stays quick.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

LEVEL = 0.05
"""Two-sided significance level of every test in a report."""

LEAST_PAIRS = 3
"""Shared splits below which no method is told from another."""

Split = tuple[str, str]
"""Split seed and seed: what paired differences are paired by."""


@dataclass(frozen=True)
class Summary:
    """Mean and spread of one cell.

    Parameters
    ----------
    n : int
        Number of values.
    mean : float
        Their arithmetic mean.
    sd : float or None
        Standard deviation with ddof 1; ``None`` with one value.
    low, high : float or None
        Student-t 95 % confidence interval of the mean; ``None`` with one value, or with
        equal ones, which say nothing of a spread.
    """

    n: int
    mean: float
    sd: float | None
    low: float | None
    high: float | None


_NO_SPREAD = 1e-12
"""Standard deviation of shares up to which they are equal but for roundings."""


def summarize(values: Sequence[float]) -> Summary:
    """Return mean, standard deviation (ddof 1) and Student-t 95 % interval of ``values``.

    Raises
    ------
    ValueError
        If there are no values.
    """
    if not values:
        raise ValueError("no values to summarise")
    n = len(values)
    mean = math.fsum(values) / n
    if n == 1:
        return Summary(1, mean, None, None, None)
    sd = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1))
    if sd < _NO_SPREAD:
        return Summary(n, mean, sd, None, None)
    half = _t_quantile(1 - LEVEL / 2, n - 1) * sd / math.sqrt(n)
    return Summary(n, mean, sd, mean - half, mean + half)


def _t_quantile(probability: float, degrees: int) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(degrees, probability))


def paired_t(differences: Sequence[float]) -> float:
    """Return the two-sided p value of a paired Student-t test; 1 if nothing differs.

    Equal differences have no spread to test by: a t test would call one image in each of three
    splits certain. Theirs is the p value of :func:`signed_rank`.

    Raises
    ------
    ValueError
        With fewer than two differences.
    """
    from scipy.special import stdtr

    if len(differences) < 2:
        raise ValueError("a paired test needs two pairs at least")
    summary = summarize(differences)
    if summary.sd is None or summary.sd < _NO_SPREAD:
        return signed_rank(differences)
    t = summary.mean / (summary.sd / math.sqrt(summary.n))
    return float(2 * stdtr(summary.n - 1, -abs(t)))


def signed_rank(differences: Sequence[float]) -> float:
    """Return the exact two-sided p value of Wilcoxon's signed-rank test.

    Zero differences are dropped, ties get mean ranks; the null distribution is that of
    all sign patterns of the ranks at hand, so it is exact with ties as well. Differences of
    accuracies that are equal as counts differ by a rounding: within 1e-12 they are ties.
    """
    nonzero = [value for value in (round(each, 12) for each in differences) if value != 0]
    if not nonzero:
        return 1.0
    doubled = _doubled_ranks([abs(value) for value in nonzero])
    counts = [1]  # counts[s]: sign patterns whose positive doubled ranks add up to s
    for rank in doubled:
        grown = counts + [0] * rank
        for total, count in enumerate(counts):
            grown[total + rank] += count
        counts = grown
    positive = sum(rank for rank, value in zip(doubled, nonzero, strict=True) if value > 0)
    tail = sum(counts[: min(positive, sum(doubled) - positive) + 1])
    return min(1.0, 2 * tail / (1 << len(nonzero)))


def _doubled_ranks(sizes: Sequence[float]) -> list[int]:
    below = [sum(other < size for other in sizes) for size in sizes]
    same = [sum(other == size for other in sizes) for size in sizes]
    return [2 * low + equal + 1 for low, equal in zip(below, same, strict=True)]


def least_signed_rank_p(pairs: int) -> float:
    """Return the least p value that Wilcoxon's signed-rank test can reach with ``pairs`` pairs."""
    return min(1.0, math.ldexp(1.0, 1 - pairs))


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p values corrected for their number (Holm 1979), in the given order."""
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    corrected = [0.0] * len(p_values)
    largest = 0.0
    for place, index in enumerate(order):
        largest = max(largest, (len(p_values) - place) * p_values[index])
        corrected[index] = min(1.0, largest)
    return corrected


def shared_differences(
    first: Mapping[Split, float], second: Mapping[Split, float]
) -> dict[str, float]:
    """Return ``first - second`` by split seed, on the splits that both have.

    Seeds on one split share its clients' data: they are one observation of how two methods differ
    over splits, the mean of their differences.
    """
    return split_means({pair: first[pair] - second[pair] for pair in first if pair in second})


def split_means(values: Mapping[Split, float]) -> dict[str, float]:
    """Return the mean over the seeds of each split, by split seed."""
    found: dict[str, list[float]] = {}
    for (split, _), value in values.items():
        found.setdefault(split, []).append(value)
    return {split: math.fsum(each) / len(each) for split, each in found.items()}


@dataclass(frozen=True)
class Verdict:
    """Who is best in one column, and who can't be told from it.

    Parameters
    ----------
    best : str or None
        The method with the highest mean; ``None`` if no method has one.
    tied : frozenset of str
        The best and every method that can't be told from it; empty if that can't be said.
    second : str or None
        The highest mean outside ``tied`` (outside the best alone if nothing is tied).
    pairs : int
        Shared splits that the verdict rests on.
    """

    best: str | None
    tied: frozenset[str]
    second: str | None
    pairs: int

    @property
    def tells(self) -> bool:
        """Whether anybody is told from the best: else nothing is set off."""
        return bool(self.tied) and self.second is not None


def judge(values: Mapping[str, Mapping[Split, float]], level: float = LEVEL) -> Verdict:
    """Say who is best and who can't be told from it.

    The rule: paired Student-t tests over the splits that two methods share, Holm-corrected over
    all pairs (who is best is itself chosen by looking at all); a method whose corrected p is at
    least ``level`` can't be told from the best, nor can one that has more over the splits they
    share (the best has more over its own). With fewer than :data:`LEAST_PAIRS` shared splits
    nothing is said.

    Parameters
    ----------
    values : mapping of str to (mapping of (split seed, seed) to float)
        Score by method and split, higher is better.
    level : float
        Significance level.
    """
    filled = {name: scores for name, scores in values.items() if scores}
    means = {name: summarize(list(scores.values())).mean for name, scores in filled.items()}
    if not means:
        return Verdict(None, frozenset(), None, 0)
    order = sorted(means, key=lambda name: (-means[name], name))
    best, others = order[0], order[1:]
    shared = {name: shared_differences(values[best], values[name]) for name in others}
    splits = {split for split, _ in filled[best]}
    pairs = min([len(splits), *(len(differences) for differences in shared.values())])
    if pairs < LEAST_PAIRS:
        return Verdict(best, frozenset(), others[0] if others else None, pairs)
    corrected = _paired_tests(filled, order)
    worse = {name for name in others if corrected[best, name] < level}
    tied = {best} | {name for name in others if name not in worse or sum(shared[name].values()) < 0}
    rest = [name for name in others if name not in tied]
    return Verdict(best, frozenset(tied), rest[0] if rest else None, pairs)


def _paired_tests(
    values: Mapping[str, Mapping[Split, float]], order: Sequence[str]
) -> dict[tuple[str, str], float]:
    """Return Holm-corrected p values of all pairs that share two splits at least, in ``order``."""
    found = {}
    for first, second in itertools.combinations(order, 2):
        differences = list(shared_differences(values[first], values[second]).values())
        if len(differences) > 1:
            found[first, second] = paired_t(differences)
    return dict(zip(found, holm(list(found.values())), strict=True))
