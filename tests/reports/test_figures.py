from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.image import imread
from report_lab import Lab

from benchmark.store import Status
from reports.api import write_report
from reports.comparisons import rank_methods
from reports.figures import plots
from reports.figures.lines import Lines
from reports.figures.ranks import cliques
from reports.figures.style import look
from reports.figures.traffic import Point, Traffic, pareto
from reports.grid import build_grid
from reports.load import load


def _fill(lab: Lab) -> Path:
    for alpha in (0.1, 1.0):
        for seed in range(2):
            lab.add("averaging", seed, 0.65 + alpha / 10, partition__alpha=alpha, up=2_000_000)
            lab.add("distilling", seed, 0.6, partition__alpha=alpha, history=[0.2, 0.4, 0.6])
            lab.add("everything", seed, 0.9, partition__alpha=alpha, up=0)
    return lab.plan()


def _data(folder: Path) -> dict[str, object]:
    results = load(folder)
    grid = build_grid(results)
    return {plot.name: plot for plot in plots(results, grid, rank_methods(grid))}


@pytest.fixture(autouse=True)
def _few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reports.figures.MOST_SCENARIOS", 1)


def test_every_figure_is_drawn_as_pdf_and_png(lab: Lab) -> None:
    report = write_report(_fill(lab))
    drawn = {path.name for path in report.files if path.parent.name == "figures"}
    stems = {"accuracy_by_alpha", "accuracy_by_bytes", "accuracy_by_server_step"}
    stems |= {"per_class_1", "confusion_1", "partitions"}
    assert drawn == {f"{stem}.{ending}" for stem in stems for ending in ("pdf", "png")}
    folder = lab.folder / "report" / "figures"
    for path in folder.glob("*.png"):
        assert np.ptp(imread(path)[..., :3]) > 0.5
    for path in folder.glob("*.pdf"):
        assert path.read_bytes().startswith(b"%PDF")


def test_only_figures_whose_data_changed_are_drawn_again(lab: Lab) -> None:
    lab.add("averaging", 0, 0.5, partition__alpha=0.1, history=[0.1, 0.2])
    lab.add("averaging", 0, 0.6, partition__alpha=1.0)
    folder = lab.plan() / "report" / "figures"
    write_report(lab.folder)
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    write_report(lab.folder)
    assert before == {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    (folder / "confusion_1.png").unlink()
    lab.add("averaging", 0, 0.7, partition__alpha=10.0)
    lab.plan()
    write_report(lab.folder)
    after = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    changed = {name for name, time in before.items() if after[name] != time}
    assert {"accuracy_by_alpha.pdf", "confusion_1.pdf", "confusion_1.png"} <= changed
    assert not {"per_class_1.png", "per_class_1.pdf", "accuracy_by_server_step.png"} & changed


def test_equal_data_give_equal_bytes(lab: Lab) -> None:
    lab.add("averaging", 0, 0.5)
    folder = lab.plan() / "report" / "figures"
    write_report(lab.folder)
    first = {path.name: path.read_bytes() for path in folder.iterdir()}
    for path in folder.iterdir():
        path.unlink()
    write_report(lab.folder)
    assert first == {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_figure_that_no_longer_applies_is_removed(lab: Lab) -> None:
    lab.add("averaging", 0, 0.5)
    folder = lab.plan() / "report" / "figures"
    folder.mkdir(parents=True)
    write_report(lab.folder)
    assert (folder / "confusion.png").exists()
    lab.store.supersede(str(load(lab.folder).runs["run_id"][0]))
    write_report(lab.folder)
    assert not (folder / "confusion.png").exists()
    assert json.loads((folder / "drawn.json").read_text())["figures"] == {}


def test_an_incomplete_cell_breaks_its_line(lab: Lab) -> None:
    for alpha in (0.01, 0.1, 1.0):
        lab.add("averaging", 0, 0.5, partition__alpha=alpha)
        status = Status.FAILED if alpha == 0.1 else Status.DONE
        lab.add("distilling", 0, 0.6, partition__alpha=alpha, status=status)
    figure = _data(lab.plan())["accuracy_by_alpha"]
    assert isinstance(figure, Lines)
    [(_, series)] = figure.panels
    assert {one.label: one.y for one in series}["distilling"] == (60.0, None, 60.0)


def test_history_continues_over_rounds_and_needs_all_seeds(lab: Lab) -> None:
    lab.add("distilling", 0, 0.6, history=[0.2, 0.4, 0.6])
    lab.add("distilling", 1, 0.6, history=[0.4, 0.6])
    figure = _data(lab.plan())["accuracy_by_server_step"]
    assert isinstance(figure, Lines)
    [(_, [one])] = figure.panels
    assert one.x == (10.0, 20.0)
    assert one.y == (30.000000000000004, 50.0)


def test_no_traffic_is_a_line_and_not_a_point_at_zero(lab: Lab) -> None:
    figure = _data(_fill(lab))["accuracy_by_bytes"]
    assert isinstance(figure, Traffic)
    drawn = figure.draw()
    labels = {label for axis in drawn.axes for label in axis.get_legend_handles_labels()[1]}
    assert labels == {"averaging", "distilling", "everything (no traffic)", "Pareto front"}


def test_pareto_front() -> None:
    points = [
        Point(name, False, 0, cost, accuracy, 0.0)
        for name, cost, accuracy in [
            ("cheap", 1.0, 50.0),
            ("beaten", 2.0, 40.0),
            ("same cost, better", 1.0, 55.0),
            ("dear", 5.0, 80.0),
        ]
    ]
    assert [point.label for point in pareto(points)] == ["same cost, better", "dear"]


def test_cliques_are_longest_and_not_nested() -> None:
    assert cliques([1.0, 1.5, 2.4, 4.0], 1.0) == [(0, 1), (1, 2)]
    assert cliques([1.0, 1.2, 1.4], 1.0) == [(0, 2)]
    assert cliques([1.0, 3.0], 1.0) == []


def test_twenty_methods_look_different() -> None:
    methods = [look(place, reference=False) for place in range(20)]
    assert len({(one.color, one.marker) for one in methods}) == 20


def _front_line(points: tuple[Point, ...]) -> tuple[list[float], list[float], Any]:
    axis = Traffic((("", points),), ()).draw().axes[0]
    [line] = [one for one in axis.get_lines() if one.get_label() == "Pareto front"]
    x, y = line.get_data()
    return list(x), list(y), axis


def test_the_front_is_drawn_from_the_bottom_to_the_right_edge_even_if_one_method_is_it() -> None:
    better, worse = Point("better", False, 0, 1.0, 80.0, 2.0), Point("worse", False, 1, 2.0, 70, 0)
    x, y, axis = _front_line((better, worse))
    assert x == [pytest.approx(1.0), pytest.approx(1.0), axis.get_xlim()[1]]
    assert y == [axis.get_ylim()[0], 80.0, 80.0]


def test_the_front_lies_above_error_bars_and_rings_its_members() -> None:
    _, _, axis = _front_line(tuple(Point(f"{at}", False, at, 1 + at, 50 + at, 1) for at in (0, 1)))
    [front] = [one for one in axis.get_lines() if one.get_label() == "Pareto front"]
    assert list(front.get_markevery()) == [1, 3]
    others = [one for box in axis.containers for one in box.get_children()]
    assert all(front.get_zorder() > one.get_zorder() for one in others)


def test_methods_of_equal_bytes_stand_side_by_side() -> None:
    points = tuple(Point(f"{at}", False, at, 5.0, 50.0 + at, 0.0) for at in range(3))
    axis = Traffic((("", points),), ()).draw().axes[0]
    x = [box.lines[0].get_xdata()[0] for box in axis.containers]
    assert x[0] < x[1] < x[2]
    assert x[1] == pytest.approx(5.0)
    assert x[2] / x[0] < 1.1
