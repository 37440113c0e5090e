"""A method's lead: over the best other in the mean, and over the best other of each split."""

from __future__ import annotations

import pytest
from report_lab import Lab

from benchmark.store import Status
from benchmark.studies.lead import leads, main
from reports.grid import build_grid
from reports.load import load


def _fill(lab: Lab) -> None:
    for seed, (own, first, second) in enumerate(
        [(0.6, 0.5, 0.3), (0.5, 0.2, 0.45), (0.7, 0.5, 0.4)]
    ):
        lab.add("counting", seed, own)
        lab.add("averaging", seed, first)
        lab.add("distilling", seed, second, rounds=2)
        lab.add("everything", seed, 0.9)


def test_both_rivals(lab: Lab) -> None:
    _fill(lab)
    [(over_mean, over_each)] = leads(build_grid(load(lab.plan())), "counting")
    assert over_mean.rivals == ("averaging",)
    assert list(over_mean.points.values()) == pytest.approx([10, 30, 20])
    assert over_each.rivals == ("averaging", "distilling", "averaging")
    assert list(over_each.points.values()) == pytest.approx([10, 5, 20])
    assert over_mean.text() == "10.0, 30.0, 20.0 (mean 20.0, 95 %: -4.8 to 44.8)"


def test_methods_of_several_exchanges_can_be_left_out(lab: Lab) -> None:
    _fill(lab)
    grid = build_grid(load(lab.plan()))
    [(_, over_each)] = leads(grid, "counting", one_exchange=True)
    assert set(over_each.rivals) == {"averaging"}


def test_only_shared_splits_and_complete_cells_count(lab: Lab) -> None:
    _fill(lab)
    lab.add("counting", 3, 0.9)
    lab.add("averaging", 0, 0.1, label="unfinished", method__config={"a": 1})
    lab.add("averaging", 1, status=Status.FAILED, label="unfinished", method__config={"a": 1})
    [(over_mean, _)] = leads(build_grid(load(lab.plan())), "counting")
    assert list(over_mean.points) == ["0", "1", "2"]
    assert over_mean.rivals == ("averaging",)


def test_the_command_prints_a_table_or_says_what_is_missing(
    lab: Lab, capsys: pytest.CaptureFixture[str]
) -> None:
    _fill(lab)
    folder = str(lab.plan())
    assert main([folder, "--method", "counting"]) == 0
    assert "| counting | averaging | 10.0, 30.0, 20.0 (mean 20.0" in capsys.readouterr().out
    assert main([folder, "--method", "nobody"]) == 2
    assert "nobody" in capsys.readouterr().err
