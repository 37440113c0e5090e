"""The study's experiment files share one cut of profile `cpu`: its tables are of one study."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import benchmark
from benchmark.experiment import ExperimentSpec, resolve
from benchmark.specs.base import read_yaml
from benchmark.studies import generator_curve

FILES = sorted((Path(benchmark.__file__).parent / "experiments").glob("study_*.yaml"))
SERVER = ("dense", "co_boosting")
LONG = {"study_student_published": 20, "study_warm_start_published": 20}
"""Studies whose students learn longer than the cut lets them, and how many times as long."""


def _read(path: Path) -> ExperimentSpec:
    return resolve({}, read_yaml(path), path.name)


def _generator_batches(experiment: ExperimentSpec) -> set[tuple[str, int]]:
    """Return whose images are made in batches of which size, wherever the file says so."""
    found = set()
    methods: set[str] = {*experiment.methods, *experiment.sweep}
    for method in methods & {*SERVER, "mosaic"}:
        settings = experiment.set[method]
        name = "generator_batch_size" if method == "mosaic" else "synthesis_batch"
        found.add(("clients" if method == "mosaic" else "server", settings[name]))
    variants: list[dict[str, Any]] = [dict(values) for values in experiment.variants.values()]
    for values in variants:
        settings = values.get("images_settings", {})
        if values.get("images") == "generators":
            found.add(("clients", settings["batch_size"]))
        elif values.get("images") in SERVER:
            found.add(("server", settings["synthesis_batch"]))
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_one_cut_for_the_whole_study(path: Path) -> None:
    main, other = _read(FILES[0].with_name("study_main.yaml")), _read(path)
    for field in ("profile", "precision", "train_samples", "clients", "datasets", "epochs"):
        assert getattr(other, field) == getattr(main, field), field
    if other.methods != ("fedavg",):
        assert other.generator_steps == main.generator_steps
        longer = LONG.get(path.stem, 1)
        assert other.distilled_images == longer * main.distilled_images
        assert other.generated_images == (10 if longer > 1 else 1) * main.generated_images
    assert _generator_batches(other) <= _generator_batches(main)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_composed_meta_model_is_as_wide_as_mosaics(path: Path) -> None:
    experiment = _read(path)
    width = experiment.set["mosaic"]["meta_feedforward"]
    for label, values in experiment.variants.items():
        if values.get("teacher") == "experts_meta":
            settings: Any = values["teacher_settings"]
            assert settings["meta_model"]["feedforward"] == width, label


def test_the_main_file_says_all_batches() -> None:
    assert _generator_batches(_read(FILES[0].with_name("study_main.yaml"))) == {
        ("clients", 16),
        ("server", 64),
    }


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--dataset", "fashon"], "fashon"),
        (["--dataset", "digits", "--device", "tpu"], "tpu"),
        (["--dataset", "digits", "--threads", "0"], "threads"),
    ],
)
def test_the_generator_curve_refuses_in_one_line(
    arguments: list[str], says: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert generator_curve.main([*arguments, "--out", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert says in said
    assert said.count("\n") == 1


@pytest.mark.parametrize("flag", ["--steps", "--every", "--images", "--batch"])
@pytest.mark.parametrize("text", ["0", "1.5", "many"])
def test_the_generator_curve_counts_from_one(
    flag: str, text: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    with pytest.raises(SystemExit, match="2"):
        generator_curve.main([flag, text, "--out", str(tmp_path)])
    assert f"'{text}' is not a whole number above 0" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
