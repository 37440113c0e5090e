"""Profiles set sizes and steps, never what a method is."""

from __future__ import annotations

import itertools

import pytest

from benchmark.errors import UserError
from benchmark.experiment import ExperimentSpec, resolve
from benchmark.profiles import DEFAULT_PROFILE, PROFILES, profile
from benchmark.registry import discover


def test_the_four_of_the_design() -> None:
    assert list(PROFILES) == ["smoke", "quick", "cpu", "paper"]
    assert DEFAULT_PROFILE == "quick"


@pytest.mark.parametrize("name", list(PROFILES))
def test_a_profile_makes_an_experiment(name: str) -> None:
    experiment = resolve({"profile": name}, {}, "test")
    assert experiment.profile == name
    assert experiment.scenarios()
    for method, values in experiment.set.items():
        known = {parameter.name for parameter in discover().info(method).parameters}
        assert set(values) <= known, f"{method} has no such parameter"
    assert "\n" not in profile(name).summary
    for field, value in profile(name).settings.items():
        assert getattr(experiment, field) == getattr(
            ExperimentSpec.parse({field: value}, name), field
        )


@pytest.mark.parametrize("name", list(PROFILES))
def test_a_profile_names_no_method_and_no_way_of_computing(name: str) -> None:
    fixed = {"methods", "variants", "experiment", "device", "precision", "threads", "budget"}
    assert not fixed & set(profile(name).settings)


@pytest.mark.parametrize("name", list(PROFILES))
def test_a_profile_narrows_all_generators_and_batches_alike(name: str) -> None:
    settings = profile(name).settings.get("set", {})
    servers = [settings[method] for method in ("dense", "dense_cb", "co_boosting") if settings]
    assert all(values == servers[0] for values in servers)
    sizes = {"generator_width", "generator_discriminator_width", "generator_batch_size"}
    sizes |= {"synthesis_batch", "batch_size", "meta_feedforward", "meta_steps"}
    named = {method: values for method, values in settings.items() if method != "compose"}
    assert {key for values in named.values() for key in values} <= sizes


def test_budgets_grow() -> None:
    budgets = [resolve({"profile": name}, {}, "test").budget_spec() for name in PROFILES]
    for small, large in itertools.pairwise(budgets):
        assert small.generator_steps <= large.generator_steps
        assert small.generated_images <= large.generated_images
        assert small.distilled_images <= large.distilled_images


def test_the_quick_one_needs_no_download_and_holds_data_out() -> None:
    quick = resolve({}, {}, "test")
    assert quick.profile == "quick"
    assert quick.datasets == ("digits",)
    assert quick.holdout > 0, "best_client is chosen on held-out data"


def test_the_papers_model_is_in_its_profile() -> None:
    paper = resolve({"profile": "paper"}, {}, "test")
    assert (paper.models, paper.clients) == (("resnet18",), (10,))


def test_an_unknown_profile_names_the_closest() -> None:
    with pytest.raises(UserError, match="unknown profile 'smok'; did you mean 'smoke'"):
        profile("smok")


def test_profiles_cant_be_changed() -> None:
    with pytest.raises(TypeError):
        PROFILES["mine"] = profile("smoke")  # type: ignore[index]
    with pytest.raises(TypeError):
        profile("smoke").settings["epochs"] = 3  # type: ignore[index]
