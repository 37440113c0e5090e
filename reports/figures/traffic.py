"""Accuracy against bytes, with the Pareto front drawn."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from reports.figures.lines import places
from reports.figures.style import legend_below, look, panels
from reports.grid import Grid

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Point:
    """One method's cost and accuracy.

    Parameters
    ----------
    label : str
        The method.
    reference : bool
        Whether it is a reference row.
    place : int
        Gives its look.
    megabytes : float
        Up and down, per client.
    accuracy, spread : float
        In percent; the spread is 0 with one seed.
    """

    label: str
    reference: bool
    place: int
    megabytes: float
    accuracy: float
    spread: float


@dataclass(frozen=True)
class Traffic:
    """A figure of accuracy against bytes, a panel for each scenario."""

    panels: tuple[tuple[str, tuple[Point, ...]], ...]
    order: tuple[str, ...]
    name: str = "accuracy_by_bytes"

    def draw(self) -> Figure:
        """Return the figure."""
        figure, axes = panels(len(self.panels))
        for axis, (heading, points) in zip(axes, self.panels, strict=True):
            axis.set_title(heading)
            for point in points:
                _point(axis, point)
            front = pareto([point for point in points if not point.reference])
            axis.step(
                [point.megabytes for point in front],
                [point.accuracy for point in front],
                where="post",
                color="#bbbbbb",
                linewidth=1,
                zorder=1,
                label="Pareto front" if len(front) > 1 else "_one point",
            )
            _log_scale(axis, [point.megabytes for point in points if point.megabytes > 0])
            axis.set_xlabel("MB per client, up and down")
            axis.set_ylabel("test accuracy (%)")
        legend_below(figure, axes, self.order)
        return figure


def _log_scale(axis: Axes, values: Sequence[float]) -> None:
    """Make the x axis logarithmic, with plain numbers, wide enough for two of them."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    axis.set_xscale("log")
    axis.set_xlim(min(values) / 2, max(values) * 2)
    span = max(values) / min(values)
    axis.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if span < 100 else (1.0,)))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.xaxis.set_minor_locator(NullLocator())


def _point(axis: Axes, point: Point) -> None:
    style = look(point.place, point.reference)
    if point.megabytes <= 0:
        label = f"{point.label} (no traffic)"
        axis.axhline(point.accuracy, color=style.color, linestyle=style.dashes, label=label)
        return
    axis.errorbar(
        point.megabytes,
        point.accuracy,
        yerr=point.spread or None,
        color=style.color,
        marker=style.marker,
        markerfacecolor="white" if point.reference else style.color,
        linestyle="none",
        capsize=1.5,
        elinewidth=0.6,
        label=point.label,
        zorder=3,
    )


def pareto(points: Sequence[Point]) -> list[Point]:
    """Return the points that none beats in both bytes and accuracy, by rising bytes."""
    front: list[Point] = []
    for point in sorted(points, key=lambda one: (one.megabytes, -one.accuracy)):
        if not front or point.accuracy > front[-1].accuracy:
            front.append(point)
    return front


def traffic(grid: Grid, most: int) -> Iterator[Traffic]:
    """Yield the figure, if two methods at least have both numbers in some scenario."""
    made = []
    for scenario in grid.scenarios[:most]:
        found = []
        for row, place in places(grid).items():
            cell = grid.cells.get((row, scenario))
            score = cell.summary("accuracy") if cell else None
            up = cell.summary("up_per_client") if cell else None
            down = cell.summary("down_per_client") if cell else None
            if score and up and down:
                cost = (up.mean + down.mean) / 1e6
                spread = 100 * (score.sd or 0.0)
                found.append(Point(row.label, row.reference, place, cost, 100 * score.mean, spread))
        if sum(point.megabytes > 0 for point in found) > 1:
            made.append((", ".join(grid.axes.header(scenario)), tuple(found)))
    if made:
        yield Traffic(tuple(made), tuple(row.label for row in grid.rows))
