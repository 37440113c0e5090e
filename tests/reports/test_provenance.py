"""Rows of one scenario that were not made alike are told apart down a column."""

from __future__ import annotations

from typing import Any

import pytest
from report_lab import Lab

from reports.api import write_report

AMD = {"cpu": "AMD", "cores": 2, "memory_bytes": 8 * 2**30}
INTEL = {"cpu": "Intel", "cores": 2, "memory_bytes": 8 * 2**30 + 4096}


def _said(lab: Lab) -> list[str]:
    report = write_report(lab.plan(), figures=False)
    return [note for note in report.notes if "were made by different" in note]


@pytest.mark.parametrize(
    ("first", "second", "said"),
    [
        (
            {"hardware": AMD},
            {"hardware": INTEL},
            "hardware {}(cpu Intel: counting; cpu AMD: averaging)",
        ),
        (
            {"versions": {"torch": "2.13"}},
            {"versions": {"torch": "2.14"}},
            "torch versions {}(2.14: counting; 2.13: averaging)",
        ),
        ({}, {"code__engine": "2"}, "engine versions {}(2: counting; 1: averaging)"),
        ({}, {"code__recipe": "7"}, "recipe versions {}(7: counting; 1: averaging)"),
    ],
)
def test_what_made_two_rows_of_a_column_is_said(
    lab: Lab, first: dict[str, Any], second: dict[str, Any], said: str
) -> None:
    for seed in range(2):
        lab.add("averaging", seed, 0.5, **first)
        lab.add("counting", seed, 0.6, **second)
    middle = ", so small differences between them may not be the methods' "
    assert _said(lab) == [
        f"Rows of this table were made by different {said.format('@')}.".replace(" @", middle)
    ]


def test_one_note_names_all_scenarios_of_the_same_two_makers(lab: Lab) -> None:
    for alpha in (0.1, 1.0):
        lab.add("averaging", 0, 0.5, partition__alpha=alpha, hardware=AMD)
        lab.add("counting", 0, 0.6, partition__alpha=alpha, hardware=INTEL)
    [note] = _said(lab)
    assert note.startswith("Rows of α = 0.1 / α = 1 were made by different hardware")


def test_rows_of_one_machine_and_methods_of_their_own_code_are_no_remark(lab: Lab) -> None:
    kernel = {**AMD, "memory_bytes": AMD["memory_bytes"] - 450_560}
    lab.add("averaging", 0, 0.5, hardware=AMD)
    lab.add("counting", 0, 0.6, hardware=kernel, code__plugin="its own")
    lab.add("averaging", 0, 0.7, partition__alpha=1.0, hardware=INTEL)
    assert _said(lab) == []
