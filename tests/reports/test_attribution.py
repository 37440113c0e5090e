"""Teachers by sources of images: the table and the heat map of methods made of parts."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from parts_lab import add
from report_lab import Lab

from benchmark.store import Status
from reports.api import write_report
from reports.attribution import attributions
from reports.figures import plots
from reports.figures.attribution import PartsMap
from reports.figures.style import paper
from reports.figures.traffic import Traffic
from reports.grid import build_grid
from reports.load import load


@pytest.fixture
def crossed(lab: Lab) -> Path:
    """Two teachers on two sources of images, two seeds; and a method that has no parts."""
    for seed, more in ((0, 0.0), (1, 0.02)):
        add(lab, ("mean", "real", "dense"), 0.50 + more, seed)
        add(lab, ("mean", "made", "dense"), 0.30 + more, seed)
        add(lab, ("share", "real", "dense"), 0.70 + more, seed)
        add(lab, ("share", "made", "dense"), 0.4, seed, (Status.DONE, Status.FAILED)[seed])
        lab.add("averaging", seed, 0.2)
    return lab.plan()


def test_students_stand_by_teacher_and_images(crossed: Path) -> None:
    table = write_report(crossed, figures=False).rendered["attribution"]
    assert table.columns == tuple(
        (f"images: {source}", column)
        for source in ("made", "real")
        for column in ("student %", "teacher %")
    )
    assert {row.label: [cell.text for cell in row.cells] for row in table.rows} == {
        "mean": ["31.00 ± 1.41", "41.00 ± 1.41", "51.00 ± 1.41", "61.00 ± 1.41"],
        "share": ["failed 1 of 2", "–", "71.00 ± 1.41", "81.00 ± 1.41"],
    }
    assert {row.group for row in table.rows} == {"joined, student: dense"}
    assert (crossed / "report" / "attribution.md").is_file()


def test_the_map_shows_what_is_complete(crossed: Path) -> None:
    results = load(crossed)
    made = [plot for plot in plots(results, build_grid(results), "") if plot.name == "attribution"]
    [plot] = made
    assert isinstance(plot, PartsMap)
    assert (plot.teachers, plot.images) == (("mean", "share"), ("made", "real"))
    (low, middle), (missing, high) = plot.values
    assert missing is None
    for value, student in ((low, 31), (middle, 51), (high, 71)):
        assert value == pytest.approx((student, student + 10))
    texts = [text.get_text() for text in plot.draw().axes[0].texts]
    assert texts == ["31.0\n(of 41.0)", "51.0\n(of 61.0)", "71.0\n(of 81.0)"]


def test_the_map_says_what_its_students_start_from(lab: Lab) -> None:
    for teacher in ("mean", "share"):
        for images in ("made", "real"):
            add(lab, (teacher, images, "dense"), 0.5, start="aggregate")
    results = load(lab.plan())
    [plot] = [one for one in plots(results, build_grid(results), "") if isinstance(one, PartsMap)]
    assert plot.draw().axes[0].get_title() == "student starts aggregate"


@pytest.mark.parametrize(
    "images", [("real", "generators"), ("co_boosting", "dense", "generators", "real")]
)
def test_names_of_columns_do_not_run_into_each_other(images: tuple[str, ...]) -> None:
    line = ((30.0, 40.0),) * len(images)
    with paper():
        figure = PartsMap("attribution", "", ("mean", "share"), images, (line, line)).draw()
        FigureCanvasAgg(figure).draw()
    labels = figure.axes[0].get_xticklabels()
    assert {text.get_rotation() for text in labels} == {30.0 if len(images) > 2 else 0.0}
    across = [text.get_window_extent() for text in labels]
    upright = labels[0].get_rotation() == 0
    assert not upright or all(a.x1 < b.x0 for a, b in pairwise(across))


@pytest.mark.usefixtures("crossed")
def test_what_the_map_shows_does_not_crowd_the_figure_of_bytes(lab: Lab) -> None:
    lab.add("other", 0, 0.3)
    lab.add("other", 1, 0.3)
    results = load(lab.plan())
    [plot] = [one for one in plots(results, build_grid(results), "") if isinstance(one, Traffic)]
    assert {point.label for _, points in plot.panels for point in points} == {"averaging", "other"}


def test_each_student_has_its_own_rows_and_map(lab: Lab) -> None:
    for student in ("dense", "mosaic"):
        for teacher in ("mean", "share"):
            for images in ("made", "real"):
                add(lab, (teacher, images, student), 0.5)
    results = load(lab.plan())
    grid = build_grid(results)
    assert [one.student for one in attributions(grid)] == ["dense", "mosaic"]
    headings = {plot.name: plot.title for plot in plots(results, grid, "")}
    assert headings["attribution_1"] == "Accuracy by teacher and images: joined, student: dense"
    assert headings["attribution_2"] == "Accuracy by teacher and images: joined, student: mosaic"


def test_a_map_of_one_line_is_not_drawn_and_leaves_its_rows_to_the_figure_of_bytes(
    lab: Lab,
) -> None:
    for images in ("made", "real"):
        add(lab, ("mean", images, "dense"), 0.5)
        add(lab, ("share", images, "dense"), 0.5)
        add(lab, ("share", images, "dense"), 0.5, 1, Status.FAILED)
    results = load(lab.plan())
    drawn = {plot.name: plot for plot in plots(results, build_grid(results), "")}
    assert "attribution" not in drawn
    traffic = drawn["accuracy_by_bytes"]
    assert isinstance(traffic, Traffic)
    labels = {point.label for _, points in traffic.panels for point in points}
    assert labels == {"mean, made, dense", "mean, real, dense"}


def test_one_teacher_alone_is_no_attribution(lab: Lab) -> None:
    add(lab, ("mean", "real", "dense"), 0.5)
    add(lab, ("mean", "made", "dense"), 0.3)
    assert "attribution" not in write_report(lab.plan(), figures=False).rendered


def test_parts_that_stand_twice_are_not_taken_for_each_other(lab: Lab) -> None:
    for teacher in ("mean", "share"):
        for images in ("made", "real"):
            add(lab, (teacher, images, "dense"), 0.5)
    add(lab, ("mean", "real", "dense"), 0.9, temperature=2)
    assert attributions(build_grid(load(lab.plan()))) == ()
