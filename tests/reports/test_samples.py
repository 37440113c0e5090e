"""The figure of generated images."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image
from report_lab import Lab, judged, plots_of, png

from reports.api import write_report
from reports.figures.generation import Sample, Samples


def test_ten_pictures_of_a_method_are_drawn_and_the_rest_is_counted(lab: Lab) -> None:
    pictures = {f"grid-client-{number}-generated.png": png() for number in range(12)}
    lab.add("distilling", 0, grids=pictures)
    figure = plots_of(lab.plan())["samples"]
    assert isinstance(figure, Samples)
    [(_, drawn)] = figure.rows
    assert len(drawn) == 10
    assert drawn[-1].title == "client 9 generated | real"
    assert "2 more" in figure.heading
    # Of one method all: its name stands above them once.
    shown = figure.draw()
    assert shown.axes[0].get_title() == "client 0 generated | real"
    assert shown.texts[0].get_text().startswith("distilling\n")


@pytest.mark.parametrize(("methods", "each", "most"), [(3, 12, 10), (4, 8, 7), (31, 2, 1)])
def test_thirty_pictures_of_all_methods_are_drawn_but_one_of_each(
    lab: Lab, methods: int, each: int, most: int
) -> None:
    for method in range(methods):
        grids = {f"grid-client-{number}-generated.png": png(method) for number in range(each)}
        lab.add(f"method {method}", 0, grids=grids)
    figure = plots_of(lab.plan())["samples"]
    assert isinstance(figure, Samples)
    assert [len(found) for _, found in figure.rows] == [most] * methods
    assert f"at most {most} of a method: {methods * (each - most)} more" in figure.heading


def test_the_heading_says_that_one_seed_is_drawn(lab: Lab) -> None:
    pictures = {f"grid-client-{number}-generated.png": png() for number in range(12)}
    for seed in range(3):
        lab.add("distilling", seed, grids=pictures)
    figure = plots_of(lab.plan())["samples"]
    assert isinstance(figure, Samples)
    assert "the first of 3 seeds; at most 10 of a method: 2 more in these runs" in figure.heading


def test_methods_whose_images_were_measured_but_not_kept_are_named(lab: Lab) -> None:
    lab.add("distilling", 0, grids={"grid-generated.png": png()}, generation=[judged()])
    lab.add("counting", 0, generation=[judged()])
    lab.add("averaging", 0)
    figure = plots_of(lab.plan())["samples"]
    assert isinstance(figure, Samples)
    assert figure.heading == "none kept of counting"
    for number in range(9):
        config, label = {"number": number}, f"a_longer_label_{number}"
        lab.add("another", 0, generation=[judged()], label=label, method__config=config)
    longer = plots_of(lab.plan())["samples"]
    assert isinstance(longer, Samples)
    assert longer.heading.count("a_longer_label") == 9
    [heading] = longer.draw().texts
    assert max(map(len, heading.get_text().splitlines())) <= 54


def test_the_scenario_is_shown_that_most_methods_have_pictures_of(lab: Lab) -> None:
    for method, alpha, grey in (
        ("distilling", 0.1, 5),
        ("distilling", 10.0, 10),
        ("counting", 10.0, 20),
    ):
        grids = {"grid-generated.png": png(grey)}
        lab.add(method, 0, grids=grids, partition__alpha=alpha)
    figure = plots_of(lab.plan())["samples"]
    assert isinstance(figure, Samples)
    assert [label for label, _ in figure.rows] == ["distilling", "counting"]
    assert figure.heading == "α = 10 (one of 2 scenarios)"


def test_methods_of_few_pictures_leave_their_room_to_the_others(lab: Lab) -> None:
    lab.add("many", 0, grids={f"grid-client-{number}-generated.png": png() for number in range(9)})
    for method in range(5):
        lab.add(f"method {method}", 0, grids={"grid-generated.png": png(method)})
    figure = plots_of(lab.plan())["samples"]
    assert isinstance(figure, Samples)
    assert sorted(len(found) for _, found in figure.rows) == [1, 1, 1, 1, 1, 9]
    assert "more" not in figure.heading


def test_methods_with_the_same_pictures_share_them(lab: Lab) -> None:
    shared = {"grid-client-0-generated.png": png()}
    lab.add("first", 0, grids=shared)
    lab.add("second", 0, grids={"grid-generated.png": png()})
    lab.add("third", 0, grids=shared)
    figure = plots_of(lab.plan())["samples"]
    assert isinstance(figure, Samples)
    together, alone = sorted(figure.rows, key=lambda row: len(row[0]), reverse=True)
    assert (together[0], len(together[1])) == ("first, third", 1)
    assert (alone[0], len(alone[1])) == ("second", 1)
    assert sorted(axis.get_title().split("\n")[0] for axis in figure.draw().axes) == [
        "first, third",
        "second",
    ]


@pytest.mark.usefixtures("no_pictures")
def test_copied_results_draw_nothing_anew(lab: Lab, tmp_path: Path) -> None:
    lab.add("distilling", 0, grids={"grid-generated.png": png()})
    write_report(lab.plan())
    copied = tmp_path / "elsewhere" / lab.folder.name
    shutil.copytree(lab.folder, copied)
    write_report(copied)
    digests = [
        json.loads((folder / "report/figures/drawn.json").read_text())
        for folder in (lab.folder, copied)
    ]
    assert "samples" in digests[0]["figures"]
    assert digests[0] == digests[1]


@pytest.mark.parametrize(("count", "wide"), [(1, 3.4), (2, 4.7), (3, 7.0), (5, 7.0)])
def test_a_few_samples_leave_no_empty_part_of_a_page(
    tmp_path: Path, count: int, wide: float
) -> None:
    path = tmp_path / "grid-generated.png"
    Image.new("L", (64, 32)).save(path)
    rows = tuple((f"method {index}", (Sample("generated", path, ""),)) for index in range(count))
    figure = Samples(rows, "α = 0.1").draw()
    assert figure.get_figwidth() == pytest.approx(wide, abs=0.1)
    boxes = [axis.get_position() for axis in figure.axes]
    assert len(boxes) == count
    assert all(0 <= box.x0 < box.x1 <= 1 for box in boxes)
    assert min(box.x0 for box in boxes) == pytest.approx(1 - max(box.x1 for box in boxes), abs=0.01)
