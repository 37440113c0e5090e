"""The page as text: template, style, script and data in one file that needs no network."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache
from importlib.resources import files
from itertools import groupby
from pathlib import Path
from typing import Any

from jinja2 import Environment, select_autoescape
from markupsafe import Markup

from reports.grid import Grid
from reports.load import Results
from reports.page.content import as_script, data_uri, page_content
from reports.table import Table

PAGE_NAME = "index.html"


def page_text(
    results: Results,
    grid: Grid,
    tables: Mapping[str, Table],
    *,
    notes: Sequence[str],
    reasons: Sequence[str],
    figures: Sequence[tuple[str, Path]],
    frames: Collection[str] = (),
) -> str:
    """Return the HTML page of an experiment; the same text for the same records.

    Parameters
    ----------
    results : Results
        Its runs.
    grid : Grid
        Its rows and cells.
    tables : mapping of str to Table
        Rendered tables by name.
    notes, reasons : sequence of str
        What the tables rest on, and what did not end well.
    figures : sequence of (str, Path)
        Titles and PNG files to show; a PDF of the same name lies beside each.
    frames : collection of str
        Names of the CSV files beside the page.
    """
    pictures = [
        {
            "title": title,
            "source": data_uri(path.read_bytes()),
            "pdf": f"figures/{path.stem}.pdf",
        }
        for title, path in figures
    ]
    text: str = _template().render(
        experiment=results.name,
        tables=[_table(table, frames) for table in tables.values()],
        several=len(grid.scenarios) > 1,
        notes=list(notes),
        reasons=list(reasons),
        pictures=pictures,
        content=Markup(as_script(page_content(grid, results))),
        style=Markup(_file("page.css")),
        script=Markup(_file("page.js")),
        plotly=Markup(_plotly()),
    )
    return text


_NUMBERS_OF = {"against_best": "comparisons"}
"""CSV files of another name than their table's."""


def _table(table: Table, frames: Collection[str]) -> dict[str, Any]:
    csv = _NUMBERS_OF.get(table.name, table.name)
    return {
        "csv": csv if csv in frames else "",
        "title": table.title,
        "name": table.name,
        "levels": [_level(table, at) for at in range(table.levels)],
        "groups": table.groups,
        "width": len(table.columns) + 1,
    }


def _level(table: Table, level: int) -> list[tuple[str, int]]:
    """Return the headers of one line, each with the number of columns that it spans."""
    if level == table.levels - 1:
        return [(column[level], 1) for column in table.columns]
    # A header spans its neighbours only where all levels above it agree too.
    runs = groupby(column[: level + 1] for column in table.columns)
    return [(prefix[-1], sum(1 for _ in same)) for prefix, same in runs]


@lru_cache(maxsize=1)
def _template() -> Any:
    # The text is ours; everything that comes from records is escaped.
    environment = Environment(autoescape=select_autoescape(default=True), trim_blocks=True)
    return environment.from_string(_file("page.html"))


def _file(name: str) -> str:
    return (files("reports.page") / name).read_text(encoding="utf-8")


@lru_cache(maxsize=1)
def _plotly() -> str:
    # The file that plotly's own pages without a network embed.
    script = (files("plotly") / "package_data" / "plotly.min.js").read_text(encoding="utf-8")
    return script.replace("</script", "<\\/script")
