"""Specs: frozen, typed, refused with one line, and named by what they mean alone."""

from __future__ import annotations

import os
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from benchmark.errors import UserError
from benchmark.specs import (
    BudgetSpec,
    CodeSpec,
    ComputeSpec,
    MethodSpec,
    PartitionSpec,
    RunSpec,
    ScenarioSpec,
    Spec,
    WarmupSpec,
    digest_of,
    plan_name,
    read_yaml,
)
from benchmark.specs.base import parse_yaml
from benchmark.specs.scenario import PartitionScheme
from datasets.partition import SCHEMES

ROOT = Path(__file__).resolve().parents[2]

partitions = st.one_of(
    st.builds(
        PartitionSpec,
        scheme=st.sampled_from(["dirichlet", "dirichlet_uncapped", "dirichlet_per_client"]),
        clients=st.integers(3, 200),
        alpha=st.floats(1e-4, 1e4),
        min_samples=st.integers(1, 50),
    ),
    st.builds(PartitionSpec, scheme=st.just("iid"), clients=st.integers(3, 200)),
    st.builds(
        PartitionSpec, scheme=st.just("classes_per_client"), classes_per_client=st.integers(1, 9)
    ),
)
scenarios = st.builds(
    ScenarioSpec,
    dataset=st.sampled_from(["digits", "fashion_mnist", "тест: a'b"]),
    partition=partitions,
    widths=st.sampled_from([("1",), ("1", "1/2", "1/4"), (0.5, 0.25), (Fraction(1, 16),)]),
    warmup=st.builds(WarmupSpec, rounds=st.integers(0, 3), steps=st.integers(1, 9)),
    holdout=st.floats(0, 0.5),
    train_samples=st.none() | st.integers(1, 10**6),
    seed=st.integers(0, 2**40),
)


def run(**values: Any) -> RunSpec:
    return RunSpec.parse(
        {
            "scenario": {"dataset": "digits", "warmup": {"rounds": 2}},
            "method": {"name": "fedavg", "config": {"rounds": 1, "weights": "samples"}},
            "code": {"plugin": "0" * 16, "parts": {"methods.blocks.pool": "1"}},
            **values,
        },
        "run",
    )


@settings(max_examples=40, deadline=None)
@given(scenarios)
def test_yaml_round_trip(scenario: ScenarioSpec) -> None:
    again = ScenarioSpec.from_yaml(scenario.to_yaml())
    assert again == scenario
    assert again.digest() == scenario.digest()
    assert hash(again) == hash(scenario)
    assert ScenarioSpec.parse(scenario.canonical(), "x") == scenario


def test_a_run_round_trips_with_its_ids() -> None:
    spec = run()
    again = RunSpec.from_yaml(spec.to_yaml())
    assert (again.run_id, again.cell_id) == (spec.run_id, spec.cell_id)


def test_pinned_ids() -> None:
    # If one of these changes, every record that users have becomes stale: be sure that it must.
    assert digest_of({"a": [1, 0.1, None, True, "é"]}) == "f89592ca95417e5d"
    assert ScenarioSpec(dataset="digits").digest() == "7f61a698a88c81af"
    assert run().run_id == "2c05be5c970a3e35"


def test_an_id_is_the_hash_of_all_values() -> None:
    spec = run()
    assert spec.run_id == digest_of(spec.canonical())
    assert len(spec.run_id) == 16
    assert int(spec.run_id, 16) >= 0


def test_field_order_does_not_count() -> None:
    def turned(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: turned(value[key]) for key in reversed(list(value))}
        return value

    spec = run()
    again = RunSpec.parse(turned(spec.canonical()), "run")
    assert list(turned(spec.canonical())) != list(spec.canonical())
    assert again.run_id == spec.run_id


def test_given_or_default_does_not_count() -> None:
    assert ScenarioSpec(dataset="digits") == ScenarioSpec(dataset="digits", holdout=0.0, seed=0)
    assert (
        ScenarioSpec(dataset="digits").digest() == ScenarioSpec(dataset="digits", seed=0).digest()
    )


@pytest.mark.parametrize("hash_seed", ["1", "4711"])
def test_pythons_hash_seed_does_not_count(hash_seed: str) -> None:
    code = (
        "import sys; from benchmark.specs import RunSpec;"
        "print(RunSpec.from_yaml(sys.stdin.read()).run_id)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        input=run().to_yaml(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == run().run_id


OTHERS: dict[str, Any] = {
    "scenario.dataset": "mnist",
    "scenario.image_size": 64,
    "scenario.train_samples": 100,
    "scenario.holdout": 0.1,
    "scenario.partition.scheme": "dirichlet_uncapped",
    "scenario.partition.clients": 11,
    "scenario.partition.alpha": 0.2,
    "scenario.partition.min_samples": 9,
    "scenario.model.family": "lenet",
    "scenario.model.norm": "group",
    "scenario.widths": ["1", "1/2"],
    "scenario.recipe.epochs": 21,
    "scenario.recipe.batch_size": 65,
    "scenario.recipe.lr": 0.02,
    "scenario.recipe.schedule": "cosine",
    "scenario.recipe.momentum": 0.8,
    "scenario.recipe.weight_decay": 0.1,
    "scenario.recipe.augment": False,
    "scenario.warmup.rounds": 3,
    "scenario.warmup.steps": 11,
    "scenario.warmup.lr": 0.02,
    "scenario.warmup.local": "steps",
    "scenario.student.init": "aggregate",
    "scenario.student.batch_norm": "freeze",
    "scenario.split_seed": 1,
    "scenario.seed": 1,
    "method.name": "ensemble",
    "method.config.rounds": 2,
    "method.config.weights": "uniform",
    "budget.generator_steps": 1,
    "budget.generated_images": 1,
    "budget.distilled_images": 1,
    "budget.history_points": 1,
    "measure.extractors": ["classifier"],
    "compute.device": "cuda",
    "compute.precision": "bf16",
    "compute.threads": 2,
    "code.engine": "0",
    "code.recipe": "0",
    "code.plugin": "1" * 16,
    "code.parts.methods.blocks.pool": "2",
}
IRRELEVANT_HERE = {"scenario.partition.classes_per_client"}


def leaves(value: Any, path: str = "") -> list[str]:
    if not isinstance(value, dict):
        return [path]
    return [leaf for key in value for leaf in leaves(value[key], f"{path}.{key}".lstrip("."))]


def test_every_field_is_tried_below() -> None:
    assert set(leaves(run().canonical())) == set(OTHERS) | IRRELEVANT_HERE


@pytest.mark.parametrize("path", sorted(OTHERS))
def test_each_field_that_matters_changes_the_id(path: str) -> None:
    values = run().canonical()
    place = values
    keys = path.split(".")
    if path.startswith("code.parts."):
        keys = ["code", "parts", path.removeprefix("code.parts.")]
    for key in keys[:-1]:
        place = place[key]
    assert place[keys[-1]] != OTHERS[path]
    place[keys[-1]] = OTHERS[path]
    changed = RunSpec.parse(values, "run")
    assert changed.run_id != run().run_id
    assert changed != run()
    # The question stays the same where only the code that answers it differs.
    assert (changed.cell_id == run().cell_id) == path.startswith("code.")


@pytest.mark.parametrize("scheme", ["iid", "classes_per_client"])
def test_alpha_does_not_count_without_dirichlet(scheme: str) -> None:
    values = {"scheme": scheme, "classes_per_client": 2}
    first = PartitionSpec.parse({**values, "alpha": 0.1}, "p")
    second = PartitionSpec.parse({**values, "alpha": 5.0}, "p")
    assert first == second
    assert first.alpha is None
    assert PartitionSpec.parse(values, "p") == first


def test_classes_per_client_counts_for_its_scheme_only() -> None:
    def of(scheme: str, number: int) -> str:
        values = {"scheme": scheme, "classes_per_client": number}
        return PartitionSpec.parse(values, "p").digest()

    assert of("dirichlet", 2) == of("dirichlet", 3)
    assert of("classes_per_client", 2) != of("classes_per_client", 3)


def test_warm_up_settings_count_with_rounds_only() -> None:
    others: tuple[dict[str, Any], ...] = ({"steps": 3}, {"lr": 0.5}, {"local": "steps"})
    for other in others:
        assert WarmupSpec.parse({"rounds": 0, **other}, "w") == WarmupSpec()
        assert WarmupSpec.parse({"rounds": 1, **other}, "w") != WarmupSpec(rounds=1)


@pytest.mark.parametrize(
    ("cls", "values", "says"),
    [
        (
            ScenarioSpec,
            {"dataset": "d", "holdot": 0.1},
            "unknown key 'holdot'; did you mean 'holdout'",
        ),
        (ScenarioSpec, {"dataset": "d", "partition": {"alpa": 1}}, "did you mean 'alpha'?"),
        (BudgetSpec, {"generator_step": 5}, "did you mean 'generator_steps'?"),
        (ScenarioSpec, {}, "dataset: Field required"),
        (PartitionSpec, {"alpha": 0}, "alpha: Input should be greater than 0, got 0"),
        (PartitionSpec, {"alpha": float("nan")}, "alpha: "),
        (PartitionSpec, {"alpha": float("inf")}, "alpha: "),
        (PartitionSpec, {"alpha": None}, "partition 'dirichlet' needs alpha"),
        (PartitionSpec, {"scheme": "classes_per_client"}, "needs classes_per_client"),
        (PartitionSpec, {"clients": 0}, "clients: "),
        (ScenarioSpec, {"dataset": "d", "widths": []}, "at least one width"),
        (ScenarioSpec, {"dataset": "d", "widths": ["0"]}, "a width lies above 0"),
        (ScenarioSpec, {"dataset": "d", "widths": ["1/2", "1/3"]}, "divide the largest one"),
        (
            ScenarioSpec,
            {"dataset": "d", "widths": ["1/2", "1/4", "1"], "partition": {"clients": 2}},
            "widths 1/2,1/4,1 is a plan for 3 clients or more, not for clients 2",
        ),
        (ScenarioSpec, {"dataset": "d", "seed": -1}, "seed: "),
        (ComputeSpec, {"precision": "auto"}, "precision: "),
        (ComputeSpec, {"device": "auto"}, "device: "),
    ],
)
def test_wrong_values_are_one_line(cls: type[Spec], values: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError) as caught:
        cls.parse(values, "here")
    text = str(caught.value)
    assert text.startswith("here: ")
    assert says in text
    assert "\n" not in text


@pytest.mark.parametrize("text", ["a: [1", "- 1\n- 2", "1: 2", "text"])
def test_what_is_no_mapping_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="ScenarioSpec: ") as caught:
        ScenarioSpec.from_yaml(text)
    assert "\n" not in str(caught.value)


def test_files_that_cant_be_read(tmp_path: Path) -> None:
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "empty.yaml").write_text("")
    assert read_yaml(tmp_path / "empty.yaml") == {}
    with pytest.raises(UserError, match="not a text file"):
        read_yaml(tmp_path / "binary.yaml")
    with pytest.raises(UserError, match="No such file"):
        read_yaml(tmp_path / "absent.yaml")
    with pytest.raises(UserError, match="directory"):
        read_yaml(tmp_path)


def test_yaml_builds_no_objects() -> None:
    with pytest.raises(UserError, match="not valid YAML"):
        ScenarioSpec.from_yaml("dataset: !!python/object/apply:os.system ['true']")


def test_specs_are_frozen() -> None:
    with pytest.raises(ValidationError):
        run().scenario.seed = 3  # type: ignore[misc]
    with pytest.raises(ValidationError):
        CodeSpec(plugin="x").plugin = "y"  # type: ignore[misc]
    assert len({MethodSpec(name="a"), MethodSpec(name="a"), MethodSpec(name="b")}) == 2


@pytest.mark.parametrize("text", [0, "2", "x", "1/0", True, None, float("nan"), [1]])
def test_what_is_no_width_is_refused(text: object) -> None:
    with pytest.raises(UserError, match="s: widths: a width"):
        ScenarioSpec.parse({"dataset": "d", "widths": [text]}, "s")


@pytest.mark.parametrize("text", ["1/2000", "0.3333333", 0.0005])
def test_a_scenario_has_the_width_that_was_written(text: object) -> None:
    scenario = ScenarioSpec.parse({"dataset": "d", "widths": [text]}, "s")
    assert scenario.widths == (Fraction(str(text)),)
    assert ScenarioSpec.from_yaml(scenario.to_yaml()) == scenario


def test_a_plan_has_the_name_that_the_command_line_takes() -> None:
    scenario = ScenarioSpec.parse({"dataset": "d", "widths": [1, "1/2", 0.25]}, "s")
    assert plan_name(scenario.widths) == "1,1/2,1/4"
    assert scenario.max_width == 1
    assert not scenario.homogeneous
    assert ScenarioSpec.parse({"dataset": "d", "widths": ["1/4", 0.25]}, "s").homogeneous


def test_every_scheme_there_is_can_be_asked_for() -> None:
    assert set(get_args(PartitionScheme)) == set(SCHEMES)


def test_yaml_keys_may_override_what_is_merged_in() -> None:
    text = "a: &a {p: 1, q: 1}\nb: {inner: &b {<<: *a, p: 2}}\nc: {<<: *b, r: 3}\n"
    found = parse_yaml(text, "here")
    assert found["b"] == {"inner": {"p": 2, "q": 1}}
    assert found["c"].keys() == {"p", "q", "r"}


@pytest.mark.parametrize(
    ("mapping", "twice"),
    [
        ("{<<: *a, q: 1, p: 2, p: 3}", "p"),
        ("{<<: *a, <<: *a, r: 1, r: 2}", "r"),
        ("{true: 1, yes: 2}", "yes"),
        ("{1: 1, 1.0: 2}", "1.0"),
    ],
)
def test_a_yaml_key_that_is_written_twice_is_refused(mapping: str, twice: str) -> None:
    with pytest.raises(UserError, match=f"'{twice}' is written twice"):
        parse_yaml(f"a: &a {{p: 1}}\nb: {mapping}\n", "here")
    assert parse_yaml("b: {1: 1, '1': 2}", "here")["b"] == {1: 1, "1": 2}
