"""Tuning tables: trials, the choice, and validation scores that pass for no result."""

from __future__ import annotations

from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import yaml
from report_lab import Lab
from rich.console import Console

from benchmark.store import Status
from reports.api import write_report
from reports.grid import build_grid
from reports.load import load
from reports.terminal import print_report
from reports.tuning import chosen_text, tuned, tuning_table

HELD = {"measure__judged_on": "holdout", "holdout": 0.1}


def trial(
    lab: Lab, rate: float, *accuracies: float, method: str = "distilling", **more: Any
) -> None:
    for seed, accuracy in enumerate(accuracies):
        config = {"rate": rate, "steps": 5, "nested": {"width": 8}}
        lab.add(
            method, seed, accuracy, method__config=config, label=f"{method} {rate}", **HELD, **more
        )


def test_the_best_mean_over_seeds_is_chosen(lab: Lab) -> None:
    trial(lab, 0.1, 0.50, 0.56)
    trial(lab, 0.2, 0.55, 0.57)
    trial(lab, 0.3, 0.70, 0.30)
    lab.plan()
    grid = build_grid(load(lab.folder))
    (one,) = tuned(grid)
    assert one.best is not None
    assert one.best[1].mean == pytest.approx(0.56)
    assert one.chosen == {"rate": 0.2}, "what all trials share was not chosen"
    table = tuning_table(grid)
    assert table is not None
    ((*cells,),) = [row.cells for row in table.rows]
    assert [cell.text for cell in cells] == ["3", "rate=0.2", "56.00 ± 1.41", "50.00"]
    assert yaml.safe_load(chosen_text(grid) or "") == {"set": {"distilling": {"rate": 0.2}}}


def test_a_chosen_trial_of_more_than_one_round_is_marked(
    lab: Lab, page: Callable[[Path, str], str]
) -> None:
    trial(lab, 0.1, 0.50)
    trial(lab, 0.2, 0.55, rounds=2)
    report = write_report(lab.plan(), figures=False)
    [row] = report.rendered["tuning"].rows
    assert row.cells[1].text == "rate=0.2¶"
    assert (
        "methods: distilling 0.2 (2)." in page(lab.folder, "tuning.tex").split(r"\begin{table")[1]
    )


def test_a_mean_over_scenarios_counts_each_alike(lab: Lab) -> None:
    for alpha, low, high in ((0.1, 0.2, 0.4), (1.0, 0.9, 0.8)):
        trial(lab, 0.1, low, partition__alpha=alpha)
        trial(lab, 0.2, high, partition__alpha=alpha)
    lab.plan()
    (one,) = tuned(build_grid(load(lab.folder)))
    assert one.chosen == {"rate": 0.2}
    assert one.best is not None
    assert one.best[1].mean == pytest.approx(0.6)


def test_nothing_is_chosen_before_all_trials_are_done(lab: Lab) -> None:
    trial(lab, 0.1, 0.5)
    trial(lab, 0.2, 0.6, status=Status.FAILED, reason="no memory")
    trial(lab, 0.1, 0.5, method="averaging")
    trial(lab, 0.2, 0.4, method="averaging")
    lab.plan()
    grid = build_grid(load(lab.folder))
    table = tuning_table(grid)
    assert table is not None
    by_label = {row.label: row.cells for row in table.rows}
    assert by_label["distilling"][0].text == "1 of 2 done"
    text = chosen_text(grid) or ""
    assert "# distilling: not all trials have ended" in text
    assert yaml.safe_load(text) == {"set": {"averaging": {"rate": 0.1}}}


def test_a_trial_that_diverged_is_lost_and_the_others_are_chosen_among(lab: Lab) -> None:
    trial(lab, 0.1, 0.5, 0.5)
    trial(lab, 0.2, 0.6, 0.6)
    trial(lab, 0.3, 0.9)
    diverged = {"rate": 0.3, "steps": 5, "nested": {"width": 8}}
    lab.add(
        "distilling",
        1,
        method__config=diverged,
        label="distilling 0.3",
        status=Status.DIVERGED,
        reason="step 3",
        **HELD,
    )
    lab.plan()
    grid = build_grid(load(lab.folder))
    (one,) = tuned(grid)
    assert one.chosen == {"rate": 0.2}
    table = tuning_table(grid)
    assert table is not None
    assert table.rows[0].cells[0].text == "3 (1 without a score)"


def test_trials_on_other_seeds_or_scenarios_are_not_compared(lab: Lab) -> None:
    trial(lab, 0.1, 0.5, 0.5)
    trial(lab, 0.2, 0.9)
    trial(lab, 0.1, 0.5, method="averaging")
    trial(lab, 0.2, 0.9, method="averaging", partition__alpha=1.0)
    lab.plan()
    distilling, averaging = sorted(
        tuned(build_grid(load(lab.folder))), key=lambda one: one.method, reverse=True
    )
    assert distilling.chosen is None
    assert averaging.chosen is None


def test_unequal_numbers_of_trials_choose_nothing(lab: Lab) -> None:
    trial(lab, 0.1, 0.5)
    trial(lab, 0.2, 0.6)
    trial(lab, 0.1, 0.5, method="averaging")
    lab.plan()
    grid = build_grid(load(lab.folder))
    table = tuning_table(grid)
    assert table is not None
    assert "unequal numbers of trials (distilling 2, averaging 1)" in table.title
    assert yaml.safe_load(chosen_text(grid) or "") == {"set": {}}


def test_runs_that_have_not_run_are_known_for_what_they_are(lab: Lab) -> None:
    trial(lab, 0.1, 0.5, status=Status.NOT_RUN)
    lab.add("everything", 0, status=Status.NOT_RUN, **HELD)
    lab.plan()
    grid = build_grid(load(lab.folder))
    assert grid.validation
    assert [one.method for one in tuned(grid)] == ["distilling"]
    assert write_report(lab.folder).rendered["accuracy"].title.startswith("Accuracy on held-out")


def test_references_have_no_trials(lab: Lab) -> None:
    trial(lab, 0.1, 0.5, method="everything")
    lab.plan()
    assert tuned(build_grid(load(lab.folder))) == ()


def test_the_report_says_validation_everywhere(lab: Lab, page: Callable[[Path, str], str]) -> None:
    trial(lab, 0.1, 0.5, 0.6)
    trial(lab, 0.2, 0.55, 0.6)
    lab.plan()
    report = write_report(lab.folder)
    assert report.rendered["accuracy"].title == "Accuracy on held-out training images"
    assert any("its numbers are no results" in note for note in report.notes)
    drawn = [path.stem for path in report.files if path.suffix == ".pdf"]
    assert drawn == ["partitions"], "that shows no accuracy"
    assert "Test accuracy" not in page(lab.folder, "accuracy.md")
    own = ("accuracy", "tuning")
    others = [table.title for name, table in report.rendered.items() if name not in own]
    assert others
    assert all(title.endswith("(validation)") for title in others)
    assert page(lab.folder, "comparisons.md").startswith(
        "# Methods against each other (validation)"
    )
    assert '"accuracy": "validation"' in page(lab.folder, "index.html").replace('":"', '": "')
    assert "rate" in page(lab.folder, "chosen.yaml")
    print_report(report, console := Console(width=100, record=True, file=StringIO()))
    assert "rate=0.2" in console.export_text()
    assert page(lab.folder, "tuning.tex")


def test_validation_never_stands_beside_test_scores(
    lab: Lab, page: Callable[[Path, str], str]
) -> None:
    trial(lab, 0.1, 0.9)
    lab.add("distilling", 0, 0.4)
    lab.plan()
    report = write_report(lab.folder, figures=False)
    assert report.rendered["accuracy"].title == "Test accuracy"
    assert "90.00" not in page(lab.folder, "accuracy.md")
    assert any("distilling 0.1, judged on held-out" in note for note in report.notes)
    assert "tuning" not in report.rendered
    assert not (lab.folder / "report" / "chosen.yaml").exists()
