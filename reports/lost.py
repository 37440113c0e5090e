"""The address of every lost point: a student's teacher, the student itself, or its images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from reports.attribution import Attribution, attributions
from reports.formats import points
from reports.grid import Grid, GridCell
from reports.row_marks import FLAG
from reports.scores import TEACHER_ACCURACY
from reports.statistics import Split, Summary, summarize
from reports.table import Cell, Row, Table

ORACLE = "real"
"""The source of images that no method has: what is lost on it is not the images'."""

Shares = Mapping[Split, float]


@dataclass(frozen=True)
class Lost:
    """Where the accuracy went that a student lacks, by split, as shares of 1.

    ``teacher``, ``student`` and ``images`` add up to what lies between the top and ``reached``.
    A negative one was won back.

    Parameters
    ----------
    reached : mapping of (str, str) to float
        The student's accuracy.
    teacher : mapping of (str, str) to float
        What its teacher lacks to the top: to a model of all data, or to 1.
    student : mapping of (str, str) to float
        What a student loses to the same kind of teacher on real images.
    images : mapping of (str, str) to float
        What it loses more on these. A teacher that is another one for each source of images
        is compared with itself: by how much the two gaps differ.
    mixed : bool
        Whether runs that it is made of differ in code or hardware.
    """

    reached: Shares
    teacher: Shares
    student: Shares
    images: Shares
    mixed: bool


def lost_points(
    grid: Grid, one: Attribution, scenario: tuple[str, ...]
) -> dict[tuple[str, str], Lost]:
    """Return what is lost where, by teacher and source of images.

    Only sources and teachers of which all is done, on real images too.
    """
    top = _top(grid, scenario)
    found = {}
    for teacher in one.teachers:
        oracle = _scores(one.cell(grid, teacher, ORACLE, scenario))
        for source in one.images:
            own = _scores(one.cell(grid, teacher, source, scenario))
            if source == ORACLE or oracle is None or own is None:
                continue
            cells = (one.cell(grid, teacher, kind, scenario) for kind in (source, ORACLE))
            lost = _lost(own, oracle, top, any(cell and cell.mixed for cell in cells))
            if lost.reached:
                found[teacher, source] = lost
    return found


def top_in_words(grid: Grid, scenario: tuple[str, ...]) -> str:
    """Return what a teacher's loss is counted from."""
    top = _top(grid, scenario)
    if top is None:
        return "100 %"
    return f"{100 * summarize(list(top.values())).mean:.1f} % (all data)"


def _top(grid: Grid, scenario: tuple[str, ...]) -> Shares | None:
    """Return the accuracy of the model that all data make, where every split has it."""
    column = grid.column(scenario)
    splits = {split for _, cell in column for split in cell.values("accuracy")}
    for row, cell in column:
        found = cell.values("accuracy")
        if row.method == "centralized" and cell.complete and splits == found.keys():
            return found
    return None


def _scores(cell: GridCell | None) -> tuple[Shares, Shares] | None:
    """Return student and teacher by split, where every run is done."""
    if cell is None or None in {cell.summary("accuracy"), cell.summary(TEACHER_ACCURACY)}:
        return None
    return cell.values("accuracy"), cell.values(TEACHER_ACCURACY)


def _lost(
    own: tuple[Shares, Shares], oracle: tuple[Shares, Shares], top: Shares | None, mixed: bool
) -> Lost:
    splits = [split for split in own[0] if split in oracle[0]]
    gaps = {split: oracle[1][split] - oracle[0][split] for split in splits}
    return Lost(
        {split: own[0][split] for split in splits},
        {split: (1.0 if top is None else top[split]) - own[1][split] for split in splits},
        gaps,
        {split: own[1][split] - own[0][split] - gaps[split] for split in splits},
        mixed,
    )


def lost_table(grid: Grid) -> Table | None:
    """Return the points that teacher, student and images lose, by teacher and source of images.

    ``None`` where no student learned from real images under a teacher that it has on others too.
    """
    places = [
        (one, [lost_points(grid, one, scenario) for scenario in grid.scenarios])
        for one in attributions(grid)
    ]
    rows = [
        Row(one.name, f"{teacher}, images: {source}", _cells(found, (teacher, source)))
        for one, found in places
        for teacher in one.teachers
        for source in one.images
        if any((teacher, source) in each for each in found)
    ]
    if not rows:
        return None
    columns = tuple(
        (*grid.axes.header(scenario), column)
        for scenario in grid.scenarios
        for column in ("reached %", "teacher lost", "student lost", "images lost")
    )
    title = "Points lost by teacher, student and images"
    return Table("lost_points", title, columns, tuple(rows))


def lost_notes(grid: Grid) -> list[str]:
    """Return what the points are counted from and to, where there is such a table."""
    if lost_table(grid) is None:
        return []
    tops = dict.fromkeys(top_in_words(grid, scenario) for scenario in grid.scenarios)
    return [
        f"Points lost: the teacher's are what it lacks to {' or '.join(tops)}, the student's what "
        "one of its kind loses to its teacher on real images, the images' what it loses more on "
        "these. All three add up to what the student lacks; what is negative was won back."
    ]


def _cells(places: list[dict[tuple[str, str], Lost]], key: tuple[str, str]) -> tuple[Cell, ...]:
    cells: list[Cell] = []
    for place in places:
        lost = place.get(key)
        if lost is None:
            cells += [Cell(muted=True)] * 4
            continue
        shares = (lost.reached, lost.teacher, lost.student, lost.images)
        cells += [_cell(summarize(list(share.values())), lost.mixed) for share in shares]
    return tuple(cells)


def _cell(summary: Summary, mixed: bool) -> Cell:
    spread = "" if summary.sd is None else points(summary.sd)
    return Cell(points(summary.mean), spread, flag=FLAG if mixed else "")
