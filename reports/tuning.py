"""Tuning: every method's trials on held-out training images, and the settings they choose."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from reports.axes import plain_text
from reports.formats import percent, percent_parts
from reports.grid import Grid, GridCell, RowKey
from reports.row_marks import round_signs
from reports.statistics import Split, Summary, summarize
from reports.table import Cell, Row, Table

CHOSEN = "chosen.yaml"
"""Name of the file with the settings, as an experiment file takes them."""

_LOST = ("diverged", "skipped")
"""What a trial can end as, for good, without a score."""


@dataclass(frozen=True)
class Tuned:
    """What one method's trials found.

    Parameters
    ----------
    method : str
        Name of the plugin.
    scores : mapping of RowKey to Summary or None
        Validation accuracy of each trial: mean over scenarios, then over seeds; ``None`` for a
        trial that has not got one on every scenario and seed that the method was tried on.
    settings : mapping of RowKey to mapping of str to Any
        Of each trial, those that differ between trials.
    lost : tuple of RowKey
        Trials that will never have a score: they diverged, or the method can't do them.
    """

    method: str
    scores: Mapping[RowKey, Summary | None]
    settings: Mapping[RowKey, Mapping[str, Any]]
    lost: tuple[RowKey, ...]

    @property
    def best(self) -> tuple[RowKey, Summary] | None:
        """The trial of the highest mean, the first of equals; ``None`` before all have ended."""
        done = [(row, score) for row, score in self.scores.items() if score is not None]
        if not done or len(done) + len(self.lost) < len(self.scores):
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


def unequal(found: Sequence[Tuned]) -> str | None:
    """Return what is wrong where methods have unequal numbers of trials; nothing is chosen then."""
    counts = {one.method: len(one.scores) for one in found}
    if len(set(counts.values())) < 2:
        return None
    said = ", ".join(f"{method} {count}" for method, count in counts.items())
    return f"Methods have unequal numbers of trials ({said}): nothing is chosen."


def _of_method(grid: Grid, method: str) -> Tuned:
    rows = [row for row in grid.rows if row.method == method and not row.reference]
    known = grid.configs()
    configs = {row: known.get(row, {}) for row in rows}
    keys = dict.fromkeys(key for config in configs.values() for key in config)
    apart = [
        key for key in keys if len({_plain(config.get(key)) for config in configs.values()}) > 1
    ]
    settings = {
        row: {key: config[key] for key in apart if key in config} for row, config in configs.items()
    }
    places = {row: _places(grid, row) for row in rows}
    all_places = set().union(*places.values())
    scores = {row: _score(grid, row) if places[row] == all_places else None for row in rows}
    lost = tuple(row for row in rows if scores[row] is None and _is_lost(grid, row))
    return Tuned(method, scores, settings, lost)


def _cells_of(grid: Grid, row: RowKey) -> dict[tuple[str, ...], GridCell]:
    return {scenario: cell for (one, scenario), cell in grid.cells.items() if one == row}


def _places(grid: Grid, row: RowKey) -> set[tuple[Any, ...]]:
    """Return the scenarios and seeds that a trial was made on, or is to be."""
    return {
        (scenario, plain_text(run["split_seed"]), plain_text(run["seed"]))
        for scenario, cell in _cells_of(grid, row).items()
        for run in cell.runs
    }


def _is_lost(grid: Grid, row: RowKey) -> bool:
    return any(run["shown"] in _LOST for cell in _cells_of(grid, row).values() for run in cell.runs)


def _plain(value: object) -> str:
    return json.dumps(value, sort_keys=True)


def _score(grid: Grid, row: RowKey) -> Summary | None:
    """Return mean and spread over seeds of a trial's mean over scenarios."""
    cells = _cells_of(grid, row).values()
    if not all(cell.complete for cell in cells):
        return None
    by_split: dict[Split, list[float]] = {}
    for cell in cells:
        for split, accuracy in cell.values("accuracy").items():
            by_split.setdefault(split, []).append(accuracy)
    if {len(values) for values in by_split.values()} != {len(cells)}:
        return None
    return summarize([sum(values) / len(values) for values in by_split.values()])


def tuning_table(grid: Grid) -> Table | None:
    """Return trials, choice and its validation accuracy by method; ``None`` if nothing was tuned.

    The choice's accuracy is that of the best of several trials, and so flatters; the lowest trial
    stands beside it. Test accuracies are those of runs with the chosen settings, not of these.
    """
    found = tuned(grid)
    if not found:
        return None
    columns = (("trials",), ("chosen",), ("validation accuracy %",), ("lowest trial %",))
    wrong, signs = unequal(found), round_signs(grid)
    rows = [Row("tuned", one.method, tuple(_cells(one, wrong, signs))) for one in found]
    title = "Tuning on held-out training images, as many trials for every method"
    return Table("tuning", wrong or title, columns, tuple(rows))


def _cells(one: Tuned, wrong: str | None, signs: Mapping[str, str]) -> list[Cell]:
    done = [score for score in one.scores.values() if score is not None]
    total = len(one.scores)
    if one.best is None or wrong:
        trials = Cell(f"{len(done)} of {total} done", muted=True)
        return [trials, *(Cell(muted=True) for _ in range(3))]
    row, score = one.best
    said = ", ".join(f"{key}={plain_text(value)}" for key, value in one.settings[row].items())
    return [
        Cell(f"{total} ({len(one.lost)} without a score)" if one.lost else str(total)),
        Cell(said or "its defaults", flag=signs[row.label]),
        Cell(*percent_parts(score)),
        Cell(percent(min(score.mean for score in done))),
    ]


def chosen_text(grid: Grid) -> str | None:
    """Return the chosen settings as a part of an experiment file; ``None`` if nothing was tuned.

    Methods whose trials have not all ended are named and left out, and all of them where their
    numbers of trials differ.
    """
    found = tuned(grid)
    if not found:
        return None
    wrong = unequal(found)
    if wrong:
        return f"# {wrong}\nset: {{}}\n"
    lines = ["# Chosen on held-out training images; to be put into an experiment file."]
    lines += [f"# {one.method}: not all trials have ended" for one in found if one.chosen is None]
    chosen = {one.method: dict(one.chosen) for one in found if one.chosen}
    return "\n".join([*lines, yaml.safe_dump({"set": chosen}, sort_keys=False)])
