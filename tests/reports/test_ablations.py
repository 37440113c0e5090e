"""Ablations: which configuration is the base, paired differences to it, bars and sweeps."""

from __future__ import annotations

from pathlib import Path

import pytest
from report_lab import Lab, plots_of, texts_of

from benchmark.store import Status
from reports.ablations import ablations, change_text, differences
from reports.api import write_report
from reports.figures.ablations import Ablations, SweepLine, Sweeps
from reports.figures.style import paper
from reports.grid import build_grid
from reports.load import load

DEFAULT = {"entropy": 1.0, "scale": 5, "meta": "prototypes"}


def _variants(lab: Lab, seeds: int = 3) -> Path:
    for name, change, accuracy in (
        ("ours without entropy", {"entropy": 0}, 0.40),
        ("distilling", {}, 0.50),
        ("ours entropy 2", {"entropy": 2.0}, 0.60),
        ("ours synthetic", {"meta": "synthetic"}, 0.45),
    ):
        for seed in range(seeds):
            score = accuracy + seed / 100
            config = {**DEFAULT, **change}
            lab.add("distilling", seed, score, label=name, method__config=config)
    lab.add("averaging", 0, 0.3)
    return lab.plan()


def test_an_ablation_departs_from_the_configuration_with_the_methods_name(lab: Lab) -> None:
    [found] = ablations(build_grid(load(_variants(lab))))
    assert found.base.label.startswith("distilling")
    assert sorted(change for one in found.changes.values() for change in one) == [
        "entropy",
        "entropy",
        "meta",
    ]
    assert {key: [value for value, _ in line] for key, line in found.sweeps().items()} == {
        "entropy": [0.0, 1.0, 2.0]
    }


def _meta_models(lab: Lab, unfinished: str = "") -> Path:
    for meta in ("prototypes", "none", "synthetic"):
        for seed in range(2):
            bare = meta == unfinished and seed == 1
            lab.add(
                *("distilling", seed, 0.5 + len(meta) / 100),
                label=f"distilling (meta={meta})",
                method__config={**DEFAULT, "meta": meta},
                status=Status.NOT_RUN if bare else Status.DONE,
            )
    return lab.plan()


def test_without_the_methods_name_the_first_of_the_experiment_is_the_base(lab: Lab) -> None:
    report = write_report(_meta_models(lab), figures=False)
    rows = texts_of(report, "ablations")
    assert next(iter(rows)) == "distilling (meta=prototypes)"
    assert rows["distilling (meta=none)"][0] == "meta prototypes → none"
    assert rows["distilling (meta=none)"][2] == "−6.00 ± 0.00"
    assert rows["distilling (meta=synthetic)"][2] == "−1.00 ± 0.00"


def test_an_unfinished_configuration_is_not_the_base(lab: Lab) -> None:
    [found] = ablations(build_grid(load(_meta_models(lab, unfinished="prototypes"))))
    assert found.base.label == "distilling (meta=none)"


def test_the_methods_name_makes_the_base_wherever_it_stands(lab: Lab) -> None:
    _meta_models(lab)
    lab.add("distilling", 0, method__config={**DEFAULT, "scale": 7})
    lab.add("distilling", 1, method__config={**DEFAULT, "scale": 7}, status=Status.NOT_RUN)
    [found] = ablations(build_grid(load(lab.plan())))
    assert found.base.label == "distilling"


def test_nested_settings_are_told_one_by_one() -> None:
    first = {"images": "real", "settings": {"a": 1, "deep": {"b": [1, 2], "c": None}}}
    second = {"images": "real", "settings": {"a": 1.0, "deep": {"b": [1, 3], "c": None}}}
    assert differences(first, second) == {"settings.deep.b": ("1,2", "1,3")}
    assert differences({"settings": {"a": 1}}, {"settings": None}) == {"settings.a": ("1", "–")}


def test_a_long_change_names_what_both_have_and_counts_the_rest() -> None:
    first = {"images": "real", "made": {"reading": "clients", "width": 8}}
    second = {"images": "new", "made": {"noise": 100, "lr": 0.1, "width": 24}}
    change = differences(first, second)
    text = "images real → new, made.width 8 → 24"
    assert change_text(change, 3) == f"{text} and 3 more"
    assert change_text(change) == (
        f"{text}, made.reading clients → –, made.noise – → 100, made.lr – → 0.1"
    )
    many = dict.fromkeys("abcde", ("–", "1"))
    assert change_text(many, 3) == "a – → 1, b – → 1, c – → 1 and 2 more"


def test_the_table_gives_paired_differences_to_the_base(lab: Lab) -> None:
    report = write_report(_variants(lab), figures=False)
    rows = texts_of(report, "ablations")
    assert rows["distilling"] == ["–", "51.00 ± 1.00 (n = 3)", "–"]
    assert rows["ours without entropy"] == [
        "entropy 1 → 0",
        "41.00 ± 1.00 (n = 3)",
        "−10.00 ± 0.00",
    ]
    frame = report.tables["ablations"].set_index("label")
    assert frame.loc["ours entropy 2", "difference"] == pytest.approx(0.1)
    assert frame.loc["ours entropy 2", "pairs"] == 3
    assert (frame["p_t_holm"].dropna() >= frame["p_t"].dropna()).all()


def test_an_unfinished_configuration_has_no_difference(lab: Lab) -> None:
    folder = _variants(lab, seeds=1)
    lab.add("distilling", 1, 0.5, label="distilling", method__config=DEFAULT)
    lab.add(
        *("distilling", 1),
        label="ours synthetic",
        method__config={**DEFAULT, "meta": "synthetic"},
        status=Status.FAILED,
        reason="made up",
    )
    lab.plan()
    report = write_report(folder, figures=False)
    assert texts_of(report, "ablations")["ours synthetic"][1:] == ["failed 1 of 2", "–"]
    bars = plots_of(folder)["ablations"]
    assert isinstance(bars, Ablations)
    [(_, found)] = bars.panels
    assert [one.trouble for one in found if one.value is None] == ["failed 1 of 2"]


def test_ablation_bars_and_sweeps_are_drawn(lab: Lab) -> None:
    made = plots_of(_variants(lab))
    bars, sweeps = made["ablations"], made["sweeps"]
    assert isinstance(bars, Ablations)
    assert isinstance(sweeps, Sweeps)
    [(setting, values, base, [line])] = sweeps.panels
    assert (setting, values, base) == ("entropy", ("0", "1", "2"), 1)
    assert line.y == pytest.approx((41.0, 51.0, 61.0))
    with paper():
        axis = bars.draw().axes[0]
        assert next(bar.get_width() for bar in axis.patches) == pytest.approx(51.0)
        assert len(sweeps.draw().axes) == 1


def test_configurations_of_unequal_seeds_are_drawn_over_those_that_all_have(lab: Lab) -> None:
    folder = _variants(lab)
    lab.add("distilling", 3, 0.95, label="distilling", method__config=DEFAULT)
    lab.plan()
    made = plots_of(folder)
    bars, sweeps = made["ablations"], made["sweeps"]
    assert isinstance(bars, Ablations)
    assert isinstance(sweeps, Sweeps)
    [(heading, found)] = bars.panels
    assert heading == "3 seeds, which all have"
    assert found[0].value == pytest.approx(51.0), "an easy split of the base's own is no setting's"
    [(*_, [line])] = sweeps.panels
    assert line.y == pytest.approx((41.0, 51.0, 61.0))


def test_sweeps_share_a_range() -> None:
    lines = [(SweepLine("", pair, (0.0, 0.0)),) for pair in ((36.7, 37.6), (20.0, 37.5))]
    sweeps = Sweeps("sweeps", tuple(("rate", ("0", "1"), 1, line) for line in lines))
    with paper():
        first, second = (axis.get_ylim() for axis in sweeps.draw().axes if axis.lines)
    assert first == second


def test_one_configuration_is_no_ablation(lab: Lab) -> None:
    lab.add("distilling", 0)
    lab.add("averaging", 0)
    assert "ablations" not in write_report(lab.plan(), figures=False).rendered
    assert not (lab.folder / "report" / "ablations.csv").exists()


def test_a_table_that_no_longer_applies_is_removed(lab: Lab) -> None:
    folder = _variants(lab)
    write_report(folder, figures=False)
    assert (folder / "report" / "ablations.tex").exists()
    for run in load(folder).runs.itertuples():
        if run.label.startswith("ours"):
            lab.store.supersede(str(run.run_id))
            lab.cells.pop(str(run.cell_id))
    lab.store.update_manifest({})
    (folder / "experiment.json").unlink()
    lab.plan()
    write_report(folder, figures=False)
    assert not (folder / "report" / "ablations.tex").exists()


def test_best_and_next_are_set_off_among_ablations(lab: Lab) -> None:
    for seed in range(3):
        for scale, score in ((1, 0.8), (2, 0.4)):
            config = {**DEFAULT, "scale": scale}
            label = f"scale {scale}"
            lab.add(
                "distilling", seed, score + scale * seed / 90, label=label, method__config=config
            )
    table = write_report(lab.plan(), figures=False).rendered["ablations"]
    assert {row.label: (row.cells[1].best, row.cells[1].second) for row in table.rows} == {
        "scale 1": (True, False),
        "scale 2": (False, True),
    }
