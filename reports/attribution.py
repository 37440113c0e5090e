"""Where accuracy is lost: teachers by sources of images, for methods put together from parts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from reports.formats import percent_parts
from reports.grid import Grid, GridCell, RowKey
from reports.row_marks import FLAG
from reports.scores import TEACHER_ACCURACY, problems
from reports.table import Cell, Row, Table

PARTS = ("teacher", "images", "student")
"""Settings that name a method's three parts."""


@dataclass(frozen=True)
class Attribution:
    """One student under several teachers, on images of several sources.

    Parameters
    ----------
    method : str
        Name of the plugin.
    student : str
        Name of the student's part.
    teachers, images : tuple of str
        Names of parts, in the order of the grid's rows; two at least of each.
    rows : mapping of (str, str) to RowKey
        The configuration with a teacher and a source of images, where there is one.
    """

    method: str
    student: str
    teachers: tuple[str, ...]
    images: tuple[str, ...]
    rows: Mapping[tuple[str, str], RowKey]

    @property
    def name(self) -> str:
        """The student, and whose it is."""
        return f"{self.method}, student: {self.student}"

    def cell(
        self, grid: Grid, teacher: str, images: str, scenario: tuple[str, ...]
    ) -> GridCell | None:
        """Return the grid's cell of a teacher and a source of images, where there is one."""
        row = self.rows.get((teacher, images))
        return None if row is None else grid.cells.get((row, scenario))


def attributions(grid: Grid) -> tuple[Attribution, ...]:
    """Return the students that stand in the grid under teachers and images that were crossed.

    Parts that stand there twice, with other settings, can't be told apart by their names: such
    a student is left out.
    """
    configs = grid.configs()
    found: dict[tuple[str, str], list[tuple[tuple[str, str], RowKey]]] = {}
    for row in grid.rows:
        names = _parts(configs.get(row, {}))
        if names is not None:
            teacher, images, student = names
            found.setdefault((row.method, student), []).append(((teacher, images), row))
    crossed = []
    for (method, student), placed in found.items():
        teachers = tuple(dict.fromkeys(teacher for (teacher, _), _ in placed))
        sources = tuple(dict.fromkeys(source for (_, source), _ in placed))
        rows = dict(placed)
        if min(len(teachers), len(sources)) > 1 and len(rows) == len(placed):
            crossed.append(Attribution(method, student, teachers, sources, rows))
    return tuple(crossed)


def _parts(config: Mapping[str, Any]) -> tuple[str, str, str] | None:
    names = [config.get(part) for part in PARTS]
    if not all(isinstance(name, str) for name in names):
        return None
    teacher, images, student = map(str, names)
    return teacher, images, student


def attribution_table(grid: Grid) -> Table | None:
    """Return the student's accuracy, and its teacher's, by teacher and source of images.

    What lies between a teacher and the best model is the teacher's loss, between student and
    teacher on real images the student's, between real and generated images the images'.
    ``None`` where no teachers and images were crossed.
    """
    found = attributions(grid)
    if not found:
        return None
    sources = tuple(dict.fromkeys(source for one in found for source in one.images))
    places = [(scenario, source) for scenario in grid.scenarios for source in sources]
    columns = [
        (*grid.axes.header(scenario), f"images: {source}", column)
        for scenario, source in places
        for column in ("student %", "teacher %")
    ]
    rows = [
        Row(
            one.name,
            teacher,
            tuple(
                cell
                for scenario, source in places
                for cell in _cells(one.cell(grid, teacher, source, scenario))
            ),
        )
        for one in found
        for teacher in one.teachers
    ]
    return Table("attribution", "Accuracy by teacher and images", tuple(columns), tuple(rows))


def _cells(cell: GridCell | None) -> tuple[Cell, Cell]:
    if cell is None:
        return Cell(muted=True), Cell(muted=True)
    if not cell.complete:
        return Cell(problems(cell), muted=True), Cell(muted=True)
    return _cell(cell, "accuracy"), _cell(cell, TEACHER_ACCURACY)


def _cell(cell: GridCell, column: str) -> Cell:
    summary = cell.summary(column)
    if summary is None:
        return Cell(muted=True)
    return Cell(*percent_parts(summary), flag=FLAG if cell.mixed else "")
