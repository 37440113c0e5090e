"""The grid: rows (methods) by columns (scenarios), with the runs over seeds in each cell."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from reports.axes import UNSET, Axes, find_axes, plain_text, sort_keys
from reports.load import DONE, JUDGED_ON, Results, shown_runs
from reports.statistics import Split, Summary, summarize

REFERENCES = "references"
"""Heading of the reference rows, which may see what no method may."""


@dataclass(frozen=True)
class RowKey:
    """A method in one configuration.

    Parameters
    ----------
    label : str
        Name in tables; settings that differ under one name are part of it.
    method : str
        Name of the plugin.
    group : str
        Heading: what it uses, or :data:`REFERENCES`.
    reference : bool
        Whether it is a reference.
    """

    label: str
    method: str
    group: str
    reference: bool


@dataclass(frozen=True)
class GridCell:
    """All runs of one method on one scenario: one a seed.

    Parameters
    ----------
    runs : tuple of mapping
        Rows of the long table, by rising seed.
    """

    runs: tuple[Mapping[str, Any], ...]

    @property
    def statuses(self) -> Counter[str]:
        """How many runs ended how."""
        return Counter(str(run["shown"]) for run in self.runs)

    @property
    def complete(self) -> bool:
        """Whether every planned run is done: only then is there a mean."""
        return bool(self.runs) and all(run["shown"] == DONE for run in self.runs)

    def values(self, column: str) -> dict[Split, float]:
        """Return the recorded values of a column by split, those of done runs alone."""
        return {
            _split(run): float(run[column])
            for run in self.runs
            if run["shown"] == DONE and _is_number(run.get(column))
        }

    def texts(self, column: str) -> dict[Split, str]:
        """Return what its done runs have in a column as text, by split."""
        found = {
            _split(run): plain_text(run.get(column)) for run in self.runs if run["shown"] == DONE
        }
        return {split: text for split, text in found.items() if text != UNSET}

    def summary(self, column: str) -> Summary | None:
        """Return mean and spread of a column; ``None`` unless every run is done and has it."""
        values = [run.get(column) for run in self.runs]
        if not self.complete or not all(_is_number(value) for value in values):
            return None
        return summarize([float(value) for value in values])  # type: ignore[arg-type]

    @property
    def mixed(self) -> tuple[str, ...]:
        """Provenance that differs between its done runs: code, versions or hardware."""
        done = [run for run in self.runs if run["shown"] == DONE]
        found = []
        for name, columns in _PROVENANCE.items():
            if len({tuple(made_by(run, column) for column in columns) for run in done}) > 1:
                found.append(name)
        return tuple(found)


CODE = ("code.engine", "code.recipe", "code.plugin", "code.parts")
"""What tells the code that made a run: versions of the suite's, digests of the method's."""

_PROVENANCE = {
    "code": CODE,
    "torch versions": ("version.torch",),
    "hardware": ("hardware",),
    "data": ("dataset_fingerprint",),
}


def _split(run: Mapping[str, Any]) -> Split:
    return plain_text(run["split_seed"]), plain_text(run["seed"])


def made_by(run: Mapping[str, Any], column: str) -> str:
    """Return a column of a run's provenance as text that is the same for equal makers."""
    text = plain_text(run.get(column))
    if column != "hardware" or not text.startswith("{"):
        return text
    # Kernels differ by some kilobytes in how much memory they leave of the same machine.
    facts = json.loads(text)
    facts["memory_bytes"] = round(facts.get("memory_bytes", 0) / 2**30)
    return json.dumps(facts, sort_keys=True)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and not math.isnan(value)


@dataclass(frozen=True)
class Grid:
    """Rows, columns and cells of an experiment.

    Parameters
    ----------
    rows : tuple of RowKey
        References first, then methods by what they use.
    scenarios : tuple of tuple of str
        Values of the shown axes, in order.
    axes : Axes
        What differs between scenarios.
    cells : mapping of (row, scenario) to GridCell
        Only cells that were planned.
    not_installed : mapping of str to str
        Methods that could not be used, with the reason.
    validation : bool
        Whether accuracies are of held-out training images, and not of the test set.
    """

    rows: tuple[RowKey, ...]
    scenarios: tuple[tuple[str, ...], ...]
    axes: Axes
    cells: Mapping[tuple[RowKey, tuple[str, ...]], GridCell]
    not_installed: Mapping[str, str] = field(default_factory=dict)
    validation: bool = False

    def column(self, scenario: tuple[str, ...]) -> list[tuple[RowKey, GridCell]]:
        """Return a scenario's planned cells, in row order."""
        return [
            (row, self.cells[row, scenario]) for row in self.rows if (row, scenario) in self.cells
        ]

    def seed_counts(self) -> list[int]:
        """Return how many seeds each mean of accuracy rests on."""
        means = (cell.summary("accuracy") for cell in self.cells.values())
        return [mean.n for mean in means if mean]

    def many_rounds(self) -> dict[RowKey, str]:
        """Return the rows whose runs took more than one round, with the number or its range."""
        found: dict[RowKey, set[int]] = {}
        for (row, _), cell in self.cells.items():
            found.setdefault(row, set()).update(map(int, cell.values("rounds").values()))
        return {
            row: " to ".join(map(str, sorted({min(counts), max(counts)})))
            for row in self.rows
            if max(counts := found[row], default=1) > 1
        }

    def figure_labels(self, scenario: tuple[str, ...] | None = None) -> dict[RowKey, str]:
        """Return what figures call each row: with its rounds where it has more than one.

        With its number of seeds, too, where those differ: a point of one seed beside means of
        several would else be read as one of them.

        Parameters
        ----------
        scenario : tuple of str, optional
            The one that a figure shows; all of them by default.
        """
        names = {row: row.label for row in self.rows}
        for row, rounds in self.many_rounds().items():
            if f"{rounds} rounds" not in row.label:
                names[row] += f", {rounds} rounds"
        counts: dict[RowKey, set[int]] = {row: set() for row in self.rows}
        for (row, where), cell in self.cells.items():
            if cell.complete and scenario in (None, where):
                counts[row].add(len(cell.runs))
        if len(set().union(*counts.values())) < 2:
            return names
        return {
            row: f"{name}, n = {' or '.join(map(str, sorted(counts[row])))}"
            if counts[row]
            else name
            for row, name in names.items()
        }

    def precedence(self, row: RowKey) -> tuple[bool, int]:
        """Return what sorts a method's configurations: that with the defaults, then the finished.

        Records don't hold a method's defaults. They are what a run labelled as the method has.
        """
        cells = [cell for (one, _), cell in self.cells.items() if one == row]
        named = any(run["label"] == row.method for cell in cells for run in cell.runs)
        return not named, -sum(cell.summary("accuracy") is not None for cell in cells)

    def configs(self) -> dict[RowKey, Mapping[str, Any]]:
        """Return the configuration of every row of which any run tells it."""
        found: dict[RowKey, Mapping[str, Any]] = {}
        for (row, _), cell in self.cells.items():
            text = next((run["config"] for run in cell.runs if run.get("config")), None)
            if text is not None:
                found[row] = json.loads(text)
        return found


def build_grid(results: Results) -> Grid:
    """Arrange the runs of an experiment as rows by scenarios.

    Every setting that differs becomes a column axis; method settings that differ under
    one label become part of the row's name. Seeds alone are averaged over.
    """
    runs, _ = for_tables(results)
    settings = [
        {column: plain_text(run.get(column)) for column in results.setting_columns} for run in runs
    ]
    axes = find_axes(settings, results.setting_columns)
    names = _row_names(runs)
    headings = _headings(runs, names)
    groups: dict[tuple[RowKey, tuple[str, ...]], list[Mapping[str, Any]]] = {}
    for run, setting, name in zip(runs, settings, names, strict=True):
        row = RowKey(name, str(run["method"]), headings[name], run["kind"] == "reference")
        groups.setdefault((row, axes.key(setting)), []).append(run)
    cells = {key: GridCell(tuple(sorted(runs, key=_seeds))) for key, runs in groups.items()}
    rows = sorted(dict.fromkeys(row for row, _ in cells), key=_row_order)
    scenarios = sort_keys([scenario for _, scenario in cells])
    validation = bool(runs) and is_validation(runs[0])
    return Grid(tuple(rows), tuple(scenarios), axes, cells, dict(results.not_installed), validation)


def _seeds(run: Mapping[str, Any]) -> tuple[float, float]:
    return float(run["split_seed"]), float(run["seed"])


def is_validation(run: Mapping[str, Any]) -> bool:
    """Return whether a run was judged on held-out training images."""
    return run.get(JUDGED_ON) == "holdout"


def for_tables(
    results: Results,
) -> tuple[list[Mapping[str, Any]], dict[str, list[Mapping[str, Any]]]]:
    """Return the runs that tables show, and those that they leave out, by the reason.

    Validation scores never stand beside test scores: where an experiment has both, they go.
    """
    kept: list[Mapping[str, Any]] = []
    left: dict[str, list[Mapping[str, Any]]] = {"parity": [], "validation": []}
    runs = shown_runs(results)
    tested = not all(is_validation(run) for run in runs)
    for run in runs:
        if run.get("not_for_tables"):
            left["parity"].append(run)
        elif tested and is_validation(run):
            left["validation"].append(run)
        else:
            kept.append(run)
    return kept, left


def _headings(runs: Sequence[Mapping[str, Any]], names: Sequence[str]) -> dict[str, str]:
    """Return the heading of each row: all that any of its runs declares, or says it also used."""
    uses: dict[str, set[str]] = {}
    for run, name in zip(runs, names, strict=True):
        told = (run.get(column) for column in ("uses", "also_uses"))
        words = {word for text in told if isinstance(text, str) for word in text.split(", ")}
        uses.setdefault(name, set()).update(words - {""})
    found = {
        name: f"uses {', '.join(sorted(words))}" if words else "use not recorded"
        for name, words in uses.items()
    }
    references = {n for run, n in zip(runs, names, strict=True) if run["kind"] == "reference"}
    return found | dict.fromkeys(references, REFERENCES)


def _row_order(row: RowKey) -> tuple[bool, int, str, tuple[str | float, ...]]:
    return (not row.reference, row.group.count(","), row.group, _natural(row.label))


def _natural(label: str) -> tuple[str | float, ...]:
    """Return what sorts labels as a reader does: 2 rounds before 11 rounds."""
    words = re.split(r"(\d+(?:\.\d+)?)", label)  # words and numbers take turns
    return tuple(float(word) if place % 2 else word for place, word in enumerate(words))


def _row_names(runs: Sequence[Mapping[str, Any]]) -> list[str]:
    configs = [_config(run) for run in runs]
    by_label: dict[str, list[dict[str, str]]] = {}
    for run, config in zip(runs, configs, strict=True):
        if config is not None:
            by_label.setdefault(str(run["label"]), []).append(config)
    differing = {label: _differing(found) for label, found in by_label.items()}
    own = _own_labels(runs)
    names = []
    for run, config in zip(runs, configs, strict=True):
        label = str(run["label"])
        parts = [f"{key}={(config or {}).get(key, '?')}" for key in differing.get(label, ())]
        shown = own.get((label, json.dumps(config, sort_keys=True)), label)
        names.append(f"{shown} [{', '.join(parts)}]" if parts else shown)
    return names


def _own_labels(runs: Sequence[Mapping[str, Any]]) -> dict[tuple[str, str], str]:
    """Return what methods call themselves in a configuration, where no variant names them.

    A strict one-shot Mosaic, for instance, is never shown without its meta model's setting.
    """
    found: dict[tuple[str, str], str] = {}
    for run in runs:
        label, own = str(run["label"]), run.get("details_label")
        if own and label == str(run["method"]):
            found[label, json.dumps(_config(run), sort_keys=True)] = str(own)
    return found


def _config(run: Mapping[str, Any]) -> dict[str, str] | None:
    text = run.get("config")
    if not isinstance(text, str) or not text:
        return None
    values = {key: plain_text(value) for key, value in json.loads(text).items()}
    return {"method": str(run["method"]), **values}


def _differing(configs: Sequence[Mapping[str, str]]) -> list[str]:
    keys = dict.fromkeys(key for config in configs for key in config)
    return [key for key in keys if len({config.get(key) for config in configs}) > 1]
