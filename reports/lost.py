"""The address of every lost point: a student's teacher, the student itself, or its images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from reports.attribution import Attribution, attributions
from reports.formats import percent, points
from reports.grid import Grid, GridCell, made_by
from reports.row_marks import FLAG
from reports.scores import TEACHER_ACCURACY, incomplete_cells
from reports.statistics import Split, Summary, summarize
from reports.table import Cell, Row, Table

REAL = "real"
"""The source of images that no method has: what is lost on it is not the images'."""

_COLUMNS = ("reached %", "teacher lost", "student lost", "images lost")
_MAKERS = ("code.engine", "code.recipe", "version.torch", "hardware")
"""Provenance that runs of unlike parts share where they were made alike."""

Shares = Mapping[Split, float]


@dataclass(frozen=True)
class Lost:
    """Where the accuracy went that a student lacks, by split, as shares of 1.

    ``teacher``, ``student`` and ``images`` add up to what lies between the top and ``reached``.
    A negative one is a gain.

    Parameters
    ----------
    reached : mapping of (str, str) to float
        The student's accuracy.
    teacher : mapping of (str, str) to float
        What its teacher, on real images, lacks to the top: a model of all data, or 1.
    student : mapping of (str, str) to float
        What a student loses to that teacher on real images.
    images : mapping of (str, str) to float
        What it loses more on these; also by their teacher, where images make the teacher.
    top : float
        Mean of the top.
    mixed : bool
        Whether runs that it is made of differ in code or hardware.
    """

    reached: Shares
    teacher: Shares
    student: Shares
    images: Shares
    top: float
    mixed: bool


def lost_points(
    grid: Grid, one: Attribution, scenario: tuple[str, ...]
) -> dict[tuple[str, str], Lost]:
    """Return what is lost where, by teacher and source of images.

    Only where all is done, on real images too, and on the same splits.
    """
    top = _top(grid, one, scenario)
    found = {}
    for teacher, source in one.rows:
        own, real = (one.cell(grid, teacher, kind, scenario) for kind in (source, REAL))
        if source == REAL or own is None or real is None:
            continue
        lost = _lost(own, real, top)
        if lost is not None:
            found[teacher, source] = lost
    return found


def _top(grid: Grid, one: Attribution, scenario: tuple[str, ...]) -> GridCell | None:
    """Return the cell of the model that all data make, where it has every split that is needed."""
    own = [grid.cells.get((row, scenario)) for row in one.rows.values()]
    splits = {split for cell in own if cell is not None for split in cell.values("accuracy")}
    for row, cell in grid.column(scenario):
        covered = cell.complete and splits <= cell.values("accuracy").keys()
        if row.method == "centralized" and covered:
            return cell
    return None


def _lost(own: GridCell, real: GridCell, top: GridCell | None) -> Lost | None:
    scores = [cell.values(name) for cell in (own, real) for name in ("accuracy", TEACHER_ACCURACY)]
    reached, _, on_real, teacher = scores
    if not (own.complete and real.complete) or any(one.keys() != reached.keys() for one in scores):
        return None
    best = dict.fromkeys(reached, 1.0) if top is None else top.values("accuracy")
    cells = [cell for cell in (own, real, top) if cell is not None]
    makers = [{made_by(run, column) for cell in cells for run in cell.runs} for column in _MAKERS]
    return Lost(
        reached,
        {split: best[split] - teacher[split] for split in reached},
        {split: teacher[split] - on_real[split] for split in reached},
        {split: on_real[split] - reached[split] for split in reached},
        summarize([best[split] for split in reached]).mean,
        any(cell.mixed for cell in cells) or any(len(one) > 1 for one in makers),
    )


def lost_table(grid: Grid) -> Table | None:
    """Return the points that teacher, student and images lose, by teacher and source of images.

    ``None`` where no student learned from real images under a teacher that it has on others too.
    """
    found = [
        (one, [lost_points(grid, one, scenario) for scenario in grid.scenarios])
        for one in attributions(grid)
    ]
    if not any(any(places) for _, places in found):
        return None
    rows = [
        Row(
            one.name,
            f"{teacher}, images: {source}",
            tuple(
                cell
                for scenario, lost in zip(grid.scenarios, places, strict=True)
                for cell in _cells(grid, one, (teacher, source), scenario, lost)
            ),
        )
        for one, places in found
        for teacher, source in one.rows
        if source != REAL and (teacher, REAL) in one.rows
    ]
    columns = tuple(
        (*grid.axes.header(scenario), column) for scenario in grid.scenarios for column in _COLUMNS
    )
    title = "Points lost by teacher, student and images"
    return Table("lost_points", title, columns, tuple(rows))


def _cells(
    grid: Grid,
    one: Attribution,
    key: tuple[str, str],
    scenario: tuple[str, ...],
    found: Mapping[tuple[str, str], Lost],
) -> tuple[Cell, ...]:
    lost = found.get(key)
    if lost is not None:
        shares = (lost.reached, lost.teacher, lost.student, lost.images)
        return tuple(_cell(summarize(list(share.values())), lost.mixed) for share in shares)
    for source in (key[1], REAL):
        cell = one.cell(grid, key[0], source, scenario)
        if cell is not None and not cell.complete:
            return incomplete_cells(cell, len(_COLUMNS))
    return (Cell(muted=True),) * len(_COLUMNS)


def _cell(summary: Summary, mixed: bool) -> Cell:
    spread = "" if summary.sd is None else points(summary.sd)
    return Cell(points(summary.mean), spread, flag=FLAG if mixed else "")


def lost_notes(grid: Grid) -> list[str]:
    """Return what the points are counted from and to, where there is such a table."""
    found = {
        scenario: [
            lost for one in attributions(grid) for lost in lost_points(grid, one, scenario).values()
        ]
        for scenario in grid.scenarios
    }
    tops = {
        ", ".join(grid.axes.header(scenario)): top_in_words(each[0].top)
        for scenario, each in found.items()
        if each
    }
    if not tops:
        return []
    top = "; ".join(f"{place}: {top}" for place, top in tops.items())
    if len(set(tops.values())) == 1:
        top = next(iter(tops.values()))
    said = [
        f"Points lost. By the teacher: what it lacks to {top}. By the student: what it loses to "
        "that teacher on real images, all that clients hold. By images: what it loses more on "
        "these, which are fewer; also by its teacher, if images make that. Together: what the "
        "student lacks; below 0: gained."
    ]
    if any(lost.mixed for each in found.values() for lost in each):
        said.append(f"{FLAG} Of points lost: the runs compared differ in code or hardware.")
    return said


def top_in_words(top: float) -> str:
    """Return what a teacher's loss is counted from."""
    return "100 %" if top == 1 else f"the model of all data ({percent(top)} %)"
