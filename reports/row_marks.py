"""Signs after a row's name: what keeps it from being compared as it stands."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from reports.axes import plain_text
from reports.grid import CODE, Grid, GridCell, RowKey
from reports.load import DONE

FLAG = "†"
"""Sign of a cell whose seeds, or of a row whose columns, were not made alike."""

SEVERAL_ROUNDS = "¶"
"""Sign of a row whose method takes more than one round."""

_LISTED = 3
"""Columns of a row that a note names before it only counts them."""

_VERSIONED = ("code.engine", "code.recipe")
"""Parts of a run's code that are told by a version; of the others there are digests."""


def row_flags(grid: Grid) -> Mapping[RowKey, str]:
    """Return the signs after the names of rows; rows without any are not in it."""
    flags = dict.fromkeys(_mixed_rows(grid), FLAG)
    return flags | {row: SEVERAL_ROUNDS + flags.get(row, "") for row in grid.many_rounds()}


def round_signs(grid: Grid) -> Mapping[str, str]:
    """Return the sign of every row by its label; empty for those of one round."""
    several = grid.many_rounds()
    return {row.label: SEVERAL_ROUNDS if row in several else "" for row in grid.rows}


def row_notes(grid: Grid) -> list[str]:
    """Return what the signs mean, and which rows have them: a sentence a sign."""
    said, mixed = round_notes(grid), _mixed_rows(grid)
    if mixed:
        # Digests of older records change with a comment too, and no record tells them apart.
        said.append(
            f"{FLAG} after a name: its columns were made by different code, by the digests on "
            f"record (in old ones comments count as code): {'; '.join(mixed.values())}."
        )
    return said


def round_notes(grid: Grid) -> list[str]:
    """Return which rows are not one-shot, and how many exchanges they have in place of one."""
    several = [f"{row.label} ({rounds})" for row, rounds in grid.many_rounds().items()]
    if not several:
        return []
    return [
        f"{SEVERAL_ROUNDS} More than one exchange (round) between clients and server, so these "
        f"ranks are not those of one-shot methods: {'; '.join(several)}."
    ]


def _mixed_rows(grid: Grid) -> dict[RowKey, str]:
    """Return the rows whose columns differ in their code, each with what differs and where."""
    found: dict[RowKey, dict[tuple[str, ...], GridCell]] = {}
    for (row, scenario), cell in grid.cells.items():
        if cell.complete:  # of others no number is shown
            found.setdefault(row, {})[scenario] = cell
    return {
        row: f"{row.label}: {_what(cells)} ({_where(grid, cells)})"
        for row in grid.rows
        if len(set(map(_code, (cells := found.get(row, {})).values()))) > 1
    }


def _code(cell: GridCell, columns: tuple[str, ...] = CODE) -> frozenset[tuple[str, ...]]:
    return frozenset(
        tuple(plain_text(run.get(column)) for column in columns)
        for run in cell.runs
        if run["shown"] == DONE
    )


def _what(cells: Mapping[tuple[str, ...], GridCell]) -> str:
    """Return which parts of the code differ, such as ``engine 1 or 2, plugin``."""
    words = []
    for column in CODE:
        sides = {_code(cell, (column,)) for cell in cells.values()}
        if len(sides) > 1:
            name = column.rpartition(".")[2]
            values = sorted({value for side in sides for (value,) in side})
            words.append(f"{name} {' or '.join(values)}" if column in _VERSIONED else name)
    return ", ".join(words)


def _where(grid: Grid, cells: Mapping[tuple[str, ...], GridCell]) -> str:
    """Return the columns that are not of the code that most of the row's are of."""
    usual, _ = Counter(map(_code, cells.values())).most_common(1)[0]
    others = [scenario for scenario, cell in cells.items() if _code(cell) != usual]
    if len(others) > _LISTED:
        return f"{len(others)} of {len(cells)} columns unlike the others"
    places = (", ".join(grid.axes.header(scenario)) for scenario in others)
    return f"{' and '.join(places)} unlike the other{'s' if len(cells) - len(others) > 1 else ''}"
