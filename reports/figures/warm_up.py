"""Accuracy against bytes over warm-up rounds: what the same bytes buy in rounds of averaging."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from reports.axes import sort_keys
from reports.figures.lines import panels_along
from reports.figures.style import accuracy_axes, error_bars, legend_below, look, panels, titled
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
            for line in lines:
                _line(axis, line)
            log_scale(axis, [point.megabytes for line in lines for _, point in line])
            axis.set_xlabel("MB per client, up and down, warm-up included\n(number: its rounds)")
        accuracy_axes(axes)
        legend_below(figure, axes, self.order)
        return figure


def _line(axis: Axes, line: WarmStarts) -> None:
    found = [point for _, point in line]
    style = look(found[0].place, found[0].reference)
    axis.errorbar(
        [point.megabytes for point in found],
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
    for rounds, point in line:
        axis.annotate(
            rounds,
            (point.megabytes, point.accuracy),
            (0, 3.5),
            textcoords="offset points",
            ha="center",
            va="bottom",
            fontsize=5,
            color=style.color,
        )


def warm_up(grid: Grid) -> Iterator[WarmUp]:
    """Yield the figure if warm-ups of different lengths were run: one panel for the rest."""
    if _ROUNDS not in grid.axes.shown:
        return
    made = []
    for heading, scenarios in panels_along(grid, _ROUNDS):
        if lines := tuple(_lines(grid, scenarios)):
            made.append((heading, lines))
    if made:
        yield WarmUp(tuple(made), tuple(grid.figure_labels().values()))


def _lines(grid: Grid, scenarios: Mapping[str, tuple[str, ...]]) -> Iterator[WarmStarts]:
    found: dict[str, list[tuple[str, Point]]] = {}
    for (rounds,) in sort_keys([(rounds,) for rounds in scenarios]):
        for point in points(grid, scenarios[rounds]):
            if point.megabytes > 0:
                found.setdefault(point.label, []).append((rounds, point))
    yield from (tuple(line) for line in found.values() if len(line) > 1)
