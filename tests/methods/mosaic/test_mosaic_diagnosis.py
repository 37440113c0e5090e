from __future__ import annotations

import copy
import math

import pytest
import torch
from mosaic_golden import random_tiny

from methods.blocks.runtime import Precision
from methods.mosaic.client import effective_classes, feature_space
from methods.mosaic.diagnosis import (
    Progress,
    meta_space,
    thinned,
    warn_of_experts,
    warn_of_meta,
)
from methods.mosaic.experts import LogitExperts, MosaicTeacher
from methods.mosaic.mixing import expert_weights
from methods.mosaic.settings import PrototypeSettings, preset_settings


def test_effective_classes() -> None:
    assert effective_classes(torch.tensor([0, 9, 0])) == pytest.approx(1)
    assert effective_classes(torch.tensor([3, 3, 3])) == pytest.approx(3)
    assert 1 < effective_classes(torch.tensor([8, 1, 0])) < 2


def test_one_sided_experts_and_unheld_classes_are_named() -> None:
    even = expert_weights(torch.tensor([[5, 5], [5, 5]]))
    assert warn_of_experts(even) == []
    sided = expert_weights(torch.tensor([[99, 5], [1, 5]]))
    assert "1 of 2 experts" in warn_of_experts(sided)[0]
    assert "clients [0]" in warn_of_experts(sided)[0]
    unheld = expert_weights(torch.tensor([[5, 0], [5, 0]]))
    assert "classes [1]" in warn_of_experts(unheld)[0]
    assert warn_of_experts(expert_weights(torch.tensor([[5, 5]]))) == []


def test_a_rising_meta_loss_is_named() -> None:
    falling = torch.linspace(2.0, 0.5, 50)
    assert warn_of_meta(falling) == []
    assert "from 0.5" in warn_of_meta(falling.flip(0))[0]
    assert warn_of_meta(torch.tensor([1.0])) == []


def progress(losses: list[float]) -> Progress:
    """Report running means, as the student does."""
    made, total = Progress(), 0.0
    for step, loss in enumerate(losses, start=1):
        total += loss
        made.add(10 * step, {"student/loss": total / step})
    return made


def test_progress_takes_running_means_apart() -> None:
    losses = [4.0, 3.0, 1.0, 0.5]
    made = progress(losses)
    assert [loss for _, loss in made.points] == pytest.approx(losses)
    made.add(40, {"student/loss": 9.0})
    made.add(50, {"other": 1.0})
    assert len(made.points) == 4


@pytest.mark.parametrize(
    ("losses", "agreement", "warned"),
    [
        ([5.0] * 3 + [2.0] * 7, 0.4, True),
        ([5.0] * 3 + [2.0] * 7, 0.95, False),
        ([10.0 - step for step in range(10)], 0.4, False),
        ([2.0, 2.0], 0.1, False),
    ],
)
def test_a_plateau_far_from_the_teacher_is_named(
    losses: list[float], agreement: float, warned: bool
) -> None:
    assert bool(progress(losses).warn(agreement)) == warned


@pytest.mark.parametrize(
    ("space", "rounds", "window", "wanted"),
    [
        ("auto", 1, 0, "local"),
        ("auto", 1, 30, "start"),
        ("auto", 2, 0, "start"),
        ("local", 1, 30, "local"),
        ("start", 1, 0, "start"),
    ],
)
def test_whose_features_prototypes_are(space: str, rounds: int, window: int, wanted: str) -> None:
    settings = PrototypeSettings.model_validate({"space": space, "rounds": rounds})
    assert feature_space(settings, window) == wanted


def test_stale_prototypes_are_said_to_be_stale() -> None:
    stale = preset_settings("code", {"prototypes.rounds": 41})
    assert "41 rounds" in meta_space(stale, "start")
    assert "rounds" not in meta_space(preset_settings("code"), "start")


def test_thinned_means_keep_the_mean() -> None:
    values = torch.arange(40.0)
    assert len(thinned(values)) == 20
    assert math.fsum(thinned(values)) / 20 == pytest.approx(float(values.mean()))
    assert thinned(torch.tensor([3.0])) == [3.0]


def test_a_copied_teacher_shares_experts_and_owns_its_meta_model() -> None:
    models = [random_tiny(seed) for seed in range(2)]
    experts = LogitExperts(models, expert_weights(torch.tensor([[3, 1, 0, 2], [0, 1, 4, 2]])))
    meta = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 4))
    teacher = MosaicTeacher(experts, meta, Precision)
    twin = copy.deepcopy(teacher)
    assert twin.experts is experts
    images = torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(twin(images), teacher(images))
    with torch.no_grad():
        next(meta.parameters()).zero_()
    assert not torch.equal(twin(images), teacher(images))
