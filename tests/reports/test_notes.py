"""What the notes beneath tables say of the scenarios."""

from __future__ import annotations

from typing import Any

import pytest
from report_lab import Lab

from reports.api import write_report


def _held(floor: int) -> dict[str, Any]:
    """Return what the record of a split says in which every client holds so many samples."""
    return {"split": {"id": "d" * 16, "min_samples": floor}}


@pytest.mark.parametrize(
    ("floors", "said"),
    [
        ([10, 10], "at least 10 samples per client,"),
        ([7, 7], "at least 7 samples per client (not 10: that is over half of an equal share),"),
        (
            [10, 7],
            "at least 10 samples per client (7 with 100 clients, where 10 is over half of an equal "
            "share),",
        ),
        (
            [4, 3],
            "at least 10 samples per client (4 with 5 clients; 3 with 100 clients, where 10 is "
            "over half of an equal share),",
        ),
    ],
)
def test_the_floor_of_samples_is_that_of_the_splits(lab: Lab, floors: list[int], said: str) -> None:
    for clients, floor in zip((5, 100), floors, strict=True):
        for method in ("averaging", "distilling"):
            lab.add(method, 0, facts=_held(floor), partition__clients=clients)
    notes = write_report(lab.plan(), figures=False).notes
    assert any(said in note for note in notes), notes


def test_a_floor_that_differs_and_was_lowered_is_told_apart(lab: Lab) -> None:
    for asked in (10, 20):
        lab.add("averaging", 0, facts=_held(min(asked, 15)), partition__min_samples=asked)
    notes = write_report(lab.plan(), figures=False).notes
    said = "Fewer samples per client than asked: 15 with at least 20 samples per client."
    assert said in notes
