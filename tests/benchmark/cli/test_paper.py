"""``paper``: every file of the paper expands to runs, twins included."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmark.cli.main import main
from benchmark.cli.parsing import bundled_experiments
from benchmark.cli.verb_paper import names
from benchmark.experiment import plan, resolve
from benchmark.registry import Registry, discover
from benchmark.specs import ComputeSpec, StudentSpec
from benchmark.specs.base import read_yaml
from benchmark.store import Cell, ExperimentStore, Record, Status
from methods.blocks import standard_parts  # noqa: F401 - registers the parts
from methods.blocks.composition import STUDENTS

SEVEN = {"mnist", "fashion_mnist", "svhn", "cifar10", "cifar100", "tiny_imagenet", "food101"}
REFERENCES = {"centralized", "ensemble", "class_share", "best_client", "fedavg"}
"""Rows that stand in every table (rule 7 of the suite's fairness)."""


@pytest.fixture(scope="module")
def registry() -> Registry:
    return discover()


@pytest.mark.parametrize("name", sorted(bundled_experiments()))
def test_every_bundled_file_expands_to_runs(name: str, registry: Registry) -> None:
    path = bundled_experiments()[name]
    experiment = resolve({}, read_yaml(path), str(path))
    assert experiment.experiment == name, "an experiment is called as its file"
    runs, broken = plan(experiment, registry, ComputeSpec())
    assert runs
    assert not broken
    assert len({run.spec.run_id for run in runs}) == len(runs)
    assert any(run.skip is None for run in runs)


@pytest.mark.parametrize("name", ["paper_accuracy", "paper_accuracy_cpu", "study_main"])
def test_the_published_student_stands_in_a_second_row(name: str, registry: Registry) -> None:
    path = bundled_experiments()[name]
    runs, _ = plan(resolve({}, read_yaml(path), path.name), registry, ComputeSpec())
    students = {run.label: run.spec.method.config.get("student") for run in runs}
    assert students["mosaic (native student)"] == "native"
    assert students["mosaic"] == "scenario"
    # The others' published students are the scenario's default, as the main tables have it.
    assert {run.spec.scenario.student for run in runs} == {StudentSpec()}
    assert all(STUDENTS[name].native == StudentSpec() for name in ("dense", "co_boosting"))


@pytest.mark.parametrize("name", names())
def test_a_twin_differs_in_size_alone(name: str) -> None:
    files = bundled_experiments()
    whole, twin = (
        resolve({}, read_yaml(files[f"paper_{name}{end}"]), name) for end in ("", "_cpu")
    )
    assert (whole.profile, twin.profile) == ("paper", "cpu")
    for field in ("methods", "variants", "alpha", "clients", "seeds"):
        assert getattr(whole, field) == getattr(twin, field), field
    # A profile makes all clients narrower; that clients differ is what the table is about.
    assert len(whole.widths[0]) == len(twin.widths[0])
    assert whole.models == ("resnet18",)


TABLES = (
    *(f"paper_{name}{end}" for name in names() for end in ("", "_cpu")),
    *("mosaic_losses", "mosaic_published", "mosaic_teacher", "mosaic_warm_start", "mosaic_widths"),
    *("study_main", "study_widths"),
)


@pytest.mark.parametrize("name", TABLES)
def test_reference_rows_stand_in_every_table(name: str, registry: Registry) -> None:
    path = bundled_experiments()[name]
    runs, _ = plan(resolve({}, read_yaml(path), path.name), registry, ComputeSpec())
    found = [run for run in runs if run.label in REFERENCES]
    scenarios = {run.spec.scenario.digest() for run in runs}
    assert len(found) == len(REFERENCES) * len(scenarios)
    skipped = {(run.label, run.spec.scenario.homogeneous) for run in found if run.skip}
    allowed = {("fedavg", False)}
    if name == "mosaic_published":  # the published program holds nothing out to choose on
        allowed |= {("best_client", True)}
    assert skipped <= allowed


def test_the_main_table_has_the_seven_datasets() -> None:
    path = bundled_experiments()["paper_accuracy"]
    experiment = resolve({}, read_yaml(path), "paper")
    assert set(experiment.datasets) == SEVEN
    assert experiment.alpha == (0.01, 0.1, 1.0)


def test_it_lists_what_can_be_made(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["paper", "--results", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "paper accuracy --cpu" in out
    assert "none of 693" in out  # eleven rows, seven datasets, three alphas, three seeds


def test_records_of_other_grids_and_code_are_not_counted(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    experiment = ExperimentStore(tmp_path / "paper_meta")
    experiment.update_manifest({})  # as a grid does before its first record
    for number in range(3):
        run_id = f"{number:016x}"
        values = {"run_id": run_id, "cell_id": run_id, "status": Status.DONE, "label": "mosaic"}
        experiment.begin(run_id).publish(Record(**values, spec={}))
    experiment.update_manifest({f"{0:016x}": Cell.of(f"{0:016x}", "mosaic", {})})
    assert main(["paper", "--results", str(tmp_path)]) == 0
    lines = [one for one in capsys.readouterr().out.splitlines() if "paper meta " in one]
    assert "1 of 72" in lines[0]
    assert "none of 72" in lines[1], "the twin's folder is another"


def test_the_help_shows_no_values_that_never_hold(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["paper", "--help"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "(default: digits)" not in shown
    assert "that of profile paper (with --cpu: profile cpu)" in shown
    assert main(["run", "--help"]) == 0
    assert "(default: digits)" in " ".join(capsys.readouterr().out.split())


@pytest.mark.long
def test_a_dry_run_plans_the_twin(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    flags = ["--datasets", "digits", "--dry-run", "--results", str(tmp_path)]
    assert main(["paper", "meta", "--cpu", *flags]) == 0
    out = capsys.readouterr().out
    assert "72 to run" in out
    assert "mosaic (meta=none)" in out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["acuracy"], "did you mean 'accuracy'"),
        (["accuracy", "--config", "mosaic_losses"], "two experiments"),
    ],
)
def test_wrong_names_are_refused(
    arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["paper", *arguments]) == 2
    assert says in capsys.readouterr().err
