"""Every hyper-parameter of DENSE and Co-Boosting has an effect, and the one that its name says."""

from __future__ import annotations

from operator import attrgetter
from typing import Any

import pytest

from methods.blocks.adversarial_config import AdversarialConfig
from methods.co_boosting import CoBoostingConfig
from methods.dense import DenseConfig
from methods.dense_cb import DenseCbConfig

FAMILY: dict[str, type[AdversarialConfig]] = {
    "dense": DenseConfig,
    "dense_cb": DenseCbConfig,
    "co_boosting": CoBoostingConfig,
}
BUDGET = {"schedule": "budget", "epochs": 3, "steps_per_epoch": 7, "synthesis_batch": 96}
"""What the published schedule is made of."""
PLACES: dict[str, tuple[Any, str]] = {
    "synthesis_batch": (96, "images_settings.synthesis_batch"),
    "noise_size": (5, "images_settings.noise_size"),
    "generator_width": (6, "images_settings.generator_width"),
    "generator_lr": (0.5, "images_settings.learning_rate"),
    "onehot": (0.6, "images_settings.onehot"),
    "adversarial": (0.7, "images_settings.adversarial"),
    "adversarial_temperature": (8.0, "images_settings.temperature"),
    "batch_norm": (0.9, "images_settings.batch_norm"),
    "generator_clip": (1.1, "images_settings.clip_norm"),
    "view": ("clients", "images_settings.view"),
    "reading": ("none", "images_settings.reading"),
    "temperature": (1.2, "student_settings.temperature"),
    "lr": (1.3, "student_settings.learning_rate"),
    "momentum": (0.4, "student_settings.momentum"),
    "weight_decay": (0.15, "student_settings.weight_decay"),
    "clip": (1.6, "student_settings.clip_norm"),
    "batch_size": (17, "student_settings.batch_size"),
    "student_setting": ("native", "student_setting"),
}
OF_CO_BOOSTING: dict[str, tuple[Any, str]] = {
    "batch_size": (17, "teacher_settings.batch_size"),
    "hardness": (1.8, "images_settings.hardness"),
    "perturbation": (0.19, "student_settings.perturbation.size"),
    "perturbation_temperature": (2.1, "student_settings.perturbation.temperature"),
    "weight_step": (0.22, "teacher_settings.step"),
    "weight_step_decay": (0.23, "teacher_settings.decay"),
    "weight_passes": (4, "teacher_settings.passes"),
}
CASES = [
    (method, field, *place)
    for method in FAMILY
    for places in (PLACES, OF_CO_BOOSTING if method == "co_boosting" else {})
    for field, place in places.items()
]


@pytest.mark.parametrize("method", FAMILY)
def test_every_hyper_parameter_is_tried_below(method: str) -> None:
    tried = {field for name, field, _, _ in CASES if name == method} | set(BUDGET) | {"cosine"}
    assert tried == set(FAMILY[method].model_fields)


@pytest.mark.parametrize(("method", "field", "value", "place"), CASES)
def test_a_hyper_parameter_reaches_its_part(
    method: str, field: str, value: Any, place: str
) -> None:
    default = FAMILY[method]().composition(method)
    changed = FAMILY[method].model_validate({field: value}).composition(method)
    assert attrgetter(place)(changed) == value != attrgetter(place)(default)


@pytest.mark.parametrize("method", FAMILY)
def test_the_learning_rate_is_annealed_as_asked(method: str) -> None:
    for cosine in (True, False):
        config = FAMILY[method].model_validate({"cosine": cosine})
        settings: Any = config.composition(method).student_settings
        assert settings.cosine is cosine


@pytest.mark.parametrize("method", FAMILY)
@pytest.mark.parametrize("field", BUDGET)
def test_the_published_schedule_is_made_of_its_numbers(method: str, field: str) -> None:
    published = {"schedule": "published"}
    changed = FAMILY[method].model_validate({**published, field: BUDGET[field]})
    default = FAMILY[method].model_validate(published)
    assert changed.composition(method).budget != default.composition(method).budget


@pytest.mark.parametrize("method", FAMILY)
def test_settings_that_a_part_does_not_have_are_not_put_into_it(method: str) -> None:
    """Copies are not validated: a misspelt name would be kept, and read by nobody."""
    made = FAMILY[method]().composition(method)
    for settings in (made.images_settings, made.teacher_settings, made.student_settings):
        assert vars(settings).keys() == type(settings).model_fields.keys()
