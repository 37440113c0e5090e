"""DENSE, DENSE as in Co-Boosting's code, and Co-Boosting: as plugins on a small federation."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from benchmark.aggregation import weighted_average
from benchmark.errors import UserError
from benchmark.protocol import ProtocolResult
from benchmark.registry import Registry, discover
from benchmark.specs import BudgetSpec, ScenarioSpec
from benchmark.testing import Bench
from methods.blocks.adversarial_method import SHARED_DEVIATIONS
from methods.blocks.composition import IMAGES, PRESETS, STUDENTS, TEACHERS
from methods.co_boosting import CoBoosting, CoBoostingConfig
from methods.dense import Dense, DenseConfig
from methods.dense_cb import DenseCb, DenseCbConfig

FAMILY = {"dense": Dense, "dense_cb": DenseCb, "co_boosting": CoBoosting}
SMALL = {"generator_width": 2, "synthesis_batch": 64, "noise_size": 16}
NARROW = ["1/8"]
BUDGET = {"generator_steps": 8, "generated_images": 128, "distilled_images": 256}
BRIEF = {"epochs": 1, "generator_steps": 1, "generated_images": 64, "distilled_images": 64}
"""For what is settled before anything is trained."""


@pytest.fixture(scope="module")
def registry() -> Registry:
    return discover()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("dense")


@pytest.fixture
def bench(registry: Registry, folder: Path):
    def bench(name: str, values: dict[str, Any] | None = None, **overrides: Any) -> Bench:
        settings = {
            "set": {name: {**SMALL, **(values or {})}},
            "widths": NARROW,
            **BUDGET,
            **overrides,
        }
        return Bench(name, settings, folder=folder, registry=registry)

    return bench


@pytest.fixture(scope="module")
def done(registry: Registry, folder: Path):
    """Results of undisturbed runs with no settings but the small ones, made once for all tests."""

    @functools.cache
    def done(name: str) -> ProtocolResult:
        settings = {"set": {name: SMALL}, "widths": NARROW, **BUDGET}
        return Bench(name, settings, folder=folder, registry=registry).run()

    return done


# -- presets ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(FAMILY))
def test_defaults_are_exactly_the_published_parts(name) -> None:
    method = FAMILY[name](FAMILY[name].Config())
    made = method.composition
    images, teacher, student = PRESETS[name]
    assert made.parts == (images, teacher, student)
    assert made.images_settings == IMAGES[images].settings
    assert made.teacher_settings == TEACHERS[teacher].settings
    assert made.student_settings == STUDENTS[student].settings
    assert made.budget is None
    assert not made.oracle


def test_published_numbers_of_the_three() -> None:
    dense, cb, co = DenseConfig(), DenseCbConfig(), CoBoostingConfig()
    for config in (dense, cb, co):
        assert (config.epochs, config.steps_per_epoch) == (200, 30)
        assert (config.noise_size, config.generator_width, config.generator_lr) == (256, 64, 1e-3)
        assert (config.onehot, config.adversarial, config.batch_norm) == (1, 1, 0)
        assert config.momentum == 0.9
    assert (dense.synthesis_batch, dense.batch_size) == (256, 256)
    assert (dense.lr, dense.temperature, dense.cosine, dense.clip) == (0.005, 20, False, None)
    assert (dense.weight_decay, dense.adversarial_temperature, dense.generator_clip) == (0, 1, None)
    for config in (cb, co):
        assert (config.synthesis_batch, config.batch_size) == (128, 128)
        assert (config.lr, config.temperature, config.cosine, config.clip) == (0.01, 4, True, 10)
        assert (config.weight_decay, config.adversarial_temperature) == (1e-4, 3)
        assert config.generator_clip == 10
        assert config.view == "none"
    assert (co.hardness, co.weight_step, co.weight_step_decay, co.weight_passes) == (
        1,
        0.01,
        0.99,
        1,
    )
    assert co.perturbation == pytest.approx(4 / 255)
    assert co.perturbation_temperature == 4


@pytest.mark.parametrize("name", sorted(FAMILY))
def test_published_schedule_is_the_published_one(name) -> None:
    config = FAMILY[name].Config(schedule="published")
    budget = config.own_budget()
    batch = config.synthesis_batch
    assert budget.generator_steps == 6_000
    assert budget.generated_images == 200 * batch
    assert budget.distilled_images == 20_100 * batch


def test_the_budget_is_kept_and_counted(done) -> None:
    for name in FAMILY:
        details = done(name).output.details
        counters = details["counters"]
        assert {key: counters[key] for key in BUDGET} == BUDGET
        assert details["budget"] == "profile"
        assert details["epochs"] == 2
        assert (counters["weighed_images"] > 0) == (name == "co_boosting")


def test_a_published_schedule_says_that_the_budget_is_its_own(bench) -> None:
    values = {"schedule": "published", "epochs": 2, "steps_per_epoch": 3, "synthesis_batch": 32}
    details = bench("dense", values).run().output.details
    assert details["budget"] == "own"
    assert details["counters"]["distilled_images"] == 3 * 32
    assert details["counters"]["generator_steps"] == 6


def test_doubling_the_budget_doubles_what_is_counted(bench) -> None:
    counters = bench("dense", budget=2.0).run().output.details["counters"]
    assert {key: counters[key] for key in BUDGET} == {k: 2 * v for k, v in BUDGET.items()}


def test_a_budget_too_small_for_its_epochs_is_refused_with_the_remedy(bench) -> None:
    with pytest.raises(UserError, match="allow at least 2 steps, or a larger synthesis batch"):
        bench("dense", generator_steps=1).run()


# -- student ------------------------------------------------------------------------------


def test_student_start_and_batch_norm_are_the_scenarios(bench) -> None:
    made = bench("dense", student_init="aggregate", student_batch_norm="freeze").run()
    details = made.output.details
    assert (details["student_start"], details["student_batch_norm"]) == ("aggregate", "freeze")
    native = bench(
        "dense",
        {"student_setting": "native"},
        student_init="aggregate",
        student_batch_norm="freeze",
    ).run()
    details = native.output.details
    assert (details["student_start"], details["student_batch_norm"]) == ("random", "update")


def test_a_frozen_student_keeps_the_aggregates_statistics(bench) -> None:
    frozen = bench("dense", student_init="aggregate", student_batch_norm="freeze")
    federation = frozen.federation()
    clients = [federation.client(info.index) for info in federation.infos]
    mean = weighted_average(
        [client.local_model().state_dict() for client in clients],
        [client.num_samples for client in clients],
    )
    state = frozen.run().output.model.state_dict()
    assert torch.equal(state["norm1.running_mean"], mean["norm1.running_mean"])
    assert not torch.equal(state["conv1.weight"], mean["conv1.weight"])


def test_accuracy_of_record_is_that_of_the_last_epoch_and_history_is_passive(bench, done) -> None:
    # Not inherited: the best epoch, chosen on the test set.
    watched, alone = done("dense"), bench("dense", history_points=0).run()
    assert alone.server.snapshots == [] or alone.server.snapshots[-1].model is None
    last = watched.server.snapshots[-1]
    assert last.step == BUDGET["distilled_images"]
    for name, value in watched.output.model.state_dict().items():
        assert torch.equal(value, alone.output.model.state_dict()[name])
        assert torch.equal(value, last.model.state_dict()[name])


def test_teacher_in_the_history_shares_the_client_models(bench) -> None:
    result = bench("co_boosting", history_points=4).run()
    kept = [snapshot.teacher for snapshot in result.server.snapshots if snapshot.teacher]
    assert len(kept) == 2
    assert all(teacher.ensemble is result.output.teacher.ensemble for teacher in kept)
    assert torch.equal(kept[-1].weights, result.output.teacher.weights)
    assert not torch.equal(kept[0].weights, kept[-1].weights)


# -- what the published codes do by accident ----------------------------------------------


def test_the_batch_norm_term_acts_where_it_has_weight(bench, done) -> None:
    # Not inherited: hooks that never attach.
    plain = done("dense").server.snapshots[-1].scalars["images/loss"]
    with_term = bench("dense", {"batch_norm": 1.0}).run()
    assert with_term.output.warnings == ()
    assert with_term.server.snapshots[-1].scalars["images/loss"] > plain
    model = with_term.output.teacher.ensemble.clients[0]
    assert not any(m._forward_pre_hooks or m._forward_hooks for m in model.modules())


def test_clients_stay_frozen_in_eval_mode_and_gather_no_gradient(done) -> None:
    teacher = done("co_boosting").output.teacher
    teacher.train()
    assert not any(m.training for m in teacher.ensemble.clients.modules())
    assert all(not p.requires_grad and p.grad is None for p in teacher.ensemble.parameters())
    teacher.eval()


@pytest.mark.parametrize("clients", [1, 2, 6])
def test_any_number_of_clients(bench, clients) -> None:
    # Not inherited: logging that asks for five.
    result = bench("co_boosting", clients=[clients], alpha=[10.0], epochs=1).run()
    assert len(result.output.details["teacher_weights"]) == clients


def test_no_weight_passes_keep_the_weights(bench) -> None:
    # Not inherited: a crash at wa_steps = 0.
    details = bench("co_boosting", {"weight_passes": 0}).run().output.details
    assert details["teacher_weights"] == pytest.approx([1 / 3] * 3)
    assert details["counters"]["weighed_images"] == 0


def test_no_perturbation_is_possible(bench, done) -> None:
    assert CoBoostingConfig(perturbation=0).composition("co_boosting").student_settings == (
        STUDENTS["dense_cb"].settings
    )
    plain = bench("co_boosting", {"perturbation": 0.0}).run().output.model.head.weight
    shifted = done("co_boosting").output.model.head.weight
    assert not torch.equal(plain, shifted)


def test_flags_without_effect_are_refused() -> None:
    for flag in ("act", "iid", "frac", "sam", "kd_steps", "ods"):
        with pytest.raises(ValueError, match="Extra inputs"):
            DenseConfig.model_validate({flag: 1})


def test_nothing_to_train_is_refused() -> None:
    # Not inherited: default weights of 0, with which nothing is trained.
    with pytest.raises(ValueError, match="nothing is trained"):
        DenseConfig(onehot=0, adversarial=0)


@pytest.mark.parametrize(
    ("field", "value"),
    [("temperature", 0), ("batch_size", 0), ("schedule", "paper"), ("view", "crop"), ("lr", -1)],
)
def test_wrong_values_are_refused(field, value) -> None:
    with pytest.raises(ValueError, match=field):
        DenseConfig.model_validate({field: value})


# -- settings reach the parts ---------------------------------------------------------------


def test_augmentation_follows_the_settings(bench, monkeypatch) -> None:
    seen: list[tuple[int, bool]] = []

    class Spy(Exception):  # noqa: N818 - stops the run once the pool is made
        pass

    def made(shape, normalization, *, crop_padding=0, flip=False, **_):
        seen.append((crop_padding, flip))
        raise Spy

    monkeypatch.setattr("methods.blocks.standard_parts.GrowingPool", made)
    for reading in ("dense", "clients", "none"):
        with pytest.raises(Spy):
            bench("dense", {"reading": reading}).run()
    # Digits are grey, and their clients train without augmentation.
    assert seen == [(0, True), (0, False), (0, False)]


def test_view_is_fixed_the_clients_or_none() -> None:
    for view, expected in (("fixed", (4, True)), ("none", (0, False))):
        settings = DenseConfig(view=view).composition("dense").images_settings
        assert (settings.crop_padding, settings.flip, settings.view) == (*expected, "fixed")
    assert DenseConfig(view="clients").composition("dense").images_settings.view == "clients"


def test_models_without_batch_norm_work(bench) -> None:
    made = bench("dense", {"batch_norm": 1.0}, norm="none").run().output
    assert not any(isinstance(m, nn.BatchNorm2d) for m in made.model.modules())
    assert made.warnings == (
        "the generator's batch_norm term is 0: the clients' models have no batch norm",
    )


def test_workload_grows_with_the_budget_and_the_clients() -> None:
    scenario = ScenarioSpec.model_validate({"dataset": "digits", "partition": {"clients": 5}})
    more = ScenarioSpec.model_validate({"dataset": "digits", "partition": {"clients": 10}})
    small, large = BudgetSpec(distilled_images=100), BudgetSpec(distilled_images=100_000)
    method = Dense(DenseConfig())
    assert method.workload(scenario, 1000, small) < method.workload(scenario, 1000, large)
    assert method.workload(scenario, 1000, large) < method.workload(more, 1000, large)
    boosted = CoBoosting(CoBoostingConfig(synthesis_batch=256))
    assert boosted.workload(scenario, 1000, large) > method.workload(scenario, 1000, large)


def test_every_plugin_lists_the_shared_deviations() -> None:
    for method in FAMILY.values():
        assert set(SHARED_DEVIATIONS) < set(method.deviations)
        assert method.source is not None
