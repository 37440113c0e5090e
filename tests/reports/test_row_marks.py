"""Signs after the names of rows whose columns are no fair comparison."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from report_lab import Lab, texts_of
from rich.console import Console

from reports.api import Report, write_report
from reports.terminal import print_report

Page = Callable[[Path, str], str]


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
    out = io.StringIO()
    print_report(report, Console(file=out, width=160))
    assert "averaging†" in out.getvalue()


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
