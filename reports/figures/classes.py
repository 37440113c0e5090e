"""Accuracy by class, and confusion, of every method on one scenario."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass
from statistics import mode
from textwrap import fill
from typing import TYPE_CHECKING, TypeVar

from reports.figures.style import PAGE, name_columns, panels, seeds_words, titled
from reports.grid import Grid, GridCell
from reports.load import DONE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_Sized = TypeVar("_Sized", bound=Sized)

_MOST_ACROSS = 5
_SIDE = 1.12
"""Side of a confusion matrix, inches."""
_TITLE_SIGNS = 18
_LABEL_SIGNS = 48
"""Of a row's label, in one line."""
_NAME_SIGN = 0.045
"""Of a class's name, on its side, inches."""
_DARK = 47
"""Percent above which the map is light enough for black numbers."""
_MOST_NUMBERS = 12
"""Classes up to which cells carry their number."""


@dataclass(frozen=True)
class PerClass:
    """A heat map: methods by classes, accuracy in percent, mean over seeds.

    Parameters
    ----------
    name, heading : str
        Stem of its files, and the scenario in words.
    labels : tuple of str
        Methods.
    values : tuple of tuple of (float or None)
        Percent, by method and class; ``None`` for a class without test samples.
    class_names : tuple of str
        In label order; empty where they are not recorded.
    seeds : str
        Over how many seeds, in words.
    """

    name: str
    heading: str
    labels: tuple[str, ...]
    values: tuple[tuple[float | None, ...], ...]
    class_names: tuple[str, ...] = ()
    seeds: str = ""

    @property
    def title(self) -> str:
        """What it shows, and of what."""
        return titled("Accuracy by class", [self.heading])

    def draw(self) -> Figure:
        """Return the figure."""
        import numpy as np
        from matplotlib.figure import Figure

        data = np.array(
            [[np.nan if value is None else value for value in row] for row in self.values]
        )
        labels = [fill(label, _LABEL_SIGNS) for label in self.labels]
        most = max(label.count("\n") for label in labels)
        # Three rows at least: the label of the colours needs their height.
        height = (0.22 + 0.11 * most) * max(3, len(labels)) + 1.0
        figure = Figure(figsize=(PAGE, height), layout="constrained")
        axis = figure.subplots()
        image = axis.imshow(data, cmap="cividis", vmin=0, vmax=100, aspect="auto")
        axis.set_yticks(range(len(self.labels)), labels)
        axis.set_xlabel("class")
        mean = f"mean of {self.seeds}" if self.seeds else ""
        axis.set_title(", ".join(filter(None, [self.heading, mean])))
        axis.grid(visible=False)
        if data.shape[1] <= _MOST_NUMBERS:
            names = self.class_names or tuple(map(str, range(data.shape[1])))
            name_columns(axis, names, aslant=max(map(len, names)) > 6)
            for (row, column), value in np.ndenumerate(data):
                if not np.isnan(value):
                    colour = "black" if value > _DARK else "white"
                    axis.text(column, row, f"{value:.0f}", ha="center", va="center", color=colour)
        figure.colorbar(image, ax=axis, label="accuracy (%)", pad=0.01)
        return figure


@dataclass(frozen=True)
class Confusion:
    """A panel for each method: share of each true class that is predicted as each class.

    Parameters
    ----------
    name, heading : str
        Stem of its files, and the scenario in words.
    labels : tuple of str
        Methods.
    matrices : tuple of tuple of tuple of int
        Counts, summed over seeds, by method, true class and predicted class.
    class_names : tuple of str
        In label order; empty where they are not recorded.
    seeds : str
        Over how many seeds, in words.
    """

    name: str
    heading: str
    labels: tuple[str, ...]
    matrices: tuple[tuple[tuple[int, ...], ...], ...]
    class_names: tuple[str, ...] = ()
    seeds: str = ""

    @property
    def title(self) -> str:
        """What it shows, and of what."""
        return titled("Confusion", [self.heading])

    def draw(self) -> Figure:
        """Return the figure."""
        import numpy as np

        across = min(len(self.labels), _MOST_ACROSS)
        figure, axes = panels(len(self.labels), most=_MOST_ACROSS)
        # The panels are squares: the other engine would let titles and names run over the edge.
        figure.set_layout_engine("compressed")
        figure.set_figheight(self._height(across))
        image = None
        cells = zip(axes, self.labels, self.matrices, strict=True)
        for place, (axis, label, counts) in enumerate(cells):
            matrix = np.asarray(counts, dtype=float)
            shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
            image = axis.imshow(100 * shares, cmap="cividis", vmin=0, vmax=100)
            axis.set_title(fill(label, _TITLE_SIGNS))
            axis.grid(visible=False)
            bottom, first = place + across >= len(self.labels), place % across == 0
            self._ticks(axis, bottom=bottom, first=first)
            if bottom:
                axis.set_xlabel("predicted")
            if first:
                axis.set_ylabel("true")
        if image is not None:
            figure.colorbar(
                image, ax=axes, label="% of true class", shrink=0.8, pad=0.01, aspect=40
            )
        if self._head:
            figure.suptitle(self._head, fontsize=8)
        return figure

    @property
    def _head(self) -> str:
        """What stands over all panels."""
        summed = f"counts of {self.seeds} summed" if self.seeds else ""
        return ", ".join(filter(None, [self.heading, summed]))

    def _height(self, across: int) -> float:
        """Return what square panels, their titles, and the names beneath columns take, inches."""
        titles = [1 + fill(label, _TITLE_SIGNS).count("\n") for label in self.labels]
        lines = sum(max(titles[at : at + across]) for at in range(0, len(titles), across))
        rows = math.ceil(len(self.labels) / across)
        beneath = 0.3 + (_NAME_SIGN * max(map(len, self.class_names)) if self._named else 0.0)
        # Where the last line is not full, columns end in two lines, with names beneath each.
        ends = 1 if len(self.labels) % across == 0 or rows == 1 else 2
        head = 0.2 if self._head else 0.05
        return head + rows * _SIDE + 0.125 * lines + ends * beneath

    @property
    def _named(self) -> bool:
        return 0 < len(self.class_names) <= _MOST_NUMBERS

    def _ticks(self, axis: Axes, *, bottom: bool, first: bool) -> None:
        """Name the classes at the figure's edges, where they are few; number them otherwise."""
        from matplotlib.ticker import MaxNLocator

        if not self._named:
            axis.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
            axis.yaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
            return
        at = range(len(self.class_names))
        axis.set_xticks(at, self.class_names if bottom else [], rotation=90, fontsize=5.5)
        axis.set_yticks(at, self.class_names if first else [], fontsize=5.5)
        axis.tick_params(length=1.5, pad=1.5)


def by_class(grid: Grid) -> Iterator[PerClass | Confusion]:
    """Yield both figures for each scenario."""
    for number, scenario in enumerate(grid.scenarios, start=1):
        labels = grid.figure_labels(scenario)
        heading = ", ".join(grid.axes.header(scenario))
        ending = f"_{number}" if len(grid.scenarios) > 1 else ""
        complete = [(labels[row], cell) for row, cell in grid.column(scenario) if cell.complete]
        runs = {label: len(cell.runs) for label, cell in complete}
        rates = _alike({label: values for label, cell in complete if (values := _rates(cell))})
        if rates:
            numbers = tuple(map(tuple, rates.values()))
            names = _names(grid, scenario, len(numbers[0]))
            seeds = seeds_words([runs[label] for label in rates])
            yield PerClass(f"per_class{ending}", heading, tuple(rates), numbers, names, seeds)
        counts = _alike({label: matrix for label, cell in complete if (matrix := _counts(cell))})
        if counts:
            matrices = tuple(tuple(map(tuple, matrix)) for matrix in counts.values())
            names = _names(grid, scenario, len(matrices[0]))
            seeds = seeds_words([runs[label] for label in counts])
            yield Confusion(f"confusion{ending}", heading, tuple(counts), matrices, names, seeds)


def _alike(rows: Mapping[str, _Sized]) -> dict[str, _Sized]:
    """Return the rows of the most common number of classes; a note says that others saw others."""
    sizes = [len(row) for row in rows.values()]
    return {label: row for label, row in rows.items() if len(row) == mode(sizes)}


def _names(grid: Grid, scenario: tuple[str, ...], count: int) -> tuple[str, ...]:
    runs = (run for _, cell in grid.column(scenario) for run in cell.runs)
    text = next((str(run["class_names"]) for run in runs if run.get("class_names")), "[]")
    names = tuple(map(str, json.loads(text)))
    return names if len(names) == count else ()


def _rates(cell: GridCell) -> list[float | None]:
    """Return accuracy by class in percent, mean over the seeds that have the class."""
    found = [json.loads(text) for text in _texts(cell, "per_class_accuracy")]
    if not found or len({len(values) for values in found}) != 1:
        return []
    rates: list[float | None] = []
    for values in zip(*found, strict=True):
        present = [value for value in values if value is not None]
        rates.append(100 * sum(present) / len(present) if present else None)
    return rates


def _counts(cell: GridCell) -> list[list[int]]:
    found = [json.loads(text) for text in _texts(cell, "confusion")]
    if not found or len({len(matrix) for matrix in found}) != 1:
        return []
    return [
        [sum(column) for column in zip(*rows, strict=True)] for rows in zip(*found, strict=True)
    ]


def _texts(cell: GridCell, column: str) -> Sequence[str]:
    return [str(run[column]) for run in cell.runs if run["shown"] == DONE and run.get(column)]
