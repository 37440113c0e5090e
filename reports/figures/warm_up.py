"""Accuracy against bytes over warm-up rounds: what the same bytes buy in rounds of averaging."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from reports.axes import describe
from reports.figures.lines import places
from reports.figures.style import error_bars, legend_below, look, panels, titled
from reports.figures.traffic import log_scale
from reports.grid import Grid

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_ROUNDS = "warmup.rounds"


@dataclass(frozen=True)
class Stop:
    """One method after one warm-up.

    Parameters
    ----------
    rounds : int
        Warm-up rounds.
    megabytes : float
        Up and down, per client, warm-up included; above 0.
    accuracy, spread : float
        In percent; the spread is 0 with one seed.
    """

    rounds: int
    megabytes: float
    accuracy: float
    spread: float


@dataclass(frozen=True)
class Road:
    """One method's stops, by rising rounds.

    Parameters
    ----------
    label : str
        The method.
    reference : bool
        Whether it is a reference row.
    place : int
        Gives its look.
    stops : tuple of Stop
        Two at least.
    """

    label: str
    reference: bool
    place: int
    stops: tuple[Stop, ...]


@dataclass(frozen=True)
class WarmUp:
    """A figure of accuracy against bytes, one line a method, one point a length of warm-up.

    Where a method's point lies above FedAvg's line, its exchange bought more than rounds of
    averaging for the same bytes.
    """

    panels: tuple[tuple[str, tuple[Road, ...]], ...]
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
        for axis, (heading, roads) in zip(axes, self.panels, strict=True):
            axis.set_title(heading)
            for road in roads:
                _line(axis, road)
            log_scale(axis, [stop.megabytes for road in roads for stop in road.stops])
            axis.set_xlabel("MB per client, up and down, warm-up included\n(number: its rounds)")
            axis.set_ylabel("test accuracy (%)")
        legend_below(figure, axes, self.order)
        return figure


def _line(axis: Axes, road: Road) -> None:
    style = look(road.place, road.reference)
    axis.errorbar(
        [stop.megabytes for stop in road.stops],
        [stop.accuracy for stop in road.stops],
        yerr=error_bars([stop.spread for stop in road.stops]),
        color=style.color,
        linestyle=style.dashes,
        marker=style.marker,
        markerfacecolor="white" if road.reference else style.color,
        capsize=1.5,
        elinewidth=0.6,
        label=road.label,
    )
    for stop in road.stops:
        axis.annotate(
            f"{stop.rounds}",
            (stop.megabytes, stop.accuracy),
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
    index = grid.axes.shown.index(_ROUNDS)
    fields = (*grid.axes.shown[:index], *grid.axes.shown[index + 1 :])
    by_rest: dict[tuple[str, ...], list[tuple[str, ...]]] = {}
    for scenario in grid.scenarios:
        rest = (*scenario[:index], *scenario[index + 1 :])
        by_rest.setdefault(rest, []).append(scenario)
    made = []
    for rest, scenarios in by_rest.items():
        heading = ", ".join(describe(name, value) for name, value in zip(fields, rest, strict=True))
        if roads := tuple(_roads(grid, scenarios, index)):
            made.append((heading, roads))
    if made:
        yield WarmUp(tuple(made), tuple(row.label for row in grid.rows))


def _roads(grid: Grid, scenarios: Sequence[tuple[str, ...]], index: int) -> Iterator[Road]:
    for row, place in places(grid).items():
        stops = []
        for scenario in scenarios:
            cell = grid.cells.get((row, scenario))
            if cell is None:
                continue
            score, up, down = map(cell.summary, ("accuracy", "up_per_client", "down_per_client"))
            if score and up and down and up.mean + down.mean > 0:
                spread = 100 * (score.sd or 0.0)
                cost = (up.mean + down.mean) / 1e6
                stops.append(Stop(int(scenario[index]), cost, 100 * score.mean, spread))
        if len(stops) > 1:
            yield Road(row.label, row.reference, place, tuple(sorted(stops, key=_rounds)))


def _rounds(stop: Stop) -> int:
    return stop.rounds
