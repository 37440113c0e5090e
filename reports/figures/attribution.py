"""A student's accuracy by its teacher and by the images that it learned from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from reports.attribution import Attribution, attributions
from reports.axes import describe
from reports.figures.style import COLUMN, column_heading, name_columns, titled
from reports.grid import Grid, GridCell, RowKey
from reports.scores import TEACHER_ACCURACY

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Value = tuple[float, float | None]
"""Percent of the student and of its teacher."""


_START = "student.init"
"""The setting that tells two maps of the same parts apart."""

_SIGNS_ACROSS = 24
"""Of the columns' names in one line."""


@dataclass(frozen=True)
class PartsMap:
    """A heat map: teachers by sources of images, accuracy in percent, mean over seeds.

    Parameters
    ----------
    name, heading : str
        Stem of its files, and student and scenario in words.
    teachers, images : tuple of str
        Names of parts.
    values : tuple of tuple of ((float, float or None) or None)
        By teacher and images; ``None`` where nothing was run, or not all of it is done.
    """

    name: str
    heading: str
    teachers: tuple[str, ...]
    images: tuple[str, ...]
    values: tuple[tuple[Value | None, ...], ...]

    @property
    def title(self) -> str:
        """What it shows, and of what."""
        return titled("Accuracy by teacher and images", [self.heading])

    def draw(self) -> Figure:
        """Return the figure."""
        import numpy as np
        from matplotlib.figure import Figure

        data = np.array(
            [[np.nan if value is None else value[0] for value in row] for row in self.values]
        )
        aslant = max(map(len, self.images)) * len(self.images) > _SIGNS_ACROSS
        height = 0.34 * max(3, len(self.teachers)) + (1.2 if aslant else 0.95)
        heading = column_heading(self.heading)
        height += 0.12 * heading.count("\n")
        figure = Figure(figsize=(COLUMN, height), layout="constrained")
        axis = figure.subplots()
        image = axis.imshow(data, cmap="cividis", vmin=0, vmax=100, aspect="auto")
        axis.set_yticks(range(len(self.teachers)), list(self.teachers))
        name_columns(axis, self.images, aslant=aslant)
        axis.set_ylabel("teacher")
        axis.set_xlabel("images")
        axis.set_title(heading)
        axis.grid(visible=False)
        for row, line in enumerate(self.values):
            for column, value in enumerate(line):
                if value is not None:
                    student, teacher = value
                    text = f"{student:.1f}"
                    if teacher is not None:
                        text += f"\n(of {teacher:.1f})"
                    colour = "black" if student > 60 else "white"
                    axis.text(column, row, text, ha="center", va="center", color=colour, fontsize=6)
        label = "student's accuracy (%)\n(of its teacher's)"
        figure.colorbar(image, ax=axis, label=label, pad=0.02)
        return figure


def parts_maps(grid: Grid) -> Iterator[PartsMap]:
    """Yield a figure for each student and scenario of which enough is done to compare."""
    for one, scenario, heading, ending in students(grid):
        values = _values(grid, one, scenario)
        if _crossed(values):
            yield PartsMap(f"attribution{ending}", heading, one.teachers, one.images, values)


def students(grid: Grid) -> Iterator[tuple[Attribution, tuple[str, ...], str, str]]:
    """Yield what figures of students are made of: student, scenario, heading, ending of the name.

    The heading says the student if there are several, what it starts from if that isn't chance,
    and the scenario.
    """
    found = attributions(grid)
    start = grid.axes.fixed.get(_START, "random")
    pairs = [(one, scenario) for one in found for scenario in grid.scenarios]
    for number, (one, scenario) in enumerate(pairs, start=1):
        said = [one.name] if len(found) > 1 else []
        said += [describe(_START, start)] if start != "random" else []
        ending = f"_{number}" if len(pairs) > 1 else ""
        yield one, scenario, ", ".join([*said, *grid.axes.header(scenario)]), ending


def mapped_rows(grid: Grid, scenario: tuple[str, ...]) -> set[RowKey]:
    """Return the rows that a map of this scenario shows."""
    return {
        row
        for one in attributions(grid)
        if _crossed(_values(grid, one, scenario))
        for row in one.rows.values()
    }


def _values(
    grid: Grid, one: Attribution, scenario: tuple[str, ...]
) -> tuple[tuple[Value | None, ...], ...]:
    return tuple(
        tuple(_value(one.cell(grid, teacher, source, scenario)) for source in one.images)
        for teacher in one.teachers
    )


def _crossed(values: tuple[tuple[Value | None, ...], ...]) -> bool:
    """Return whether two teachers at least and two sources of images have a value."""
    lines, columns = values, tuple(zip(*values, strict=True))
    return all(sum(any(one) for one in side) > 1 for side in (lines, columns))


def _value(cell: GridCell | None) -> Value | None:
    student = None if cell is None else cell.summary("accuracy")
    if cell is None or student is None:
        return None
    teacher = cell.summary(TEACHER_ACCURACY)
    return 100 * student.mean, None if teacher is None else 100 * teacher.mean
