"""How wide and how tall a printed table is, and where it is cut to fit a two-column paper.

LaTeX is not asked: sizes are those of Computer Modern, in which few other fonts of papers
are wider.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from reports.table import Cell, Row, Table

COLUMN_POINTS, PAGE_POINTS = 234.0, 487.0
"""Width of one column of a two-column paper and of both, those of the narrowest (ICML, CVPR)."""

FLOAT_LINES = 45
"""Lines of a table that fit one page with its caption, headers and group headings counted."""

TEXT_POINTS = 150.0
"""From this width on a column is set as a paragraph, of this width."""

CONTINUED = " (continued)"
"""What is put behind a caption or a group's heading that stands there a second time."""

# Of the font in \small, 9 points.
_DIGIT = 4.63
_GAP = 12.0
_SPACE = 3.1
_BOLD = 1.16
_SCRIPT = 0.87
_FOOTNOTE = 0.92
# In lines: the space between two tabulars, and what a page has left for notes.
_BETWEEN = 1.0
_NOTE_LINES = 5.0
_WIDTHS = {
    **dict.fromkeys("fijlI.,:;'!| ", 0.62),
    **dict.fromkeys("rst()[]-", 0.78),
    **dict.fromkeys("mwMW%&=+−→±×<>≥≤÷", 1.6),
    **dict.fromkeys("ABCDEFGHJKLNOPQRSTUVXYZ", 1.44),
    "…": 2.0,
}


@dataclass(frozen=True)
class Piece:
    """What stands in one float.

    Parameters
    ----------
    tables : tuple of Table
        Tabulars, one beneath the other.
    notes : tuple of str
        Sentences beneath them.
    """

    tables: tuple[Table, ...]
    notes: tuple[str, ...] = ()


def text_points(text: str) -> float:
    """Return about how wide a text is."""
    return _DIGIT * sum(_WIDTHS.get(sign, 1.0) for sign in text)


def cell_points(cell: Cell) -> float:
    """Return about how wide a cell is: bold is wider, the spread is smaller."""
    main = text_points(cell.main) * (_BOLD if cell.best else 1.0)
    spread = _SPACE + _SCRIPT * text_points(f"± {cell.spread}") if cell.spread else 0.0
    return main + spread + text_points(cell.flag)


def label_points(table: Table) -> float:
    """Return the natural width of the first column."""
    return max(text_points(text) for text in ("method", *(row.name for row in table.rows)))


def column_points(table: Table, at: int) -> float:
    """Return the natural width of a column, its own heading's included."""
    own = text_points(table.columns[at][-1]) if table.columns[at] else 0.0
    return max([own, *(cell_points(row.cells[at]) for row in table.rows)])


def all_points(table: Table) -> list[float]:
    """Return the natural width of every column, that of the row names first."""
    return [label_points(table), *(column_points(table, at) for at in range(len(table.columns)))]


def is_paragraph(points: float) -> bool:
    """Return whether a column of such a natural width is set as a paragraph."""
    return points > TEXT_POINTS


def width(table: Table) -> float:
    """Return about how wide a table is, headings that span it included."""
    groups = [text_points(row.group) + _GAP for row in table.rows]
    return max([_columns_width(table, range(len(table.columns))), *groups])


def _columns_width(table: Table, columns: Sequence[int]) -> float:
    widths = {at: min(column_points(table, at), TEXT_POINTS) for at in columns}
    # From the lowest heading up: one that is too wide stretches its last column.
    for level in reversed(range(table.levels - 1)):
        above = [column[: level + 1] for column in table.columns]
        for _, same in groupby(columns, key=above.__getitem__):
            spanned = list(same)
            inside = sum(widths[at] for at in spanned) + _GAP * (len(spanned) - 1)
            missing = text_points(table.columns[spanned[0]][level]) - inside
            widths[spanned[-1]] += max(missing, 0.0)
    names = min(label_points(table), TEXT_POINTS) + _GAP
    return names + sum(points + _GAP for points in widths.values())


def pieces(table: Table) -> list[Piece]:
    """Return a table as floats, each no wider than a page and no taller.

    Columns are cut first, then rows; a float takes as many of the parts as fit. Notes come
    last, beneath the last rows where these leave room.
    """
    floats: list[Piece] = []
    free = 0.0
    for part in [piece for columns in _by_columns(table) for piece in _by_rows(columns)]:
        needed = height(part) + _BETWEEN
        if needed > free or not floats:
            floats.append(Piece(()))
            free = FLOAT_LINES + _BETWEEN
        floats[-1] = replace(floats[-1], tables=(*floats[-1].tables, part))
        free -= needed
    free += _NOTE_LINES
    line = PAGE_POINTS if width(table) > COLUMN_POINTS else COLUMN_POINTS
    for note in table.notes:
        needed = _FOOTNOTE * text_points(note) / line
        if needed > free:
            floats.append(Piece(()))
            free = FLOAT_LINES + _NOTE_LINES
        floats[-1] = replace(floats[-1], notes=(*floats[-1].notes, note))
        free -= needed
    return floats


def height(table: Table) -> float:
    """Return how many lines a table takes, headers and group headings included."""
    rows = sum(_row_lines(row) for row in table.rows)
    return rows + _group_lines(len(table.groups)) + _head_lines(table)


def _head_lines(table: Table) -> float:
    return table.levels + 1.0


def _group_lines(count: int) -> float:
    # The space between two groups is half a line.
    return 1.5 * count


def _row_lines(row: Row) -> int:
    widest = max(text_points(row.name), *map(cell_points, row.cells), 0.0)
    # Ragged lines are not full: a fifth of each is lost.
    return math.ceil(1.2 * widest / TEXT_POINTS) if is_paragraph(widest) else 1


def _by_columns(table: Table) -> Iterator[Table]:
    """Yield the table in parts no wider than a page; columns of one heading stay together."""
    chosen: list[int] = []
    for _, indices in groupby(range(len(table.columns)), key=lambda at: table.columns[at][:-1]):
        # The last heading alone can be as wide as a page: then its columns are cut apart.
        block = list(indices)
        for more in (
            [block] if _columns_width(table, block) <= PAGE_POINTS else [[at] for at in block]
        ):
            if chosen and _columns_width(table, [*chosen, *more]) > PAGE_POINTS:
                yield table.select(chosen)
                chosen = []
            chosen += more
    yield table.select(chosen)


def _by_rows(table: Table) -> Iterator[Table]:
    """Yield the table in parts no taller than a page; cut between groups where that helps."""
    room = FLOAT_LINES - _head_lines(table)
    blocks = list(_blocks(table, room))
    total = sum(needed for _, needed in blocks)
    # Even parts: no float that holds the last group alone.
    share = total / max(math.ceil(total / room), 1)
    chosen: list[Row] = []
    taken = 0.0
    for rows, needed in blocks:
        if chosen and (taken + needed > room or taken >= share):
            yield replace(table, rows=tuple(chosen))
            chosen, taken = [], 0.0
        chosen += rows
        taken += needed
    yield replace(table, rows=tuple(chosen))


def _blocks(table: Table, room: float) -> Iterator[tuple[list[Row], float]]:
    """Yield rows that stay together, with their lines: groups, tall ones in even parts."""
    for group, rows in table.groups:
        lines = [_row_lines(row) for row in rows]
        space = room - _group_lines(1)
        share = sum(lines) / math.ceil(sum(lines) / space)
        block: list[Row] = []
        heading, taken = group, 0
        for row, needed in zip(rows, lines, strict=True):
            if block and (taken + needed > space or taken >= share):
                yield block, taken + _group_lines(1)
                block, heading, taken = [], group + CONTINUED, 0
            block.append(replace(row, group=heading))
            taken += needed
        yield block, taken + _group_lines(1)
