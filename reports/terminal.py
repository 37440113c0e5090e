"""Tables on the terminal."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from typing import TYPE_CHECKING

from rich import box
from rich.markup import escape
from rich.table import Table as RichTable
from rich.text import Text

from reports.generation import main_columns
from reports.table import Cell, Table

if TYPE_CHECKING:
    from rich.console import Console

    from reports.api import Report

_MOST_COST_ROWS = 40
"""Rows of the cost table that are still read on a terminal."""


def print_report(report: Report, console: Console) -> None:
    """Print an experiment's tables, what they rest on, and what went wrong.

    Parameters
    ----------
    report : Report
        As :func:`reports.api.write_report` returns it.
    console : rich.console.Console
        Where to; tables that are wider than it are printed in slices of columns.
    """
    table = report.rendered["accuracy"]
    if table.rows:
        title = f"{report.experiment}: {table.title}"
        for part in slices(table, console.width):
            console.print(_rich(part, title))
            title = f"{report.experiment}: {table.title}, continued"
    trials = report.rendered.get("tuning")
    if trials is not None:
        for part in slices(trials, console.width):
            console.print(_rich(part, f"{report.experiment}: {trials.title}"))
    costs = report.rendered["communication"]
    if report.scenarios > 1 and costs.rows:
        if len(costs.rows) <= _MOST_COST_ROWS:
            console.print(_rich(costs, f"{report.experiment}: {costs.title}"))
        else:
            _say(console, f"costs: {report.folder / 'communication.md'}")
    images = report.rendered.get("generation")
    if images is not None:
        for part in slices(main_columns(images), console.width):
            console.print(_rich(part, f"{report.experiment}: {images.title}"))
    for sentence in report.reasons:
        _say(console, f"! {sentence}", "yellow")
    for sentence in report.notes:
        _say(console, sentence, "dim")
    if report.files:
        _say(console, f"written to {report.folder}", "dim")


def slices(table: Table, width: int) -> Iterator[Table]:
    """Yield the table in parts that fit ``width`` characters, each with the row names.

    Columns that differ in the lowest header only (accuracy and teacher) stay together.
    """
    labels = (max(len(row.name) + 2, len(row.group)) for row in table.rows)
    names = max([len("method"), *labels]) + 4
    chosen: list[int] = []
    used = names
    for _, indices in groupby(range(len(table.columns)), key=lambda at: table.columns[at][:-1]):
        block = list(indices)
        size = sum(_column_width(table, index) for index in block)
        if chosen and used + size > width:
            yield table.select(chosen)
            chosen, used = [], names
        chosen += block
        used += size
    yield table.select(chosen)


def _column_width(table: Table, index: int) -> int:
    texts = [*table.columns[index], *(_plain(row.cells[index]) for row in table.rows)]
    return max(len(text) for text in texts) + 3


def _rich(table: Table, title: str) -> RichTable:
    made = RichTable(title=title, box=box.SIMPLE_HEAD, title_justify="left", title_style="bold")
    made.add_column("method", no_wrap=True)
    for column in table.columns:
        made.add_column("\n".join(escape(part) for part in column if part), justify="right")
    for place, (group, rows) in enumerate(table.groups):
        if place:
            made.add_section()
        made.add_row(Text(group, style="italic"), *("" for _ in table.columns))
        for row in rows:
            style = "italic" if row.reference else ""
            made.add_row(Text(f"  {row.name}", style=style), *map(_cell, row.cells))
    return made


def _plain(cell: Cell) -> str:
    return cell.text + ("*" if cell.best else "")


def _cell(cell: Cell) -> Text:
    """Return a cell with a star where it is bold elsewhere: pipes and logs show no bold."""
    style = "bold" if cell.best else "underline" if cell.second else "dim" if cell.muted else ""
    return Text(_plain(cell), style=style)


def _say(console: Console, sentence: str, style: str = "") -> None:
    console.print(Text(sentence, style=style), soft_wrap=not console.is_terminal)
