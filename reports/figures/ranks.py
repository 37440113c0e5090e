"""The critical-difference diagram (Demšar 2006): mean ranks, and who can't be told apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from reports.comparisons import Ranks
from reports.figures.style import PAGE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class CriticalDifference:
    """The diagram.

    Parameters
    ----------
    labels : tuple of str
        Methods by mean rank, best first.
    ranks : tuple of float
        Their mean ranks.
    critical_difference : float
        Nemenyi's.
    blocks : int
        Number of datasets.
    left_out : int
        Methods that are not complete, and so not ranked.
    """

    labels: tuple[str, ...]
    ranks: tuple[float, ...]
    critical_difference: float
    blocks: int
    left_out: int = 0
    name: str = "critical_difference"

    @property
    def title(self) -> str:
        """What it shows, and of what."""
        return f"Critical differences of mean ranks over {self.blocks} datasets"

    def draw(self) -> Figure:
        """Return the figure: an axis of ranks, methods on both sides, bars over ties."""
        from matplotlib.figure import Figure

        count, half = len(self.labels), (len(self.labels) + 1) // 2
        bars = cliques(self.ranks, self.critical_difference)
        top = 0.9 + 0.35 * len(bars)
        figure = Figure(figsize=(PAGE, 0.16 * (half + 2 * len(bars)) + 1.0), layout="constrained")
        axis = figure.subplots()
        axis.set_axis_off()
        axis.set_xlim(0.4 - 0.35 * count / 2, count + 0.6 + 0.35 * count / 2)
        axis.set_ylim(-top - half, 1.9)
        axis.plot([1, count], [0, 0], color="black", linewidth=0.8)
        for tick in range(1, count + 1):
            axis.plot([tick, tick], [0, 0.2], color="black", linewidth=0.8)
            axis.text(tick, 0.3, str(tick), ha="center", va="bottom")
        for place, (label, rank) in enumerate(zip(self.labels, self.ranks, strict=True)):
            left = place < half
            depth = -top - (place if left else count - 1 - place)
            edge = 0.9 if left else count + 0.1
            axis.plot([rank, rank, edge], [0, depth, depth], color="#555555", linewidth=0.7)
            text, side = f"{label}  {rank:.2f}", "right" if left else "left"
            axis.text(edge + (-0.05 if left else 0.05), depth, text, ha=side, va="center")
        for level, (first, last) in enumerate(bars):
            ends = [self.ranks[first] - 0.03, self.ranks[last] + 0.03]
            height = -0.45 - 0.35 * level
            axis.plot(ends, [height, height], color="black", linewidth=2.2)
        self._ruler(axis)
        return figure

    def _ruler(self, axis: Axes) -> None:
        end = 1 + self.critical_difference
        axis.plot([1, end], [1.2, 1.2], color="black", linewidth=1)
        for x in (1, end):
            axis.plot([x, x], [1.1, 1.3], color="black", linewidth=1)
        text = f"critical difference {self.critical_difference:.2f}, {self.blocks} datasets"
        if self.left_out:
            text += f"\n{self.left_out} incomplete methods not ranked"
        axis.text(end + 0.1, 1.2, text, ha="left", va="center")


def cliques(ranks: Sequence[float], critical_difference: float) -> list[tuple[int, int]]:
    """Return the longest runs of methods whose ranks lie within the critical difference.

    Parameters
    ----------
    ranks : sequence of float
        Mean ranks, ascending.
    critical_difference : float
        Ranks that differ by less can't be told apart.

    Returns
    -------
    list of (int, int)
        First and last place of every run of two methods or more that no other contains.
    """
    found: list[tuple[int, int]] = []
    for first, rank in enumerate(ranks):
        last = max(
            place
            for place, other in enumerate(ranks)
            if place >= first and other - rank < critical_difference
        )
        if last > first and (not found or last > found[-1][1]):
            found.append((first, last))
    return found


def critical_difference(ranks: Ranks, names: Mapping[str, str]) -> CriticalDifference:
    """Return the diagram of ``ranks``, methods under the names that figures have for labels."""
    labels = tuple(names[str(label)] for label in ranks.mean.index)
    values = tuple(float(value) for value in ranks.mean)
    return CriticalDifference(
        labels, values, ranks.critical_difference, ranks.blocks, len(ranks.left_out)
    )
