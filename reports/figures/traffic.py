"""Accuracy against bytes, with the Pareto front drawn."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from reports.figures.attribution import mapped_rows
from reports.figures.lines import places
from reports.figures.style import (
    accuracy_axes,
    legend_below,
    look,
    pages,
    panels,
    spread_words,
    titled,
)
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
    spread: str = ""

    @property
    def title(self) -> str:
        """What it shows, and of what."""
        return titled("Accuracy against bytes", [heading for heading, _ in self.panels])

    def draw(self) -> Figure:
        """Return the figure."""
        figure, axes = panels(len(self.panels))
        for axis, (heading, points) in zip(axes, self.panels, strict=True):
            axis.set_title(heading)
            places = _beside(points)
            for point, place in zip(points, places, strict=True):
                _point(axis, replace(point, megabytes=place))
            log_scale(axis, [place for place in places if place > 0])
            members = pareto([point for point in points if not point.reference])
            drawn = [(places[points.index(one)], one.accuracy) for one in members]
            _front(axis, [one for one in drawn if one[0] > 0])
            moved = any(place != one.megabytes for place, one in zip(places, points, strict=True))
            hint = "\n(equal bytes stand side by side)" if moved else ""
            axis.set_xlabel("MB per client, up and down" + hint)
        accuracy_axes(axes, alike=len(axes) > 1)
        legend_below(figure, axes, self.order, self.spread)
        return figure


_APART, _WIDEST = 0.018, 0.14
"""Least distance of two points, and the most that all together take, as shares of the axis."""


def _beside(points: Sequence[Point]) -> list[float]:
    """Return where points are drawn on the x axis: those of equal bytes stand side by side.

    On a logarithmic axis no point moves further than its neighbours need, and their order
    stays, so that the front's steps still rise. Of those that count as one price the most
    accurate stands first: what it beats is never left of the front.
    """
    moved = _by_price(points)
    logs = [math.log(points[place].megabytes) for place in moved]
    # The axis reaches to half and double. Ten methods of equal bytes are still read as equal.
    span = logs[-1] - logs[0] + math.log(4)
    least = min(_APART, _WIDEST / len(logs)) * span
    groups: list[tuple[float, int]] = []  # mean logarithm, and how many stand around it
    for value in logs:
        middle, count = value, 1
        while groups and middle - groups[-1][0] < least * (count + groups[-1][1]) / 2:
            before, many = groups.pop()
            middle = (middle * count + before * many) / (count + many)
            count += many
        groups.append((middle, count))
    found = [point.megabytes for point in points]
    spread = [
        middle + least * (number - (count - 1) / 2) if count > 1 else middle
        for middle, count in groups
        for number in range(count)
    ]
    for place, value in zip(moved, spread, strict=True):
        if not math.isclose(value, math.log(found[place]), abs_tol=1e-9):
            found[place] = math.exp(value)
    return found


def _by_price(points: Sequence[Point]) -> list[int]:
    """Return the places of points that cost anything: by price, then the most accurate first."""
    prices = [price for price, _ in _members([one for one in points if not one.reference])]

    def rank(place: int) -> tuple[float, float]:
        own = points[place].megabytes
        shared = [price for price in prices if price <= own <= _SAME_PRICE * price]
        return max(shared, default=own), -points[place].accuracy

    return sorted((at for at, one in enumerate(points) if one.megabytes > 0), key=rank)


def _front(axis: Axes, members: Sequence[tuple[float, float]]) -> None:
    """Draw what can be had at a price, in steps from the first member on, and ring the members.

    It lies behind the points, whose error bars say how sure its steps are.
    """
    if not members:
        return
    twice = [place for place, _ in members for _ in range(2)]
    x = [*twice[1:], axis.get_xlim()[1]]
    y = [accuracy for _, accuracy in members for _ in range(2)]
    axis.plot(
        x,
        y,
        color="#8a8a8a",
        linewidth=0.8,
        marker="o",
        markersize=8,
        markerfacecolor="none",
        markeredgewidth=0.7,
        markevery=range(0, len(x), 2),  # the corners between are no methods
        zorder=2,
        label="Pareto front of means",
    )


def log_scale(axis: Axes, values: Sequence[float]) -> None:
    """Make the x axis logarithmic, with plain numbers, wide enough for two of them.

    Parameters
    ----------
    axis : Axes
        Of a figure being drawn.
    values : sequence of float
        What stands on it, above 0.
    """
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


_SAME_PRICE = 1.01
"""Bytes up to this factor apart are one price: label counts beside a model are no reason to
count a method that is points worse among the best."""


def pareto(points: Sequence[Point]) -> list[Point]:
    """Return the points that none beats in both bytes and accuracy, by rising bytes.

    Of those within 1 % of the cheapest one's bytes the most accurate alone counts.
    """
    return [member for _, member in _members(points)]


def _members(points: Sequence[Point]) -> list[tuple[float, Point]]:
    """Return the front's members, each with the bytes of the cheapest at its price."""
    front: list[tuple[float, Point]] = []
    for point in sorted(points, key=lambda one: (one.megabytes, -one.accuracy)):
        price = point.megabytes
        if front and point.accuracy <= front[-1][1].accuracy:
            continue
        if front and price <= _SAME_PRICE * front[-1][0]:
            price, _ = front.pop()
        front.append((price, point))
    return front


def points(grid: Grid, scenario: tuple[str, ...]) -> Iterator[Point]:
    """Yield the points of a scenario's methods that have both numbers, in row order.

    Rows that a map of teachers by images shows are left to it: here dozens would share two prices.
    """
    labels = grid.figure_labels()
    mapped = mapped_rows(grid, scenario)
    for row, place in places(grid).items():
        cell = grid.cells.get((row, scenario))
        if cell is None or row in mapped:
            continue
        score, up, down = map(cell.summary, ("accuracy", "up_per_client", "down_per_client"))
        if score and up and down:
            cost = (up.mean + down.mean) / 1e6
            spread = 100 * (score.sd or 0.0)
            yield Point(labels[row], row.reference, place, cost, 100 * score.mean, spread)


def traffic(grid: Grid, most: int) -> Iterator[Traffic]:
    """Yield ``most`` scenarios a figure, those where two methods at least have both numbers."""
    made = []
    for scenario in grid.scenarios:
        found = tuple(points(grid, scenario))
        # References compete with nobody: one method among them has no front to be on.
        if sum(point.megabytes > 0 and not point.reference for point in found) > 1:
            made.append((", ".join(grid.axes.header(scenario)), found))
    for ending, chosen in pages(made, most):
        order, spread = tuple(grid.figure_labels().values()), spread_words(grid.seed_counts())
        yield Traffic(chosen, order, f"accuracy_by_bytes{ending}", spread)
