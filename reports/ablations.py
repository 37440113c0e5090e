"""One method in several configurations: what each change costs, and sweeps of one number."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from reports.axes import UNSET, plain_text
from reports.formats import percent_parts, points
from reports.grid import Grid, RowKey
from reports.row_marks import row_flags
from reports.scores import cell_facts, cell_flag, marks, problems, verdicts
from reports.statistics import Verdict, holm, paired_t, shared_differences, summarize
from reports.table import Cell, Row, Table

Config = Mapping[str, Any]

CHANGES_SHOWN = 3
"""Settings of a change that a table names; the CSV names all."""


@dataclass(frozen=True)
class Ablation:
    """A method's configurations, the one that the others depart from first.

    Parameters
    ----------
    method : str
        Name of the plugin.
    base : RowKey
        The configuration that carries the method's name, else the first of the experiment.
    changes : mapping of RowKey to (mapping of str to (old, new))
        Settings of every other configuration that differ from the base's, nested ones by
        their dotted names.
    """

    method: str
    base: RowKey
    changes: Mapping[RowKey, Mapping[str, tuple[str, str]]]

    def sweeps(self) -> dict[str, list[tuple[float, RowKey]]]:
        """Return rows by value, ascending, for every number that alone was changed.

        Only numbers of which three values or more were run, the base's among them.
        """
        found: dict[str, list[tuple[float, RowKey]]] = {}
        for row, change in self.changes.items():
            if len(change) == 1:
                [(key, (old, new))] = change.items()
                numbers = (_number(old), _number(new))
                if None not in numbers:
                    line = found.setdefault(key, [(float(old), self.base)])
                    line.append((float(new), row))
        return {
            key: sorted(line, key=lambda point: point[0])
            for key, line in found.items()
            if len({value for value, _ in line}) > 2
        }


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def ablations(grid: Grid) -> tuple[Ablation, ...]:
    """Return the methods that stand in the grid in more than one known configuration."""
    configs: dict[str, dict[RowKey, Config]] = {}
    for row, config in grid.configs().items():
        configs.setdefault(row.method, {})[row] = config
    found = []
    for method, rows in configs.items():
        if len(rows) > 1:
            base = _base(grid, tuple(rows))
            others = {
                row: differences(rows[base], rows[row])
                for row in grid.rows
                if row in rows and row != base
            }
            found.append(Ablation(method, base, others))
    return tuple(found)


def differences(first: Config, second: Config) -> dict[str, tuple[str, str]]:
    """Return the settings that differ between two configurations, with both values.

    Nested settings are told one by one, by dotted names. The choices come first, then what
    they are made with, then what only one of the two has: the settings of another choice.
    """
    old, new = dict(_leaves(first)), dict(_leaves(second))
    keys = dict.fromkeys((*old, *new))
    pairs = {key: (old.get(key, UNSET), new.get(key, UNSET)) for key in keys}
    apart = [key for key, pair in pairs.items() if pair[0] != pair[1]]
    return {
        key: pairs[key] for key in sorted(apart, key=lambda key: ("." in key, UNSET in pairs[key]))
    }


def _leaves(config: Config, above: str = "") -> Iterator[tuple[str, str]]:
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", plain_text(value)


def _base(grid: Grid, rows: Sequence[RowKey]) -> RowKey:
    """Return the configuration that the others depart from.

    Where no run is labelled as the method, it is what an experiment names first. An unfinished
    row is the base only by its name: nothing could be told apart from it.

    Parameters
    ----------
    grid : Grid
        The experiment's grid.
    rows : sequence of RowKey
        The method's configurations, in the order of the manifest.
    """
    # The first of equals: min keeps the manifest's order.
    return min(rows, key=grid.precedence)


def change_text(change: Mapping[str, tuple[str, str]], most: int | None = None) -> str:
    """Return a change in words, such as ``generator_entropy 1 → 0``.

    Parameters
    ----------
    change : mapping of str to (old, new)
        Settings that differ.
    most : int, optional
        Settings that are named; the others are counted. All if not given.
    """
    told = dict(change)
    if most is not None and len(change) > most:
        # What one of the two alone has comes with another choice, which is told.
        both = {key: pair for key, pair in change.items() if UNSET not in pair} or change
        told = dict(list(both.items())[:most])
    text = ", ".join(f"{key} {old} → {new}" for key, (old, new) in told.items())
    return text if len(told) == len(change) else f"{text} and {len(change) - len(told)} more"


def ablation_table(grid: Grid) -> Table | None:
    """Return accuracy of each configuration and its difference to the base's, in points.

    ``None`` where every method stands in one configuration alone. Best and second are those of
    the whole grid, as in the table of accuracies; p values of the differences are in the CSV,
    corrected over the configurations of a method and scenario.
    """
    found = ablations(grid)
    if not found:
        return None
    columns: list[tuple[str, ...]] = [(*("" for _ in grid.axes.shown), "changed")]
    for scenario in grid.scenarios:
        header = grid.axes.header(scenario)
        columns += [(*header, "accuracy %"), (*header, "difference")]
    rows, judged, flags = [], verdicts(grid), row_flags(grid)
    for ablation in found:
        for row in (ablation.base, *ablation.changes):
            text = change_text(ablation.changes.get(row, {}), CHANGES_SHOWN) or "–"
            cells = [Cell(text, muted=text == "–")]
            for scenario in grid.scenarios:
                cells += _cells(grid, ablation, row, scenario, judged[scenario])
            flag = flags.get(row, "")
            rows.append(Row(ablation.method, row.label, tuple(cells), row.reference, flag))
    return Table("ablations", "Ablations", tuple(columns), tuple(rows))


def _cells(
    grid: Grid, ablation: Ablation, row: RowKey, scenario: tuple[str, ...], verdict: Verdict
) -> list[Cell]:
    cell = grid.cells.get((row, scenario))
    if cell is None:
        return [Cell(muted=True), Cell(muted=True)]
    score = cell.summary("accuracy")
    if score is None:
        return [Cell(problems(cell), muted=True), Cell(muted=True)]
    best, second = marks(row, verdict)
    flag = cell_flag(grid, scenario, cell)
    main = Cell(*percent_parts(score), best=best, second=second, flag=flag)
    apart = list(_apart(grid, ablation, row, scenario).values())
    if row == ablation.base or not apart:
        return [main, Cell(muted=True)]
    found = summarize(apart)
    spread = "" if found.sd is None else f"{100 * found.sd:.2f}"
    # Over shared splits: where the row has others too, the difference isn't one of the means.
    base = grid.cells[ablation.base, scenario].values("accuracy")
    every = cell.values("accuracy").keys() <= base.keys()
    over = "" if every else f" ({found.n} shared)"
    return [main, Cell(points(found.mean, signed=True), spread, flag=over)]


def _apart(
    grid: Grid, ablation: Ablation, row: RowKey, scenario: tuple[str, ...]
) -> dict[str, float]:
    """Return the differences to the base by shared split; none unless both are complete."""
    cells = [grid.cells.get((one, scenario)) for one in (row, ablation.base)]
    complete = [cell for cell in cells if cell is not None and cell.summary("accuracy")]
    if len(complete) < 2:
        return {}
    return shared_differences(*(cell.values("accuracy") for cell in complete))


def ablation_frame(grid: Grid) -> pd.DataFrame:
    """Return one row for each configuration and scenario, with the paired test to the base."""
    rows: list[dict[str, Any]] = []
    for ablation in ablations(grid):
        for scenario in grid.scenarios:
            rows += _tested(list(_raw(grid, ablation, scenario)))
    return pd.DataFrame.from_records(rows)


def _raw(grid: Grid, ablation: Ablation, scenario: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    for row in (ablation.base, *ablation.changes):
        cell = grid.cells.get((row, scenario))
        if cell is None:
            continue
        score = cell.summary("accuracy")
        apart = [] if row == ablation.base else list(_apart(grid, ablation, row, scenario).values())
        found = summarize(apart) if apart else None
        yield {
            **cell_facts(grid, row, scenario),
            "base": ablation.base.label,
            "changed": change_text(ablation.changes.get(row, {})),
            "accuracy_mean": score.mean if score else None,
            "accuracy_sd": score.sd if score else None,
            "pairs": len(apart),
            "difference": found.mean if found else None,
            "difference_sd": found.sd if found else None,
            "ci95_low": found.low if found else None,
            "ci95_high": found.high if found else None,
            "p_t": paired_t(apart) if len(apart) > 1 else None,
        }


def _tested(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    tested = [row for row in rows if row["p_t"] is not None]
    for row, corrected in zip(tested, holm([row["p_t"] for row in tested]), strict=True):
        row["p_t_holm"] = corrected
    return [{"p_t_holm": None, **row} for row in rows]
