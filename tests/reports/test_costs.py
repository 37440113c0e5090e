"""What an accuracy costs: bytes, seconds, operations, budget."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from report_lab import Lab, texts_of

from benchmark.store import FLOPS_ESTIMATE
from reports.api import write_report
from reports.load import load
from reports.measures import measures

Page = Callable[[Path, str], str]


def test_a_round_that_sends_no_model_is_none_of_averaging(lab: Lab) -> None:
    record = lab.add("averaging", 0, 0.5)
    assert record is not None
    statistics = {"round": 1, "up": {"statistics": 10}, "down": {"model": 936}}
    traffic = {
        **record.communication,
        "rounds": 2,
        "up": 1010,
        "down": 936,
        "per_round": [*record.communication["per_round"], statistics],
    }
    found = measures(record.model_copy(update={"communication": traffic}))
    assert found["fedavg_rounds"] == pytest.approx(1946 / (2 * 936))


def test_costs_per_client_with_warm_up_booked(lab: Lab, page: Page) -> None:
    costs = {"up": 3_000_000, "warmup_up": 1_000_000, "warmup_seconds": 30.0}
    lab.add("averaging", 0, 0.5, warmup__rounds=2, **costs)
    report = write_report(lab.plan(), figures=False)
    assert texts_of(report)["averaging"][1:] == ["2.00 MB", "500 kB", "4.00", "1.25"]
    frame = pd.read_csv(lab.folder / "report" / "communication.csv")
    assert frame["up_per_client_mean"][0] == 2_000_000
    assert frame["warmup_up_bytes_mean"][0] == 1_000_000
    assert frame["up_least_mean"][0] == 750_000 + 250_000
    assert frame["down_most_mean"][0] == 750_000
    traffic = pd.read_csv(lab.folder / "report" / "traffic.csv")
    warm = traffic[traffic["part"] == "warm-up model"]
    assert sorted(warm[warm["direction"] == "down"]["bytes"]) == [250_000, 750_000]
    rounds = pd.read_csv(lab.folder / "report" / "rounds.csv")
    assert list(rounds[rounds["part"] == "warm-up model"]["round"]) == [0, 0, 1, 1]
    text = page(lab.folder, "communication.md")
    assert "warm-up's traffic is part of every method's" in text
    assert "warm-up's seconds, summed over clients, stand beside them" in text
    assert "warm-up s, shared" in text
    assert "30.0" in text


def test_rounds_of_averaging_are_explained_beneath_the_table(lab: Lab, page: Page) -> None:
    lab.add("averaging", 0, 0.5)
    report = write_report(lab.plan(), figures=False)
    header, said = "= FedAvg rounds", "traffic in rounds of federated averaging"
    assert header in report.rendered["communication"].columns[1]
    assert texts_of(report, "communication")["averaging"][1].startswith("0.5")
    for name in ("communication.md", "index.html"):
        assert said in page(lab.folder, name)
    printed = page(lab.folder, "communication.tex").split(r"\begin{table")[1]
    assert said in printed
    assert said not in page(lab.folder, "accuracy.tex").split(r"\begin{table")[1]


def test_no_traffic_of_models_needs_no_word_on_its_rounds(lab: Lab) -> None:
    lab.add("everything", 0, 0.5, up=0)
    assert "federated averaging" not in " ".join(write_report(lab.plan(), figures=False).notes)


def test_without_a_warm_up_its_seconds_are_no_column(lab: Lab, page: Page) -> None:
    lab.add("averaging", 0, 0.5)
    write_report(lab.plan(), figures=False)
    assert "warm-up s" not in page(lab.folder, "communication.md")


def test_operations_are_shown_where_they_were_counted_as_they_are_now(lab: Lab, page: Page) -> None:
    lab.add("averaging", 0, 0.5, flops={"clients": 7_000_000, "server": 9_000_000})
    write_report(lab.plan(), figures=False)
    assert "FLOPs" not in page(lab.folder, "communication.md")
    now = {"clients": 2_000_000, "server": 5_000_000, "estimate": FLOPS_ESTIMATE}
    lab.add("distilling", 0, 0.5, flops=now)
    write_report(lab.plan(), figures=False)
    text = page(lab.folder, "communication.md")
    assert "clients FLOPs" in text
    assert "5.00 M" in text
    assert "9.00 M" not in text


def test_a_warm_up_that_is_not_known_by_client_leaves_no_extremes(lab: Lab) -> None:
    lab.add("averaging", 0, 0.5, warmup_up=1_000_000)
    ((_, record),) = load(lab.plan()).records.items()
    assert measures(record)["up_least"] == 250_000 + 250
    del record.communication["warmup"]["per_client"]
    found = measures(record)
    assert found["up_per_client"] == 500_500
    assert {found[f"{way}_{end}"] for way in ("up", "down") for end in ("least", "most")} == {None}


def test_what_an_answer_costs_stands_beside_the_teacher(lab: Lab, page: Page) -> None:
    lab.add("averaging", 0, 0.5)
    report = write_report(lab.plan(), figures=False)
    assert not any("image" in header for (header,) in report.rendered["accuracy"].columns)
    asked = {"inference_flops": {"model": 2_000_000, "teacher": 20_000_000}}
    lab.add("distilling", 0, 0.6, teacher=0.7, facts=asked)
    report = write_report(lab.plan(), figures=False)
    headers = [header for (header,) in report.rendered["accuracy"].columns]
    assert headers[:2] == ["accuracy %", "teacher %"]
    assert headers[-2:] == ["FLOPs / image", "teacher's FLOPs / image"]
    assert texts_of(report)["distilling"][-2:] == ["2.00 M", "20.0 M"]
    assert texts_of(report)["averaging"][-2:] == ["–", "–"]
    frame = pd.read_csv(lab.folder / "report" / "communication.csv").set_index("label")
    assert frame["teacher_inference_flops_mean"]["distilling"] == 20_000_000


def test_what_was_spent_of_the_budget_has_a_table(lab: Lab, page: Page) -> None:
    granted = {"budget__generator_steps": 800, "budget__generated_images": 100}
    granted["budget__distilled_images"] = 5000
    lab.add("averaging", 0, 0.5, **granted)
    report = write_report(lab.plan(), figures=False)
    assert "budget" not in report.rendered
    for label, made in (("distilling", 100), ("distilling fresh", 2560)):
        counters = {"generator_steps": 0, "generated_images": made}
        counters |= {"distilled_images": 5000, "student_steps": 313}
        own = {"details": {"counters": counters}, "label": label, "method__config": {"made": made}}
        lab.add("distilling", 0, 0.6, **own, **granted)
    report = write_report(lab.plan(), figures=False)
    assert texts_of(report, "budget") == {
        "distilling": ["0", "100", "5,000", "313"],
        "distilling fresh": ["0", "2,560", "5,000", "313"],
    }
    text = page(lab.folder, "budget.md")
    assert "More than was granted: distilling fresh 2,560 generated images for 100." in text
    assert "each method's own count" in text
