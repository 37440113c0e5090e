"""What an accuracy costs: bytes per client and direction, seconds of clients and server."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace

import pandas as pd

from reports.formats import cost_spread_of, count, operations, seconds, size
from reports.grid import Grid, GridCell, RowKey
from reports.scores import cell_facts, incomplete_cells, summary_columns
from reports.table import Cell, Row, Table

Column = tuple[str, str, Callable[[float], str]]
"""A measure's name, its header, and how its mean is written."""

AVERAGING_ROUNDS = "= FedAvg rounds"
"""Header of a column that notes explain."""

_COLUMNS: tuple[Column, ...] = (
    ("rounds", "rounds", lambda value: f"{value:g}"),
    ("fedavg_rounds", AVERAGING_ROUNDS, lambda value: f"{value:.3g}"),
    ("up_per_client", "up / client", size),
    ("down_per_client", "down / client", size),
    ("warmup_seconds", "warm-up s, shared", seconds),
    ("client_seconds", "clients s", seconds),
    ("server_seconds", "server s", seconds),
    ("client_flops", "clients FLOPs", operations),
    ("server_flops", "server FLOPs", operations),
    ("inference_flops", "FLOPs / image", operations),
    ("teacher_inference_flops", "teacher's FLOPs / image", operations),
    ("peak_memory_bytes", "peak memory", size),
)
_MAIN = (
    *("inference_flops", "teacher_inference_flops"),
    *("up_per_client", "down_per_client", "client_seconds", "server_seconds"),
)
_WHERE_THERE_IS_ONE = ("warmup_seconds", "inference_flops", "teacher_inference_flops")
"""Columns that are left out of tables in which no run has any: no warm-up, old records."""

_SPENT = (
    ("server_generator_steps", "server's generator steps"),
    ("generated_images", "generated images"),
    ("distilled_images", "distilled images"),
    ("student_steps", "student's steps"),
)


def cost_table(grid: Grid) -> Table:
    """Return costs by method, scenario after scenario; what no run has is no column."""
    columns = _shown(grid)
    rows = _rows(grid, columns, grid.cells)
    return Table("communication", "Communication and computing", _headers(columns), rows)


def budget_table(grid: Grid) -> Table | None:
    """Return what methods spent of the profile's budget, of those that count it."""
    counting = {key for key, cell in grid.cells.items() if any(map(cell.summary, dict(_SPENT)))}
    if not counting:
        return None
    columns = [(name, header, count) for name, header in _SPENT]
    rows = _rows(grid, columns, counting)
    return Table("budget", "Budget spent", _headers(columns), rows)


def _rows(
    grid: Grid, columns: Sequence[Column], wanted: Collection[tuple[RowKey, tuple[str, ...]]]
) -> tuple[Row, ...]:
    rows = []
    for scenario in grid.scenarios:
        place = ", ".join(grid.axes.header(scenario))
        for row, cell in grid.column(scenario):
            if (row, scenario) not in wanted:
                continue
            cells = tuple(_cell(cell, column, form) for column, _, form in columns)
            if not cell.complete:
                cells = incomplete_cells(cell, len(columns))
            label = row.label
            if place and row.reference:
                label = f"{row.label} (reference)"
            rows.append(Row(place or row.group, label, cells, row.reference))
    return tuple(rows)


def _headers(columns: Sequence[Column]) -> tuple[tuple[str], ...]:
    return tuple((header,) for _, header, _ in columns)


def _shown(grid: Grid) -> list[Column]:
    """Return the columns that some run has a number for; where none is done, the usual ones."""
    found = [
        entry
        for entry in _COLUMNS
        if any(
            summary.mean or entry[0] not in _WHERE_THERE_IS_ONE
            for cell in grid.cells.values()
            if (summary := cell.summary(entry[0]))
        )
    ]
    return found or [entry for entry in _COLUMNS if entry[0] not in _WHERE_THERE_IS_ONE]


def with_costs(table: Table, grid: Grid) -> Table:
    """Return the accuracy table of a single scenario with the main costs beside it."""
    if len(grid.scenarios) != 1:
        return table
    scenario = grid.scenarios[0]
    chosen = [entry for entry in _shown(grid) if entry[0] in _MAIN]
    costs = {
        (row.group, row.label): tuple(_cell(cell, column, form) for column, _, form in chosen)
        for row, cell in grid.column(scenario)
    }
    empty = tuple(Cell(muted=True) for _ in chosen)
    depth = table.levels - 1
    headers = tuple((*("",) * depth, header) for _, header, _ in chosen)
    rows = tuple(
        replace(row, cells=row.cells + costs.get((row.group, row.label), empty))
        for row in table.rows
    )
    return Table(table.name, table.title, table.columns + headers, rows, table.notes)


def cost_cell(cell: GridCell, column: str) -> Cell:
    """Return a cell's bytes or seconds, by the name of the column."""
    return _cell(cell, column, size if column.endswith("_bytes") else seconds)


def _cell(cell: GridCell, column: str, form: Callable[[float], str]) -> Cell:
    summary = cell.summary(column)
    if summary is None:
        return Cell(muted=True)
    return Cell(form(summary.mean), cost_spread_of(summary, form))


def cost_frame(grid: Grid) -> pd.DataFrame:
    """Return one row a cell with raw bytes and seconds."""
    measured = (
        *("rounds", "up_per_client", "down_per_client", "up_least", "up_most"),
        *("down_least", "down_most", "up_bytes", "down_bytes"),
        *("warmup_up_bytes", "warmup_down_bytes"),
        *("warmup_seconds", "client_seconds", "slowest_client_seconds"),
        *("server_seconds", "evaluation_seconds"),
        *("data_seconds", "engine_seconds", "cached_client_seconds", "total_seconds"),
        *("fedavg_rounds", "client_flops", "server_flops", "generation_seconds"),
        *("inference_flops", "teacher_inference_flops", "peak_memory_bytes"),
        *dict(_SPENT),
    )
    rows = []
    for scenario in grid.scenarios:
        for row, cell in grid.column(scenario):
            numbers = [summary_columns(cell, column) for column in measured]
            rows.append(
                {
                    **cell_facts(grid, row, scenario),
                    **{key: value for entry in numbers for key, value in entry.items()},
                    "parts": next((run["parts"] for run in cell.runs if run.get("parts")), None),
                }
            )
    return pd.DataFrame.from_records(rows)
