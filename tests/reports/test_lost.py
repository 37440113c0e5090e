"""Every lost point has an address: teacher, student or images."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from parts_lab import add
from report_lab import Lab

from benchmark.store import Status
from reports.api import write_report
from reports.attribution import attributions
from reports.figures.attribution import PartsMap
from reports.figures.lost import LostPoints, LostRow, lost_figures
from reports.figures.style import paper
from reports.grid import build_grid
from reports.load import load
from reports.lost import lost_points


@pytest.fixture
def lost(lab: Lab) -> Path:
    """Two teachers on real and made images, two seeds; the second is another one on each."""
    for seed, more in ((0, 0.0), (1, 0.02)):
        add(lab, ("mean", "real", "dense"), 0.50 + more, seed, taught_by=0.60)
        add(lab, ("mean", "made", "dense"), 0.30 + more, seed, taught_by=0.60)
        add(lab, ("share", "real", "dense"), 0.70, seed, taught_by=0.80)
        add(lab, ("share", "made", "dense"), 0.45, seed, taught_by=0.50)
    return lab.plan()


def said(folder: Path) -> list[str]:
    """Return what the report's notes compare teachers with."""
    notes = write_report(folder, figures=False).notes
    pattern = r"what it lacks to (.*?)\. By the student"
    return [found[1] for note in notes if (found := re.search(pattern, note))]


def test_points_stand_by_who_lost_them(lost: Path) -> None:
    table = write_report(lost, figures=False).rendered["lost_points"]
    names = ("reached %", "teacher lost", "student lost", "images lost")
    assert table.columns == tuple((name,) for name in names)
    assert {row.label: [cell.text for cell in row.cells] for row in table.rows} == {
        "mean, images: made": ["31.00 ± 1.41", "40.00 ± 0.00", "9.00 ± 1.41", "20.00 ± 0.00"],
        # What its teacher is worse than on real images is the images' doing too.
        "share, images: made": ["45.00 ± 0.00", "20.00 ± 0.00", "10.00 ± 0.00", "25.00 ± 0.00"],
    }
    for ending in ("md", "tex"):
        text = (lost / "report" / f"lost_points.{ending}").read_text(encoding="utf-8")
        assert re.search(r"what it lacks to 100 \\?%\.", text)


def test_teachers_are_compared_with_the_model_of_all_data_of_their_split(
    lab: Lab, lost: Path
) -> None:
    lab.add("centralized", 0, 0.9)
    lab.plan()
    # One split lacks it: all are compared with 100 %.
    assert said(lost) == ["100 %"]
    lab.add("centralized", 1, 0.8)
    lab.plan()
    table = write_report(lost, figures=False).rendered["lost_points"]
    assert [row.cells[1].text for row in table.rows] == ["25.00 ± 7.07", "5.00 ± 7.07"]
    assert said(lost) == ["the model of all data (85.00 %)"]
    lab.add("averaging", 7, 0.4)  # a split of others moves nothing
    lab.plan()
    assert said(lost) == ["the model of all data (85.00 %)"]
    grid = build_grid(load(lost))
    [one] = attributions(grid)
    for each in lost_points(grid, one, grid.scenarios[0]).values():
        for split, top in {("0", "0"): 0.9, ("1", "1"): 0.8}.items():
            parts = (each.reached, each.teacher, each.student, each.images)
            assert sum(part[split] for part in parts) == pytest.approx(top)


def test_a_cell_of_several_machines_is_marked_and_the_mark_explained(lab: Lab) -> None:
    for seed in (0, 1):
        for teacher in ("mean", "share"):
            add(lab, (teacher, "real", "dense"), 0.5, seed)
            cpu = "another" if (teacher, seed) == ("mean", 1) else "made up"
            add(lab, (teacher, "made", "dense"), 0.3, seed, cpu=cpu)
    report = write_report(lab.plan(), figures=False)
    marked = {row.label: row.cells[3].flag for row in report.rendered["lost_points"].rows}
    assert marked == {"mean, images: made": "†", "share, images: made": ""}
    for name in ("lost_points", "attribution"):
        latex = (lab.folder / "report" / f"{name}.tex").read_text(encoding="utf-8")
        assert "seeds of this cell differ in hardware" in latex


def test_without_real_images_of_its_teacher_nothing_has_an_address(lab: Lab) -> None:
    for source in ("made", "drawn"):
        for teacher in ("mean", "share"):
            add(lab, (teacher, source, "dense"), 0.3)
    grid = build_grid(load(lab.plan()))
    assert "lost_points" not in write_report(lab.folder, figures=False).rendered
    assert list(lost_figures(grid)) == []
    assert said(lab.folder) == []


@pytest.mark.parametrize("source", ["real", "made"])
def test_a_failed_run_shows_as_such_and_is_not_drawn(source: str, lab: Lab, lost: Path) -> None:
    add(lab, ("share", source, "dense"), 0.7, 2, Status.FAILED)
    lab.plan()
    table = write_report(lost, figures=False).rendered["lost_points"]
    cells = {row.label: [cell.text for cell in row.cells] for row in table.rows}
    assert cells["share, images: made"] == ["failed 1 of 3", "–", "–", "–"]
    [plot] = lost_figures(build_grid(load(lost)))
    assert [row.teacher for row in plot.rows] == ["mean"]


def test_other_splits_and_students_without_a_teachers_accuracy_are_not_compared(
    lab: Lab, lost: Path
) -> None:
    add(lab, ("mean", "made", "dense"), 0.3, 2)
    lab.plan()
    table = write_report(lost, figures=False).rendered["lost_points"]
    assert [row.cells[0].text for row in table.rows] == ["–", "45.00 ± 0.00"]


def test_each_scenario_says_what_its_teachers_are_compared_with(lab: Lab) -> None:
    for alpha in (0.1, 1.0):
        for teacher in ("mean", "share"):
            for source in ("made", "real"):
                add(lab, (teacher, source, "dense"), 0.5, alpha=alpha)
    lab.add("centralized", 0, 0.9, partition__alpha=0.1)
    folder = lab.plan()
    assert said(folder) == ["α = 0.1: the model of all data (90.00 %); α = 1: 100 %"]
    names = [plot.name for plot in lost_figures(build_grid(load(folder)))]
    assert names == ["lost_points_1", "lost_points_2"]


def test_bars_lead_from_what_was_reached_to_the_top(lost: Path) -> None:
    [plot] = lost_figures(build_grid(load(lost)))
    with paper():
        figure = plot.draw()
        FigureCanvasAgg(figure).draw()
    [axis] = figure.axes
    assert [text.get_text() for text in axis.get_yticklabels()] == ["mean", "made", "share", "made"]
    spans = [
        tuple(round(side, 6) for side in (bar.get_x(), bar.get_x() + bar.get_width()))
        for bar in axis.patches
    ]
    # images, student, teacher
    assert spans == [(31, 51), (51, 60), (60, 100), (45, 70), (70, 80), (80, 100)]
    [legend] = figure.legends
    words = [text.get_text() for text in legend.get_texts()]
    assert words[-1] == "lost by teacher, up to 100.00 %"
    page = figure.bbox
    for box in (legend.get_window_extent(), axis.xaxis.label.get_window_extent()):
        assert page.x0 <= box.x0
        assert box.x1 <= page.x1


def test_what_was_gained_is_drawn_above_the_bar_that_it_leads_back_over() -> None:
    row = LostRow("mean", "made", 3.0, {"images": -5.0, "student": 10.0, "teacher": 40.0})
    with paper():
        figure = LostPoints("lost_points", "", "48.0 %", (row,)).draw()
        FigureCanvasAgg(figure).draw()
    [axis] = figure.axes
    gained, *others = axis.patches
    assert (gained.get_x(), gained.get_width()) == (3, -5)
    assert all(gained.get_zorder() > bar.get_zorder() for bar in others)
    assert axis.get_xlim()[0] <= -2
    [legend] = figure.legends
    assert legend.get_texts()[-1].get_text() == "thin: gained"


def test_a_long_heading_stays_on_the_page() -> None:
    heading = "compose, student: co_boosting, student starts aggregate, α = 0.01, 50 warm-up rounds"
    row = LostRow("mean", "made", 30.0, {"images": 20.0, "student": 10.0, "teacher": 40.0})
    values = (((30.0, 40.0),) * 2,) * 2
    plots = (
        LostPoints("lost_points", heading, "100 %", (row,)),
        PartsMap("attribution", heading, ("mean", "share"), ("made", "real"), values),
    )
    for plot in plots:
        with paper():
            figure = plot.draw()
            FigureCanvasAgg(figure).draw()
        box = figure.axes[0].title.get_window_extent()
        assert figure.bbox.x0 <= box.x0
        assert box.x1 <= figure.bbox.x1
        assert box.y1 <= figure.bbox.y1
    assert all("gained" not in text.get_text() for text in plots[0].draw().legends[0].get_texts())
