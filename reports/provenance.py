"""How comparable numbers are: cells, and rows of one scenario, that were not made alike."""

from __future__ import annotations

import json
from collections.abc import Mapping

from reports.grid import Grid, made_by
from reports.load import DONE
from reports.row_marks import FLAG, row_notes
from reports.statistics import Split

_SHARED = {"dataset_fingerprint": "data", "split_id": "splits"}
"""What all rows of a scenario must have in common, seed by seed; data first: splits follow it."""

_MADE_BY = {
    "hardware": "hardware",
    "version.torch": "torch versions",
    "code.engine": "engine versions",
    "code.recipe": "recipe versions",
}
"""What moves a number without being a setting; methods' own code differs from row to row."""

_LISTED = 3
"""Scenarios, and rows, that a note names before it only counts them."""


def provenance_notes(grid: Grid) -> list[str]:
    """Return which cells, rows and columns were not made alike; nothing where all were."""
    return [*mixed_cells(grid), *row_notes(grid), *_unequal_columns(grid), *_made_apart(grid)]


def mixed_cells(grid: Grid) -> list[str]:
    """Return what the sign at a cell's number means, where one has it."""
    mixed = sorted({name for cell in grid.cells.values() for name in cell.mixed})
    return [f"{FLAG} The seeds of this cell differ in {', '.join(mixed)}."] if mixed else []


def _unequal_columns(grid: Grid) -> list[str]:
    said = []
    for scenario in grid.scenarios:
        place = ", ".join(grid.axes.header(scenario)) or "this table"
        for column, what in _SHARED.items():
            if len(sides := _sides(grid, scenario, column)) > 1:
                text = "; ".join(f"{', '.join(rows)}: {key[:8]}" for key, rows in sides.items())
                said.append(f"Rows of {place} saw different {what}, don't compare them ({text}).")
                break
    return said


def _sides(grid: Grid, scenario: tuple[str, ...], column: str) -> dict[str, list[str]]:
    """Return rows by what they have in a column, of the first seed where they have it unequal."""
    seeds: dict[Split, dict[str, list[str]]] = {}
    for row, cell in grid.column(scenario):
        for split, text in cell.texts(column).items():
            seeds.setdefault(split, {}).setdefault(text, []).append(row.label)
    return next((sides for sides in seeds.values() if len(sides) > 1), {})


def _made_apart(grid: Grid) -> list[str]:
    """Return what rows of one scenario don't have in common beyond their method, and where.

    Another processor or version moves an accuracy by roundings, so differences down a column are
    partly theirs.
    """
    places: dict[tuple[str, str], list[str]] = {}
    for scenario in grid.scenarios:
        for column, what in _MADE_BY.items():
            sides = _makers(grid, scenario, column)
            if len(sides) > 1:
                names = {key: _in_words(column, key, list(sides)) for key in sides}
                text = "; ".join(f"{names[key]}: {_named(rows)}" for key, rows in sides.items())
                place = ", ".join(grid.axes.header(scenario)) or "this table"
                places.setdefault((what, text), []).append(place)
    return [
        f"Rows of {_at(found)} were made by different {what}, so small differences between them "
        f"may not be the methods' ({text})."
        for (what, text), found in places.items()
    ]


def _makers(grid: Grid, scenario: tuple[str, ...], column: str) -> dict[str, list[str]]:
    """Return rows by what made their finished runs; a row whose seeds differ is of several."""
    sides: dict[str, list[str]] = {}
    for row, cell in grid.column(scenario):
        for made in dict.fromkeys(
            made_by(run, column) for run in cell.runs if run["shown"] == DONE
        ):
            sides.setdefault(made, []).append(row.label)
    return sides


def _in_words(column: str, key: str, others: list[str]) -> str:
    """Return a maker's name: of hardware what differs of it."""
    if column != "hardware" or not key.startswith("{"):
        return key
    facts: list[Mapping[str, object]] = [json.loads(one) for one in others if one.startswith("{")]
    own: Mapping[str, object] = json.loads(key)
    names = dict.fromkeys(name for one in facts for name in one)
    differing = [name for name in names if len({str(one.get(name)) for one in facts}) > 1]
    return ", ".join(f"{name.replace('_', ' ')} {own.get(name)}" for name in differing)


def _named(rows: list[str]) -> str:
    return ", ".join(rows) if len(rows) <= _LISTED else f"{len(rows)} rows"


def _at(places: list[str]) -> str:
    return " / ".join(places) if len(places) <= _LISTED else f"{len(places)} scenarios"
