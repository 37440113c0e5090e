"""Accuracy against bytes over warm-up rounds: what the same bytes buy in rounds of averaging."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING

from reports.axes import sort_keys
from reports.figures.lines import panels_along
from reports.figures.style import (
    accuracy_axes,
    error_bars,
    legend_below,
    look,
    panels,
    spread_words,
    titled,
)
from reports.figures.traffic import Point, log_scale, points
from reports.grid import Grid

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_ROUNDS = "warmup.rounds"

#: One method's points by rising warm-up: rounds, and bytes (warm-up included) and accuracy.
WarmStarts = tuple[tuple[str, Point], ...]


@dataclass(frozen=True)
class WarmUp:
    """A figure of accuracy against bytes, one line a method, one point a length of warm-up.

    Where a method's point lies above FedAvg's line, its exchange bought more than rounds of
    averaging for the same bytes.
    """

    panels: tuple[tuple[str, tuple[WarmStarts, ...]], ...]
    order: tuple[str, ...]
    name: str = "accuracy_by_bytes_over_warm_up"
    spread: str = ""

    @property
    def title(self) -> str:
        """What it shows, and of what."""
        what = "Accuracy against bytes over warm-up rounds"
        return titled(what, [heading for heading, _ in self.panels])

    def draw(self) -> Figure:
        """Return the figure."""
        figure, axes = panels(len(self.panels), height=2.8)
        for axis, (heading, lines) in zip(axes, self.panels, strict=True):
            axis.set_title(heading)
            for number, line in enumerate(lines):
                _line(axis, line, 1 + _APART * (number - (len(lines) - 1) / 2))
            _rounds(axis, lines)
            log_scale(axis, [point.megabytes for line in lines for _, point in line])
            axis.set_xlabel("MB per client, up and down, warm-up included\n(number: its rounds)")
        accuracy_axes(axes, alike=len(axes) > 1)
        legend_below(figure, axes, self.order, self.spread)
        return figure


_APART = 0.02
"""Methods of equal bytes stand that share of them apart: error bars would cover each other."""


def _line(axis: Axes, line: WarmStarts, shift: float) -> None:
    found = [point for _, point in line]
    style = look(found[0].place, found[0].reference)
    axis.errorbar(
        [shift * point.megabytes for point in found],
        [point.accuracy for point in found],
        yerr=error_bars([point.spread for point in found]),
        color=style.color,
        linestyle=style.dashes,
        marker=style.marker,
        markerfacecolor="white" if found[0].reference else style.color,
        capsize=1.5,
        elinewidth=0.6,
        label=found[0].label,
    )


def _rounds(axis: Axes, lines: Sequence[WarmStarts]) -> None:
    """Write the rounds over the highest of the points that have these rounds and bytes."""
    from matplotlib.patheffects import withStroke

    tops: dict[tuple[str, int], tuple[float, float]] = {}
    for rounds, point in chain.from_iterable(lines):
        key = rounds, round(20 * math.log(point.megabytes))
        top = point.accuracy + point.spread
        if key not in tops or top > tops[key][1]:
            tops[key] = point.megabytes, top
    found = [(rounds, *place) for (rounds, _), place in tops.items()]
    for (rounds, x, y), up in zip(found, _raised(found), strict=True):
        axis.annotate(
            rounds,
            (x, y),
            (0, 1.5 + _LINE * up),
            textcoords="offset points",
            ha="center",
            va="bottom",
            fontsize=6,
            color="0.2",
            path_effects=[withStroke(linewidth=1.5, foreground="white")],
            zorder=5,
        )


_LINE = 6.5
"""Height of a number, points; an axis has about twenty of them."""


def _raised(found: Sequence[tuple[str, float, float]]) -> list[int]:
    """Return by how many lines each number is raised, so that none stands on another."""
    logs = [math.log(x) for _, x, _ in found]
    heights = [y for _, _, y in found]
    wide = (max(logs) - min(logs) + math.log(4)) * 0.03  # of a digit, with room
    high = (max(heights) - min(heights) + 10) / 15
    placed: list[tuple[float, float, float]] = []
    raised = [0] * len(found)
    for at in sorted(range(len(found)), key=lambda at: (heights[at], logs[at])):
        half = wide * len(found[at][0]) / 2
        while any(
            abs(x - logs[at]) < half + other and abs(y - heights[at] - high * raised[at]) < high
            for x, y, other in placed
        ):
            raised[at] += 1
        placed.append((logs[at], heights[at] + high * raised[at], half))
    return raised


def warm_up(grid: Grid) -> Iterator[WarmUp]:
    """Yield the figure if warm-ups of different lengths were run: one panel for the rest."""
    if _ROUNDS not in grid.axes.shown:
        return
    made = []
    for heading, scenarios in panels_along(grid, _ROUNDS):
        if lines := tuple(_lines(grid, scenarios)):
            made.append((heading, lines))
    if made:
        order, spread = tuple(grid.figure_labels().values()), spread_words(grid.seed_counts())
        yield WarmUp(tuple(made), order, spread=spread)


def _lines(grid: Grid, scenarios: Mapping[str, tuple[str, ...]]) -> Iterator[WarmStarts]:
    found: dict[str, list[tuple[str, Point]]] = {}
    for (rounds,) in sort_keys([(rounds,) for rounds in scenarios]):
        for point in points(grid, scenarios[rounds]):
            if point.megabytes > 0:
                found.setdefault(point.label, []).append((rounds, point))
    yield from (tuple(line) for line in found.values() if len(line) > 1)
