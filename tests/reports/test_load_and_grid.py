from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from report_lab import Lab

from benchmark.store import Status
from reports.api import write_report
from reports.axes import find_axes
from reports.grid import build_grid
from reports.load import load


def test_one_row_a_run_with_provenance(lab: Lab) -> None:
    lab.add("averaging", 0, 0.5)
    lab.add("averaging", 1, 0.6, reason=None)
    runs = load(lab.plan()).runs
    assert list(runs["accuracy"]) == [0.5, 0.6]
    assert list(runs["seed"]) == [0, 1]
    assert set(runs["split_id"]) == {"d" * 16}
    assert set(runs["version.torch"]) == {"2.14"}
    assert runs["run_id"].is_unique
    assert list(runs["up_per_client"]) == [500.0, 500.0]


def test_every_status_keeps_its_row(lab: Lab) -> None:
    lab.add("averaging", 0)
    lab.add("averaging", 1, status=Status.FAILED, reason="out of luck")
    lab.add("averaging", 2, status=Status.TIMED_OUT, reason="10 s")
    lab.add("averaging", 3, status=Status.DIVERGED, reason="nan at step 3")
    lab.add("averaging", 4, status=Status.SKIPPED, reason="widths differ")
    lab.add("averaging", 5, status=Status.NOT_RUN)
    lab.add("averaging", 6, status=Status.INTERRUPTED, reason="Ctrl-C")
    runs = load(lab.plan(broken="ImportError: foo")).runs
    assert list(runs["status"]) == [
        *("done", "failed", "timed out", "diverged", "skipped", "not run yet", "interrupted"),
        "not installed",
    ]
    assert list(runs["reason"])[-1] == "ImportError: foo"
    assert runs["accuracy"].notna().sum() == 1


def test_a_record_made_by_other_code_is_stale_and_kept(lab: Lab) -> None:
    lab.add("averaging", 0, 0.5, code__plugin="old")
    lab.add("averaging", 0, 0.6, code__plugin="new", status=Status.NOT_RUN)
    lab.add("distilling", 0, 0.7, code__plugin="old")
    lab.add("distilling", 0, 0.8, code__plugin="new")
    runs = load(lab.plan()).runs.set_index("accuracy")
    assert runs.loc[0.5, "shown"] == "stale"
    assert runs.loc[0.7, "stale"]
    assert runs.loc[0.7, "shown"] == ""
    assert runs.loc[0.8, "shown"] == "done"
    report = write_report(lab.folder, figures=False)
    texts = {row.label: row.cells[0].text for row in report.rendered["accuracy"].rows}
    assert texts == {"averaging": "stale", "distilling": "80.00"}


def test_a_record_from_before_a_parameter_was_there_stands_where_its_question_stands_now(
    lab: Lab,
) -> None:
    for seed in (0, 1):
        lab.add("averaging", seed, 0.5, method__config={"rounds": 1}, code__plugin="old")
    lab.plan()
    now = {"method__config": {"rounds": 1, "floor": 0}, "code__plugin": "new"}
    lab.add("averaging", 0, 0.6, **now)
    lab.add("averaging", 1, status=Status.NOT_RUN, **now)
    runs = load(lab.plan()).runs
    shown = {(row.accuracy, row.shown) for row in runs.itertuples()}
    assert shown == {(0.6, "done"), (0.5, "stale"), (0.5, "")}
    report = write_report(lab.folder, figures=False)
    assert [row.label for row in report.rendered["accuracy"].rows] == ["averaging"]


def test_a_failed_attempt_of_new_code_hides_the_old_record(lab: Lab) -> None:
    lab.add("averaging", 0, 0.5, code__plugin="old")
    lab.add("averaging", 0, code__plugin="new", status=Status.FAILED, reason="broken now")
    report = write_report(lab.plan(), figures=False)
    assert report.rendered["accuracy"].rows[0].cells[0].text == "failed"
    assert any("broken now" in sentence for sentence in report.reasons)


@pytest.mark.parametrize("damage", ["truncate", "flip", "remove"])
def test_a_damaged_record_is_named_and_shows_as_not_run(lab: Lab, damage: str) -> None:
    kept = lab.add("averaging", 0, 0.5)
    hurt = lab.add("averaging", 1, 0.5)
    assert kept is not None
    assert hurt is not None
    path = lab.plan() / hurt.run_id / "record.json"
    data = path.read_bytes()
    if damage == "remove":
        path.unlink()
    else:
        middle = len(data) // 2
        flipped = data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]
        path.write_bytes(data[:middle] if damage == "truncate" else flipped)
    there = {file: file.read_bytes() for file in lab.folder.rglob("*") if file.is_file()}
    report = write_report(lab.folder, figures=False)
    left = {file: file.read_bytes() for file in there if file.is_file()}
    assert left == there, "a report reads the store, and moves nothing of it"
    assert list(report.tables["runs"]["shown"]) == ["done", "not run yet"]
    assert any(hurt.run_id in sentence and "damaged" in sentence for sentence in report.notes)
    assert report.rendered["accuracy"].rows[0].cells[0].text == "not run yet 1 of 2"


def test_a_damaged_manifest_is_rebuilt_from_the_records(lab: Lab) -> None:
    lab.add("averaging", 0, 0.5)
    (lab.plan() / "experiment.json").write_text("{")
    report = write_report(lab.folder, figures=False)
    assert report.rendered["accuracy"].rows[0].cells[0].text == "50.00"
    assert any("manifest is damaged" in sentence for sentence in report.notes)


@pytest.mark.parametrize("made", [False, True])
def test_an_empty_or_missing_folder_says_so_and_writes_nothing(tmp_path: Path, made: bool) -> None:
    folder = tmp_path / "nothing"
    if made:
        folder.mkdir()
    report = write_report(folder)
    expected = "no runs found in" if made else "there is no folder"
    assert report.notes == (f"{expected} {folder}",)
    assert report.files == ()
    assert not (folder / "report").exists()


def test_a_planned_grid_without_any_record_is_a_table_of_not_run_yet(lab: Lab) -> None:
    for seed in range(2):
        lab.add("averaging", seed, status=Status.NOT_RUN)
    report = write_report(lab.plan(), figures=False)
    assert report.rendered["accuracy"].rows[0].cells[0].text == "not run yet 2 of 2"
    assert report.reasons == ("not run yet: 2 runs",)


@pytest.mark.parametrize(
    ("changes", "header"),
    [
        ({"partition__alpha": 1.0}, ("α = 0.1", "α = 1")),
        ({"dataset": "mnist"}, ("digits", "mnist")),
        ({"holdout": 0.1}, ("holdout 0", "holdout 0.1")),
        ({"recipe__epochs": 9}, ("2 local epochs", "9 local epochs")),
        ({"budget__generator_steps": 20}, ("10 generator steps", "20 generator steps")),
        ({"compute__precision": "bf16"}, ("fp32", "bf16")),
        ({"compute__compile": True}, ("not compiled", "compiled: yes")),
        ({"widths": ["1"]}, ("widths 1,1/2", "widths 1")),
        ({"train_samples": 300}, ("all training samples", "300 training samples")),
        ({"a_new_setting": 5}, ("a new setting not set", "a new setting 5")),
    ],
)
def test_a_setting_that_differs_is_never_merged(
    lab: Lab, changes: dict[str, object], header: tuple[str, str]
) -> None:
    lab.add("averaging", 0, 0.5)
    lab.add("averaging", 0, 0.9, **changes)  # type: ignore[arg-type]
    report = write_report(lab.plan(), figures=False)
    table = report.rendered["accuracy"]
    assert sorted(column[0] for column in table.columns) == sorted(header)
    assert {cell.text for cell in table.rows[0].cells} == {"50.00", "90.00"}


def test_method_settings_that_differ_are_in_the_row_names(lab: Lab) -> None:
    lab.add("averaging", 0, 0.5, method__config={"rounds": 1, "same": 2})
    lab.add("averaging", 0, 0.9, method__config={"rounds": 5, "same": 2})
    grid = build_grid(load(lab.plan()))
    assert [row.label for row in grid.rows] == ["averaging [rounds=1]", "averaging [rounds=5]"]


def test_a_run_without_record_has_its_own_budget_whatever_its_neighbours_have(lab: Lab) -> None:
    lab.add("averaging", 0, 0.5)
    lab.add("distilling", 0, 0.7)
    lab.add("distilling", 0, status=Status.NOT_RUN, budget__generator_steps=20)
    lab.add("averaging", 0, status=Status.NOT_RUN, compute__precision="bf16")
    table = write_report(lab.plan(), figures=False).rendered["accuracy"]
    texts = {row.label: [cell.text for cell in row.cells] for row in table.rows}
    assert len(table.columns) == 3
    assert sorted(texts["averaging"]) == ["50.00", "not run yet", "–"]
    assert sorted(texts["distilling"]) == ["70.00", "not run yet", "–"]


def test_a_run_without_record_stands_in_the_row_of_its_own_configuration(lab: Lab) -> None:
    for seed in range(3):
        lab.add("averaging", seed, 0.5, method__config={"rounds": 1})
        status = Status.DONE if seed < 2 else Status.NOT_RUN
        lab.add("averaging", seed, 0.6, status=status, method__config={"rounds": 10})
        lab.add("averaging", seed, status=Status.NOT_RUN, method__config={"rounds": 20})
    table = write_report(lab.plan(), figures=False).rendered["accuracy"]
    assert {row.label: row.cells[0].text for row in table.rows} == {
        "averaging [rounds=1]": "50.00 ± 0.00",
        "averaging [rounds=10]": "not run yet 1 of 3",
        "averaging [rounds=20]": "not run yet 3 of 3",
    }


def test_rows_stand_under_all_that_their_runs_used(lab: Lab) -> None:
    """What a run says it also used counts, and splits no row whose other runs are to come."""
    heads = {"also_uses": ["label sets"]}
    once = {"rounds": 1}
    lab.add("averaging", 0, 0.5, details=heads, method__config=once)
    lab.add("averaging", 1, status=Status.NOT_RUN, method__config=once)
    lab.add("averaging", 0, 0.4, label="plain", method__config={"rounds": 2})
    lab.add("distilling", 0, 0.4, details={"student_start": "aggregate"})
    grid = build_grid(load(lab.plan()))
    groups = {row.label: row.group for row in grid.rows}
    assert groups == {
        "distilling": "uses sample counts, weights",
        "averaging": "uses label sets, sample counts, weights",
        "plain": "uses sample counts, weights",
    }


def test_of_an_older_manifest_it_takes_budget_and_compute_of_its_neighbours(lab: Lab) -> None:
    lab.add("averaging", 0, 0.5)
    lab.add("averaging", 1, status=Status.NOT_RUN)
    folder = lab.plan()
    manifest = json.loads((folder / "experiment.json").read_text())
    for cell in manifest["cells"].values():
        assert cell.pop("settings")["budget.generator_steps"] == 10
        del cell["config"], cell["uses"]
    (folder / "experiment.json").write_text(json.dumps(manifest))
    grid = build_grid(load(folder))
    assert len(grid.scenarios) == 1
    assert len(grid.rows) == 1


def test_settings_that_follow_from_another_are_said_not_spread() -> None:
    settings = [
        {"dataset": "digits", "recipe.epochs": "2", "seed": "0"},
        {"dataset": "mnist", "recipe.epochs": "9", "seed": "1"},
    ]
    axes = find_axes(settings, ["dataset", "recipe.epochs", "seed"])
    assert axes.shown == ("dataset",)
    assert axes.implied == {"recipe.epochs": "recipe.epochs: 2 at digits; 9 at mnist"}


def test_a_setting_of_most_places_holds_elsewhere() -> None:
    settings = [
        {"warmup.rounds": str(rounds), "warmup.local": "steps" if rounds else "recipe"}
        for rounds in range(9)
    ]
    [said] = find_axes(settings, ["warmup.rounds", "warmup.local"]).implied.values()
    assert said == "warmup.local: recipe at 0 warm-up rounds; steps elsewhere"


def test_numbers_are_in_order_and_words_as_they_come(lab: Lab) -> None:
    for alpha in (1.0, 0.01, 0.1):
        lab.add("averaging", 0, 0.5, partition__alpha=alpha)
    grid = build_grid(load(lab.plan()))
    assert grid.scenarios == (("0.01",), ("0.1",), ("1",))


def test_rows_count_as_a_reader_does(lab: Lab) -> None:
    for rounds, rate in ((2, 0.5), (11, 0.25), (2, 0.25)):
        config = {"rounds": rounds, "rate": rate}
        lab.add("averaging", 0, 0.5, method__config=config, label=f"{rounds} rounds, rate {rate}")
    grid = build_grid(load(lab.plan()))
    labels = [row.label for row in grid.rows]
    assert labels == ["2 rounds, rate 0.25", "2 rounds, rate 0.5", "11 rounds, rate 0.25"]


def test_reports_never_import_torch(lab: Lab) -> None:
    for seed in range(3):
        lab.add("averaging", seed, 0.5 + seed / 10)
        lab.add("distilling", seed, 0.6)
    code = (
        "import sys; from pathlib import Path; from reports.api import write_report;"
        "from reports.terminal import print_report; from rich.console import Console;"
        f"print_report(write_report(Path({str(lab.plan())!r})), Console());"
        "assert 'matplotlib' in sys.modules; print([m for m in sys.modules if m == 'torch'])"
    )
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.usefixtures("no_pictures")
def test_damaged_files_beside_a_record_are_named_and_the_rest_is_shown(lab: Lab) -> None:
    buffer = io.BytesIO()
    Image.fromarray(np.full((8, 8), 90, dtype=np.uint8)).save(buffer, format="PNG")
    grids = {f"grid-{name}.png": buffer.getvalue() for name in ("a", "b")}
    for seed in range(3):
        lab.add("distilling", seed, history=[0.1, 0.2], grids=grids)
    folder = lab.plan()
    first, second, third = load(folder).runs["run_id"]
    (folder / first / "history.csv").write_text('round,accuracy\n0,0.5\n"unclosed')
    (folder / first / "grid-a.png").write_bytes(grids["grid-a.png"][:40])
    (folder / second / "history.csv").write_bytes(b"\x80\x81")
    (folder / third / "history.csv").unlink()
    report = write_report(folder)
    damage = "is damaged: it is shown in part, or not at all"
    assert set(report.notes) >= {
        f"{first}/history.csv {damage}",
        f"{first}/grid-a.png {damage}",
        f"{second}/history.csv {damage}",
        f"{third}/history.csv is missing",
    }
    assert (folder / "report" / "index.html").is_file()
    assert (folder / "report" / "figures" / "samples.png").is_file()
    assert report.tables["accuracy"]["done"].tolist() == [3]
