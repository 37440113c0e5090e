"""Generated images one by one: each client's generator, and each class."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from reports.formats import figures_of, spread_of
from reports.generation import OLD_RATIO, RATIO, extractors, ratio_in_words, ratio_of
from reports.grid import Grid, GridCell
from reports.load import DONE
from reports.scores import cell_facts, incomplete_cells
from reports.statistics import summarize
from reports.table import Cell, Row, Table

MOST_CLASSES = 12
"""Classes that a printed table has room for; CSV files hold all."""

_FEW = "few"
"""What stands where a class has too few images for a distance."""

_SIDES = (("own", "own data"), ("pooled", "all clients' data"))


def client_table(grid: Grid) -> Table | None:
    """Return how far each client's generator is from its own and from everybody's data.

    Distances are divided by that of real test images, mean over clients; a cell in which a
    client made too few images for the extractor's features says so instead of a mean over
    the others. ``None`` where no images come from clients' generators.
    """
    columns = [
        (name, f"to {title}", how)
        for name in extractors(grid)
        for _, title in _SIDES
        for how in ("mean", "worst client")
    ]
    rows = []
    for scenario, row, cell in _measured(grid, "by_client"):
        cells = [
            one for name in extractors(grid) for one in _client_cells(cell, name, ratio_of(grid))
        ]
        if not cell.complete:
            cells = list(incomplete_cells(cell, len(cells)))
        place = ", ".join(grid.axes.header(scenario))
        rows.append(Row(place or row.group, row.label, tuple(cells), row.reference))
    title = f"Clients' generators: Fréchet distance ÷ {ratio_in_words(grid)}"
    return Table("generators", title, tuple(columns), tuple(rows)) if rows else None


def _client_cells(cell: GridCell, name: str, ratio: str) -> Iterator[Cell]:
    for side, _ in _SIDES:
        found = [
            [one[side][ratio] for one in clients.values()]
            for clients in _entries(cell, f"{name}.by_client")
            if all(ratio in one[side] for one in clients.values())
        ]
        for how in (lambda values: sum(values) / len(values), max):
            yield _mean_cell(cell, found, how)


def _mean_cell(cell: GridCell, found: Sequence[Sequence[float | None]], how: Any) -> Cell:
    if len(found) < len(cell.runs):
        return Cell(muted=True)
    refused = sum(value is None for values in found for value in values)
    if refused:
        total = sum(map(len, found))
        return Cell(f"too few images: {refused} of {total}", muted=True)
    summary = summarize([how(values) for values in found])
    return Cell(figures_of(summary.mean), spread_of(summary, figures_of))


def class_table(grid: Grid) -> Table | None:
    """Return the distance of each class's images to real ones of that class.

    Divided by the distance of real test images, mean over seeds. ``None`` where no images
    were measured by class, where there are too many classes to print, or too few images of each.
    """
    names, rows = _class_names(grid), _rows_by_class(grid)
    if not rows or _all_few(rows):
        return None
    columns = [(extractor, name) for extractor in extractors(grid) for name in names]
    title = f"Generated images by class: Fréchet distance ÷ {ratio_in_words(grid)}"
    return Table("classes", title, tuple(columns), tuple(rows))


def class_notes(grid: Grid) -> list[str]:
    """Return why there is no table of classes, where images were too few for all of its cells."""
    if not _all_few(_rows_by_class(grid)):
        return []
    return [
        "Generated images by class: no table, for there are too few of every class for a distance "
        "in the extractor's features."
    ]


def _all_few(rows: Sequence[Row]) -> bool:
    cells = [cell for row in rows for cell in row.cells]
    return any(cell.main == _FEW for cell in cells) and all(cell.muted for cell in cells)


def _rows_by_class(grid: Grid) -> list[Row]:
    names = _class_names(grid)
    if not names or len(names) > MOST_CLASSES:
        return []
    rows, ratio = [], ratio_of(grid)
    for scenario, row, cell in _measured(grid, "by_class"):
        cells = []
        for name in extractors(grid):
            found = _entries(cell, f"{name}.by_class")
            for label in range(len(names)):
                of_class = [entries[label] or {ratio: None} for entries in found]
                values = [[entry[ratio]] for entry in of_class if ratio in entry]
                cells.append(_mean_cell(cell, values, max))
        if not cell.complete:
            cells = list(incomplete_cells(cell, len(cells)))
        place = ", ".join(grid.axes.header(scenario))
        rows.append(Row(place or row.group, row.label, tuple(map(_short, cells)), row.reference))
    return rows


def _short(cell: Cell) -> Cell:
    """Return a cell with one word in place of a count: these columns are narrow."""
    return Cell(_FEW, muted=True) if cell.main.startswith("too few") else cell


def _measured(grid: Grid, kind: str) -> Iterator[tuple[tuple[str, ...], Any, GridCell]]:
    for scenario in grid.scenarios:
        for row, cell in grid.column(scenario):
            if any(run.get(f"{name}.{kind}") for name in extractors(grid) for run in cell.runs):
                yield scenario, row, cell


def _entries(cell: GridCell, column: str) -> list[Any]:
    return [
        json.loads(str(run[column]))
        for run in cell.runs
        if run["shown"] == DONE and run.get(column)
    ]


def _class_names(grid: Grid) -> list[str]:
    """Return the names of the classes, where the whole grid has the same."""
    found = {
        str(run["class_names"])
        for cell in grid.cells.values()
        for run in cell.runs
        if run.get("class_names")
    }
    return list(map(str, json.loads(found.pop()))) if len(found) == 1 else []


def client_frame(grid: Grid) -> pd.DataFrame:
    """Return one row for each run, extractor and client's generator."""
    return _frame(grid, "by_client", _client_rows)


def class_frame(grid: Grid) -> pd.DataFrame:
    """Return one row for each run, extractor and class."""
    return _frame(grid, "by_class", _class_rows)


def _frame(grid: Grid, kind: str, rows_of: Any) -> pd.DataFrame:
    rows = []
    for scenario, row, cell in _measured(grid, kind):
        facts = cell_facts(grid, row, scenario)
        kept = {key: facts[key] for key in (*grid.axes.shown, "label", "method", "kind")}
        for run in cell.runs:
            for name in extractors(grid):
                if run["shown"] == DONE and run.get(f"{name}.{kind}"):
                    start = kept | {
                        "run_id": run["run_id"],
                        "seed": run["seed"],
                        "extractor": name,
                        "labeller": run.get("labeller"),
                    }
                    rows += [start | one for one in rows_of(run, f"{name}.{kind}")]
    frame = pd.DataFrame.from_records(rows)
    ratios = [name for name in frame.columns if str(name).endswith((RATIO, OLD_RATIO))]
    return frame.drop(columns=[name for name in ratios if frame[name].isna().all()])


def _client_rows(run: Mapping[str, Any], column: str) -> Iterator[dict[str, Any]]:
    for client, entry in json.loads(str(run[column])).items():
        yield {
            "client": int(client),
            "images": entry.get("images"),
            **{
                f"{side}_{key}": entry.get(side, {}).get(key)
                for side, _ in _SIDES
                for key in ("fid", RATIO, OLD_RATIO)
            },
        }


def _class_rows(run: Mapping[str, Any], column: str) -> Iterator[dict[str, Any]]:
    names = json.loads(str(run.get("class_names") or "[]"))
    for label, entry in enumerate(json.loads(str(run[column]))):
        found = entry or {}
        yield {
            "class": label,
            "class_name": names[label] if label < len(names) else None,
            "images": found.get("images"),
            "fid": found.get("fid"),
            **{key: found.get(key) for key in (RATIO, OLD_RATIO)},
        }
