"""Methods against each other: paired differences, corrected tests, and ranks over datasets."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from reports.grid import Grid, Split
from reports.statistics import (
    LEVEL,
    hierarchical_bootstrap,
    holm,
    least_signed_rank_p,
    paired_t,
    shared_differences,
    signed_rank,
    summarize,
)

ALL = "all scenarios"
"""Where a comparison over all scenarios stands in the table."""

LEAST_BLOCKS = 3
"""Datasets (and methods) below which nothing is ranked."""

_BOOTSTRAP_SEED = 20_240_607


def complete_scores(grid: Grid) -> dict[tuple[str, ...], dict[str, dict[Split, float]]]:
    """Return accuracy by split of every complete cell of a method, by scenario and label."""
    return {
        scenario: {
            row.label: cell.values("accuracy")
            for row, cell in grid.column(scenario)
            if not row.reference and cell.summary("accuracy")
        }
        for scenario in grid.scenarios
    }


def comparison_frame(grid: Grid) -> pd.DataFrame:
    """Return every pair of methods on every scenario, and over all scenarios that both have.

    Differences are ``first - second`` in accuracy over shared splits. ``p_t`` is the paired
    t test's, ``p_wilcoxon`` the exact signed-rank test's, both also Holm-corrected over the
    pairs of one scenario; ``least_p_wilcoxon`` is what that many pairs can reach. Over all
    scenarios the interval is a hierarchical bootstrap's: datasets, then splits. References
    and incomplete cells don't take part.
    """
    scores = complete_scores(grid)
    rows: list[dict[str, Any]] = []
    for scenario, values in scores.items():
        rows += _pairs(values, ", ".join(grid.axes.header(scenario)) or "the scenario")
    if len(scores) > 1:
        rows += _overall(grid, scores)
    return pd.DataFrame.from_records(rows)


def _pairs(values: Mapping[str, Mapping[Split, float]], place: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for first, second in itertools.combinations(values, 2):
        differences = list(shared_differences(values[first], values[second]).values())
        if not differences:
            continue
        found = summarize(differences)
        several = found.n > 1
        rows.append(
            {
                "scenario": place,
                "first": first,
                "second": second,
                "pairs": found.n,
                "difference": found.mean,
                "sd": found.sd,
                "ci95_low": found.low,
                "ci95_high": found.high,
                "p_t": paired_t(differences) if several else None,
                "p_wilcoxon": signed_rank(differences) if several else None,
                "least_p_wilcoxon": least_signed_rank_p(found.n),
            }
        )
    for name in ("p_t", "p_wilcoxon"):
        tested = [row for row in rows if row[name] is not None]
        p_values: list[float] = [row[name] for row in tested]
        for row, corrected in zip(tested, holm(p_values), strict=True):
            row[f"{name}_holm"] = corrected
    return rows


def _overall(
    grid: Grid, scores: Mapping[tuple[str, ...], Mapping[str, Mapping[Split, float]]]
) -> list[dict[str, Any]]:
    labels = dict.fromkeys(label for values in scores.values() for label in values)
    rng = np.random.default_rng(_BOOTSTRAP_SEED)
    rows = []
    for first, second in itertools.combinations(labels, 2):
        blocks: dict[str, list[float]] = {}
        for scenario, values in scores.items():
            if first in values and second in values:
                found = shared_differences(values[first], values[second])
                blocks.setdefault(_block(grid, scenario), []).extend(found.values())
        blocks = {name: block for name, block in blocks.items() if block}
        if not blocks:
            continue
        mean = math.fsum(summarize(block).mean for block in blocks.values()) / len(blocks)
        low, high = hierarchical_bootstrap(list(blocks.values()), rng)
        rows.append(
            {
                "scenario": ALL,
                "first": first,
                "second": second,
                "pairs": sum(map(len, blocks.values())),
                "blocks": len(blocks),
                "difference": mean,
                "ci95_low": low,
                "ci95_high": high,
            }
        )
    return rows


def _block(grid: Grid, scenario: tuple[str, ...]) -> str:
    """Return the dataset of a scenario, or its only name where one dataset is used."""
    named = dict(zip(grid.axes.shown, scenario, strict=True))
    return named.get("dataset", " ".join(scenario))


@dataclass(frozen=True)
class Ranks:
    """Methods ranked on every dataset (Demšar 2006).

    Parameters
    ----------
    mean : pandas.Series
        Mean rank by method, 1 is best, ascending.
    p : float
        Friedman's test that all methods are alike (chi-square form).
    critical_difference : float
        Nemenyi: mean ranks that differ by less can't be told apart.
    p_nemenyi : pandas.DataFrame
        Nemenyi's p value of every pair, methods by methods.
    blocks : int
        Number of datasets.
    """

    mean: pd.Series[float]
    p: float
    critical_difference: float
    p_nemenyi: pd.DataFrame
    blocks: int


def rank_methods(grid: Grid) -> Ranks | str:
    """Rank methods with datasets as blocks, or say why that can't be done.

    A method takes part if it has a complete cell in every scenario; a dataset's score is
    the mean over its scenarios and splits.
    """
    scores = complete_scores(grid)
    labels = [label for label in _labels(scores) if all(label in v for v in scores.values())]
    sums: dict[str, dict[str, list[float]]] = {}
    for scenario, values in scores.items():
        block = sums.setdefault(_dataset(grid, scenario), {})
        for label in labels:
            block.setdefault(label, []).append(summarize(list(values[label].values())).mean)
    if len(sums) < LEAST_BLOCKS or len(labels) < LEAST_BLOCKS:
        return (
            f"No ranks: {len(labels)} methods complete on {len(sums)} datasets; Friedman's test "
            f"needs {LEAST_BLOCKS} of both."
        )
    table = pd.DataFrame(
        {
            label: {name: summarize(block[label]).mean for name, block in sums.items()}
            for label in labels
        }
    )
    return friedman_nemenyi(table)


def _labels(scores: Mapping[tuple[str, ...], Mapping[str, object]]) -> Sequence[str]:
    return list(dict.fromkeys(label for values in scores.values() for label in values))


def _dataset(grid: Grid, scenario: tuple[str, ...]) -> str:
    named = dict(zip(grid.axes.shown, scenario, strict=True))
    return named.get("dataset", grid.axes.fixed.get("dataset", ""))


def friedman_nemenyi(scores: pd.DataFrame) -> Ranks:
    """Rank methods (columns) on blocks (rows), higher scores first.

    Raises
    ------
    ValueError
        With fewer than two blocks or three methods.
    """
    from scikit_posthocs import (  # type: ignore[import-untyped]
        posthoc_nemenyi_friedman,
    )
    from scipy.stats import friedmanchisquare, studentized_range

    blocks, methods = scores.shape
    if blocks < 2 or methods < LEAST_BLOCKS:
        raise ValueError("ranks need two blocks and three methods at least")
    mean = scores.rank(axis=1, ascending=False).mean(axis=0).sort_values(kind="stable")
    p = float(friedmanchisquare(*(scores[name].to_numpy() for name in scores)).pvalue)
    quantile = float(studentized_range.ppf(1 - LEVEL, methods, np.inf)) / math.sqrt(2)
    critical = quantile * math.sqrt(methods * (methods + 1) / (6 * blocks))
    pairs = posthoc_nemenyi_friedman(scores)
    return Ranks(mean, p, critical, pairs, blocks)
