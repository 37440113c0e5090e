"""Signs after the names of rows whose columns are no fair comparison."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from report_lab import Lab, plots_of, texts_of
from rich.console import Console

from reports.api import Report, write_report
from reports.figures.ranks import CriticalDifference
from reports.figures.traffic import Traffic
from reports.grid import build_grid
from reports.load import load
from reports.page.content import page_content
from reports.row_marks import row_notes
from reports.terminal import print_report

Page = Callable[[Path, str], str]
ROUNDS = (
    "¶ More than one exchange (round) between clients and server, so these ranks are not those of "
    "one-shot methods: "
)


def _terminal(report: Report) -> str:
    out = io.StringIO()
    print_report(report, Console(file=out, width=160))
    return out.getvalue()


def _row_of_two(lab: Lab, **code: str) -> Report:
    """A row whose column at alpha 1 is of other code; a row whose columns are of one code."""
    for method in ("averaging", "distilling"):
        for seed in range(2):
            other = code if method == "averaging" else {}
            lab.add(method, seed, 0.5, partition__alpha=0.01)
            lab.add(method, seed, 0.5, partition__alpha=0.1)
            lab.add(method, seed, 0.6, partition__alpha=1.0, **other)
    return write_report(lab.plan(), figures=False)


@pytest.mark.parametrize(
    ("code", "what"),
    [
        ({"code__plugin": "new"}, "plugin"),
        ({"code__parts": {"methods.blocks.new": "bbbb"}}, "parts"),
        ({"code__engine": "2", "code__plugin": "new"}, "engine 1 or 2, plugin"),
        ({"code__recipe": "2"}, "recipe 1 or 2"),
    ],
)
def test_a_row_whose_columns_are_of_different_code_is_flagged(
    lab: Lab, page: Page, code: dict[str, Any], what: str
) -> None:
    report = _row_of_two(lab, **code)
    names = {row.label: row.name for row in report.rendered["accuracy"].rows}
    assert names == {"averaging": "averaging†", "distilling": "distilling"}
    assert not any("†" in text for text in texts_of(report)["averaging"])
    note = f"averaging: {what} (α = 1 unlike the others)."
    [said] = [text for text in report.notes if text.startswith("† after a name: ")]
    assert said.endswith(note)
    text = page(lab.folder, "accuracy.md")
    assert "| averaging† | 50.00" in text
    assert note in text
    assert r"averaging$\dagger$ & 50.00" in page(lab.folder, "accuracy.tex")
    assert "averaging†" in _terminal(report)


def test_rows_of_one_code_are_not_flagged_and_seeds_alone_flag_their_cells(lab: Lab) -> None:
    """Every column is of the same two codes: its cells say so."""
    for alpha in (0.1, 1.0):
        lab.add("averaging", 0, 0.5, partition__alpha=alpha, code__plugin="old")
        lab.add("averaging", 1, 0.5, partition__alpha=alpha, code__plugin="new")
    report = write_report(lab.plan(), figures=False)
    [row] = report.rendered["accuracy"].rows
    assert row.name == "averaging"
    assert all(cell.flag == "†" for cell in row.cells)


def test_many_columns_of_other_code_are_counted_in_every_table_of_rows(
    lab: Lab, page: Page
) -> None:
    for number in range(9):
        code = {"code__plugin": "new"} if number < 4 else {}
        for clients in (2, 3):
            where = {"partition__alpha": number + 1, "partition__clients": clients}
            for gamma in (1, 2):
                lab.add("averaging", 0, 0.5, method__config={"gamma": gamma}, **where, **code)
    report = write_report(lab.plan(), figures=False)
    note = "averaging [gamma=2]: plugin (8 of 18 columns unlike the others)."
    assert any(text.endswith(note) for text in report.notes)
    for name in ("accuracy", "scaling", "ablations"):
        assert all(row.name.endswith("†") for row in report.rendered[name].rows)
        assert note in page(lab.folder, f"{name}.tex")


def test_methods_of_more_than_one_round_are_marked_wherever_they_are_ranked(
    lab: Lab, page: Page
) -> None:
    for dataset in ("digits", "mnist", "svhn"):
        for place, method in enumerate(("averaging", "distilling", "counting")):
            for seed in range(3):
                shift = 0.2 if method == "counting" else seed / 100
                rounds = 2 if method == "counting" else 1
                lab.add(method, seed, 0.5 + place / 10 + shift, dataset=dataset, rounds=rounds)
    report = write_report(lab.plan(), figures=False)
    note = f"{ROUNDS}counting (2)."
    assert note in report.notes
    for name in ("accuracy", "against_best"):
        labels = {row.name for row in report.rendered[name].rows}
        assert labels <= {"averaging", "distilling", "counting¶"}
        assert note in page(lab.folder, f"{name}.md")
        assert r"counting\P{}" in page(lab.folder, f"{name}.tex")
        assert rf"\P{{}}{note[1:]}" in page(lab.folder, f"{name}.tex").split(r"\begin{table")[1]
    assert report.rendered["against_best"].rows[0].cells[0].text == "counting¶"
    ranks = page(lab.folder, "comparisons.md")
    assert "| counting¶ | 1.00 |" in ranks
    assert note in ranks
    assert "counting¶" in _terminal(report)
    drawn = plots_of(lab.folder)
    diagram, traffic = drawn["critical_difference"], drawn["accuracy_by_bytes"]
    assert isinstance(diagram, CriticalDifference)
    assert isinstance(traffic, Traffic)
    assert diagram.labels == ("counting, 2 rounds", "distilling", "averaging")
    assert "counting, 2 rounds" in traffic.order


def test_a_label_that_tells_its_rounds_does_not_tell_them_twice(lab: Lab) -> None:
    for rounds in (2, 51):
        label, config = f"averaging {rounds} rounds", {"rounds": rounds}
        lab.add("averaging", 0, 0.5, label=label, rounds=rounds, method__config=config)
    grid = build_grid(load(lab.plan()))
    assert list(grid.figure_labels().values()) == ["averaging 2 rounds", "averaging 51 rounds"]


def test_one_round_is_no_remark(lab: Lab) -> None:
    lab.add("averaging", 0, 0.5, warmup_up=1000, warmup__rounds=2)
    report = write_report(lab.plan(), figures=False)
    assert report.rendered["accuracy"].rows[0].name == "averaging"
    assert not any("¶" in note for note in report.notes)


def test_both_signs_stand_after_a_name_and_in_the_leaderboard(lab: Lab) -> None:
    lab.add("averaging", 0, 0.5, partition__alpha=0.1, rounds=2)
    lab.add("averaging", 0, 0.5, partition__alpha=1.0, rounds=3, code__plugin="new")
    results = load(lab.plan())
    grid = build_grid(results)
    assert [row["flag"] for row in page_content(grid, results)["rows"]] == ["¶†", "¶†"]
    assert row_notes(grid)[0] == f"{ROUNDS}averaging (2 to 3)."
    assert len(row_notes(grid)) == 2
