"""Flags: precedence, ``--set``, ``--config``, durations."""

from __future__ import annotations

import argparse
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmark.cli import parsing
from benchmark.cli.flags import experiment_of
from benchmark.cli.verb_run import parser
from benchmark.errors import UserError
from benchmark.experiment import ExperimentSpec


def experiment(*argv: str) -> ExperimentSpec:
    return experiment_of(parser().read(argv))


def test_default_profile_and_no_flags() -> None:
    made = experiment()
    assert made.profile == "quick"
    assert made.datasets == ("digits",)
    assert made.methods == ("all",)


def test_flag_before_file_before_profile_before_default(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("profile: cpu\nclients: [4]\nepochs: 3\n", encoding="utf-8")
    made = experiment("--config", str(file), "--epochs", "2")
    assert made.epochs == 2  # flag
    assert made.clients == (4,)  # file
    assert made.datasets == ("fashion_mnist",)  # profile
    assert made.batch_size == ExperimentSpec.model_fields["batch_size"].default
    assert made.experiment == "mine"  # a file names its own experiment


def test_file_names_its_experiment_and_a_flag_renames_it(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("experiment: other\n", encoding="utf-8")
    assert experiment("--config", str(file)).experiment == "other"
    assert experiment("--config", str(file), "--experiment", "third").experiment == "third"


@pytest.mark.parametrize("name", ["2024", "007", "1e5"])
def test_a_name_of_digits_stays_a_name(name: str) -> None:
    assert experiment("--experiment", name).experiment == name


def test_set_is_merged_parameter_by_parameter(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("set: {fedavg: {rounds: 3, weights: same}}\n", encoding="utf-8")
    made = experiment("--config", str(file), "--set", "fedavg.rounds=5")
    assert made.set["fedavg"] == {"rounds": 5, "weights": "same"}


def test_several_values_span_the_grid() -> None:
    made = experiment("--alpha", "0.1", "1", "--clients", "3", "5", "--widths", "1", "1,1/2")
    assert made.alpha == (0.1, 1.0)
    assert made.clients == (3, 5)
    assert made.widths == ((Fraction(1),), (Fraction(1), Fraction(1, 2)))
    assert len(made.scenarios()) == 8


def test_switch() -> None:
    assert experiment("--no-augment").augment is False
    assert experiment("--augment").augment is True


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a.b=3", 3),
        ("a.b=0.5", 0.5),
        ("a.b=true", True),
        ("a.b=[1, 2]", [1, 2]),
        ("a.b=x=y", "x=y"),
    ],
)
def test_set_reads_yaml(text: str, value: object) -> None:
    assert parsing.settings([text]) == {"a": {"b": value}}


def test_set_reaches_groups() -> None:
    made = parsing.settings(["a.g.x=1", "a.g.y=2", "a.z=3"])
    assert made == {"a": {"g": {"x": 1, "y": 2}, "z": 3}}


@pytest.mark.parametrize("items", [["a=1"], ["a.b"], [".b=1"], ["a.b={"], ["a.b=1", "a.b.c=2"]])
def test_set_refuses(items: list[str]) -> None:
    with pytest.raises(UserError, match="--set"):
        parsing.settings(items)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("10m", 600), ("1h30m", 5400), ("2h", 7200), ("45", 45), ("0.5m", 30)],
)
def test_durations(text: str, seconds: float) -> None:
    assert parsing.duration(text) == seconds


@pytest.mark.parametrize("text", ["", "0", "-5s", "10 minutes", "1h30", "nan", "m", "10m5h"])
def test_no_durations(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="duration"):
        parsing.duration(text)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 99), st.integers(0, 59), st.integers(1, 59))
def test_durations_add_up(hours: int, minutes: int, seconds: int) -> None:
    text = f"{hours}h{minutes}m{seconds}s"
    assert parsing.duration(text) == 3600 * hours + 60 * minutes + seconds


def test_bundled_experiments_can_be_read() -> None:
    for name, path in parsing.bundled_experiments().items():
        assert parsing.experiment_file(name) == path
        assert experiment("--config", name).scenarios()


def test_a_path_wins_over_a_bundled_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").write_text("epochs: 1\n", encoding="utf-8")
    assert parsing.experiment_file("mine") == Path("mine")


def test_a_folder_does_not_hide_a_bundled_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in the folder of reference results, where each has one."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "study_main").mkdir()
    assert parsing.experiment_file("study_main") == parsing.bundled_experiments()["study_main"]


def test_values_of_a_flag_that_is_given_again_are_added() -> None:
    made = experiment("--alpha", "0.1", "--seeds", "0", "--alpha", "0.5", "1")
    assert made.alpha == (0.1, 0.5, 1.0)
