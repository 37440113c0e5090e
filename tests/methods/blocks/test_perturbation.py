from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError

from benchmark.images import Normalization
from methods.blocks.ensemble import ClientEnsemble
from methods.blocks.perturbation import (
    Perturbation,
    direction_objective,
    perturb,
    random_directions,
)
from methods.blocks.teachers import BoostedTeacher, WeightUpdate


def _teacher(kit, arrays) -> BoostedTeacher:
    clients = [kit.tiny_from(arrays, f"client{k}") for k in range(3)]
    teacher = BoostedTeacher(ClientEnsemble(clients), WeightUpdate(), kit.stream())
    teacher.weights.copy_(arrays["ensemble_w"][:, 0])
    return teacher


def test_golden_cb_kd_images_and_objective(golden, kit) -> None:
    arrays = golden("cb_kd.npz")
    teacher = _teacher(kit, arrays)
    settings = Perturbation(size=float(arrays["eps"]) / 2)  # [-1, 1] units to unit pixels
    assert settings == Perturbation()
    for b in range(3):
        images, directions = arrays["images"][b], arrays["random_direction"][b]
        objective = direction_objective(teacher(images), directions, 4.0)
        assert objective.item() == pytest.approx(float(arrays["ods_objective"][b]), abs=1e-9)
        shifted = perturb(teacher, images, directions, settings, kit.symmetric)
        expected = arrays["images_seen_by_student"][b]
        torch.testing.assert_close(shifted, expected, rtol=0, atol=1e-9)


def test_size_is_in_unit_pixels_under_any_normalisation(golden, kit) -> None:
    # Not inherited: a size in normalised units, whose strength changes with the data set.
    arrays = golden("cb_kd.npz")
    teacher = _teacher(kit, arrays)
    normalization = Normalization((0.1, 0.2, 0.3), (0.2, 0.4, 0.6))
    images = arrays["images"][0]
    shifted = perturb(teacher, images, arrays["random_direction"][0], Perturbation(), normalization)
    moved = (normalization.to_unit(shifted) - normalization.to_unit(images)).abs()
    torch.testing.assert_close(moved, torch.full_like(moved, 4 / 255), rtol=0, atol=1e-9)


def test_leaving_the_valid_range_is_an_option(golden, kit) -> None:
    arrays = golden("cb_kd.npz")
    teacher, directions = _teacher(kit, arrays), arrays["random_direction"][0]
    images = arrays["images"][0].sign()
    free = perturb(teacher, images, directions, Perturbation(), kit.symmetric)
    held = perturb(teacher, images, directions, Perturbation(clamp=True), kit.symmetric)
    assert float(free.abs().max()) > 1.01
    assert float(held.abs().max()) <= 1 + 1e-9


def test_one_teacher_pass_and_nothing_left_behind(golden, kit) -> None:
    # Not inherited: the extra ensemble pass that only learns the output's shape.
    arrays = golden("cb_kd.npz")
    teacher, calls = _teacher(kit, arrays), []
    teacher.register_forward_hook(lambda *_: calls.append(1))
    images = arrays["images"][0].clone()
    with torch.no_grad():
        shifted = perturb(
            teacher, images, arrays["random_direction"][0], Perturbation(), kit.symmetric
        )
    assert len(calls) == 1
    assert not shifted.requires_grad
    assert not images.requires_grad
    assert torch.equal(images, arrays["images"][0])


def test_temperature_is_an_option(golden, kit) -> None:
    # Not inherited: a hard-coded temperature.
    arrays = golden("cb_kd.npz")
    logits, directions = arrays["random_direction"][0] * 3, arrays["random_direction"][1]
    assert direction_objective(logits, directions, 1.0) != direction_objective(
        logits, directions, 4.0
    )


def test_directions_are_uniform_and_come_from_the_stream(kit) -> None:
    like = torch.zeros(1, dtype=torch.float64)
    directions = random_directions(500, 8, kit.stream(), like)
    assert directions.dtype == torch.float64
    assert -1 <= float(directions.min()) < -0.99
    assert 0.99 < float(directions.max()) < 1
    assert float(directions.std()) == pytest.approx(3**-0.5, rel=0.03)
    assert torch.equal(directions, random_directions(500, 8, kit.stream(), like))


@pytest.mark.parametrize("bad", [{"size": -1}, {"temperature": 0}, {"sise": 1}])
def test_bad_settings_are_refused(bad) -> None:
    with pytest.raises(ValidationError):
        Perturbation(**bad)
