"""Tables along one setting: accuracy and its price by number of clients, and by widths."""

from __future__ import annotations

from collections.abc import Iterator

from reports.axes import describe, sort_keys
from reports.costs import cost_cell
from reports.formats import percent_parts
from reports.grid import Grid, GridCell
from reports.row_marks import row_flags
from reports.scores import cell_flag, marks, problems, verdicts
from reports.table import Cell, Row, Table

SETTINGS = (
    ("partition.clients", "scaling", "Scaling with the number of clients"),
    ("widths", "widths", "Client models of other widths"),
)
"""Settings that have a table of their own where they differ: field, name, title."""

_COSTS = (("up_total_bytes", "up, all clients"), ("server_seconds", "server s"))


def along_tables(grid: Grid) -> Iterator[Table]:
    """Yield a table for each of :data:`SETTINGS` that differs between scenarios.

    A column is a value of the setting; the other settings are headings of groups.
    """
    for field, name, title in SETTINGS:
        if field in grid.axes.shown:
            yield _table(grid, field, name, title)


def _table(grid: Grid, field: str, name: str, title: str) -> Table:
    at = grid.axes.shown.index(field)
    values = [key[0] for key in sort_keys([(scenario[at],) for scenario in grid.scenarios])]
    others = dict.fromkeys((*one[:at], *one[at + 1 :]) for one in grid.scenarios)
    fields = (*grid.axes.shown[:at], *grid.axes.shown[at + 1 :])
    judged, flags = verdicts(grid), row_flags(grid)
    columns = [
        (describe(field, value), what)
        for value in values
        for what in ("accuracy %", *(header for _, header in _COSTS))
    ]
    rows = []
    for other in others:
        words = (describe(one, value) for one, value in zip(fields, other, strict=True))
        place = ", ".join(words)
        for row in grid.rows:
            scenarios = [(*other[:at], value, *other[at:]) for value in values]
            found = [grid.cells.get((row, scenario)) for scenario in scenarios]
            if not any(found):
                continue
            cells: list[Cell] = []
            for scenario, cell in zip(scenarios, found, strict=True):
                best, second = marks(row, judged.get(scenario))
                flag = "" if cell is None else cell_flag(grid, scenario, cell)
                cells += _cells(cell, best=best, second=second, flag=flag)
            flag = flags.get(row, "")
            rows.append(Row(place or row.group, row.label, tuple(cells), row.reference, flag))
    return Table(name, title, tuple(columns), tuple(rows))


def _cells(cell: GridCell | None, *, best: bool, second: bool, flag: str) -> list[Cell]:
    empty = [Cell(muted=True) for _ in _COSTS]
    if cell is None:
        return [Cell(muted=True), *empty]
    summary = cell.summary("accuracy")
    if summary is None:
        return [Cell(problems(cell), muted=True), *empty]
    main, spread = percent_parts(summary)
    score = Cell(main, spread, best=best, second=second, flag=flag)
    return [score, *(cost_cell(cell, column) for column, _ in _COSTS)]
