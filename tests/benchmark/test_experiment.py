"""Experiments: precedence, merging, variants, the order of the grid, and what is refused."""

from __future__ import annotations

import re
from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest

from benchmark.cli.parsing import bundled_experiments
from benchmark.errors import UserError
from benchmark.experiment import ExperimentSpec, PlannedRun, plan, resolve
from benchmark.profiles import profile
from benchmark.registry import PluginError, Registry, discover
from benchmark.specs import ComputeSpec
from benchmark.specs.base import read_yaml
from datasets.catalog import spec_of


@pytest.fixture(scope="module")
def registry() -> Registry:
    return discover()


def planned(
    registry: Registry, file: dict[str, Any] | None = None, **flags: Any
) -> list[PlannedRun]:
    experiment = resolve({"profile": "smoke", **flags}, file or {}, "file.yaml")
    return plan(experiment, registry, ComputeSpec())[0]


def test_flag_then_file_then_profile_then_default() -> None:
    file = {"profile": "smoke", "epochs": 7, "lr": 0.3}
    experiment = resolve({"lr": 0.5}, file, "file.yaml")
    assert experiment.lr == 0.5  # flag
    assert experiment.epochs == 7  # file
    assert experiment.batch_size == profile("smoke").settings["batch_size"]  # profile
    assert experiment.momentum == ExperimentSpec().momentum  # default


def test_the_profile_itself_goes_by_the_same_rule() -> None:
    assert resolve({}, {}, "x").profile == "quick"
    assert resolve({}, {"profile": "cpu"}, "x").epochs == profile("cpu").settings["epochs"]
    both = resolve({"profile": "smoke"}, {"profile": "cpu"}, "x")
    assert both.epochs == profile("smoke").settings["epochs"]


def test_set_is_merged_parameter_by_parameter() -> None:
    file = {"set": {"fedavg": {"rounds": 3, "weights": "uniform"}, "ensemble": {"average": "a"}}}
    experiment = resolve({"set": {"fedavg": {"rounds": 5}}}, file, "x")
    assert experiment.set["fedavg"] == {"rounds": 5, "weights": "uniform"}
    assert experiment.set["ensemble"] == {"average": "a"}
    assert experiment.set["dense"] == profile("quick").settings["set"]["dense"]


def test_set_reaches_the_method_and_its_variants(registry: Registry) -> None:
    runs = planned(
        registry,
        {"variants": {"often": {"method": "fedavg", "rounds": 4}}},
        methods=["fedavg", "ensemble"],
        set={"fedavg": {"weights": "uniform"}},
    )
    configs = {run.label: run.spec.method.config for run in runs}
    assert configs["fedavg"]["rounds"] == 1
    assert configs["often"]["rounds"] == 4
    assert configs["often"]["weights"] == configs["fedavg"]["weights"] == "uniform"
    assert {run.label: run.info.name for run in runs}["often"] == "fedavg"


VARIANTS: dict[str, Any] = {
    "mosaic (meta=prototypes)": {"method": "mosaic"},
    "mosaic without": {"method": "mosaic", "meta": "none"},
    "logits (mean=2)": {"method": "ensemble"},
}


@pytest.mark.parametrize(
    ("label", "says"),
    [
        ("mosaic without", "variant 'mosaic without' sets it"),
        ("mosaic (meta=prototypes)", "variant 'mosaic (meta=prototypes)' is named after it"),
    ],
)
def test_a_flag_does_not_lose_to_a_variant_in_silence(label: str, says: str) -> None:
    file = {"variants": {label: VARIANTS[label]}}
    with pytest.raises(UserError) as caught:
        resolve({"set": {"mosaic": {"meta": "synthetic"}}}, file, "file.yaml")
    assert str(caught.value).startswith(f"--set mosaic.meta: {says}")
    assert "\n" not in str(caught.value)


def test_a_files_set_does_not_lose_to_its_variants_in_silence() -> None:
    file = {"set": {"mosaic": {"meta": "synthetic"}}, "variants": dict(VARIANTS)}
    with pytest.raises(UserError, match=r"file\.yaml: set mosaic\.meta: variant 'mosaic without'"):
        resolve({}, file, "file.yaml")
    # What a label says may well be what the file sets for all rows.
    del file["variants"]["mosaic without"]
    assert resolve({}, file, "file.yaml")


def test_what_no_variant_speaks_of_can_be_set() -> None:
    settings = {"mosaic": {"experts": "logit", "eta": 1}, "ensemble": {"meta": 1}}
    assert resolve({"set": settings}, {"variants": VARIANTS}, "file.yaml").set["mosaic"]


def test_labels_of_bundled_variants_say_what_is_set() -> None:
    for path in bundled_experiments().values():
        for label, values in (read_yaml(path).get("variants") or {}).items():
            for key, said in re.findall(r"(\w+)=(\w+)", label):
                if key in ("meta", "label_head"):
                    assert str(values[key]).lower() == said, f"{path.name}: {label}"


def test_the_configuration_in_a_run_is_complete(registry: Registry) -> None:
    (run,) = planned(registry, methods="fedavg")
    assert run.spec.method.config.keys() >= {"rounds", "weights", "label_masked", "label_head"}
    same = planned(registry, methods="fedavg", set={"fedavg": {"rounds": 1}})
    assert same[0].spec.run_id == run.spec.run_id


def test_work_is_estimated_for_the_samples_that_there_are(registry: Registry) -> None:
    def work(**settings: Any) -> int:
        (run,) = planned(registry, methods="centralized", epochs=2, **{"holdout": 0, **settings})
        return run.work

    digits = spec_of("digits").info.train_samples
    assert work(train_samples=None) == 2 * digits
    assert work(train_samples=None, datasets="fashion_mnist") == 2 * 60_000
    assert work(train_samples=100) == 2 * 100
    assert work(train_samples=100, holdout=0.1) == 2 * 90


def test_a_tree_is_listed_once_for_all_estimates(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def listed(name: str) -> Any:
        asked.append(name)
        return replace(spec_of("digits"), info=replace(spec_of("digits").info, train_samples=70))

    monkeypatch.setattr("benchmark.sizes.spec_of", listed)
    name = "folder:of no other test"
    runs = planned(
        registry, datasets=name, train_samples=None, epochs=1, methods="centralized", seeds=[0, 1]
    )
    assert [run.work for run in runs] == [63, 63]  # a tenth is held out
    assert asked == [name]


def test_the_order_of_the_grid(registry: Registry) -> None:
    runs = planned(
        registry, methods=["fedavg", "ensemble"], clients=[3, 4], alpha=[0.1, 1.0], seeds=[5, 6]
    )
    cells = [
        (
            run.spec.scenario.partition.clients,
            run.spec.scenario.partition.alpha,
            run.spec.scenario.seed,
            run.label,
        )
        for run in runs
    ]
    wanted = [
        (clients, alpha, seed, label)
        for clients in (3, 4)
        for alpha in (0.1, 1.0)
        for seed in (5, 6)
        for label in ("fedavg", "ensemble")
    ]
    assert cells == wanted
    assert len({run.spec.run_id for run in runs}) == 16


def test_seeds_set_both_and_split_seeds_part_them(registry: Registry) -> None:
    def pairs(**seeds: Any) -> list[tuple[int, int]]:
        runs = planned(registry, methods="fedavg", **seeds)
        return [(run.spec.scenario.split_seed, run.spec.scenario.seed) for run in runs]

    assert pairs(seeds=[3, 4]) == [(3, 3), (4, 4)]
    assert pairs(seeds=[3, 4], split_seeds=[0]) == [(0, 3), (0, 4)]
    assert pairs(seeds=[3], split_seeds=[0, 1]) == [(0, 3), (1, 3)]


def test_all_means_every_usable_method_references_first(registry: Registry) -> None:
    runs = planned(registry, methods="all")
    assert {run.label for run in runs} == set(registry.methods)
    kinds = [run.info.kind for run in runs]
    assert kinds == sorted(kinds, key=lambda kind: kind == "method")


@pytest.mark.parametrize("factor", [0.5, 2, 1e-9])
def test_budgets_are_scaled_by_the_factor(factor: float) -> None:
    plain = resolve({"profile": "smoke"}, {}, "x").budget_spec()
    scaled = resolve({"profile": "smoke", "budget": factor}, {}, "x").budget_spec()
    for name in ("generator_steps", "generated_images", "distilled_images"):
        assert getattr(scaled, name) == max(1, round(getattr(plain, name) * factor))
    assert scaled.history_points == plain.history_points


def test_names_and_descriptions_are_no_part_of_a_run(registry: Registry) -> None:
    first = planned(registry, methods="fedavg", experiment="a", description="one")
    second = planned(registry, methods="fedavg", experiment="b", description="two")
    variant = planned(
        registry,
        {"variants": {"mine": {"method": "fedavg"}}},
        methods="ensemble",
    )
    assert first[0].spec == second[0].spec
    assert first[0].spec.run_id == variant[1].spec.run_id
    assert variant[1].label == "mine"


def test_alpha_spans_no_grid_without_dirichlet(registry: Registry) -> None:
    file = {"alpha": [0.1, 0.5, 1.0]}
    assert len(planned(registry, file, methods="fedavg", partition="iid")) == 1


@pytest.mark.parametrize(
    ("flags", "file"),
    [
        ({"partition": "classes_per_client"}, {"classes_per_client": 2}),
        ({"partition": "iid"}, {"alpha": [0.1, 0.5]}),
        ({"rounds_warmup": [0]}, {"rounds_warmup": [0, 10], "warmup_local": "steps"}),
        ({"warmup_lr": 0.1}, {"rounds_warmup": [0, 10]}),
        ({"judged_on": "holdout", "holdout": 0.1}, {"extractors": ["classifier"]}),
        ({"judged_on": "holdout", "holdout": 0.1, "extractors": []}, {}),
        ({"partition": "iid", "profile": "paper"}, {}),
    ],
)
def test_what_one_scenario_uses_or_a_flag_made_idle_is_no_error(
    flags: dict[str, Any], file: dict[str, Any]
) -> None:
    assert resolve(flags, file, "file.yaml").scenarios()


def test_single_values_and_lists_mean_the_same() -> None:
    single = resolve({"alpha": 0.3, "widths": "1,1/2", "methods": "fedavg", "clients": 4}, {}, "x")
    listed = resolve(
        {"alpha": [0.3], "widths": [["1", 0.5]], "methods": ["fedavg"], "clients": [4]}, {}, "x"
    )
    assert single == listed
    assert single.widths == ((Fraction(1), Fraction(1, 2)),)


def test_a_method_that_cant_is_skipped_with_its_reason(registry: Registry) -> None:
    runs = planned(registry, methods=["fedavg", "ensemble"], widths="1/2,1/4")
    reasons = {run.label: run.skip for run in runs}
    assert reasons["fedavg"] == "averaging needs clients of equal width"
    assert reasons["ensemble"] is None
    (best,) = planned(registry, methods="best_client", holdout=0.0)
    assert "holdout" in str(best.skip)


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ({"seeds": [1, 1]}, "1 is named twice"),
        ({"methods": ["fedavg", "fedavg"]}, "fedavg is named twice"),
        ({"alpha": [0.1, 0.10]}, "0.1 is named twice"),
        ({"widths": ["1,1/2", "1,0.5"]}, "1,1/2 is named twice"),
        ({"clients": [5, 5]}, "5 is named twice"),
        ({"split_seeds": [2, 2]}, "2 is named twice"),
        ({"seeds": [-1]}, "seeds"),
        ({"seeds": []}, "seeds"),
        ({"alpha": [float("nan")]}, "alpha"),
        ({"clients": "many"}, "clients"),
        ({"budget": 0}, "budget"),
        ({"experiment": "../up"}, "experiment"),
        ({"epoch": 3}, "unknown key 'epoch'; did you mean 'epochs'"),
        ({"profile": "fast"}, "unknown profile 'fast'"),
        ({"variants": {"x": {"rounds": 2}}}, "variant 'x' needs `method: NAME`"),
    ],
)
def test_wrong_values_are_one_line(flags: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError) as caught:
        resolve(flags, {}, "file.yaml")
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_error_names_the_file_or_the_command_line() -> None:
    with pytest.raises(UserError, match=r"^mine\.yaml: epochs: "):
        resolve({"lr": 0.1}, {"epochs": 0}, "mine.yaml")
    with pytest.raises(UserError, match=r"^command line: epochs: "):
        resolve({"epochs": 0}, {"lr": 0.1}, "mine.yaml")


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ({"methods": ["fedavgg"]}, "unknown method 'fedavgg'; did you mean 'fedavg'?"),
        ({"methods": ["all", "fedavg"]}, "'all' stands alone"),
        ({"methods": "fedavg", "set": {"fedavvg": {"rounds": 2}}}, "did you mean 'fedavg'?"),
        (
            {"methods": "fedavg", "set": {"fedavg": {"round": 2}}},
            "unknown parameter of method 'fedavg' 'round'; did you mean 'rounds'?",
        ),
        ({"methods": "fedavg", "set": {"fedavg": {"rounds": 0}}}, "method 'fedavg': rounds: "),
        ({"methods": "fedavg", "set": {"fedavg": {"rounds": "x"}}}, "method 'fedavg': rounds: "),
        ({"methods": "fedavg", "widths": "1/2,1/3"}, "divide the largest one"),
        ({"methods": "fedavg", "partition": "classes_per_client"}, "needs classes_per_client"),
        (
            {"methods": "fedavg", "variants": {"fedavg": {"method": "fedavg", "rounds": 2}}},
            "'fedavg' is named twice",
        ),
        (
            {"methods": "fedavg", "variants": {"once": {"method": "fedavg", "rounds": 1}}},
            "'once' is the same run as 'fedavg'",
        ),
        ({"variants": {"x": {"method": "nosuch"}}, "methods": "fedavg"}, "unknown method 'nosuch'"),
    ],
)
def test_what_a_grid_refuses(flags: dict[str, Any], says: str, registry: Registry) -> None:
    with pytest.raises(UserError) as caught:
        planned(registry, **flags)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_plugin_that_broke_after_it_was_listed_stops_no_other(registry: Registry) -> None:
    sound = registry.methods["fedavg"]
    gone = sound.model_copy(update={"plugin": "0" * 16})
    small = replace(registry, methods={"ensemble": registry.methods["ensemble"], "fedavg": gone})
    experiment = resolve({"profile": "smoke"}, {}, "x")
    runs, broken = plan(experiment, small, ComputeSpec())
    assert [run.label for run in runs] == ["ensemble"]
    assert [(plugin.name, "changed" in plugin.reason) for plugin in broken] == [("fedavg", True)]
    with pytest.raises(PluginError, match="changed while it was being used"):
        plan(resolve({"methods": "fedavg"}, {}, "x"), small, ComputeSpec())


def test_experiments_round_trip_through_yaml() -> None:
    file = {
        "experiment": "grid-1",
        "methods": ["fedavg"],
        "widths": ["1", "1,1/2"],
        "alpha": [0.1, 1],
        "variants": {"b": {"method": "fedavg", "rounds": 2}},
    }
    experiment = resolve({}, file, "x")
    assert ExperimentSpec.from_yaml(experiment.to_yaml()) == experiment
