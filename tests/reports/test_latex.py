"""Tables as LaTeX: they fit the columns and pages of a paper, whatever the grid."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from report_lab import Lab, judged, judged_by_client

from reports import latex, latex_layout
from reports.api import Report, write_report
from reports.costs import cost_table
from reports.grid import build_grid
from reports.load import load
from reports.parts import parts_table
from reports.scores import score_table
from reports.table import Cell, Row, Table


def _many(lab: Lab) -> Report:
    for alpha in (0.01, 0.1, 1.0):
        for dataset in ("digits", "garments_of_all_kinds", "colours"):
            for seed in range(2):
                where = {"partition__alpha": alpha, "dataset": dataset}
                images = [judged_by_client(2.0, 3.0), judged("inception")]
                lab.add("distilling", seed, 0.5, teacher=0.6, generation=images, **where)
                lab.add("averaging", seed, 0.45, label="höher & weiter_100%", **where)
    return write_report(lab.plan(), figures=False)


def test_a_row_that_begins_with_a_bracket_or_star_is_not_the_last_ones_end() -> None:
    rows = tuple(Row("g", label, (Cell("1.0"),)) for label in ("plain", "[ours] mosaic", "*star"))
    text = latex.table_text(Table("t", "T", (("accuracy",),), rows))
    assert "{}[ours] mosaic" in text
    assert "{}*star" in text
    assert "{}plain" not in text


def test_a_wide_latex_table_is_cut_to_the_page(lab: Lab) -> None:
    _many(lab)
    text = (lab.folder / "report" / "accuracy.tex").read_text(encoding="utf-8")
    assert text.count(r"\begin{tabular}") > 1
    assert text.count(r"\begin{table*}") == text.count(r"\caption") == 1
    assert "höher" in text
    assert "?" not in "".join(line for line in text.splitlines() if not line.startswith("%"))
    # What a table rests on is in the file, for the author; the float prints the rules alone.
    assert "% The same for all: " in text
    assert "The same for all" not in text.split(r"\begin{table*}")[1]


def _tall(lab: Lab) -> Report:
    for alpha in (0.1, 1.0):
        for method in (f"method_{place}" for place in range(13)):
            images = [judged(), judged("inception")]
            lab.add(method, 0, teacher=0.6, generation=images, partition__alpha=alpha)
    return write_report(lab.plan(), figures=False)


def _paper_grid(lab: Lab) -> list[str]:
    """Return the tables of seven datasets by three alphas, every accuracy as wide as can be."""
    for dataset in (f"dataset_number_{place}" for place in range(7)):
        for alpha in (0.01, 0.1, 1.0):
            for method in (f"method_{place}" for place in range(8)):
                where = {"partition__alpha": alpha, "dataset": dataset}
                lab.add(method, 0, **where)
    grid = build_grid(load(lab.plan()))
    bold = score_table(grid)
    rows = [
        replace(row, cells=tuple(Cell("81.23", "12.34", best=True) for _ in row.cells))
        for row in bold.rows
    ]
    tables = [replace(bold, rows=tuple(rows)), cost_table(grid), parts_table(grid)]
    return [latex.table_text(table) for table in tables if table is not None]


def _nested(lab: Lab) -> Report:
    made = {"width": 24, "noise": {"size": 100, "kind": "normal"}, "threshold": 2500}
    for label, config in {
        "images of generators": {"images": "generators", "images_settings": made},
        "images of generators trained with a larger threshold and without any labels": {
            "images": "generators",
            "images_settings": {**made, "threshold": 5000, "a_long_setting_of_its_own": 1},
        },
        "real images": {"images": "real", "images_settings": {"reading": "clients"}},
    }.items():
        for seed in range(2):
            lab.add("composing", seed, label=label, method__config=config)
    return write_report(lab.plan(), figures=False)


@pytest.fixture
def quick_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hundreds of records are written: nothing is lost if they are not forced to the disk."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


def _texts(report: Report) -> list[str]:
    return [(report.folder / f"{name}.tex").read_text(encoding="utf-8") for name in report.rendered]


def _compiled(tables: Sequence[str], folder: Path, head: str) -> str:
    """Return what LaTeX says of a paper that holds some tables."""
    body = "\n".join(tables)
    whole = f"{head}\n\\begin{{document}}\n{body}\n\\end{{document}}\n"
    (folder / "all.tex").write_text(whole, encoding="utf-8")
    done = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "all.tex"],
        cwd=folder,
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-2000:]
    return done.stdout


@pytest.mark.usefixtures("quick_disk")
@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no LaTeX installed")
@pytest.mark.parametrize("made", [_many, _tall, _paper_grid, _nested])
def test_every_table_compiles_in_a_two_column_paper(
    lab: Lab, tmp_path: Path, made: Callable[[Lab], Report | list[str]]
) -> None:
    head = r"\documentclass[twocolumn]{article}\usepackage{booktabs}"
    # The widths of CVPR and ICML, the narrowest.
    head += r"\usepackage[textwidth=6.75in,textheight=9in,columnsep=0.25in]{geometry}"
    done = made(lab)
    tables = done if isinstance(done, list) else _texts(done)
    said = _compiled(tables, tmp_path, head)
    assert "Float too large" not in said
    wide = [float(part.split("pt")[0]) for part in said.split(r"Overfull \hbox (")[1:]]
    assert max(wide, default=0.0) < 5


@pytest.mark.usefixtures("quick_disk")
def test_a_tall_latex_table_goes_on_in_further_floats(lab: Lab) -> None:
    report = _tall(lab)
    text = (report.folder / "parts.tex").read_text()
    floats = text.split(r"\begin{table*}")[1:]
    assert len(floats) == 2
    assert text.count(r"\label") == 1
    assert r"(continued)}" not in floats[0]
    assert r"\addtocounter{table}{-1}" in floats[1]
    assert r"over all its rounds, digits (continued)}" in floats[1]
    # Cut between groups: the two rows of a method stand under its heading.
    assert all(one.count("up: model") == one.count(r"\emph{method") for one in floats)
    assert text.count("up: model") == 13
    for one in "".join(_texts(report)).split(r"\end{table")[:-1]:
        assert one.count("\\\\\n") <= latex_layout.FLOAT_LINES


def test_a_float_names_experiment_datasets_and_what_differs_with_its_columns(lab: Lab) -> None:
    for clients, family in ((3, "cnn"), (4, "lenet")):
        where = {"partition__clients": clients, "model__family": family}
        for dataset in ("digits", "svhn_core"):
            lab.add("averaging", 0, 0.5, dataset=dataset, **where)
    report = write_report(lab.plan(), figures=False)
    for name, text in zip(report.rendered, _texts(report), strict=True):
        printed = "\n".join(line for line in text.splitlines() if not line.startswith("%"))
        assert "Differs too: model.family: cnn at 3 clients; lenet at 4 clients." in printed
        assert rf"{report.rendered[name].title}, digits, svhn\_core}}" in printed
        assert rf"\label{{tab:made-up:{name}}}" in printed


def test_a_caption_counts_many_datasets(lab: Lab) -> None:
    for number in range(7):
        lab.add("averaging", 0, 0.5, dataset=f"dataset {number}")
    [caption] = [
        line
        for line in _texts(write_report(lab.plan(), figures=False))[0].splitlines()
        if "caption" in line
    ]
    assert caption == r"\caption{Test accuracy, 7 datasets}"


def test_a_label_is_one_for_every_name_of_a_folder() -> None:
    assert latex.label_of("my study (2) äö_1.b", "accuracy") == "tab:my-study-2-_1.b:accuracy"


def test_a_tall_group_is_cut_in_even_parts() -> None:
    rows = tuple(Row("all", f"row {place}", (Cell(str(place)),)) for place in range(100))
    pieces = latex_layout.pieces(Table("tall", "Tall", (("value",),), rows, ("A note.",)))
    assert [len(piece.tables[0].rows) for piece in pieces] == [34, 34, 32]
    assert [piece.tables[0].rows[0].group for piece in pieces] == [
        *("all", "all (continued)", "all (continued)")
    ]
    assert [piece.notes for piece in pieces] == [(), (), ("A note.",)]
    printed = [row.label for piece in pieces for row in piece.tables[0].rows]
    assert printed == [row.label for row in rows]


def test_notes_that_fill_a_page_have_floats_of_their_own() -> None:
    row = Row("all", "row", (Cell("1"),))
    notes = tuple(f"run {place} failed: {'for a long reason ' * 20}" for place in range(50))
    pieces = latex_layout.pieces(Table("noted", "Noted", (("value",),), (row,), notes))
    assert [note for piece in pieces for note in piece.notes] == list(notes)
    assert len(pieces) > 2
    assert latex.table_text(Table("none", "None", (), ())).count(r"\begin{table}") == 1


def test_bold_and_spread_count_in_a_width() -> None:
    plain, bold = Cell("81.23", "12.34"), Cell("81.23", "12.34", best=True)
    # As LaTeX measures them in article's \small.
    assert latex_layout.cell_points(plain) == pytest.approx(51.3, abs=2)
    assert latex_layout.cell_points(bold) == pytest.approx(54.5, abs=2)
    assert latex_layout.cell_points(Cell("not run yet 2 of 3")) == pytest.approx(71.7, abs=3)


def test_a_long_text_is_set_as_a_paragraph(lab: Lab) -> None:
    report = _nested(lab)
    text = (report.folder / "ablations.tex").read_text()
    assert r"\begin{tabular}{p{150pt}p{150pt}rr}" in text
    assert r"images\_\allowbreak{}settings.\allowbreak{}threshold 2500 $\to$ 5000" in text
    # A paragraph in the last column would take the end of the line for its own.
    table = Table("last", "Last", (("said",),), (Row("all", "row", (Cell("word " * 40),)),))
    assert r" \tabularnewline" in latex.table_text(table)


def test_latex_keeps_letters_and_knows_the_signs_of_the_tables() -> None:
    assert latex.escape("Fréchet ÷ ‡ α → ↯") == r"Fréchet $\div$ $\ddagger$ $\alpha$ $\to$ ?"
