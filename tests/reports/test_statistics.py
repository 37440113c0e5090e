from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from report_lab import Lab
from scikit_posthocs import posthoc_nemenyi_friedman
from scipy import stats

from benchmark.store import Status
from reports.api import write_report
from reports.comparisons import ALL, comparison_frame, friedman_nemenyi, rank_methods
from reports.grid import build_grid
from reports.load import load
from reports.statistics import (
    holm,
    judge,
    least_signed_rank_p,
    paired_t,
    shared_differences,
    signed_rank,
    summarize,
)


def splits(*values: float) -> dict[tuple[str, str], float]:
    """Return values by split, one seed a split."""
    return {(str(number), str(number)): value for number, value in enumerate(values)}


VALUES = st.lists(
    st.floats(-1, 1, allow_nan=False).map(lambda value: round(value, 3)), min_size=2, max_size=9
)


def test_summary_matches_scipy() -> None:
    values = [0.61, 0.64, 0.7]
    found = summarize(values)
    low, high = stats.t.interval(0.95, 2, loc=np.mean(values), scale=stats.sem(values))
    assert found.sd == pytest.approx(np.std(values, ddof=1))
    assert (found.low, found.high) == pytest.approx((low, high))


def test_one_value_has_no_interval_and_none_is_refused() -> None:
    found = summarize([0.5])
    assert (found.sd, found.low, found.high) == (None, None, None)
    with pytest.raises(ValueError, match="no values"):
        summarize([])


@settings(max_examples=30, deadline=None)
@given(VALUES)
def test_paired_t_matches_scipy(differences: list[float]) -> None:
    if np.std(differences) < 1e-9:
        return
    expected = stats.ttest_1samp(differences, 0).pvalue
    assert paired_t(differences) == pytest.approx(expected, abs=1e-9)


def test_paired_t_of_constant_differences() -> None:
    assert paired_t([0.0, 0.0, 0.0]) == 1.0
    assert paired_t([0.25, 0.25, 0.25]) == signed_rank([0.25] * 3) == 0.25
    # One image of 359 on each of three splits, which floats do not subtract to equal numbers.
    ahead = [(count + 1) / 359 - count / 359 for count in (300, 301, 302)]
    assert paired_t(ahead) == 0.25
    assert summarize(ahead).low is summarize(ahead).high is None, "nor has it an interval"
    with pytest.raises(ValueError, match="two pairs"):
        paired_t([0.1])


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 1000), min_size=2, max_size=9, unique=True), st.integers(0, 511))
def test_signed_rank_matches_scipy(sizes: list[int], signs: int) -> None:
    differences = [size if signs >> place & 1 else -size for place, size in enumerate(sizes)]
    expected = stats.wilcoxon(differences, method="exact").pvalue
    assert signed_rank(differences) == pytest.approx(expected)


def test_signed_rank_reaches_its_least_value_and_drops_zeros() -> None:
    for pairs in range(1, 8):
        assert signed_rank(list(range(1, pairs + 1))) == least_signed_rank_p(pairs)
    assert least_signed_rank_p(3) == 0.25
    assert signed_rank([0, 0]) == 1.0
    assert signed_rank([0, 1, 2, 3]) == 0.25


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_never_lowers_and_keeps_order(p_values: list[float]) -> None:
    corrected = holm(p_values)
    assert all(after >= before for before, after in zip(p_values, corrected, strict=True))
    order = np.argsort(p_values, kind="stable")
    assert all(np.diff(np.array(corrected)[order]) >= 0)


def test_differences_are_taken_on_shared_splits_alone() -> None:
    first, second = {("0", "0"): 3.0, ("1", "1"): 2.0}, {("1", "1"): 0.5, ("2", "2"): 9.0}
    assert shared_differences(first, second) == {"1": 1.5}


def test_seeds_on_one_split_are_one_observation() -> None:
    first = {("0", "0"): 0.5, ("0", "1"): 0.7, ("4", "0"): 0.9}
    second = {("0", "0"): 0.4, ("0", "1"): 0.2, ("4", "0"): 0.8}
    found = shared_differences(first, second)
    assert found == {"0": pytest.approx(0.3), "4": pytest.approx(0.1)}
    same_split = {("0", str(seed)): 0.9 - seed / 100 for seed in range(5)}
    verdict = judge({"a": same_split, "b": dict.fromkeys(same_split, 0.1)})
    assert (verdict.pairs, verdict.tied) == (1, frozenset())


@given(
    st.lists(st.integers(-9, 9), min_size=1, max_size=7),
    st.integers(50, 400),
)
def test_signed_rank_of_accuracies_is_that_of_their_counts(
    differences: list[int], total: int
) -> None:
    accuracies = [(total // 2 + each) / total - (total // 2) / total for each in differences]
    assert signed_rank(accuracies) == signed_rank([float(each) for each in differences])


def test_judge_ties_and_tells_apart() -> None:
    verdict = judge(
        {
            "good": splits(0.90, 0.93, 0.88),
            "as good": splits(0.91, 0.91, 0.88),
            "bad": splits(0.50, 0.53, 0.49),
        }
    )
    assert verdict.best == "good"
    assert verdict.tied == {"good", "as good"}
    assert verdict.second == "bad"


def test_judge_corrects_for_the_number_of_comparisons() -> None:
    behind = splits(0.05, 0.06, 0.09)
    best = dict.fromkeys(behind, 0.9)
    worse = {split: best[split] - by for split, by in behind.items()}
    # One comparison alone would tell them apart; of two, Holm asks for half as large a p.
    assert 0.025 < paired_t(list(behind.values())) < 0.05
    assert judge({"a": best, "b": worse}).tied == {"a"}
    assert judge({"a": best, "b": worse, "c": worse}).tied == {"a", "b", "c"}


@pytest.mark.parametrize("count", [1, 2])
def test_judge_says_nothing_with_too_few_splits(count: int) -> None:
    verdict = judge({"a": splits(*[0.9] * count), "b": splits(*[0.1] * count)})
    assert verdict.best == "a"
    assert verdict.tied == frozenset()


def test_judge_sets_nobody_off_who_is_better_on_every_shared_split() -> None:
    # The other splits of the first are easy: its mean is higher, and it loses wherever both ran.
    first = splits(0.50, 0.51, 0.52, 0.90, 0.91)
    verdict = judge({"first": first, "better": splits(0.60, 0.611, 0.62)})
    assert (verdict.best, verdict.tied, verdict.second) == ("first", {"first", "better"}, None)


def test_judge_of_nothing() -> None:
    assert judge({}).best is None
    assert judge({"alone": splits(0.5, 0.6, 0.7)}).tied == {"alone"}


def test_friedman_and_nemenyi_on_demsars_numbers() -> None:
    # Demšar (2006), four classifiers: q(0.05) is 2.569, and CD 1.25 with 14 data sets.
    rng = np.random.default_rng(1)
    scores = pd.DataFrame(rng.random((14, 4)), columns=list("abcd"))
    found = friedman_nemenyi(scores)
    assert found.critical_difference == pytest.approx(2.569 * math.sqrt(4 * 5 / (6 * 14)), abs=2e-3)
    expected = stats.friedmanchisquare(*(scores[name] for name in scores)).pvalue
    assert found.p == pytest.approx(expected)
    assert found.mean.sum() == pytest.approx(10)
    gap = found.mean["a"] - found.mean["b"]
    told = bool(posthoc_nemenyi_friedman(scores).lt(0.05).loc["a", "b"])
    assert told == (abs(gap) > found.critical_difference)


def test_ranks_need_three_datasets_and_three_methods() -> None:
    with pytest.raises(ValueError, match="three methods"):
        friedman_nemenyi(pd.DataFrame([[1.0, 2.0], [2.0, 1.0]]))


def test_comparisons_pair_over_shared_splits(lab: Lab) -> None:
    for place, dataset in enumerate(("digits", "mnist", "svhn")):
        for seed in range(3):
            lab.add("averaging", seed, 0.5 + seed / 10, dataset=dataset)
            lab.add("distilling", seed, 0.6 + place / 99 + seed / 9, dataset=dataset)
            lab.add("counting", seed, 0.2 - place / 99 + seed / 50, dataset=dataset)
            lab.add("everything", seed, 0.99, dataset=dataset)
    grid = build_grid(load(lab.plan()))
    frame = comparison_frame(grid).set_index(["scenario", "first", "second"])
    labels = {name for pair in frame.index for name in pair[1:]}
    assert labels == {"averaging", "distilling", "counting"}
    row = frame.xs("digits").iloc[0]
    assert row["pairs"] == 3
    assert row["least_p_wilcoxon"] == 0.25
    assert row["p_t_holm"] >= row["p_t"]
    overall = frame.xs(ALL)
    assert (overall["blocks"] == 3).all()
    assert (overall["block"] == "dataset").all()
    assert (overall["least_p_wilcoxon"] == 0.25).all()
    assert (overall["p_t_holm"] >= overall["p_t"]).all()
    assert (overall["ci95_low"] <= overall["difference"]).all()
    ranks = rank_methods(grid)
    assert not isinstance(ranks, str)
    assert list(ranks.mean.index) == ["distilling", "averaging", "counting"]


def test_over_all_scenarios_a_block_is_one_observation(lab: Lab) -> None:
    """Splits within a block agree more than blocks do, and say nothing of other blocks."""
    ahead = {"digits": 0.02, "mnist": 0.10, "svhn": 0.30}
    for dataset, lead in ahead.items():
        for seed in range(3):
            lab.add("averaging", seed, 0.5 + seed / 100, dataset=dataset)
            lab.add("distilling", seed, 0.5 + seed / 100 + lead + seed / 1e6, dataset=dataset)
    frame = comparison_frame(build_grid(load(lab.plan()))).set_index("scenario")
    row = frame.loc[ALL]
    expected = stats.ttest_1samp([lead + 1e-6 for lead in ahead.values()], 0)
    assert row["difference"] == pytest.approx(0.14, abs=2e-6)
    assert row["p_t"] == pytest.approx(expected.pvalue)
    assert row["p_t"] > 0.2
    interval = expected.confidence_interval()
    assert (row["ci95_low"], row["ci95_high"]) == pytest.approx((interval.low, interval.high))
    assert frame["p_t"].lt(1e-6)["digits"], "as told apart as can be on every one of them"


def test_a_method_that_is_planned_on_some_datasets_only_is_named(lab: Lab) -> None:
    for dataset in ("digits", "mnist", "svhn"):
        for place, method in enumerate(("averaging", "distilling", "counting")):
            lab.add(method, 0, 0.5 + place / 10, dataset=dataset)
        if dataset != "svhn":
            lab.add("newest", 0, 0.9, dataset=dataset)
    ranks = rank_methods(build_grid(load(lab.plan())))
    assert not isinstance(ranks, str)
    assert ranks.left_out == ("newest (not planned at svhn)",)


def test_a_method_that_is_not_ranked_is_named_with_the_reason(lab: Lab) -> None:
    for dataset in ("digits", "mnist", "svhn"):
        for method, accuracy in (("averaging", 0.5), ("distilling", 0.6), ("counting", 0.2)):
            lab.add(method, 0, accuracy, dataset=dataset)
        lab.add("failing", 0, 0.9, dataset=dataset, status=_status_of(dataset))
    report = write_report(lab.plan(), figures=False)
    said = "failing (failed at mnist)"
    assert said in (report.folder / "comparisons.md").read_text()
    ranks = rank_methods(build_grid(load(lab.folder)))
    assert not isinstance(ranks, str)
    assert ranks.left_out == (said,)
    assert "failing" not in ranks.mean.index


def _status_of(dataset: str) -> Status:
    return Status.FAILED if dataset == "mnist" else Status.DONE


def test_what_is_bold_is_what_the_table_of_differences_cannot_tell_apart(lab: Lab) -> None:
    """One Holm correction serves both: over three methods it asks for a third of the level."""
    behind = {"averaging": (0.0, 0.0, 0.0), "distilling": (0.050, 0.052, 0.066)}
    behind["counting"] = (0.05, 0.07, 0.06)
    for method, lags in behind.items():
        for seed, lag in enumerate(lags):
            lab.add(method, seed, 0.9 - lag)
    report = write_report(lab.plan(), figures=False)
    at = [column[-1] for column in report.rendered["against_best"].columns].index("p, t, Holm")
    told = {
        row.label: float(row.cells[at].text) < 0.05 for row in report.rendered["against_best"].rows
    }
    bold = {row.label: row.cells[0].best for row in report.rendered["accuracy"].rows}
    assert told == {label: not bold[label] for label in told}
    assert set(told.values()) == {True}


def test_every_method_stands_against_the_best(lab: Lab) -> None:
    for seed in range(3):
        lab.add("averaging", seed, 0.5 + seed / 100)
        lab.add("distilling", seed, 0.6 - seed / 100)
    table = write_report(lab.plan(), figures=False).rendered["against_best"]
    (row,) = table.rows
    assert row.label == "averaging"
    assert [cell.text for cell in row.cells][:3] == ["distilling", "−8.00", "3"]
    assert table.columns[1] == ("difference",)


def test_one_dataset_gives_no_ranks_and_says_why(lab: Lab) -> None:
    lab.add("averaging", 0, 0.5)
    ranks = rank_methods(build_grid(load(lab.plan())))
    assert ranks == "No ranks: 1 methods complete on 1 datasets; Friedman's test needs 3 of both."


def test_seeds_of_one_split_are_counted_once_and_the_notes_say_so(lab: Lab) -> None:
    for seed in range(3):
        for method, accuracy in (("averaging", 0.5), ("distilling", 0.6 + seed / 100)):
            lab.add(method, seed, accuracy, split_seed=0)
    report = write_report(lab.plan(), figures=False)
    [row] = report.rendered["against_best"].rows
    assert [cell.text for cell in row.cells][1:3] == ["−11.00", "1"]
    assert any("Some seeds have one split" in note for note in report.notes)
    assert any(note.startswith("With fewer than 3 shared splits") for note in report.notes)


def test_methods_that_are_equal_share_their_ranks() -> None:
    scores = pd.DataFrame({"a": [0.9, 0.9, 0.9], "b": [0.9, 0.9, 0.9], "c": [0.5, 0.6, 0.7]})
    assert friedman_nemenyi(scores).mean.to_dict() == {"a": 1.5, "b": 1.5, "c": 3.0}
