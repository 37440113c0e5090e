"""The figure of :mod:`benchmark.speed.scaling`, in the style of the reports."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from benchmark.speed.power_laws import MEASURES, fit, series
from reports.figures.style import Look, legend_below, look, panels, paper, rendered

if TYPE_CHECKING:
    from matplotlib.axes import Axes

HEIGHT, LINE = 120.0, 5.0
"""Height of a panel's axis, about, and of a line of small text, points."""
End = tuple[float, float, float, str]
"""Exponent, place of a line's end, and colour."""

TITLES = {
    "client_seconds": ("clients' CPU time (s)", 1.0),
    "server_seconds": ("server's CPU time (s)", 1.0),
    "memory": ("growth of memory (MiB)", 1 / 2**20),
}


def draw(rows: Sequence[Mapping[str, Any]]) -> dict[str, bytes]:
    """Return the figure as files by ending: measured points, and the fitted power laws."""
    found = [dict(row) for row in rows]
    methods = dict.fromkeys((row["method"], row["reference"]) for row in found)
    looks = _looks(list(methods))
    axes_shown = [axis for axis in ("clients", "classes") if any(r["axis"] == axis for r in found)]
    with paper():
        figure, axes = panels(len(MEASURES) * len(axes_shown), height=2.4)
        for place, axis in enumerate(axes):
            size = axes_shown[place // len(MEASURES)]
            name = MEASURES[place % len(MEASURES)]
            axis.set(xscale="log", yscale="log", xlabel=size, ylabel=TITLES[name][0])
            ends = [
                _line(axis, series(found, size, method, name), TITLES[name][1], method, style)
                for method, style in looks.items()
            ]
            _label(axis, [end for end in ends if end is not None])
            ticks = sorted({row["size"] for row in found if row["axis"] == size})
            axis.set_xticks(ticks, [str(tick) for tick in ticks], minor=False)
            axis.set_xticks([], minor=True)
        legend_below(figure, axes, list(looks))
        return rendered(figure)


def _looks(methods: Sequence[tuple[str, bool]]) -> dict[str, Look]:
    """Return each method's look, methods first."""
    found = {}
    for reference in (False, True):
        mine = [name for name, kind in methods if kind is reference]
        found.update({name: look(place, reference) for place, name in enumerate(mine)})
    return found


def _line(
    axis: Axes, line: tuple[list[float], list[float]], scale: float, method: str, style: Look
) -> End | None:
    """Draw a method's points and law; return what is to be written at its end."""
    sizes, values = line[0], [value * scale for value in line[1]]
    if not sizes:
        return None
    shown: dict[str, Any] = {"color": style.color, "label": method}
    axis.plot(sizes, values, linestyle="none", marker=style.marker, markersize=3, **shown)
    law = fit(sizes, values)
    if law is not None:
        fitted = [law.at(size) for size in sizes]
        axis.plot(sizes, fitted, linestyle=style.dashes, linewidth=0.9, color=style.color)
        return law.exponent, sizes[-1], fitted[-1], style.color
    return None


def _label(axis: Axes, ends: Sequence[End]) -> None:
    """Write the exponents beside the lines' ends, apart where lines end together."""
    low, high = (math.log(limit) for limit in axis.get_ylim())
    lowest = -math.inf
    for exponent, x, y, colour in sorted(ends, key=lambda end: end[2]):
        place = (math.log(y) - low) / (high - low) * HEIGHT
        shift = max(0.0, lowest + LINE - place)
        lowest = place + shift
        axis.annotate(
            f"{exponent:.2f}",
            (x, y),
            xytext=(3, shift),
            textcoords="offset points",
            fontsize=5,
            va="center",
            color=colour,
            annotation_clip=False,
        )
