"""Scaling, bytes by part, clients' generators: tables and figures of a paper."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from report_lab import Lab, judged_by_client, plots_of

from benchmark.store import Status
from reports.api import write_report
from reports.figures.lines import places
from reports.figures.partitions import Partitions
from reports.figures.style import look, paper
from reports.formats import cost_spread_of, figures_of, percent, size, spread_of
from reports.grid import GridCell, build_grid
from reports.load import load
from reports.parts import closed_form, unequal_forms
from reports.statistics import summarize
from reports.table import Table


def _cells(table: Table) -> dict[str, list[str]]:
    return {row.label: [cell.text for cell in row.cells] for row in table.rows}


# --- scaling -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "field", "values", "headers"),
    [
        ("scaling", "partition__clients", (100, 10, 20), ["10 clients", "20 clients"]),
        ("widths", "widths", (["1"], ["1", "1/2"]), ["widths 1", "widths 1,1/2"]),
    ],
)
def test_settings_along_which_a_paper_looks_have_their_table(
    lab: Lab, name: str, field: str, values: tuple[object, ...], headers: list[str]
) -> None:
    for value in values:
        lab.add("averaging", 0, 0.5, up=2000, **{field: value})
        lab.add("distilling", 0, 0.25, **{field: value})
    table = write_report(lab.plan(), figures=False).rendered[name]
    assert list(dict.fromkeys(column[0] for column in table.columns))[:2] == headers
    assert _cells(table)["averaging"][:3] == ["50.00", "2.00 kB", "1.25"]


def test_best_and_next_are_set_off_along_a_setting(lab: Lab) -> None:
    for seed in range(3):
        for clients in (10, 20):
            lab.add("averaging", seed, 0.8 + seed / 100, partition__clients=clients)
            lab.add("distilling", seed, 0.5 + seed / 50, partition__clients=clients)
            lab.add("everything", seed, 0.99, partition__clients=clients)
    table = write_report(lab.plan(), figures=False).rendered["scaling"]
    assert {row.label: (row.cells[0].best, row.cells[0].second) for row in table.rows} == {
        "averaging": (True, False),
        "distilling": (False, True),
        "everything": (False, False),
    }


def test_a_warm_up_is_part_of_what_all_clients_upload(lab: Lab) -> None:
    for clients in (10, 20):
        lab.add("averaging", 0, up=2000, warmup_up=50_000, partition__clients=clients)
    table = write_report(lab.plan(), figures=False).rendered["scaling"]
    assert _cells(table)["averaging"][1] == "52.0 kB"


def test_seeds_of_a_cell_are_counted_and_told_apart_in_every_table_of_accuracies(
    lab: Lab, page: Callable[[Path, str], str]
) -> None:
    for seed in range(3):
        plugin = "bbbb" if seed else "aaaa"
        for clients in (10, 20):
            where = {"partition__clients": clients, "code__plugin": plugin}
            config = {"scale": 1}
            lab.add("distilling", seed, 0.5 + seed / 10, method__config=config, **where)
    for clients in (10, 20):
        config = {"scale": 2}
        where = {"partition__clients": clients, "label": "two"}
        lab.add("distilling", 0, 0.55, method__config=config, **where)
    report = write_report(lab.plan(), figures=False)
    for name, at in (("scaling", 0), ("ablations", 1)):
        rows = _cells(report.rendered[name])
        assert rows["distilling"][at] == "60.00 ± 10.00† (n = 3)"
        assert rows["two"][at] == "55.00 (n = 1)"
        assert "The seeds of this cell differ in code" in page(lab.folder, f"{name}.tex")
    # Over the one split that both have: not the difference of the two means.
    assert _cells(report.rendered["ablations"])["two"][2] == "+5.00"


# --- bytes by part -----------------------------------------------------------------------


def test_bytes_by_part_stand_beside_their_closed_form(lab: Lab) -> None:
    lab.add("averaging", 0, up=1065, partition__alpha=0.1)
    lab.add("averaging", 0, up=1065, partition__alpha=1.0)
    report = write_report(lab.plan(), figures=False)
    table = report.rendered["parts"]
    # Scenarios with the same tensors are told once.
    assert [row.group for row in table.rows] == ["averaging", "averaging"]
    assert _cells(table) == {
        "up: header": ["32 B", "6.01", "names and shapes", "–"],
        "up: model": ["500 B", "93.99", "125 float32 × 4 B + 0.5 uint8 × 1 B", "500 B"],
    }
    frame = report.tables["parts"]
    model = frame[frame["part"] == "model"]
    assert list(model["bytes"]) == list(model["closed_form"]) == [1001, 1001]
    assert not any("closed form" in note for note in report.notes)


def test_bytes_of_each_client_and_part_are_written(lab: Lab) -> None:
    lab.add("averaging", 0, up=1065)
    report = write_report(lab.plan(), figures=False)
    written = pd.read_csv(report.folder / "traffic.csv")
    sent = written.pivot_table(index="client", columns="part", values="bytes")
    assert sent.to_numpy().tolist() == [[32, 767], [32, 234]]
    assert list(sent.columns) == ["header", "model"]
    assert set(written["direction"]) == {"up"}
    by_round = pd.read_csv(report.folder / "rounds.csv")
    assert list(zip(by_round["round"], by_round["part"], by_round["bytes"], strict=True)) == [
        (0, "header", 64),
        (0, "model", 1001),
    ]


def test_bytes_that_are_not_those_of_the_closed_form_are_found(lab: Lab) -> None:
    lab.add("averaging", 0)
    lab.plan()
    run = dict(load(lab.folder).runs.iloc[0])
    assert unequal_forms(GridCell((run,))) == []
    run["elements"] = json.dumps({"up": {"model": {"float32": 3}}, "down": {}})
    assert unequal_forms(GridCell((run,))) == ["up model"]
    # A type that this version does not know has no closed form, and is not called unequal.
    run["elements"] = json.dumps({"up": {"model": {"strange": 3}}, "down": {}})
    assert unequal_forms(GridCell((run,))) == []
    assert closed_form({"float32": 2, "bfloat16": 3, "bool": 1}) == 15


def test_warm_up_is_a_line_of_its_own(lab: Lab) -> None:
    lab.add("averaging", 0, warmup_up=500)
    rows = _cells(write_report(lab.plan(), figures=False).rendered["parts"])
    assert rows["up: warm-up rounds, shared by all"][0] == "250 B"


# --- generators and classes --------------------------------------------------------------


def test_each_generator_is_told_against_its_own_and_all_data(lab: Lab) -> None:
    lab.add("distilling", 0, generation=[judged_by_client(2.0, 4.0)])
    lab.add("distilling", 1, generation=[judged_by_client(4.0, 6.0)])
    lab.add("counting", 0, generation=[judged_by_client(2.0, None)])
    lab.add("counting", 1, generation=[judged_by_client(2.0, 3.0)])
    lab.add("averaging", 0)
    report = write_report(lab.plan(), figures=False)
    rows = _cells(report.rendered["generators"])
    assert rows["distilling"] == ["4 ± 1.41", "5 ± 1.41"] * 2
    assert rows["counting"] == ["too few images: 1 of 4"] * 4
    assert "averaging" not in rows
    clients = pd.read_csv(lab.folder / "report" / "generators.csv")
    assert list(clients["own_fid_over_real"].head(4)) == [2.0, 4.0, 4.0, 6.0]
    assert set(clients["extractor"]) == {"classifier"}


def test_classes_are_measured_by_a_named_labeller(lab: Lab) -> None:
    lab.add("distilling", 0, generation=[judged_by_client(2.0, None)])
    report = write_report(lab.plan(), figures=False)
    table = report.rendered["classes"]
    assert table.columns == tuple(("classifier", name) for name in ("shirt", "shoe", "bag"))
    assert _cells(table)["distilling"] == ["2", "few", "few"]
    frame = pd.read_csv(lab.folder / "report" / "classes.csv")
    assert list(frame["class_name"]) == ["shirt", "shoe", "bag"]
    assert set(frame["labeller"]) == {"classifier"}
    assert not any("no table" in note for note in report.notes)


def test_classes_of_few_images_alone_are_no_table_but_a_note(lab: Lab) -> None:
    lab.add("counting", 0, status=Status.FAILED, reason="no memory")
    lab.add("counting", 1, generation=[judged_by_client(None, None)])
    lab.add("distilling", 0, generation=[judged_by_client(2.0)])
    write_report(lab.plan(), figures=False)
    page = lab.folder / "report" / "classes.md"
    assert page.is_file()
    lab.add("distilling", 0, generation=[judged_by_client(None, None)])
    report = write_report(lab.plan(), figures=False)
    assert not page.exists()
    assert "classes" not in report.rendered
    assert any(note.startswith("Generated images by class: no table, for") for note in report.notes)
    assert (page.parent / "classes.csv").is_file()


# --- figures -----------------------------------------------------------------------------


def test_partitions_are_those_of_the_records(lab: Lab) -> None:
    for alpha in (0.1, 1.0):
        lab.add("averaging", 0, partition__alpha=alpha)
    figure = plots_of(lab.plan())["partitions"]
    assert isinstance(figure, Partitions)
    # Both records name one split: it is drawn once.
    [panel] = figure.panels
    assert panel.counts == ((5, 0, 9), (1, 7, 0))
    assert panel.class_names == ("shirt", "shoe", "bag")
    with paper():
        [axis] = figure.draw().axes
    assert [text.get_text() for text in axis.get_yticklabels()] == ["shirt", "shoe", "bag"]


def test_a_method_looks_the_same_in_every_experiment(lab: Lab, tmp_path: Path) -> None:
    for method in ("mosaic", "fedavg", "averaging"):
        lab.add(method, 0)
    other = Lab(tmp_path / "other")
    for method in ("fedavg", "dense", "mosaic", "distilling", "counting"):
        other.add(method, 0)
    looks = [
        {row.method: look(place, row.reference) for row, place in places(grid).items()}
        for grid in (build_grid(load(one.plan())) for one in (lab, other))
    ]
    assert looks[0]["mosaic"] == looks[1]["mosaic"]
    assert looks[0]["fedavg"] == looks[1]["fedavg"]
    assert len({one.color for one in looks[1].values()}) > 3
    assert len(set(looks[1].values())) == 5


def test_a_method_with_its_defaults_has_its_look_and_no_colour_comes_twice(lab: Lab) -> None:
    for value, label in enumerate(("mosaic (1)", "mosaic (2)", "mosaic", "mosaic (3)")):
        lab.add("mosaic", 0, label=label, method__config__steps=value)
    grid = build_grid(load(lab.plan()))
    looks = {row.label: look(place, row.reference) for row, place in places(grid).items()}
    assert looks["mosaic"] == look(0, reference=False)
    assert len({one.color for one in looks.values()}) == 4
    assert list(places(grid)) == list(grid.rows)


# --- numbers -------------------------------------------------------------------


def test_a_small_spread_is_printed_but_for_costs() -> None:
    assert spread_of(summarize([0.820, 0.822]), percent) == "0.14"
    assert spread_of(summarize([1000.0, 1001.0]), figures_of) == "0.707"
    assert spread_of(summarize([0.82, 0.82]), percent) == ""
    assert cost_spread_of(summarize([1000.0, 1001.0]), size) == ""
    assert cost_spread_of(summarize([1000.0, 2000.0]), size) == "707 B"
    assert figures_of(4161.4) == "4,161"
    assert figures_of(12.345) == "12.3"
    assert figures_of(999.6) == "1,000"
    assert figures_of(99.6, 2) == "100"
    assert figures_of(190.4, 2) == "190"
