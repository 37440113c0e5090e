"""Whether anything of a figure runs over its edge, where a page would cut it off."""

from __future__ import annotations

import warnings

import pytest
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox
from report_lab import Lab

from reports.figures.classes import Confusion, PerClass
from reports.figures.lines import histories
from reports.figures.ranks import CriticalDifference
from reports.figures.style import legend_below, panels, paper, rendered
from reports.figures.traffic import traffic
from reports.grid import build_grid
from reports.load import load


@pytest.mark.parametrize("names", [("T-shirt/top", "Ankle boot", "Bag"), ("0", "1", "2"), ()])
@pytest.mark.parametrize("count", [1, 5, 7, 13])
def test_nothing_of_a_confusion_figure_runs_over_its_edge(
    names: tuple[str, ...], count: int
) -> None:
    matrix = ((5, 1, 0), (0, 6, 0), (1, 0, 5))
    labels = ("generators, class share of probabilities", *["short"] * (count - 1))
    with paper():
        figure = Confusion("confusion", "α = 0.1", labels, (matrix,) * count, names).draw()
        assert _room(figure) > -0.01


@pytest.mark.parametrize("count", [1, 2, 9])
def test_nothing_of_a_figure_by_class_runs_over_its_edge(count: int) -> None:
    labels = tuple(f"method {number}" for number in range(count))
    values, names = ((50.0, None, 100.0),) * count, ("t-shirt/top", "ankle boot", "bag")
    with paper():
        figure = PerClass("per_class", "", labels, values, names).draw()
        assert _room(figure) > -0.01


def test_names_are_no_mathematics_and_long_ones_leave_room() -> None:
    labels = (r"w/o $\bm{L}$", "$a$ and $b_", "mosaic [" + "setting=value, " * 8 + "]")
    values, names = ((50.0, None, 100.0),) * 3, (r"$\frac$", "ankle boot", "bag")
    with paper(), warnings.catch_warnings():
        warnings.simplefilter("error")  # of a layout that found no room
        figure = PerClass("per_class", r"dataset npz:$\frac", labels, values, names).draw()
        rendered(figure)
        assert _room(figure) > -0.01
        axis = figure.axes[0]
        assert axis.get_window_extent().width > 0.3 * figure.bbox.width


@pytest.mark.parametrize("count", [1, 2, 3])
def test_nothing_of_a_figure_by_server_step_runs_over_its_edge(lab: Lab, count: int) -> None:
    for number in range(count):
        lab.add("distilling", 0, 0.6, partition__alpha=10.0**-number, history=[0.2, 0.4, 0.6])
    folder = lab.plan()
    [drawn] = histories(build_grid(load(folder)), folder, most=3)
    with paper():
        assert _room(drawn.draw()) > -0.01


@pytest.mark.parametrize("length", [10, 60, 140])
def test_a_legend_of_long_names_keeps_within_the_figure(length: int) -> None:
    names = [("probabilities by class share, images: " * 4)[: length - 2] + f" {n}" for n in "ab"]
    with paper():
        figure, axes = panels(1)
        for name in names:
            axes[0].plot([0, 1], [0, 1], label=name)
        legend_below(figure, axes, names)
        assert _room(figure) > -0.01
        [legend] = figure.legends
        said = [text.get_text().replace("\n", " ") for text in legend.get_texts()]
        assert said == names


@pytest.mark.parametrize("ranks", [(1.0, 1.5, 3.0), (1.0, 3.0)])
def test_nothing_of_a_figure_of_ranks_runs_over_its_edge(ranks: tuple[float, ...]) -> None:
    labels = ("averaging", "generators, class share of probabilities", "counting")[: len(ranks)]
    with paper():
        figure = CriticalDifference(labels, ranks, 1.0, 6).draw()
        assert rendered(figure)["png"]
        assert _room(figure) > -0.01


def _room(figure: Figure) -> float:
    """Return the least distance of what is drawn from the figure's edge, in inches."""
    figure.draw_without_rendering()
    # An axis counts its label as no longer than itself, so labels are looked at one by one.
    labels = [part.label for axis in figure.axes for part in (axis.xaxis, axis.yaxis)]
    inches = figure.dpi_scale_trans.inverted()
    boxes = [label.get_window_extent().transformed(inches) for label in labels if label.get_text()]
    drawn = Bbox.union([figure.get_tightbbox(), *boxes])
    width, height = figure.get_size_inches()
    return float(min(drawn.x0, drawn.y0, width - drawn.x1, height - drawn.y1))


def test_one_method_beside_references_has_no_front(lab: Lab) -> None:
    lab.add("averaging", 0, 0.5)
    lab.add("everything", 0, 0.9)
    lab.plan()
    assert not list(traffic(build_grid(load(lab.folder)), 6))
    lab.add("distilling", 0, 0.6)
    lab.plan()
    assert [figure.name for figure in traffic(build_grid(load(lab.folder)), 6)] == [
        "accuracy_by_bytes"
    ]
