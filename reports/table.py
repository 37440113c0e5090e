"""What every rendered table is made of: rows in groups, columns under headers, text cells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from reports.formats import MISSING


@dataclass(frozen=True)
class Cell:
    """One cell as it is printed.

    Parameters
    ----------
    main : str
        The value, or what stands in its place.
    spread : str
        What follows the ±; empty if nothing does.
    best, second : bool
        Whether it is set off: can't be told from the best, or the next.
    muted : bool
        Whether it is no value but a word such as ``failed 1 of 3``.
    flag : str
        A footnote sign after the value.
    """

    main: str = MISSING
    spread: str = ""
    best: bool = False
    second: bool = False
    muted: bool = False
    flag: str = ""

    @property
    def text(self) -> str:
        """The cell in plain text."""
        return f"{self.main} ± {self.spread}{self.flag}" if self.spread else self.main + self.flag


@dataclass(frozen=True)
class Row:
    """One row.

    Parameters
    ----------
    group : str
        Heading that it stands under; rows of one group are neighbours.
    label : str
        Name of the method in this configuration.
    cells : tuple of Cell
        One a column.
    reference : bool
        Whether it is a reference row, which may see what no method may.
    flag : str
        Footnote signs after the label.
    """

    group: str
    label: str
    cells: tuple[Cell, ...]
    reference: bool = False
    flag: str = ""

    @property
    def name(self) -> str:
        """The label as it is printed."""
        return self.label + self.flag


@dataclass(frozen=True)
class Table:
    """One table, before it is written as text, Markdown or LaTeX.

    Parameters
    ----------
    name : str
        Stem of its file names.
    title : str
        Caption.
    columns : tuple of tuple of str
        Header of each column, top level first; all of one depth.
    rows : tuple of Row
        Rows in order.
    notes : tuple of str
        Sentences beneath the table.
    """

    name: str
    title: str
    columns: tuple[tuple[str, ...], ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = field(default=())

    @property
    def groups(self) -> list[tuple[str, list[Row]]]:
        """Rows by heading, in order."""
        found: dict[str, list[Row]] = {}
        for row in self.rows:
            found.setdefault(row.group, []).append(row)
        return list(found.items())

    @property
    def levels(self) -> int:
        """Number of header lines."""
        return max((len(column) for column in self.columns), default=0)

    def select(self, columns: Sequence[int]) -> Table:
        """Return the table with some of its columns."""
        return replace(
            self,
            columns=tuple(self.columns[index] for index in columns),
            rows=tuple(
                replace(row, cells=tuple(row.cells[index] for index in columns))
                for row in self.rows
            ),
        )
