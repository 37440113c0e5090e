"""What the page is given: numbers and curves, without a browser."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from report_lab import Lab, judged

from reports.grid import build_grid
from reports.load import load
from reports.page.content import _history, page_content


def content(lab: Lab) -> dict[str, Any]:
    results = load(lab.plan())
    return page_content(build_grid(results), results)


def test_each_extractor_has_its_own_column(lab: Lab) -> None:
    lab.add("distilling", 0, generation=[judged("classifier", 5.0), judged("inception", 20.0)])
    lab.add("averaging", 0)
    found = content(lab)
    assert found["extractors"] == ["classifier", "inception"]
    rows = {row["label"]: row for row in found["rows"]}
    assert rows["distilling"]["classifier.fid_ratio"][0] == 10.0
    assert rows["distilling"]["inception.fid_ratio"][0] == 40.0
    assert rows["averaging"]["inception.fid_ratio"] is None


@pytest.mark.parametrize("second", ["10", "30"], ids=["steps begin anew", "steps go on"])
def test_steps_of_later_rounds_follow_those_before(second: str, tmp_path: Path) -> None:
    path = tmp_path / "history.csv"
    path.write_text(
        "round,step,client,accuracy,loss\n"
        f"0,10,,0.1,\n0,10,3,,2.5\n0,20,,0.2,\n1,{second},,0.3,\n1,{second},3,,1.5\n"
    )
    curves = _history(path)
    assert curves["accuracy"] == [[10.0, 0.1], [20.0, 0.2], [30.0, 0.3]]
    assert [value for _, value in curves["client 3: loss"]] == [2.5, 1.5]
    steps = [step for step, _ in curves["client 3: loss"]]
    assert steps == sorted(set(steps))


def test_every_seed_has_a_curve_and_the_first_its_whole_history(lab: Lab) -> None:
    accuracies = [number / 100 for number in range(50)]
    first = lab.add("distilling", 0, history=accuracies)
    second = lab.add("distilling", 1, history=accuracies)
    assert first is not None
    assert second is not None
    runs = content(lab)["runs"]
    whole, coarse = (runs[one.run_id]["history"]["accuracy"] for one in (first, second))
    assert whole == [[10.0 * (at + 1), value] for at, value in enumerate(accuracies)]
    assert len(coarse) == 20
    assert (coarse[0], coarse[-1]) == (whole[0], whole[-1])
