from __future__ import annotations

import io
import re
import shutil
import statistics
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from report_lab import Lab, texts_of
from rich.console import Console

from benchmark.store import Status, StoreError
from reports import latex, markdown
from reports.api import Report, write_report
from reports.formats import points
from reports.grid import build_grid
from reports.load import load
from reports.scores import score_frame
from reports.table import Cell, Row, Table
from reports.terminal import print_report, slices

Page = Callable[[Path, str], str]


def _terminal(report: Report, width: int = 160) -> str:
    out = io.StringIO()
    print_report(report, Console(file=out, width=width))
    return out.getvalue()


def test_mean_and_sd_with_ddof_1_in_print_and_raw_in_csv(lab: Lab) -> None:
    values = [0.51234567, 0.52, 0.55]
    for seed, value in enumerate(values):
        lab.add("averaging", seed, value)
    report = write_report(lab.plan(), figures=False)
    sd = statistics.stdev(values)
    assert (
        texts_of(report)["averaging"][0] == f"{100 * statistics.fmean(values):.2f} ± {100 * sd:.2f}"
    )
    frame = pd.read_csv(lab.folder / "report" / "accuracy.csv")
    assert frame["accuracy_mean"][0] == pytest.approx(statistics.fmean(values), abs=1e-15)
    assert frame["accuracy_sd"][0] == pytest.approx(sd, rel=1e-12)
    runs = pd.read_csv(lab.folder / "report" / "runs.csv")
    assert list(runs["accuracy"]) == values


def test_one_seed_has_no_spread_and_says_so(lab: Lab, page: Page) -> None:
    lab.add("averaging", 0, 0.5)
    report = write_report(lab.plan(), figures=False)
    assert texts_of(report)["averaging"][0] == "50.00"
    assert "One seed: no spread can be given." in page(lab.folder, "accuracy.md")


@pytest.mark.parametrize(
    "status",
    [Status.FAILED, Status.TIMED_OUT, Status.INTERRUPTED, Status.DIVERGED, Status.NOT_RUN],
)
def test_no_mean_over_survivors(lab: Lab, status: Status) -> None:
    lab.add("averaging", 0, 0.5)
    lab.add("averaging", 1, 0.7)
    lab.add("averaging", 2, status=status, reason="for a reason")
    report = write_report(lab.plan(), figures=False)
    cells = texts_of(report)["averaging"]
    assert cells[0] == f"{status} 1 of 3"
    assert set(cells[1:]) == {"–"}
    frame = pd.read_csv(lab.folder / "report" / "accuracy.csv")
    assert frame["accuracy_mean"].isna().all()
    assert frame["done"][0] == 2
    if status is not Status.NOT_RUN:
        assert f"averaging: {status} (seed 2): for a reason" in report.reasons


def test_references_stand_apart_and_methods_by_what_they_use(lab: Lab, page: Page) -> None:
    for name in ("counting", "averaging", "distilling", "everything"):
        for seed in range(3):
            own = {"everything": 0.99, "distilling": 0.3 + seed / 1000}
            lab.add(name, seed, own.get(name, 0.5))
    report = write_report(lab.plan(), figures=False)
    groups = [group for group, _ in report.rendered["accuracy"].groups]
    assert groups == [
        "references",
        "uses weights",
        "uses label counts, weights",
        "uses sample counts, weights",
    ]
    best = {row.label for row in report.rendered["accuracy"].rows if row.cells[0].best}
    assert best == {"counting", "averaging"}
    assert "*everything*" in page(lab.folder, "accuracy.md")


def test_nothing_is_bold_where_every_method_would_be(lab: Lab) -> None:
    for method, accuracies in {"averaging": (0.5, 0.7, 0.6), "counting": (0.6, 0.5, 0.7)}.items():
        for seed, accuracy in enumerate(accuracies):
            lab.add(method, seed, accuracy)
    report = write_report(lab.plan(), figures=False)
    assert not any(row.cells[0].best for row in report.rendered["accuracy"].rows)
    assert any(note.endswith("Where that is every method, none is.") for note in report.notes)
    assert report.tables["accuracy"]["not_told_from_best"].all(), "the raw table tells it still"


def test_bold_is_whoever_cannot_be_told_from_the_best(lab: Lab) -> None:
    for seed, noise in enumerate((0.0, 0.03, -0.02)):
        lab.add("averaging", seed, 0.80 + noise)
        lab.add("distilling", seed, 0.79 - noise)
        lab.add("counting", seed, 0.30 + 1.1 * noise)
    rows = write_report(lab.plan(), figures=False).rendered["accuracy"].rows
    marks = {row.label: (row.cells[0].best, row.cells[0].second) for row in rows}
    assert marks == {
        "averaging": (True, False),
        "distilling": (True, False),
        "counting": (False, True),
    }


def test_two_seeds_tell_nobody_apart(lab: Lab, page: Page) -> None:
    for seed in range(2):
        lab.add("averaging", seed, 0.9 + seed / 100)
        lab.add("distilling", seed, 0.1 + seed / 50)
    report = write_report(lab.plan(), figures=False)
    assert not any(cell.best for row in report.rendered["accuracy"].rows for cell in row.cells)
    assert "With fewer than 3 shared splits" in page(lab.folder, "accuracy.md")


def test_three_seeds_cannot_reach_wilcoxon_and_the_report_says_so(lab: Lab, page: Page) -> None:
    for seed in range(3):
        lab.add("averaging", seed, 0.9 + seed / 100)
        lab.add("distilling", seed, 0.1 + seed / 50)
    write_report(lab.plan(), figures=False)
    assert "p is at least 0.250" in page(lab.folder, "accuracy.md")


def test_the_teacher_stands_beside(lab: Lab) -> None:
    lab.add("averaging", 0, 0.5)
    lab.add("distilling", 0, 0.6, teacher=0.7)
    report = write_report(lab.plan(), figures=False)
    assert report.rendered["accuracy"].columns[1] == ("teacher %",)
    assert texts_of(report)["distilling"][:2] == ["60.00", "70.00"]
    assert texts_of(report)["averaging"][:2] == ["50.00", "–"]


def test_markdown_headers_and_ranks_show_names_as_they_are(lab: Lab, page: Page) -> None:
    for dataset in ("yes|no", "mnist", "svhn"):
        for place, method in enumerate(("averaging", "distilling", "counting")):
            label = f"[x] {method}|*ours*"
            lab.add(method, 0, 0.5 + place / 10, label=label, dataset=dataset)
    write_report(lab.plan(), figures=False)
    lines = page(lab.folder, "accuracy.md").splitlines()
    table = [line for line in lines if line.startswith("|")]
    assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table}) == 1
    assert r"averaging\|\*ours\* |" in page(lab.folder, "comparisons.md")


def test_rules_are_said_once(lab: Lab, page: Page) -> None:
    lab.add("averaging", 0, 0.5)
    write_report(lab.plan(), figures=False)
    text = page(lab.folder, "accuracy.md")
    assert text.count("never the best one on the way") == 1
    assert text.count("is a seed and costs nothing") == 1


def test_seeds_made_by_different_code_are_flagged(lab: Lab, page: Page) -> None:
    lab.add("averaging", 0, 0.5, code__plugin="old")
    lab.add("averaging", 1, 0.6, code__plugin="new")
    report = write_report(lab.plan(), figures=False)
    assert texts_of(report)["averaging"][0].endswith("†")
    assert "seeds of this cell differ in code" in page(lab.folder, "accuracy.md")


@pytest.mark.parametrize(
    ("facts", "what"),
    [
        ({"dataset_fingerprint": "beef"}, "different data"),
        ({"split": {"id": "e" * 16}}, "different splits"),
    ],
)
def test_rows_that_saw_other_data_or_splits_are_no_comparison(
    lab: Lab, page: Page, facts: dict[str, Any], what: str
) -> None:
    for seed in range(2):
        lab.add("averaging", seed, 0.5)
        lab.add("distilling", seed, 0.6)
    write_report(lab.plan(), figures=False)
    assert "don't compare" not in page(lab.folder, "accuracy.md")
    lab.add("counting", 0, 0.6)
    lab.add("counting", 1, 0.6, facts=facts)
    write_report(lab.plan(), figures=False)
    text = page(lab.folder, "accuracy.md")
    assert f"saw {what}, don't compare them (" in text
    assert "(distilling, averaging: " in text


@pytest.mark.parametrize(
    ("other", "flagged"),
    [
        ({"cpu": "one", "memory_bytes": 25_276_063_744}, False),
        ({"cpu": "one", "memory_bytes": 12_884_901_888}, True),
        ({"cpu": "another", "memory_bytes": 25_276_514_304}, True),
    ],
)
def test_seeds_made_on_different_machines_are_flagged(
    lab: Lab, other: dict[str, object], flagged: bool
) -> None:
    """The same machine under two kernels is one: they leave it some kilobytes more or less."""
    lab.add("averaging", 0, 0.5, hardware={"cpu": "one", "memory_bytes": 25_276_514_304})
    lab.add("averaging", 1, 0.6, hardware=other)
    report = write_report(lab.plan(), figures=False)
    assert texts_of(report)["averaging"][0].endswith("†") == flagged


def test_seeds_made_alike_are_not_flagged(lab: Lab) -> None:
    lab.add("averaging", 0, 0.5)
    lab.add("averaging", 1, 0.6)
    assert "†" not in texts_of(write_report(lab.plan(), figures=False))["averaging"][0]


def test_uneven_numbers_of_seeds_are_shown(lab: Lab) -> None:
    for seed in range(2):
        lab.add("averaging", seed, 0.5, partition__alpha=0.1)
    lab.add("averaging", 0, 0.5, partition__alpha=1.0)
    report = write_report(lab.plan(), figures=False)
    assert report.rendered["accuracy"].columns == (
        ("α = 0.1", "n = 2", "accuracy %"),
        ("α = 1", "n = 1", "accuracy %"),
    )


def test_warnings_of_runs_are_passed_on(lab: Lab) -> None:
    lab.add("averaging", 0, 0.5, warnings=["the split left clients too small"])
    notes = write_report(lab.plan(), figures=False).notes
    assert "Warned once: the split left clients too small" in notes


def test_many_warnings_of_a_kind_are_told_once(lab: Lab) -> None:
    many = [f"generator of client {n}: images differ by 0.{n}" for n in range(100)]
    lab.add("averaging", 0, 0.5, warnings=[*many, "another kind"])
    notes = write_report(lab.plan(), figures=False).notes
    said = [note for note in notes if "generator of client" in note]
    assert said == [f"Warned 100 times: such as: {many[0]}"]
    assert "Warned once: another kind" in notes


def test_terminal_shows_table_reasons_and_rules(lab: Lab) -> None:
    lab.add("averaging", 0, 0.5)
    lab.add("distilling", 0, status=Status.FAILED, reason="RuntimeError: [red]odd[/red]")
    text = _terminal(write_report(lab.plan(broken="ImportError: foo"), figures=False))
    assert "50.00" in text
    assert "! distilling: failed (seed 0): RuntimeError: [red]odd[/red]" in text
    assert "! broken: not installed: ImportError: foo" in text
    assert "rule 'last'" in text


def test_a_wide_table_is_sliced_and_loses_no_column(lab: Lab) -> None:
    for place in range(9):
        lab.add("averaging", 0, 0.1 + place / 100, partition__alpha=10.0**-place)
    report = write_report(lab.plan(), figures=False)
    parts = list(slices(report.rendered["accuracy"], 80))
    assert len(parts) > 1
    assert sum(len(part.columns) for part in parts) == 9
    text = _terminal(report, 80)
    rows = [line.rstrip() for line in text.splitlines() if line.strip().startswith("averaging")]
    assert rows
    assert max(map(len, rows)) <= 80
    assert all(f"{10 + place}.00" in text for place in range(9))


def test_unchanged_files_are_not_written_again(lab: Lab) -> None:
    lab.add("averaging", 0, 0.5)
    first = write_report(lab.plan(), figures=False)
    times = {path: path.stat().st_mtime_ns for path in first.files}
    lab.add("distilling", 0, 0.6)
    write_report(lab.plan(), figures=False)
    changed = {path.name for path, time in times.items() if path.stat().st_mtime_ns != time}
    assert {"runs.csv", "accuracy.csv", "accuracy.md"} <= changed
    again = write_report(lab.folder, figures=False)
    later = {path: path.stat().st_mtime_ns for path in again.files}
    write_report(lab.folder, figures=False)
    assert later == {path: path.stat().st_mtime_ns for path in again.files}


def test_an_unwritable_folder_is_one_clear_line(lab: Lab) -> None:
    lab.add("averaging", 0, 0.5)
    (lab.plan() / "report").write_text("in the way")
    with pytest.raises(StoreError, match=r"can't write .*report"):
        write_report(lab.folder, figures=False)


def _odd_table() -> Table:
    cells = (Cell("81.2", "0.4", best=True), Cell("failed 1 of 3", muted=True))
    other = (Cell("80.0", "0.1", second=True, flag="†"), Cell())
    columns = (("50% & more", "accuracy %"), ("50% & more", "α = 0.1"))
    rows = (
        Row("uses a_b | {x}", r"odd\name_1", cells),
        Row("references", "all", other, reference=True),
    )
    return Table("odd", "Test ± #1", columns, rows, ("A ~ note^2: $5 < 6",))


def test_markdown_escapes_and_marks() -> None:
    text = markdown.table_text(_odd_table())
    assert "**81.2 ± 0.4**" in text
    assert "<u>80.0 ± 0.1†</u>" in text
    assert r"uses a\_b \| {x}" in text
    assert {line.replace(r"\|", "").count("|") for line in text.splitlines()} == {4}


def test_latex_escapes_marks_and_spans() -> None:
    text = latex.table_text(_odd_table())
    assert r"\textbf{81.2} {\scriptsize $\pm$ 0.4}" in text
    assert r"\underline{80.0}" in text
    assert r"\multicolumn{2}{c}{50\% \& more}" in text
    assert r"\cmidrule(lr){2-3}" in text
    assert r"odd\textbackslash{}name\_1" in text
    assert text.isascii()
    assert text.count("{") == text.count("}") + text.count(r"\{") - text.count(r"\}")
    for line in text.splitlines():
        if line.endswith(r"\\") and "multicolumn" not in line:
            assert line.replace(r"\&", "").count("&") == 2


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no LaTeX installed")
def test_latex_compiles(tmp_path: Path) -> None:
    head = r"\documentclass{article}\usepackage{booktabs}\usepackage[margin=1cm]{geometry}"
    body = f"\\begin{{document}}\n{latex.table_text(_odd_table())}\\end{{document}}\n"
    (tmp_path / "table.tex").write_text(f"{head}\n{body}")
    subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "table.tex"],
        cwd=tmp_path,
        check=True,
        capture_output=True,
    )
    assert (tmp_path / "table.pdf").stat().st_size > 0


def test_the_interval_is_over_splits_and_not_over_seeds_on_them(lab: Lab) -> None:
    for split, mean in enumerate((0.55, 0.65, 0.75)):
        for seed in range(2):
            lab.add("averaging", seed, mean + (0.05 if seed else -0.05), split_seed=split)
    row = score_frame(build_grid(load(lab.plan()))).iloc[0]
    assert (row["accuracy_ci95_low"], row["accuracy_ci95_high"]) == pytest.approx(
        (0.4016, 0.8984), abs=1e-4
    )
    assert row["accuracy_mean"] == pytest.approx(0.65)


def test_no_difference_has_no_minus() -> None:
    assert [points(share) for share in (-0.0, -0.00001, 0.01, -0.01)] == [
        *("0.00", "0.00", "1.00", "−1.00"),
    ]
    assert points(-0.0, signed=True) == "+0.00"
