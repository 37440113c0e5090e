"""Tuning: every method's trials on held-out training images, and the settings they choose."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from reports.axes import plain_text
from reports.formats import percent, percent_parts
from reports.grid import Grid, RowKey
from reports.statistics import Summary, summarize
from reports.table import Cell, Row, Table

CHOSEN = "chosen.yaml"
"""Name of the file with the settings, as an experiment file takes them."""


@dataclass(frozen=True)
class Tuned:
    """What one method's trials found.

    Parameters
    ----------
    method : str
        Name of the plugin.
    scores : mapping of RowKey to Summary or None
        Validation accuracy of each trial: mean over scenarios, then over seeds; ``None`` for a
        trial that is not complete.
    settings : mapping of RowKey to mapping of str to Any
        Of each trial, those that differ between trials.
    """

    method: str
    scores: Mapping[RowKey, Summary | None]
    settings: Mapping[RowKey, Mapping[str, Any]]

    @property
    def best(self) -> tuple[RowKey, Summary] | None:
        """The trial of the highest mean, the first of equals; ``None`` before all are done."""
        done = [(row, score) for row, score in self.scores.items() if score is not None]
        if len(done) < len(self.scores):
            return None
        return max(done, key=lambda pair: pair[1].mean)

    @property
    def chosen(self) -> Mapping[str, Any] | None:
        """Its settings."""
        return self.settings[self.best[0]] if self.best else None


def tuned(grid: Grid) -> tuple[Tuned, ...]:
    """Return the trials of every method of a grid that was judged on held-out images."""
    if not grid.validation:
        return ()
    methods = dict.fromkeys(row.method for row in grid.rows if not row.reference)
    return tuple(_of_method(grid, method) for method in methods)


def _of_method(grid: Grid, method: str) -> Tuned:
    rows = [row for row in grid.rows if row.method == method and not row.reference]
    configs = {row: _config(grid, row) for row in rows}
    keys = dict.fromkeys(key for config in configs.values() for key in config)
    apart = [
        key for key in keys if len({_plain(config.get(key)) for config in configs.values()}) > 1
    ]
    settings = {
        row: {key: config[key] for key in apart if key in config} for row, config in configs.items()
    }
    return Tuned(method, {row: _score(grid, row) for row in rows}, settings)


def _plain(value: object) -> str:
    return json.dumps(value, sort_keys=True)


def _config(grid: Grid, row: RowKey) -> Mapping[str, Any]:
    for (one, _), cell in grid.cells.items():
        text = next((run["config"] for run in cell.runs if run.get("config")), None)
        if one == row and text is not None:
            found: Mapping[str, Any] = json.loads(text)
            return found
    return {}


def _score(grid: Grid, row: RowKey) -> Summary | None:
    """Return mean and spread over seeds of a trial's mean over scenarios."""
    cells = [cell for (one, _), cell in grid.cells.items() if one == row]
    if not all(cell.complete for cell in cells):
        return None
    by_split = [cell.values("accuracy") for cell in cells]
    splits = by_split[0].keys()
    if any(values.keys() != splits for values in by_split):
        return None
    return summarize(
        [sum(values[split] for values in by_split) / len(by_split) for split in splits]
    )


def tuning_table(grid: Grid) -> Table | None:
    """Return trials, choice and its validation accuracy by method; ``None`` if nothing was tuned.

    The choice's accuracy is that of the best of several trials, and so flatters; the lowest trial
    stands beside it. Test accuracies are those of runs with the chosen settings, not of these.
    """
    found = tuned(grid)
    if not found:
        return None
    columns = (("trials",), ("chosen",), ("validation accuracy %",), ("lowest trial %",))
    rows = [Row("tuned", one.method, tuple(_cells(one))) for one in found]
    title = "Tuning on held-out training images, the same number of trials for every method"
    return Table("tuning", title, columns, tuple(rows))


def _cells(one: Tuned) -> list[Cell]:
    done = [score for score in one.scores.values() if score is not None]
    if one.best is None:
        trials = Cell(f"{len(done)} of {len(one.scores)} done", muted=True)
        return [trials, *(Cell(muted=True) for _ in range(3))]
    row, score = one.best
    said = ", ".join(f"{key}={plain_text(value)}" for key, value in one.settings[row].items())
    return [
        Cell(str(len(done))),
        Cell(said or "its defaults"),
        Cell(*percent_parts(score)),
        Cell(percent(min(score.mean for score in done))),
    ]


def chosen_text(grid: Grid) -> str | None:
    """Return the chosen settings as a part of an experiment file; ``None`` if nothing was tuned.

    Methods whose trials are not all done are named and left out.
    """
    found = tuned(grid)
    if not found:
        return None
    lines = ["# Chosen on held-out training images; to be put into an experiment file."]
    lines += [f"# {one.method}: not all trials are done" for one in found if one.chosen is None]
    chosen = {one.method: dict(one.chosen) for one in found if one.chosen}
    return "\n".join([*lines, yaml.safe_dump({"set": chosen}, sort_keys=False)])
