"""The main table: accuracy of every method on every scenario, the teacher's beside it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pandas as pd

from reports.convergence import UNCONVERGED, unconverged
from reports.formats import count_of, percent_parts
from reports.grid import Grid, GridCell, RowKey
from reports.load import DONE
from reports.row_marks import FLAG, row_flags
from reports.statistics import Verdict, judge, split_means, summarize
from reports.table import Cell, Row, Table

TEACHER_ACCURACY = "teacher_accuracy"
"""Column of the accuracy of the teacher that a model was distilled from."""


def verdicts(grid: Grid) -> dict[tuple[str, ...], Verdict]:
    """Return who is best on each scenario; references and incomplete cells don't compete."""
    return {
        scenario: judge(
            {
                row.label: cell.values("accuracy")
                for row, cell in grid.column(scenario)
                if not row.reference and cell.summary("accuracy")
            }
        )
        for scenario in grid.scenarios
    }


def score_table(grid: Grid) -> Table:
    """Return accuracy in percent by method and scenario, with the teacher's where there is one."""
    judged, open_ends, flags = verdicts(grid), unconverged(grid), row_flags(grid)
    columns: list[tuple[str, ...]] = []
    makers: list[tuple[tuple[str, ...], str]] = []
    for scenario in grid.scenarios:
        planned = grid.column(scenario)
        header = (*grid.axes.header(scenario), *_shared_count(grid, scenario))
        columns.append((*header, "accuracy %"))
        makers.append((scenario, "accuracy"))
        if any(cell.values(TEACHER_ACCURACY) for _, cell in planned):
            columns.append((*header, "teacher %"))
            makers.append((scenario, TEACHER_ACCURACY))

    def shown(row: RowKey, scenario: tuple[str, ...], name: str) -> Cell:
        cell = _cell(grid, row, scenario, name, judged[scenario])
        if name == "accuracy" and (row, scenario) in open_ends:
            return replace(cell, flag=cell.flag + UNCONVERGED)
        return cell

    rows = [
        Row(
            row.group,
            row.label,
            tuple(shown(row, scenario, name) for scenario, name in makers),
            row.reference,
            flags.get(row, ""),
        )
        for row in grid.rows
    ]
    rows += [
        Row("not installed", name, tuple(_absent(column) for _, column in makers))
        for name in grid.not_installed
    ]
    name = "Accuracy on held-out training images" if grid.validation else "Test accuracy"
    return Table("accuracy", name, tuple(columns), tuple(rows))


def _absent(column: str) -> Cell:
    return Cell("not installed", muted=True) if column == "accuracy" else Cell(muted=True)


def _counts(grid: Grid, scenario: tuple[str, ...]) -> set[int]:
    return {len(cell.runs) for _, cell in grid.column(scenario)}


def _shared_count(grid: Grid, scenario: tuple[str, ...]) -> tuple[str, ...]:
    """Return the number of seeds as a header, where columns need one."""
    if len({frozenset(_counts(grid, other)) for other in grid.scenarios}) == 1:
        return ()
    counts = _counts(grid, scenario)
    return (f"n = {counts.pop()}",) if len(counts) == 1 else ("n varies",)


def _cell(
    grid: Grid, row: RowKey, scenario: tuple[str, ...], column: str, verdict: Verdict
) -> Cell:
    cell = grid.cells.get((row, scenario))
    if cell is None:
        return Cell(muted=True)
    if not cell.complete:
        return Cell(problems(cell), muted=True) if column == "accuracy" else Cell(muted=True)
    summary = cell.summary(column)
    if summary is None:
        return Cell(muted=True)
    main, spread = percent_parts(summary)
    flag = cell_flag(grid, scenario, cell)
    best, second = marks(row, verdict if column == "accuracy" else None)
    return Cell(main, spread, best=best, second=second, flag=flag)


def cell_flag(grid: Grid, scenario: tuple[str, ...], cell: GridCell) -> str:
    """Return what follows a cell's number: seeds made differently, and how many, if that varies."""
    flag = FLAG if cell.mixed else ""
    return flag + (f" (n = {len(cell.runs)})" if len(_counts(grid, scenario)) > 1 else "")


def marks(row: RowKey, verdict: Verdict | None) -> tuple[bool, bool]:
    """Return whether a row is set off as one of the best, or as the next.

    References compete with nobody, and nobody is set off where it can't be said who is best, or
    where every method would be.
    """
    if verdict is None or row.reference or not verdict.tells:
        return False, False
    return row.label in verdict.tied, row.label == verdict.second


def problems(cell: GridCell) -> str:
    """Return what became of the runs of a cell that are not done, such as ``failed 1 of 3``."""
    total = len(cell.runs)
    return ", ".join(
        count_of(count, total, status)
        for status, count in sorted(cell.statuses.items())
        if status != DONE
    )


def incomplete_cells(cell: GridCell, count: int) -> tuple[Cell, ...]:
    """Return what stands in a row's ``count`` columns where runs are not done: why, then dashes."""
    return (Cell(problems(cell), muted=True), *(Cell(muted=True) for _ in range(count - 1)))


def cell_facts(grid: Grid, row: RowKey, scenario: tuple[str, ...]) -> dict[str, Any]:
    """Return what every raw table says of a cell: its place, its runs and what became of them."""
    cell = grid.cells[row, scenario]
    return {
        **dict(zip(grid.axes.shown, scenario, strict=True)),
        "group": row.group,
        "label": row.label,
        "method": row.method,
        "kind": "reference" if row.reference else "method",
        "planned": len(cell.runs),
        "done": cell.statuses[DONE],
        "statuses": "; ".join(f"{name}: {n}" for name, n in sorted(cell.statuses.items())),
        "differs_in": ", ".join(cell.mixed),
        "run_ids": " ".join(str(run["run_id"]) for run in cell.runs),
    }


def score_frame(grid: Grid) -> pd.DataFrame:
    """Return one row a cell with raw accuracies: mean, spread, interval, and every value."""
    judged = verdicts(grid)
    rows = []
    for scenario in grid.scenarios:
        for row, cell in grid.column(scenario):
            verdict = judged[scenario]
            tied = row.label in verdict.tied if verdict.tied and not row.reference else None
            rows.append(
                {
                    **cell_facts(grid, row, scenario),
                    **summary_columns(cell, "accuracy", interval=True),
                    **summary_columns(cell, TEACHER_ACCURACY),
                    "not_told_from_best": tied,
                    "values": _by_split(cell.values("accuracy")),
                }
            )
    return pd.DataFrame.from_records(rows)


def summary_columns(cell: GridCell, column: str, *, interval: bool = False) -> dict[str, Any]:
    """Return mean and standard deviation of a cell's column; empty unless every run is done.

    An interval, if asked for, is that of the mean over splits: seeds on one split are one
    observation, as they are in tests.
    """
    summary = cell.summary(column)
    found = {f"{column}_{name}": getattr(summary, name, None) for name in ("mean", "sd")}
    if interval:
        splits = summarize([*split_means(cell.values(column)).values()]) if summary else None
        found |= {f"{column}_ci95_{end}": getattr(splits, end, None) for end in ("low", "high")}
    return found


def _by_split(values: Mapping[tuple[str, str], float]) -> str:
    return json.dumps({f"{split}/{seed}": value for (split, seed), value in values.items()})
