"""Methods against each other: paired differences, corrected tests, and ranks over datasets."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from reports.formats import points, probability
from reports.grid import Grid
from reports.row_marks import round_signs
from reports.scores import problems
from reports.statistics import (
    LEVEL,
    Split,
    holm,
    least_signed_rank_p,
    paired_t,
    shared_differences,
    signed_rank,
    summarize,
)
from reports.table import Cell, Row, Table

ALL = "all scenarios"
"""Where a comparison over all scenarios stands in the table."""

LEAST_BLOCKS = 3
"""Datasets (and methods) below which nothing is ranked."""


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
    scenarios the same is said of blocks (``block`` says of what): the mean difference of each
    is one observation, for splits within a block tell nothing of other blocks. References and
    incomplete cells don't take part.
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
        if differences:
            names = {"scenario": place, "first": first, "second": second}
            rows.append({**names, "pairs": len(differences), **_tested(differences)})
    _correct(rows, "p_t", "p_wilcoxon")
    return rows


def _tested(differences: Sequence[float]) -> dict[str, Any]:
    """Return mean, spread, 95 % t interval and p values of paired differences."""
    found = summarize(differences)
    several = found.n > 1
    return {
        "difference": found.mean,
        "sd": found.sd,
        "ci95_low": found.low,
        "ci95_high": found.high,
        "p_t": paired_t(differences) if several else None,
        "p_wilcoxon": signed_rank(differences) if several else None,
        "least_p_wilcoxon": least_signed_rank_p(found.n),
    }


def _correct(rows: Sequence[dict[str, Any]], *names: str) -> None:
    """Put Holm's corrected values beside the p values of a family of tests."""
    for name in names:
        tested = [row for row in rows if row[name] is not None]
        p_values: list[float] = [row[name] for row in tested]
        for row, corrected in zip(tested, holm(p_values), strict=True):
            row[f"{name}_holm"] = corrected


def _overall(
    grid: Grid, scores: Mapping[tuple[str, ...], Mapping[str, Mapping[Split, float]]]
) -> list[dict[str, Any]]:
    labels = dict.fromkeys(label for values in scores.values() for label in values)
    rows: list[dict[str, Any]] = []
    for first, second in itertools.combinations(labels, 2):
        blocks: dict[str, list[float]] = {}
        for scenario, values in scores.items():
            if first in values and second in values:
                found = shared_differences(values[first], values[second])
                blocks.setdefault(_block(grid, scenario), []).extend(found.values())
        blocks = {name: block for name, block in blocks.items() if block}
        if not blocks:
            continue
        rows.append(
            {
                "scenario": ALL,
                "first": first,
                "second": second,
                "pairs": sum(map(len, blocks.values())),
                "blocks": len(blocks),
                "block": block_kind(grid),
                **_tested([summarize(block).mean for block in blocks.values()]),
            }
        )
    _correct(rows, "p_t", "p_wilcoxon")
    return rows


def block_kind(grid: Grid) -> str:
    """Return what a block is: a dataset, or a scenario of the only one (they share data)."""
    return "dataset" if "dataset" in grid.axes.shown else "scenario of one dataset"


def best_table(grid: Grid) -> Table | None:
    """Return every method's difference to the best of its scenario; ``None`` without pairs.

    Rows are scenario after scenario, differences in percentage points over shared splits. Holm's
    correction is over all pairs of the scenario, as it is for what is bold.
    """
    rows = []
    groups = {row.label: row.group for row in grid.rows}
    signs = round_signs(grid)
    for scenario, values in complete_scores(grid).items():
        place = ", ".join(grid.axes.header(scenario))
        means = {label: summarize(list(found.values())).mean for label, found in values.items()}
        best = max(means, key=means.__getitem__, default="")
        for pair in _pairs(values, place):
            if best in (pair["first"], pair["second"]):
                other = pair["second"] if pair["first"] == best else pair["first"]
                cells = (Cell(best, flag=signs[best]), *_against(pair, best))
                rows.append(Row(place or groups[other], other, cells, flag=signs[other]))
    columns = [(name,) for name in ("best", "difference", "splits", "95 % interval")]
    columns += [("p, t",), ("p, t, Holm",), ("p, signed rank",)]
    title = "Difference to the best method, percentage points"
    return Table("against_best", title, tuple(columns), tuple(rows)) if rows else None


def _against(pair: Mapping[str, Any], best: str) -> tuple[Cell, ...]:
    turn = -1 if pair["first"] == best else 1
    ends = [pair["ci95_low"], pair["ci95_high"]]
    interval = Cell(muted=True)
    if None not in ends:
        low, high = sorted(turn * end for end in ends)
        interval = Cell(f"{points(low)} to {points(high)}")
    tests = [pair.get(name) for name in ("p_t", "p_t_holm", "p_wilcoxon")]
    return (
        Cell(points(turn * pair["difference"])),
        Cell(str(pair["pairs"])),
        interval,
        *(Cell(muted=True) if p is None else Cell(probability(p)) for p in tests),
    )


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
    blocks : int
        Number of datasets.
    left_out : tuple of str
        Methods that were not ranked, each with the reason.
    """

    mean: pd.Series[float]
    p: float
    critical_difference: float
    blocks: int
    left_out: tuple[str, ...] = ()


def rank_methods(grid: Grid) -> Ranks | str:
    """Rank methods with datasets as blocks, or say why that can't be done.

    A method takes part if it has a complete cell in every scenario; a dataset's score is
    the mean over its scenarios and splits.
    """
    scores = complete_scores(grid)
    labels = [label for label in _labels(scores) if all(label in v for v in scores.values())]
    left_out = _left_out(grid, labels)
    sums: dict[str, dict[str, list[float]]] = {}
    for scenario, values in scores.items():
        block = sums.setdefault(_dataset(grid, scenario), {})
        for label in labels:
            block.setdefault(label, []).append(summarize(list(values[label].values())).mean)
    if len(sums) < LEAST_BLOCKS or len(labels) < LEAST_BLOCKS:
        return (
            f"No ranks: {len(labels)} methods complete on {len(sums)} datasets; Friedman's test "
            f"needs {LEAST_BLOCKS} of both."
            + (f" Not complete: {'; '.join(left_out)}." if left_out else "")
        )
    table = pd.DataFrame(
        {
            label: {name: summarize(block[label]).mean for name, block in sums.items()}
            for label in labels
        }
    )
    return replace(friedman_nemenyi(table), left_out=left_out)


def _left_out(grid: Grid, ranked: Sequence[str]) -> tuple[str, ...]:
    """Name every method that is not ranked, and what is wrong with the first cell that is not."""
    said: dict[str, str] = {}
    methods = [row for row in grid.rows if not row.reference and row.label not in ranked]
    for scenario in grid.scenarios:
        for row in methods:
            cell = grid.cells.get((row, scenario))
            if cell is not None and cell.summary("accuracy"):
                continue
            why = "not planned" if cell is None else problems(cell) or "no accuracy"
            place = ", ".join(grid.axes.header(scenario))
            said.setdefault(row.label, f"{row.label} ({why}{' at ' if place else ''}{place})")
    return tuple(said.values())


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
    from scipy.stats import friedmanchisquare, studentized_range

    blocks, methods = scores.shape
    if blocks < 2 or methods < LEAST_BLOCKS:
        raise ValueError("ranks need two blocks and three methods at least")
    mean = scores.rank(axis=1, ascending=False).mean(axis=0).sort_values(kind="stable")
    p = float(friedmanchisquare(*(scores[name].to_numpy() for name in scores)).pvalue)
    quantile = float(studentized_range.ppf(1 - LEVEL, methods, np.inf)) / math.sqrt(2)
    critical = quantile * math.sqrt(methods * (methods + 1) / (6 * blocks))
    return Ranks(mean, p, critical, blocks)
