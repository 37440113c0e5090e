"""Figures of accuracy against bytes: who stands where, the front, and rounds of a warm-up."""

from __future__ import annotations

from typing import Any

import pytest
from report_lab import Lab, filled, plots_of

from reports.figures.traffic import Point, Traffic, pareto
from reports.figures.warm_up import WarmUp, _raised


def test_bytes_over_warm_ups_follow_the_rounds_of_each_method(lab: Lab) -> None:
    for alpha in (0.1, 1.0):
        for rounds in (10, 1):
            setting = {"warmup__rounds": rounds, "partition__alpha": alpha}
            traffic = {"up": 1_000_000, "warmup_up": rounds * 2_000_000}
            lab.add("averaging", 0, rounds / 20, **traffic, **setting)
            lab.add("everything", 0, 0.9, up=0, **setting)
            if rounds == 1:
                lab.add("distilling", 0, 0.6, up=1_000_000, **setting)
    figure = plots_of(lab.plan())["accuracy_by_bytes_over_warm_up"]
    assert isinstance(figure, WarmUp)
    assert [heading for heading, _ in figure.panels] == ["α = 0.1", "α = 1"]
    for _, lines in figure.panels:
        # A method with one warm-up, or without traffic, has no line.
        [line] = lines
        assert {point.label for _, point in line} == {"averaging"}
        assert [(rounds, point.accuracy) for rounds, point in line] == [("1", 5.0), ("10", 50.0)]
        bytes_more = (line[1][1].megabytes - line[0][1].megabytes) * 1e6
        # Nine rounds more, up and down, shared by two clients.
        assert bytes_more == pytest.approx(9 * 2_000_000 * 2 / 2)
    assert figure.draw().axes[0].get_xscale() == "log"


def test_one_length_of_warm_up_has_no_line_over_warm_ups(lab: Lab) -> None:
    assert "accuracy_by_bytes_over_warm_up" not in plots_of(filled(lab))


def test_no_traffic_is_a_line_and_not_a_point_at_zero(lab: Lab) -> None:
    figure = plots_of(filled(lab))["accuracy_by_bytes"]
    assert isinstance(figure, Traffic)
    drawn = figure.draw()
    labels = {label for axis in drawn.axes for label in axis.get_legend_handles_labels()[1]}
    assert labels == {"averaging", "distilling", "everything (no traffic)", "Pareto front of means"}


def test_pareto_front() -> None:
    points = [
        Point(name, False, 0, cost, accuracy, 0.0)
        for name, cost, accuracy in [
            ("cheap", 1.0, 50.0),
            ("beaten", 2.0, 40.0),
            ("same cost, better", 1.0, 55.0),
            ("dear", 5.0, 80.0),
            ("a little dearer, better", 5.04, 81.0),
            ("over a hundredth dearer", 5.06, 82.0),
        ]
    ]
    front = [point.label for point in pareto(points)]
    assert front == ["same cost, better", "a little dearer, better", "over a hundredth dearer"]


def _front_line(points: tuple[Point, ...]) -> tuple[list[float], list[float], Any]:
    axis = Traffic((("", points),), ()).draw().axes[0]
    [line] = [one for one in axis.get_lines() if one.get_label() == "Pareto front of means"]
    x, y = line.get_data()
    return list(x), list(y), axis


def test_the_front_is_drawn_to_the_right_edge_even_if_one_method_is_it() -> None:
    better, worse = Point("better", False, 0, 1.0, 80.0, 2.0), Point("worse", False, 1, 2.0, 70, 0)
    x, y, axis = _front_line((better, worse))
    assert x == [pytest.approx(1.0), axis.get_xlim()[1]]
    assert y == [80.0, 80.0]


def test_the_front_lies_behind_error_bars_and_rings_its_members() -> None:
    _, _, axis = _front_line(tuple(Point(f"{at}", False, at, 1 + at, 50 + at, 1) for at in (0, 1)))
    [front] = [one for one in axis.get_lines() if one.get_label() == "Pareto front of means"]
    assert list(front.get_markevery()) == [0, 2]
    others = [one for box in axis.containers for one in box.get_children()]
    assert all(front.get_zorder() < one.get_zorder() for one in others)


@pytest.mark.parametrize("more", [0.0, 0.01])
def test_methods_of_equal_bytes_stand_side_by_side_the_best_first(more: float) -> None:
    """What it beats is not left of the front, though its label counts cost some bytes more."""
    points = tuple(Point(f"{at}", False, at, 5.0 + at * more, 50.0 + at, 0.0) for at in range(3))
    axis = Traffic((("", points),), ()).draw().axes[0]
    x = [box.lines[0].get_xdata()[0] for box in axis.containers]
    assert x[2] < x[1] < x[0]
    assert x[1] == pytest.approx(5.0 + more, rel=1e-4)
    assert x[0] / x[2] < 1.1


def test_prices_are_those_of_the_front_whatever_references_cost() -> None:
    costs = {"reference": (1.0, 50.0), "b": (1.008, 60.0), "c": (1.015, 70.0), "d": (4.0, 80.0)}
    points = tuple(
        Point(name, name == "reference", at, bytes_, accuracy, 0.0)
        for at, (name, (bytes_, accuracy)) in enumerate(costs.items())
    )
    axis = Traffic((("", points),), ()).draw().axes[0]
    x = [box.lines[0].get_xdata()[0] for box in axis.containers]
    assert x[0] < x[2] < x[1] < x[3]


def test_rounds_over_points_stand_apart() -> None:
    found = [("24", 4.9, 60.0), ("28", 5.6, 60.0), ("0", 0.1, 60.0), ("1", 0.11, 20.0)]
    assert _raised(found) == [0, 1, 0, 0]
