"""What the page is given: numbers and curves, without a browser."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
from report_lab import Lab, judged

from benchmark.store import Status
from reports.api import write_report
from reports.grid import build_grid
from reports.load import load
from reports.page.content import _history, as_script, page_content


def content(lab: Lab) -> dict[str, Any]:
    results = load(lab.plan())
    return page_content(build_grid(results), results)


def test_each_extractor_has_its_own_column(lab: Lab) -> None:
    lab.add("distilling", 0, generation=[judged("classifier", 5.0), judged("inception", 20.0)])
    lab.add("averaging", 0)
    found = content(lab)
    assert found["extractors"] == ["classifier", "inception"]
    rows = {row["label"]: row for row in found["rows"]}
    assert rows["distilling"]["classifier.fid_over_real"][0] == 10.0
    assert rows["distilling"]["inception.fid_over_real"][0] == 40.0
    assert rows["averaging"]["inception.fid_over_real"] is None


def test_every_setting_that_differs_is_a_column_and_a_filter(lab: Lab) -> None:
    for steps in (10, 9, 100):
        lab.add("distilling", 0, budget__generator_steps=steps, compute__precision="bf16")
        lab.add("distilling", 0, budget__generator_steps=steps)
    found = content(lab)
    filters = {one["name"]: one["values"] for one in found["filters"]}
    assert filters["budget.generator_steps"] == ["9", "10", "100"]
    assert set(filters["compute.precision"]) == {"fp32", "bf16"}
    places = {tuple(sorted(row["settings"].items())) for row in found["rows"]}
    assert len(places) == len(found["rows"]) == 6


def test_a_row_whose_columns_are_of_different_code_is_flagged(lab: Lab) -> None:
    lab.add("averaging", 0, partition__alpha=0.1)
    lab.add("averaging", 0, partition__alpha=1.0, code__plugin="new")
    lab.add("distilling", 0, partition__alpha=0.1)
    flags = {row["label"]: row["flag"] for row in content(lab)["rows"]}
    assert flags == {"averaging": "†", "distilling": ""}


def test_the_scenario_of_most_finished_runs_is_chosen_at_first(lab: Lab) -> None:
    for alpha in (0.1, 1.0, 10.0):
        for seed in range(2):
            lab.add("averaging", seed, partition__alpha=alpha, model__norm="batch")
    assert {one["name"]: one["chosen"] for one in content(lab)["filters"]} == {
        "partition.alpha": "0.1"
    }
    lab.add("distilling", 0, partition__alpha=1.0)
    lab.add("distilling", 0, partition__alpha=10.0, status=Status.FAILED)
    lab.add("distilling", 0, partition__alpha=10.0, model__norm="group")
    lab.add("distilling", 1, partition__alpha=10.0, model__norm="group")
    chosen = {one["name"]: one["chosen"] for one in content(lab)["filters"]}
    assert chosen == {"partition.alpha": "1", "model.norm": "batch"}


def test_all_that_a_plugin_says_of_its_run_is_in_the_page(lab: Lab) -> None:
    details = {"label": "own (beta=1)", "a_key_of_its_own": {"deep": [[1, 2.5], [2, 0.5]]}}
    found = [lab.add("averaging", seed, details=details) for seed in range(2)]
    runs = content(lab)["runs"]
    assert [runs[one.run_id]["details"] for one in found if one is not None] == [details] * 2


def test_a_value_that_is_no_number_leaves_its_curve_not_the_page(tmp_path: Path) -> None:
    path = tmp_path / "history.csv"
    path.write_text("round,step,kl,accuracy\n0,1,nan,0.1\n0,2,2.5,0.2\n0,3,inf,0.3\n")
    curves = _history(path)
    assert curves["kl"] == [[2.0, 2.5]]
    assert len(curves["accuracy"]) == 3
    assert json.loads(as_script(curves)) == curves
    assert json.loads(as_script({"kl": [float("nan"), -math.inf]})) == {"kl": ["NaN", "-Infinity"]}


def test_a_detail_that_is_no_number_leaves_the_report_whole(lab: Lab) -> None:
    lab.add("averaging", 0, details={"gap": math.nan, "left": [math.inf]})
    page = (write_report(lab.plan()).folder / "index.html").read_text(encoding="utf-8")
    assert '"gap":"NaN"' in page


def test_only_files_that_are_there_are_linked(lab: Lab) -> None:
    for seed in range(3):
        lab.add("averaging", seed, 0.5 + seed / 100)
        lab.add("distilling", seed, 0.4, details={"counters": {"distilled_images": 5}})
    report = write_report(lab.plan())
    page = (report.folder / "index.html").read_text(encoding="utf-8")
    links = re.findall(r'href="([a-z_]+\.(?:csv|tex))"', page)
    assert {"accuracy.csv", "comparisons.csv", "budget.tex"} <= set(links)
    assert [link for link in links if not (report.folder / link).is_file()] == []


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
