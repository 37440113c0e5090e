"""Where every lost point went: to the teacher, to the student, or to its images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING

from reports.figures.attribution import students
from reports.figures.style import COLUMN, column_heading, titled
from reports.formats import percent
from reports.grid import Grid
from reports.lost import Lost, lost_points

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_KINDS = {"images": "#D55E00", "student": "#0072B2", "teacher": "#c8c8c8"}
"""Who loses, in the order from what the student reached to the top, and their colours."""

_LINE = 0.13
"""Height of a row, inches."""

_ABOVE = 3
"""Where thin bars lie: above whole ones."""


@dataclass(frozen=True)
class LostRow:
    """One student, in percent and percentage points, means over seeds.

    Parameters
    ----------
    teacher, images : str
        Names of parts.
    reached : float
        Its accuracy.
    lost : mapping of str to float
        Points lost by ``images``, ``student`` and ``teacher``; negative where gained.
    """

    teacher: str
    images: str
    reached: float
    lost: Mapping[str, float]


@dataclass(frozen=True)
class LostPoints:
    """A line a student: from what it reached, over what was lost where, to the top.

    Parameters
    ----------
    name, heading : str
        Stem of its files, and student and scenario in words.
    top : str
        What the teacher's loss is counted from.
    rows : tuple of LostRow
        Those of one teacher are neighbours.
    """

    name: str
    heading: str
    top: str
    rows: tuple[LostRow, ...]

    @property
    def title(self) -> str:
        """What it shows, and of what."""
        return titled("Points lost by teacher, student and images", [self.heading])

    def draw(self) -> Figure:
        """Return the figure."""
        from matplotlib.figure import Figure

        lines = self._lines()
        heading = column_heading(self.heading)
        height = _LINE * (len(lines) + heading.count("\n")) + 0.95
        figure = Figure(figsize=(COLUMN, height), layout="constrained")
        axis = figure.subplots()
        for y, line in enumerate(lines):
            if isinstance(line, LostRow):
                _draw_row(axis, y, line)
        axis.set_yticks(
            range(len(lines)),
            [line.images if isinstance(line, LostRow) else line for line in lines],
        )
        for tick, line in zip(axis.get_yticklabels(), lines, strict=True):
            if isinstance(line, str):
                tick.set_fontweight("bold")
        axis.tick_params(axis="y", length=0)
        axis.set_ylim(len(lines) - 0.4, -0.6)
        axis.set_xlim(min(0, axis.get_xlim()[0]), 100)
        axis.grid(visible=False, axis="y")
        axis.set_xlabel("test accuracy (%)")
        axis.set_title(heading)
        self._legend(figure)
        return figure

    def _legend(self, figure: Figure) -> None:
        from matplotlib.lines import Line2D
        from matplotlib.patches import Patch

        words = {kind: f"lost by {kind}" for kind in _KINDS}
        words["teacher"] += f", up to {self.top}"
        handles = [
            Line2D([], [], color="black", marker="|", linestyle="", label="student's accuracy"),
            *(Patch(color=colour, label=words[kind]) for kind, colour in _KINDS.items()),
        ]
        if any(lost < 0 for row in self.rows for lost in row.lost.values()):
            handles.append(
                Patch(facecolor="white", edgecolor="black", linewidth=0.7, label="thin: gained")
            )
        figure.legend(handles=handles, loc="outside lower center", ncols=2, fontsize=6.5)

    def _lines(self) -> list[str | LostRow]:
        """Return the rows, each teacher's below its name."""
        lines: list[str | LostRow] = []
        for row in self.rows:
            if not lines or not isinstance(lines[-1], LostRow) or lines[-1].teacher != row.teacher:
                lines.append(row.teacher)
            lines.append(row)
        return lines


def _draw_row(axis: Axes, y: int, row: LostRow) -> None:
    at = row.reached
    for kind, colour in _KINDS.items():
        lost = row.lost[kind]
        if lost >= 0:
            axis.barh(y, lost, left=at, height=0.7, color=colour, linewidth=0)
        else:  # leads back over what the next one loses, and would be hidden by its bar
            [bar] = axis.barh(y, lost, 0.3, at, facecolor="white", edgecolor=colour)
            bar.set(linewidth=0.7, zorder=_ABOVE)
        at += lost
    [mark] = axis.plot(row.reached, y, marker="|", color="black", zorder=_ABOVE + 1)
    mark.set(markersize=6, markeredgewidth=1.4)


def lost_figures(grid: Grid) -> Iterator[LostPoints]:
    """Yield a figure for each student and scenario with real images beside others."""
    for one, scenario, heading, ending in students(grid):
        lost = lost_points(grid, one, scenario)
        if lost:
            rows = tuple(_row(*key, each) for key, each in lost.items())
            top = f"{percent(next(iter(lost.values())).top)} %"
            yield LostPoints(f"lost_points{ending}", heading, top, rows)


def _row(teacher: str, images: str, lost: Lost) -> LostRow:
    def mean(shares: Mapping[tuple[str, str], float]) -> float:
        return 100 * fmean(shares.values())

    by = {"images": lost.images, "student": lost.student, "teacher": lost.teacher}
    return LostRow(
        teacher, images, mean(lost.reached), {kind: mean(shares) for kind, shares in by.items()}
    )
