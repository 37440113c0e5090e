"""Accuracy along a setting (alpha, clients, widths, warm-up), and along the server's steps."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, count, pairwise
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmark.store import ExperimentStore
from reports.axes import describe, sort_keys, title
from reports.figures.style import (
    COLOURS,
    accuracy_axes,
    error_bars,
    legend_below,
    look,
    pages,
    panels,
    spread_words,
    titled,
)
from reports.grid import Grid, GridCell, RowKey
from reports.load import DONE
from reports.statistics import summarize
from reports.steps import RunningSteps

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_STEP = "server step\n(images distilled, or rounds)"

AXES = ("partition.alpha", "partition.clients", "widths", "warmup.rounds")
"""Settings along which accuracy is drawn where they differ."""


@dataclass(frozen=True)
class Series:
    """One method's points in one panel.

    Parameters
    ----------
    label : str
        The method.
    reference : bool
        Whether it is a reference row.
    place : int
        Its place among the methods (or references): gives its look.
    x : tuple of float
        Places on the x axis.
    y : tuple of (float or None)
        Percent; ``None`` breaks the line where a cell is not complete.
    spread : tuple of float
        Standard deviation of each point in percentage points; 0 where there is none.
    """

    label: str
    reference: bool
    place: int
    x: tuple[float, ...]
    y: tuple[float | None, ...]
    spread: tuple[float, ...]


@dataclass(frozen=True)
class Lines:
    """A figure of lines in panels.

    Parameters
    ----------
    name : str
        Stem of its files.
    x_title : str
        Label of the x axis.
    ticks : tuple of str
        Labels of the ticks, each of which may be empty; none for a numeric axis.
    panels : tuple of (str, tuple of Series)
        Title and series of each panel.
    bars : bool
        Error bars (standard deviation) in place of a band.
    order : tuple of str
        Methods in the order of the legend.
    spread : str
        What bars or bands are.
    at : tuple of float
        Where the ticks stand.
    """

    name: str
    x_title: str
    ticks: tuple[str, ...]
    panels: tuple[tuple[str, tuple[Series, ...]], ...]
    bars: bool
    order: tuple[str, ...]
    spread: str = ""
    at: tuple[float, ...] = ()

    @property
    def title(self) -> str:
        """What it shows, and of what."""
        words = f"Accuracy by {' '.join(self.x_title.split())}"
        return titled(words, [heading for heading, _ in self.panels])

    def draw(self) -> Figure:
        """Return the figure."""
        from matplotlib.ticker import EngFormatter, MaxNLocator

        figure, axes = panels(len(self.panels))
        for axis, (heading, series) in zip(axes, self.panels, strict=True):
            axis.set_title(heading)
            for number, one in enumerate(series):
                self._line(axis, one, self._apart * (number - (len(series) - 1) / 2))
            axis.set_xlabel(self.x_title)
            if self.ticks:
                names = [fill(tick.replace(",", ", "), 10) for tick in self.ticks]
                axis.set_xticks(self.at, names)
            else:
                axis.xaxis.set_major_locator(MaxNLocator(5, integer=True))
                axis.xaxis.set_major_formatter(EngFormatter(sep=""))
        accuracy_axes(axes, alike=len(axes) > 1)
        legend_below(figure, axes, self.order, self.spread)
        return figure

    @property
    def _apart(self) -> float:
        """How far methods stand apart at a tick, which none of them reaches another one from."""
        if not self.ticks:
            return 0.0
        gaps = [after - before for before, after in pairwise(self.at)] or [1.0]
        return min(0.03, 0.6 * min(gaps) / max(len(series) for _, series in self.panels))

    def _line(self, axis: Axes, one: Series, shift: float) -> None:
        style = look(one.place, one.reference)
        # Error bars of neighbours would cover each other: they stand a hair apart.
        x = [value + shift for value in one.x]
        y = np.array([math.nan if value is None else value for value in one.y])
        spread = np.array(one.spread)
        kwargs: dict[str, Any] = {
            "color": style.color,
            "linestyle": style.dashes,
            "label": one.label,
            "marker": style.marker,
            "markerfacecolor": "white" if one.reference else style.color,
        }
        if self.bars:
            error = error_bars(one.spread)
            axis.errorbar(x, y, yerr=error, capsize=1.5, elinewidth=0.6, **kwargs)
            return
        axis.plot(x, y, **kwargs)
        if spread.any():
            axis.fill_between(x, y - spread, y + spread, color=style.color, alpha=0.15, linewidth=0)


_METHODS = (
    *("mosaic", "dense", "dense_cb", "co_boosting", "fedavg", "fedrolex", "heterofl"),
    "federated_dropout",
)
_REFERENCES = ("centralized", "ensemble", "class_share", "best_client", "compose")
"""Methods and references that look the same in the figures of every experiment."""


def places(grid: Grid) -> dict[RowKey, int]:
    """Return each row's place among the methods or among the references: its look.

    A method's place is the same in every experiment, and its row with the defaults has it. Other
    rows of one method, and methods that are not the suite's own, take the places after, and the
    colours of methods that are not there before any colour comes twice.
    """
    found: dict[RowKey, int] = {}
    for reference, known in ((True, _REFERENCES), (False, _METHODS)):
        rows = [row for row in grid.rows if row.reference == reference]
        # In two passes: no other row is to take what is a method's own.
        own: dict[int, RowKey] = {}
        for row in sorted(rows, key=grid.precedence):
            if row.method in known:
                own.setdefault(known.index(row.method), row)
        placed = {row: place for place, row in own.items()}
        absent = [place for place in range(len(known)) if place not in own]
        spare = chain(range(len(known), COLOURS), absent, count(max(len(known), COLOURS)))
        found |= {row: placed[row] if row in placed else next(spare) for row in rows}
    return found


def by_setting(grid: Grid) -> Iterator[Lines]:
    """Yield a figure for each setting in :data:`AXES` that differs: one panel for the rest."""
    for field in AXES:
        if field in grid.axes.shown:
            figure = _along(grid, field)
            if figure.panels:
                yield figure


def panels_along(grid: Grid, field: str) -> Iterator[tuple[str, Mapping[str, tuple[str, ...]]]]:
    """Yield a panel for each combination of the other settings.

    Parameters
    ----------
    grid : Grid
        The experiment's grid.
    field : str
        One of its shown settings.

    Yields
    ------
    heading : str
        The other settings.
    scenarios : mapping of str to tuple of str
        The panel's scenarios by their value of ``field``.
    """
    index = grid.axes.shown.index(field)
    fields = (*grid.axes.shown[:index], *grid.axes.shown[index + 1 :])
    found: dict[tuple[str, ...], dict[str, tuple[str, ...]]] = {}
    for scenario in grid.scenarios:
        rest = (*scenario[:index], *scenario[index + 1 :])
        found.setdefault(rest, {})[scenario[index]] = scenario
    for rest, scenarios in found.items():
        described = (describe(name, value) for name, value in zip(fields, rest, strict=True))
        yield ", ".join(described), scenarios


def _along(grid: Grid, field: str) -> Lines:
    index = grid.axes.shown.index(field)
    values = [key[0] for key in sort_keys([(scenario[index],) for scenario in grid.scenarios])]
    scaled = _scaled(field, values)
    at = scaled or tuple(map(float, range(len(values))))
    made = []
    for heading, scenarios in panels_along(grid, field):
        series = tuple(_series(grid, dict(zip(values, at, strict=True)), scenarios))
        if any(sum(value is not None for value in one.y) > 1 for one in series):
            made.append((heading, series))
    name = f"accuracy_by_{title(field).replace(' ', '_').replace('-', '_')}"
    ascii_name = name.replace("α", "alpha")
    return Lines(
        ascii_name,
        title(field) + (" (log scale)" if scaled else ""),
        tuple(_readable(values, scaled) if scaled else values),
        tuple(made),
        True,
        tuple(grid.figure_labels().values()),
        spread_words(grid.seed_counts()),
        at,
    )


def _scaled(field: str, values: Sequence[str]) -> tuple[float, ...]:
    """Return where numbers stand on a logarithmic axis, a mean step apart; nothing for names.

    Warm-up rounds, which may be 0, stand at the logarithm of one more.
    """
    if field == "widths" or len(values) < 2:
        return ()
    try:
        numbers = [float(value) for value in values]
    except ValueError:
        return ()
    one = 1.0 if min(numbers) == 0 else 0.0
    if min(numbers) < 0 or not all(map(math.isfinite, numbers)):
        return ()
    logs = [math.log(number + one) for number in numbers]
    return tuple((len(logs) - 1) * (log - logs[0]) / (logs[-1] - logs[0]) for log in logs)


def _readable(names: Sequence[str], at: Sequence[float]) -> list[str]:
    """Return ticks' labels, empty where one would run into the one before."""
    shown, end = [], -math.inf
    for name, place in zip(names, at, strict=True):
        half = _LETTER * (at[-1] - at[0]) * (len(name) + 1) / 2
        shown.append(name if place - half >= end else "")
        end = place + half if shown[-1] else end
    return shown


_LETTER = 0.018
"""Width of a tick label's letter, as a share of the axis."""


def _series(
    grid: Grid, at: Mapping[str, float], scenarios: Mapping[str, tuple[str, ...]]
) -> Iterator[Series]:
    labels = grid.figure_labels()
    for row, place in places(grid).items():
        x: list[float] = []
        y: list[float | None] = []
        spread: list[float] = []
        for value, place_on_axis in at.items():
            cell = grid.cells.get((row, scenarios[value])) if value in scenarios else None
            if cell is None:  # nobody asked for it: the line goes on to the next one
                continue
            summary = cell.summary("accuracy")
            x.append(place_on_axis)
            y.append(100 * summary.mean if summary else None)
            spread.append(100 * (summary.sd or 0.0) if summary else 0.0)
        if any(value is not None for value in y):
            yield Series(labels[row], row.reference, place, tuple(x), tuple(y), tuple(spread))


def histories(grid: Grid, folder: Path, most: int) -> Iterator[Lines]:
    """Yield the figures of accuracy against server steps, if any run recorded a history.

    Parameters
    ----------
    grid : Grid
        The experiment's grid.
    folder : Path
        The experiment's folder, where the histories are.
    most : int
        Scenarios of a figure, at most.
    """
    store, labels = ExperimentStore(folder, read_only=True), grid.figure_labels()
    made = []
    for scenario in grid.scenarios:
        series = []
        for row, place in places(grid).items():
            cell = grid.cells.get((row, scenario))
            points = _history(store, cell) if cell and cell.complete else []
            if len(points) > 1:
                x, y, spreads = zip(*points, strict=True)
                series.append(Series(labels[row], row.reference, place, x, y, spreads))
        if series:
            made.append((", ".join(grid.axes.header(scenario)), tuple(series)))
    for ending, chosen in pages(made, most):
        name = f"accuracy_by_server_step{ending}"
        spread = spread_words(grid.seed_counts(), "bands")
        yield Lines(name, _STEP, (), chosen, False, tuple(labels.values()), spread)


def _history(store: ExperimentStore, cell: GridCell) -> list[tuple[float, float, float]]:
    """Return step, mean accuracy and its standard deviation, at steps that all seeds have."""
    curves = [
        _curve(store.history(str(run["run_id"]))) for run in cell.runs if run["shown"] == DONE
    ]
    shared = set.intersection(*(set(curve) for curve in curves)) if curves else set()
    points = []
    for step in sorted(shared):
        summary = summarize([curve[step] for curve in curves])
        points.append((step, 100 * summary.mean, 100 * (summary.sd or 0.0)))
    return points


def _curve(rows: Sequence[Mapping[str, float | str]]) -> dict[float, float]:
    """Return accuracy by step; steps that begin anew with a round follow the last round's."""
    curve: dict[float, float] = {}
    steps = RunningSteps()
    for row in rows:
        step, accuracy = row.get("step"), row.get("accuracy")
        if not isinstance(step, float) or not isinstance(accuracy, float):
            continue
        if row.get("client") not in (None, ""):
            continue  # a client's own report
        curve[steps.at(row.get("round"), step)] = accuracy
    return curve
