"""Convergence: who gains over a point at twice the budget is marked (rule 3)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from report_lab import Lab

from benchmark.store import Status
from reports.api import write_report
from reports.convergence import UNCONVERGED, unconverged
from reports.grid import build_grid
from reports.load import load


def add(lab: Lab, method: str, factor: int, *accuracies: float, images: int = 100) -> None:
    for seed, accuracy in enumerate(accuracies):
        lab.add(
            method,
            seed,
            accuracy,
            budget__generator_steps=10 * factor,
            budget__generated_images=images * factor,
            budget__distilled_images=1000 * factor,
        )


def gains(lab: Lab) -> dict[str, float]:
    lab.plan()
    found = unconverged(build_grid(load(lab.folder)))
    return {row.label: gain for (row, _), gain in found.items()}


def test_who_gains_over_a_point_is_marked(lab: Lab, page: Callable[[Path, str], str]) -> None:
    add(lab, "distilling", 1, 0.50, 0.60)
    add(lab, "distilling", 2, 0.54, 0.62)
    add(lab, "averaging", 1, 0.50, 0.60)
    add(lab, "averaging", 2, 0.51, 0.605)
    assert gains(lab) == {"distilling": pytest.approx(0.03)}
    report = write_report(lab.folder, figures=False)
    assert any("distilling +3.00 at 10 generator steps" in note for note in report.notes)
    lines = page(lab.folder, "accuracy.md").splitlines()
    (row,) = [line for line in lines if line.startswith("| distilling")]
    assert row.count(UNCONVERGED) == 1
    assert f"55.00 ± 7.07{UNCONVERGED}" in row
    (row,) = [line for line in lines if line.startswith("| averaging")]
    assert UNCONVERGED not in row


def test_a_loss_at_twice_the_budget_is_no_sign_of_more_to_come(lab: Lab) -> None:
    add(lab, "distilling", 1, 0.6)
    add(lab, "distilling", 2, 0.5)
    assert gains(lab) == {}


def test_only_what_is_alike_and_doubled_in_all_parts_is_compared(lab: Lab) -> None:
    add(lab, "distilling", 1, 0.1)
    add(lab, "distilling", 3, 0.9)
    add(lab, "averaging", 1, 0.1)
    add(lab, "averaging", 2, 0.9, images=300)
    add(lab, "everything", 1, 0.1)
    add(lab, "everything", 2, 0.9)
    assert gains(lab) == {}, "references have no budget"


def test_what_differs_with_the_budget_is_not_the_budgets(lab: Lab) -> None:
    for factor, precision in ((1, "fp32"), (2, "bf16")):
        names = ("generator_steps", "generated_images", "distilled_images")
        budget = {f"budget__{name}": 100 * factor for name in names}
        lab.add("distilling", 0, 0.3 * factor, compute__precision=precision, **budget)
    assert gains(lab) == {}, "precision follows from the budget here, and moves numbers, too"


def test_seeds_that_both_have_are_compared(lab: Lab) -> None:
    add(lab, "distilling", 1, 0.50, 0.90)
    add(lab, "distilling", 2, 0.52)
    assert gains(lab) == {"distilling": pytest.approx(0.02)}


def test_survivors_say_nothing(lab: Lab) -> None:
    add(lab, "distilling", 1, 0.5, 0.5)
    add(lab, "distilling", 2, 0.9)
    twice = {"generator_steps": 20, "generated_images": 200, "distilled_images": 2000}
    budget = {f"budget__{name}": value for name, value in twice.items()}
    lab.add("distilling", 1, status=Status.FAILED, **budget)
    assert gains(lab) == {}


def test_runs_that_are_not_done_say_nothing(lab: Lab) -> None:
    add(lab, "distilling", 1, 0.5)
    lab.add(
        "distilling",
        0,
        status=Status.FAILED,
        budget__generator_steps=20,
        budget__generated_images=200,
        budget__distilled_images=2000,
    )
    assert gains(lab) == {}
