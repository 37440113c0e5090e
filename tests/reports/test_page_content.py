"""What the page is given: numbers and curves, without a browser."""

from __future__ import annotations

from typing import Any

from report_lab import Lab, judged

from reports.grid import build_grid
from reports.load import load
from reports.page.content import page_content


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
