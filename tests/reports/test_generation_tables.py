"""Generated images in tables and figures: extractors apart, scales beside, few images marked."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from report_lab import Lab, judged, judged_by_client, plots_of, png

from reports.api import write_report

Page = Callable[[Path, str], str]


def columns_of(folder: Path) -> tuple[list[tuple[str, ...]], dict[str, list[str]]]:
    table = write_report(folder, figures=False).rendered["generation"]
    return list(table.columns), {row.label: [c.text for c in row.cells] for row in table.rows}


def test_every_column_names_its_extractor(lab: Lab) -> None:
    for seed, fid in enumerate((10.0, 12.0)):
        lab.add("distilling", seed, 0.5, generation=[judged(fid=fid), judged("inception", 90.0)])
        lab.add("averaging", seed, 0.4)
    columns, texts = columns_of(lab.plan())
    assert {column[0] for column in columns} == {"images", "classifier", "inception"}
    assert "averaging" not in texts, "a method without images has no row"
    row = dict(zip(columns, texts["distilling"], strict=True))
    assert row["classifier", "Fréchet"] == "11 ± 1.4"
    assert row["classifier", "Fréchet ÷ real"] == "22 ± 2.8"
    assert row["inception", "Fréchet"] == "90"
    assert row["images", "trained on them %"] == "62.50"
    assert row["classifier", "images"] == "200"
    # The spread of IS over its splits stands in no column.
    assert row["classifier", "IS"] == "4.5"
    frame = pd.read_csv(lab.folder / "report" / "generation.csv")
    assert list(frame["classifier.fid_mean"]) == [11.0]


@pytest.mark.parametrize("renewed", [False, True])
def test_ratios_of_unequal_sizes_have_a_column_and_a_note_of_their_own(
    lab: Lab, renewed: bool
) -> None:
    old = judged_by_client(2.0, 4.0)
    sides = [old["pooled"], *old["classes"][:2], *(one["own"] for one in old["clients"].values())]
    for entry in sides:
        entry["fid_ratio"] = entry.pop("fid_over_real", None)
    lab.add("distilling", generation=[old])
    lab.add("counting", generation=[judged_by_client(1.0, 1.5) if renewed else old])
    report = write_report(lab.plan(), figures=False)
    table = report.rendered["generation"]
    headers = [column[-1] for column in table.columns]
    rows = {row.label: dict(zip(headers, row.cells, strict=True)) for row in table.rows}
    assert rows["distilling"]["Fréchet ÷ all real"].text == "25"
    assert ("Fréchet ÷ real" in headers) is renewed
    clients = {row.label: row.cells[0].text for row in report.rendered["generators"].rows}
    if renewed:
        assert rows["distilling"]["Fréchet ÷ real"].muted
        assert rows["counting"]["Fréchet ÷ all real"].muted
        assert clients["counting"] == "1.25"
        assert clients["distilling"] not in ("3", "too few images: 2 of 2")
    else:
        assert clients == {"counting": "3", "distilling": "3"}
    said = (lab.folder / "report" / "generation.md").read_text()
    assert "from before sample sizes were made equal" in said
    assert ("1 is as good as real" in said) is renewed
    of = "as many" if renewed else "all"
    assert f"that of {of} real test images" in report.rendered["generators"].title
    # Two kinds of ratio are no comparison: the distance that they are of is drawn as it is.
    drawn: Any = plots_of(lab.folder)["generation_classifier"]
    labels = [label for label, _, _ in drawn.panels]
    assert labels[-2:] == ["Inception score", "accuracy of a network\ntrained on them (%)"]
    assert labels[:-2] == ["Fréchet distance" if renewed else "Fréchet distance ÷ all real"]
    assert [len(bars) for _, _, bars in drawn.panels] == [2] * len(labels)


def test_a_small_spread_is_shown_too(lab: Lab) -> None:
    for seed, precision in enumerate((0.820, 0.822)):
        lab.add("distilling", seed, generation=[judged(fid=1000.0 + seed, precision=precision)])
    columns, texts = columns_of(lab.plan())
    row = dict(zip(columns, texts["distilling"], strict=True))
    assert row["classifier", "precision %"] == "82.10 ± 0.14"
    assert row["classifier", "Fréchet"] == "1,000 ± 0.71"
    assert row["classifier", "recall %"] == "25.00", "the same for both seeds"


def test_the_best_images_and_the_next_are_set_off_by_each_measure(lab: Lab) -> None:
    for seed in range(3):
        near, far = 10.0 + seed, 100.0 + 2 * seed
        lab.add("distilling", seed, generation=[judged(fid=near, inception_score=2.0)])
        lab.add("counting", seed, generation=[judged(fid=far, inception_score=4.0 + seed / 9)])
    table = write_report(lab.plan(), figures=False).rendered["generation"]
    at = {column[-1]: place for place, column in enumerate(table.columns)}
    rows = {row.label: row.cells for row in table.rows}
    for measure, first, then in (
        ("Fréchet", "distilling", "counting"),
        ("Fréchet ÷ real", "distilling", "counting"),
        ("IS", "counting", "distilling"),
    ):
        best, second = rows[first][at[measure]], rows[then][at[measure]]
        assert (best.best, best.second) == (True, False), measure
        assert (second.best, second.second) == (False, True), measure
    # A count, and what is true of the real images, is nobody's merit.
    assert not any(
        row[at[name]].best for row in rows.values() for name in ("images", "KID of real")
    )


def test_who_judges_and_on_how_many_real_images_is_said(lab: Lab) -> None:
    lab.add("distilling", 0, generation=[judged()])
    report = write_report(lab.plan(), figures=False)
    (said,) = [note for note in report.notes if note.startswith("Extractor")]
    assert said == (
        "Extractor classifier: 64 features, right on 90.0% of the test images; distances are to "
        "900 real training images, the scale is from 300 real test images."
    )
    frame = pd.read_csv(report.folder / "generation.csv")
    assert frame["classifier.real_test_mean"].tolist() == [300]
    assert frame["classifier.extractor_accuracy_mean"].tolist() == [0.9]


def test_two_networks_of_one_name_are_no_comparison(lab: Lab, page: Page) -> None:
    lab.add("distilling", 0, generation=[judged(), judged("inception")])
    lab.add("counting", 0, generation=[judged(key=None), judged("inception", key=None)])
    write_report(lab.plan(), figures=False)
    assert "not the same network" not in page(lab.folder, "generation.md"), "one is not known"
    other = {"dataset_fingerprint": "beef"}
    lab.add("averaging", 0, generation=[judged(key="c" * 16)], facts=other)
    write_report(lab.plan(), figures=False)
    assert "not the same network" not in page(lab.folder, "generation.md"), "of other data"
    lab.add("distilling", 1, generation=[judged(key="b" * 16), judged("inception", key="b" * 16)])
    write_report(lab.plan(), figures=False)
    text = page(lab.folder, "generation.md")
    for name in ("classifier", "inception"):
        said = f"Extractor {name} is not the same network in all rows, don't compare its columns ("
        assert f"{said}distilling: aaaaaaaa; distilling: bbbbbbbb)." in text


def test_one_extractor_is_missing_and_no_value_of_the_other_takes_its_place(lab: Lab) -> None:
    lab.add("distilling", 0, generation=[judged()])
    lab.add("counting", 0, generation=[judged(), judged("inception", 80.0)])
    columns, texts = columns_of(lab.plan())
    at = columns.index(("inception", "Fréchet"))
    assert texts["distilling"][at] == "–"
    assert texts["counting"][at] == "80"


def test_a_distance_of_too_few_images_is_marked(lab: Lab, page: Page) -> None:
    lab.add("distilling", 0, generation=[judged(enough=False)])
    _, texts = columns_of(lab.plan())
    assert "12.5‡" in texts["distilling"]
    assert "‡ Fewer images, generated or real, than features" in page(lab.folder, "generation.md")


def test_no_table_without_generated_images(lab: Lab) -> None:
    lab.add("averaging", 0)
    report = write_report(lab.plan(), figures=False)
    assert "generation" not in report.rendered
    assert not (lab.folder / "report" / "generation.md").exists()


def test_scores_and_samples_are_drawn_and_only_drawn_anew_when_they_change(lab: Lab) -> None:
    grids = {"grid-client-0-generated.png": png(10), "grid-client-10-generated.png": png(20)}
    for seed in (0, 1):
        lab.add("distilling", seed, generation=[judged(fid=10.0 + seed)], grids=grids)
        lab.add("counting", seed, generation=[judged()], grids={"grid-generated.png": png(90)})
    folder = lab.plan()
    write_report(folder)
    figures = folder / "report" / "figures"
    drawn = {name: (figures / f"{name}.png") for name in ("samples", "generation_classifier")}
    before = {name: path.stat().st_mtime_ns for name, path in drawn.items()}
    write_report(folder)
    assert {name: path.stat().st_mtime_ns for name, path in drawn.items()} == before
    for path in folder.glob("*/grid-generated.png"):
        path.write_bytes(png(200))
    write_report(folder)
    assert drawn["samples"].stat().st_mtime_ns > before["samples"]
    assert drawn["generation_classifier"].stat().st_mtime_ns == before["generation_classifier"]


def test_a_method_is_called_what_it_calls_itself(lab: Lab) -> None:
    lab.add("distilling", 0, details={"label": "distilling (meta=none)"})
    lab.add("distilling", 0, label="mine", details={"label": "other"}, method__config={"a": 2})
    report = write_report(lab.plan(), figures=False)
    labels = [row.label for row in report.rendered["accuracy"].rows]
    assert sorted(labels) == ["distilling (meta=none)", "mine"]


def test_what_depends_on_its_batch_is_left_out_and_named(lab: Lab) -> None:
    lab.add("averaging", 0)
    lab.add("counting", 0, details={"not_for_tables": True})
    report = write_report(lab.plan(), figures=False)
    assert [row.label for row in report.rendered["accuracy"].rows] == ["averaging"]
    assert any("Left out of the tables: counting" in note for note in report.notes)


@pytest.mark.parametrize(("up", "expected"), [(1000, 1000 / (2 * 936)), (1936, 1936 / (2 * 1872))])
def test_traffic_in_rounds_of_averaging(lab: Lab, up: int, expected: float) -> None:
    lab.add("averaging", 0, up=up)
    report = write_report(lab.plan(), figures=False)
    frame = report.tables["communication"]
    assert frame["fedavg_rounds_mean"][0] == pytest.approx(expected)
