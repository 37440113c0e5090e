"""What the page is given: numbers and curves, without a browser."""

from __future__ import annotations

from typing import Any

from report_lab import Lab, judged

from reports.grid import build_grid
from reports.load import load
from reports.page.content import page_content


def content(lab: Lab) -> dict[str, Any]:
    results = load(lab.plan())
    return page_content(build_grid(results), lab.folder)


def test_each_extractor_has_its_own_column(lab: Lab) -> None:
    lab.add("distilling", 0, generation=[judged("classifier", 5.0), judged("inception", 20.0)])
    lab.add("averaging", 0)
    found = content(lab)
    assert found["extractors"] == ["classifier", "inception"]
    rows = {row["label"]: row for row in found["rows"]}
    assert rows["distilling"]["classifier.fid_ratio"][0] == 10.0
    assert rows["distilling"]["inception.fid_ratio"][0] == 40.0
    assert rows["averaging"]["inception.fid_ratio"] is None
