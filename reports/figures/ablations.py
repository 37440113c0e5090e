"""Ablations as bars, and accuracy along a number that was swept."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from reports.ablations import Ablation, ablations, change_text
from reports.figures.attribution import mapped_rows
from reports.figures.style import (
    COLUMN,
    accuracy_axes,
    error_bars,
    legend_below,
    look,
    pages,
    panels,
    spread_words,
    titled,
)
from reports.grid import Grid, RowKey
from reports.scores import problems
from reports.statistics import Split, summarize

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_LONGEST = 44
"""Signs of a bar's label, at most."""


@dataclass(frozen=True)
class Variant:
    """One configuration's bar.

    Parameters
    ----------
    label : str
        What was changed, or the base's name.
    value, spread : float or None
        Percent and percentage points; ``None`` where the cell is not complete.
    trouble : str
        What stands in place of a bar.
    """

    label: str
    value: float | None
    spread: float
    trouble: str = ""


@dataclass(frozen=True)
class Ablations:
    """Bars of one method's configurations, a panel for each scenario, the base on top.

    Parameters
    ----------
    name : str
        Stem of its files.
    panels : tuple of (str, tuple of Variant)
        Title and bars of each panel; all panels have the same bars.
    """

    name: str
    panels: tuple[tuple[str, tuple[Variant, ...]], ...]
    spread: str = ""

    @property
    def title(self) -> str:
        """What it shows, and of what."""
        return titled(
            self.name.replace("_", " ").capitalize(), [heading for heading, _ in self.panels]
        )

    def draw(self) -> Figure:
        """Return the figure."""
        bars = len(self.panels[0][1])
        # The first panel carries the labels: two panels beside it have room.
        figure, axes = panels(len(self.panels), height=0.19 * bars + 0.55, most=3)
        if len(self.panels) == 1:
            figure.set_figwidth(1.35 * COLUMN)
        for number, (axis, (heading, found)) in enumerate(zip(axes, self.panels, strict=True)):
            self._panel(axis, found, labelled=number % 3 == 0)
            axis.set_title(heading)
            axis.set_xlabel("test accuracy (%)")
            axis.set_xlim(0, 1.18 * self._most)  # one range for all, to be compared
        if self.spread:
            figure.supxlabel(self.spread, fontsize=6.5)
        return figure

    @property
    def _most(self) -> float:
        """Where the longest bar's spread ends; 100 if there is no bar."""
        bars = [one for _, found in self.panels for one in found]
        return max((one.value + one.spread for one in bars if one.value is not None), default=100)

    def _panel(self, axis: Axes, found: tuple[Variant, ...], *, labelled: bool) -> None:
        at = np.arange(len(found))[::-1]
        colours = [look(0 if place == 0 else 5, reference=False).color for place in range(len(at))]
        ends = [one.value or 0.0 for one in found]
        axis.barh(at, ends, color=colours, height=0.66)
        for place, one in zip(at, found, strict=True):
            if one.value is None:
                axis.text(0, place, f"  {one.trouble}", va="center", fontsize=6, color="0.35")
                continue
            if one.spread:
                axis.errorbar(
                    *(one.value, place),
                    xerr=one.spread,
                    color="0.25",
                    elinewidth=0.7,
                    capsize=1.5,
                )
            end = one.value + one.spread
            axis.annotate(
                f"{one.value:.1f}",
                (end, place),
                xytext=(3, 0),
                textcoords="offset points",
                va="center",
                fontsize=6,
                # The base's line must not run through a number.
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.8},
            )
        if found[0].value is not None:
            axis.axvline(found[0].value, color="0.45", linewidth=0.6, linestyle=(0, (2, 2)))
        axis.set_ylim(-0.6, len(found) - 0.4)
        axis.set_yticks(at, [one.label for one in found] if labelled else [])
        axis.grid(axis="y", visible=False)
        axis.tick_params(axis="y", length=0)


@dataclass(frozen=True)
class SweepLine:
    """Accuracy along one number on one scenario; ``None`` where a cell is not complete."""

    label: str
    y: tuple[float | None, ...]
    spread: tuple[float, ...]


@dataclass(frozen=True)
class Sweeps:
    """Accuracy along each number that was swept, a panel for each.

    Parameters
    ----------
    name : str
        Stem of its files.
    panels : tuple of (str, tuple of str, int, tuple of SweepLine)
        The setting, its values, the place of the base's value, and a line a scenario.
    """

    name: str
    panels: tuple[tuple[str, tuple[str, ...], int, tuple[SweepLine, ...]], ...]

    @property
    def title(self) -> str:
        """What it shows, and of what."""
        return titled(
            self.name.replace("_", " ").capitalize(), [line.label for line in self.panels[0][3]]
        )

    def draw(self) -> Figure:
        """Return the figure."""
        figure, axes = panels(len(self.panels), height=1.9)
        for axis, (setting, values, base, lines) in zip(axes, self.panels, strict=True):
            axis.axvline(base, color="0.6", linewidth=0.7, linestyle=(0, (2, 2)), label="base")
            for place, line in enumerate(lines):
                style = look(place, reference=False)
                shift = 0.03 * (place - (len(lines) - 1) / 2)
                y = [math.nan if value is None else value for value in line.y]
                axis.errorbar(
                    np.arange(len(values)) + shift,
                    y,
                    yerr=error_bars(line.spread),
                    color=style.color,
                    marker=style.marker,
                    linestyle=style.dashes,
                    capsize=1.5,
                    elinewidth=0.6,
                    label=line.label or "accuracy",
                )
            axis.set_xticks(range(len(values)), list(values))
            axis.set_xlim(-0.4, len(values) - 0.6)
            axis.set_xlabel(setting.replace("_", " "))
        accuracy_axes(axes, alike=True)
        legend_below(figure, axes, [line.label for line in self.panels[0][3]])
        return figure


def ablation_figures(grid: Grid, most: int) -> Iterator[Ablations | Sweeps]:
    """Yield bars and sweeps of every method that stands in several configurations.

    But for what a map of teachers by images shows: there no configuration is the others' base.
    """
    found = ablations(grid)
    mapped = [mapped_rows(grid, scenario) for scenario in grid.scenarios]
    for ablation in found:
        if mapped and all({ablation.base, *ablation.changes} <= rows for rows in mapped):
            continue
        ending = f"_{ablation.method}" if len(found) > 1 else ""
        for page, chosen in pages(grid.scenarios, most):
            made = tuple(
                (_heading(grid, ablation, scenario), tuple(_bars(grid, ablation, scenario)))
                for scenario in chosen
            )
            if any(one.value is not None for _, bars in made for one in bars):
                spread = spread_words(grid.seed_counts())
                yield Ablations(f"ablations{ending}{page}", made, spread)
            lines = tuple(_sweeps(grid, ablation, chosen))
            if lines:
                yield Sweeps(f"sweeps{ending}{page}", lines)


def _shared(grid: Grid, ablation: Ablation, scenario: tuple[str, ...]) -> set[Split] | None:
    """Return the splits that all complete configurations have; ``None`` if those are all.

    A bar of other splits than its neighbour's would show the splits' difference as a setting's.
    """
    cells = [grid.cells.get((row, scenario)) for row in (ablation.base, *ablation.changes)]
    keys = [set(cell.values("accuracy")) for cell in cells if cell and cell.summary("accuracy")]
    if not keys or all(one == keys[0] for one in keys):
        return None
    return set.intersection(*keys)


def _heading(grid: Grid, ablation: Ablation, scenario: tuple[str, ...]) -> str:
    """Return the scenario, and how many seeds are drawn where configurations have unequal ones."""
    splits = _shared(grid, ablation, scenario)
    noun = "seed" if splits is not None and len(splits) == 1 else "seeds"
    count = "" if splits is None else f"{len(splits)} {noun}, which all have"
    return ", ".join(filter(None, (*grid.axes.header(scenario), count)))


def _bars(grid: Grid, ablation: Ablation, scenario: tuple[str, ...]) -> Iterator[Variant]:
    splits = _shared(grid, ablation, scenario)
    yield _variant(grid, ablation.base, scenario, ablation.base.label, splits)
    for row, change in ablation.changes.items():
        text = change_text(change)
        label = text if len(text) <= _LONGEST else row.label
        yield _variant(grid, row, scenario, label, splits)


def _variant(
    grid: Grid, row: RowKey, scenario: tuple[str, ...], label: str, splits: set[Split] | None
) -> Variant:
    cell = grid.cells.get((row, scenario))
    score = cell.summary("accuracy") if cell else None
    if len(label) > _LONGEST:  # variants begin alike, and differ at their ends
        label = f"{label[: _LONGEST // 2 - 1]}…{label[-_LONGEST // 2 :]}"
    if score is None:
        return Variant(label, None, 0.0, problems(cell) if cell else "not planned")
    if cell is not None and splits is not None:
        values = [value for split, value in cell.values("accuracy").items() if split in splits]
        if not values:
            return Variant(label, None, 0.0, "no seed that all have")
        score = summarize(values)
    return Variant(label, 100 * score.mean, 100 * (score.sd or 0.0))


def _sweeps(
    grid: Grid, ablation: Ablation, scenarios: Sequence[tuple[str, ...]]
) -> Iterator[tuple[str, tuple[str, ...], int, tuple[SweepLine, ...]]]:
    for setting, points in ablation.sweeps().items():
        lines = []
        for scenario in scenarios:
            splits = _shared(grid, ablation, scenario)
            found = [_variant(grid, row, scenario, row.label, splits) for _, row in points]
            if any(one.value is not None for one in found):
                y, spread = zip(*((one.value, one.spread) for one in found), strict=True)
                lines.append(SweepLine(_heading(grid, ablation, scenario), y, spread))
        if lines:
            base = next(at for at, (_, row) in enumerate(points) if row == ablation.base)
            yield setting, tuple(f"{value:g}" for value, _ in points), base, tuple(lines)
