from __future__ import annotations

import io
import json
import math
from typing import Any

import numpy as np
import pytest
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.image import imread
from PIL import Image
from report_lab import Lab, filled, judged, plots_of

from benchmark.store import Status
from reports.api import write_report
from reports.figures.classes import Confusion
from reports.figures.generation import Bar, Scores, _log_ticks
from reports.figures.lines import Lines, _curve, _readable
from reports.figures.partitions import Partitions
from reports.figures.ranks import cliques
from reports.figures.style import error_bars, look, rendered
from reports.grid import build_grid
from reports.load import load


def test_every_figure_is_drawn_as_pdf_and_png(lab: Lab) -> None:
    report = write_report(filled(lab))
    drawn = {path.name for path in report.files if path.parent.name == "figures"}
    stems = {"accuracy_by_alpha", "accuracy_by_bytes", "accuracy_by_server_step"}
    stems |= {"per_class_1", "confusion_1", "per_class_2", "confusion_2", "partitions"}
    assert drawn == {f"{stem}.{ending}" for stem in stems for ending in ("pdf", "png")}
    folder = lab.folder / "report" / "figures"
    for path in folder.glob("*.png"):
        assert np.ptp(imread(path)[..., :3]) > 0.5
    for path in folder.glob("*.pdf"):
        assert path.read_bytes().startswith(b"%PDF")


def test_a_figure_says_of_how_many_seeds_a_method_is_where_they_differ(lab: Lab) -> None:
    for alpha in (0.1, 1.0):
        lab.add("distilling", 0, 0.5, partition__alpha=alpha)
        lab.add("averaging", 0, 0.6, partition__alpha=alpha)
    plain = build_grid(load(lab.plan())).figure_labels()
    assert {*plain.values()} == {"averaging", "distilling"}
    lab.add("averaging", 1, 0.7, partition__alpha=0.1)
    drawn = plots_of(lab.plan())
    for name in ("accuracy_by_alpha", "accuracy_by_bytes"):
        assert {one.label for _, series in drawn[name].panels for one in series} == {
            "averaging, n = 1 or 2",
            "distilling, n = 1",
        }
    # Where one scenario is shown, its own numbers count.
    assert set(drawn["confusion_1"].labels) == {"averaging, n = 2", "distilling, n = 1"}
    assert set(drawn["confusion_2"].labels) == {"averaging", "distilling"}


def test_of_a_partition_the_split_of_the_lowest_seed_is_drawn(lab: Lab) -> None:
    for seed in (10, 2, 4):
        lab.add("averaging", seed, 0.5)
    drawn = plots_of(lab.plan())["partitions"]
    assert isinstance(drawn, Partitions)
    assert [panel.title for panel in drawn.panels] == ["split seed 2"]


def test_a_split_is_titled_by_what_decides_it_alone(lab: Lab) -> None:
    """One panel for two budgets would else look as if it were that of one of them."""
    for alpha in (0.1, 1.0):
        for steps in (10, 20):
            setting = {"partition__alpha": alpha, "budget__generator_steps": steps}
            split = {"split": {"id": f"{alpha}", "counts": [[1, 2, 3], [4, 5, 6]]}}
            lab.add("averaging", 0, 0.5, facts=split, **setting)
    drawn = plots_of(lab.plan())["partitions"]
    assert isinstance(drawn, Partitions)
    titles = [panel.title for panel in drawn.panels]
    assert titles == ["α = 0.1, split seed 0", "α = 1, split seed 0"]


@pytest.mark.usefixtures("no_pictures")
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


@pytest.mark.parametrize(("colour", "mode"), [("0.4", "L"), ("tab:blue", "RGBA")])
def test_a_picture_without_colours_has_one_channel(colour: str, mode: str) -> None:
    figure = Figure(figsize=(2, 1))
    figure.subplots().plot([0, 1], color=colour)
    plain = io.BytesIO()
    figure.savefig(plain, format="png")
    with (
        Image.open(io.BytesIO(rendered(figure)["png"])) as image,
        Image.open(plain) as expected,
    ):
        assert image.mode == mode
        assert image.convert("RGBA").tobytes() == expected.convert("RGBA").tobytes()
        assert image.info["dpi"] == pytest.approx(expected.info["dpi"])


def test_equal_data_give_equal_bytes(lab: Lab) -> None:
    lab.add("averaging", 0, 0.5)
    folder = lab.plan() / "report" / "figures"
    write_report(lab.folder)
    first = {path.name: path.read_bytes() for path in folder.iterdir()}
    for path in folder.iterdir():
        path.unlink()
    write_report(lab.folder)
    assert first == {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.usefixtures("no_pictures")
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
    figure = plots_of(lab.plan())["accuracy_by_alpha"]
    assert isinstance(figure, Lines)
    [(_, series)] = figure.panels
    assert {one.label: one.y for one in series}["distilling"] == (60.0, None, 60.0)


def test_a_setting_that_a_method_was_not_asked_for_does_not_break_its_line(lab: Lab) -> None:
    for rounds in (1, 10, 39, 50):
        lab.add("averaging", 0, 0.5, warmup__rounds=rounds)
        if rounds != 39:
            lab.add("distilling", 0, 0.6, warmup__rounds=rounds)
    figure = plots_of(lab.plan())["accuracy_by_warm_up_rounds"]
    assert isinstance(figure, Lines)
    [(_, series)] = figure.panels
    distilling = {one.label: one for one in series}["distilling"]
    # Rounds stand at their logarithm, a mean step apart.
    assert distilling.x == pytest.approx((0.0, 3 * math.log(10) / math.log(50), 3.0))
    assert figure.x_title == "warm-up rounds (log scale)"
    assert distilling.y == (60.0, 60.0, 60.0)


def test_history_continues_over_rounds_and_needs_all_seeds(lab: Lab) -> None:
    lab.add("distilling", 0, 0.6, history=[0.2, 0.4, 0.6])
    lab.add("distilling", 1, 0.6, history=[0.4, 0.6])
    figure = plots_of(lab.plan())["accuracy_by_server_step"]
    assert isinstance(figure, Lines)
    [(_, [one])] = figure.panels
    assert one.x == (10.0, 20.0)
    assert one.y == (30.000000000000004, 50.0)


def test_steps_that_run_on_over_rounds_stay_where_they_are() -> None:
    def rows(*places: tuple[int, int]) -> list[dict[str, float | str]]:
        return [{"round": float(at), "step": float(step), "accuracy": 0.5} for at, step in places]

    assert list(_curve(rows((0, 1), (1, 2), (2, 3)))) == [1, 2, 3]
    assert list(_curve(rows((0, 1), (0, 4), (1, 1), (1, 4), (2, 2)))) == [1, 4, 5, 8, 10]
    client: dict[str, float | str] = {"round": 0.0, "step": 2.0, "client": 1.0, "accuracy": 0.9}
    assert list(_curve([*rows((0, 1)), client])) == [1]


def test_cliques_are_longest_and_not_nested() -> None:
    assert cliques([1.0, 1.5, 2.4, 4.0], 1.0) == [(0, 1), (1, 2)]
    assert cliques([1.0, 1.2, 1.4], 1.0) == [(0, 2)]
    assert cliques([1.0, 3.0], 1.0) == []


def test_twenty_methods_look_different() -> None:
    methods = [look(place, reference=False) for place in range(20)]
    assert len({(one.color, one.marker) for one in methods}) == 20


def test_further_scenarios_stand_in_further_figures(lab: Lab) -> None:
    for clients in range(2, 10):
        for method in ("averaging", "distilling"):
            where = {"partition__clients": clients}
            lab.add(method, 0, history=[0.1, 0.2], generation=[judged()], **where)
    found = plots_of(lab.plan())
    for stem in ("accuracy_by_bytes", "accuracy_by_server_step"):
        panels = [len(getattr(found[name], "panels")) for name in (stem, f"{stem}_2")]  # noqa: B009
        assert panels == [6, 2]
    for stem in ("per_class", "confusion", "generation_classifier"):
        assert {f"{stem}_{number}" for number in range(1, 9)} <= set(found)


@pytest.mark.usefixtures("no_pictures")
def test_a_figure_is_titled_by_what_it_shows_of_which_scenarios(lab: Lab) -> None:
    found = plots_of(filled(lab))
    titles = {name: getattr(plot, "title") for name, plot in found.items()}  # noqa: B009
    assert titles["confusion_1"] == "Confusion: α = 0.1"
    assert titles["per_class_2"] == "Accuracy by class: α = 1"
    assert titles["accuracy_by_bytes"] == "Accuracy against bytes: α = 0.1; α = 1"
    assert len(set(titles.values())) == len(titles)
    write_report(lab.folder)
    page = (lab.folder / "report" / "index.html").read_text(encoding="utf-8")
    assert 'alt="Confusion: α = 0.1"' in page
    assert "<figcaption>Confusion: α = 0.1 " in page


def test_confusion_names_classes_at_the_edges_and_labels_every_lowest_panel() -> None:
    matrix = ((5, 1, 0), (0, 6, 0), (1, 0, 5))
    labels = tuple(f"method {number}" for number in range(7))
    names = ("shirt", "shoe", "bag")
    axes = Confusion("confusion", "", labels, (matrix,) * 7, names).draw().axes
    said = [[text.get_text() for text in axis.get_xticklabels()] for axis in axes]
    lowest, upper = [*range(2, 7)], [0, 1]
    assert all(tuple(said[at]) == names for at in lowest)
    assert all(axes[at].get_xlabel() == "predicted" for at in lowest)
    assert not any("".join(said[at]) + axes[at].get_xlabel() for at in upper)
    many = tuple(tuple(int(row == column) for column in range(20)) for row in range(20))
    numbered = Confusion("confusion", "", ("one",), (many,), tuple(map(str, range(20)))).draw()
    assert len(numbered.axes[0].get_xticks()) < 20


def test_one_seed_has_no_error_bar_beside_rows_of_several() -> None:
    bars = (Bar("several", 0, False, 2.0, 0.5), Bar("one", 1, False, 1.0, 0.0))
    figure = Scores("", "classifier", (("score", False, bars),), "scores").draw()
    [drawn] = [found for found in figure.axes[0].collections if isinstance(found, LineCollection)]
    ends = [segment[:, 0] for segment in drawn.get_segments() if len(segment)]
    assert [sorted(end) for end in ends] == [[1.5, 2.5]]
    alone = Scores("", "classifier", (("score", False, bars[1:]),), "scores").draw()
    assert not alone.axes[0].collections
    assert error_bars([0.0, 0.0]) is None


def test_rows_of_another_number_of_classes_are_left_out(lab: Lab) -> None:
    """A folder of one's own that gained a class since: a note says that they saw other data."""
    for method in ("averaging", "distilling"):
        lab.add(method, 0, 0.5)
    lab.add("counting", 0, 0.6, facts={"per_class_accuracy": [0.5] * 4, "confusion": [[1] * 4] * 4})
    found = plots_of(lab.plan())
    for name in ("per_class", "confusion"):
        figure: Any = found[name]
        assert set(figure.labels) == {"averaging", "distilling"}
        figure.draw()


@pytest.mark.parametrize("seeds", [1, 3])
def test_figures_say_what_bars_are_and_over_how_many_seeds(lab: Lab, seeds: int) -> None:
    for seed in range(seeds):
        for alpha in (0.1, 1.0):
            for place, method in enumerate(("averaging", "distilling")):
                accuracy = 0.5 + place / 10 + seed / 50
                lab.add(method, seed, accuracy, history=[0.1, 0.2], partition__alpha=alpha)
    found = plots_of(lab.plan())
    drawn = {"accuracy_by_alpha": "bars", "accuracy_by_bytes": "bars"}
    for name, what in {**drawn, "accuracy_by_server_step": "bands"}.items():
        figure: Any = found[name]
        words = f"{what}: ± 1 standard deviation over 3 seeds" if seeds > 1 else ""
        assert figure.spread == words
        title = figure.draw().legends[0].get_title().get_text()
        assert title == words
    assert getattr(found["per_class_1"], "seeds") == ("3 seeds" if seeds > 1 else "")  # noqa: B009


def test_rows_of_other_numbers_of_seeds_are_said_by_class(lab: Lab) -> None:
    for seed in range(3):
        lab.add("averaging", seed, 0.5)
    lab.add("distilling", 0, 0.5)
    found = plots_of(lab.plan())
    assert [getattr(found[name], "seeds") for name in ("per_class", "confusion")] == [  # noqa: B009
        *["1 to 3 seeds"] * 2
    ]


def test_methods_do_not_reach_the_next_tick(lab: Lab) -> None:
    for alpha in (0.1, 0.11, 10.0):
        for method in ("averaging", "distilling", "counting"):
            lab.add(method, 0, 0.5, partition__alpha=alpha)
    axis = plots_of(lab.plan())["accuracy_by_alpha"].draw().axes[0]
    x = [list(box.lines[0].get_xdata()) for box in axis.containers]
    assert max(one[0] for one in x) < min(one[1] for one in x)


def test_labels_that_would_run_into_each_other_are_left_out() -> None:
    assert _readable(["24", "28", "78"], (0.0, 0.1, 9.0)) == ["24", "", "78"]
    assert _readable(["0.1", "1"], (0.0, 1.0)) == ["0.1", "1"]


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (0.8, 1200.0, [1.0, 10.0, 100.0, 1000.0]),
        (1500.0, 6000.0, [2000.0, 5000.0]),
        (14.0, 45.0, [15.0, 20.0, 30.0]),
        (2400.0, 5100.0, [3000.0, 5000.0]),
    ],
)
def test_ticks_of_a_log_axis_are_few_and_round(low: float, high: float, ticks: list[float]) -> None:
    assert _log_ticks(low, high) == ticks
