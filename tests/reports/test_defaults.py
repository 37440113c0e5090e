"""Settings that are not a method's own show beside its numbers."""

from __future__ import annotations

from typing import Any

from report_lab import Lab

from reports.api import write_report

OWN: dict[str, Any] = {"rate": 0.1, "start": {"kind": "zero"}}
HERE = "Not as the method has it by itself (default → here)"


def noted(lab: Lab, **defaults: dict[str, Any]) -> list[str]:
    folder = lab.plan()
    lab.store.update_manifest({}, defaults=defaults)
    return [note for note in write_report(folder, figures=False).notes if HERE in note]


def test_what_was_set_is_told_of_the_only_row(lab: Lab) -> None:
    lab.add("averaging", method__config=OWN)
    lab.add("distilling", method__config={"rate": 0.5, "start": {"kind": "one"}})
    said = f"{HERE}: distilling: rate 0.1 → 0.5, start.kind zero → one."
    assert noted(lab, averaging=OWN, distilling=OWN) == [said]


def test_defaults_need_no_word_and_unknown_ones_get_none(lab: Lab) -> None:
    lab.add("averaging", method__config=OWN)
    lab.add("distilling", method__config={**OWN, "rate": 0.5})
    assert noted(lab, averaging=OWN) == []


def test_what_was_no_parameter_then_was_not_set(lab: Lab) -> None:
    lab.add("averaging", method__config={"rate": 0.5, "gone": 1})
    said = f"{HERE}: averaging: rate 0.1 → 0.5."
    assert noted(lab, averaging={**OWN, "new": 3}) == [said]


def test_of_several_rows_the_one_is_told_that_the_others_depart_from(lab: Lab) -> None:
    lab.add("averaging", method__config={**OWN, "rate": 0.2})
    lab.add("averaging", label="fast", method__config={**OWN, "rate": 0.4})
    said = f"{HERE}: averaging (what its other rows change: table 'Ablations'): rate 0.1 → 0.2."
    assert noted(lab, averaging=OWN) == [said]
