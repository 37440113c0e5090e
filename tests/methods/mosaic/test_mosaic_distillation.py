from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mosaic_golden import close, load
from torch import Tensor

from methods.mosaic.distillation import bhattacharyya, distillation_terms, soft_loss
from methods.mosaic.settings import DistillationSettings


def logits(seed: int, scale: float = 1.0) -> Tensor:
    return scale * torch.randn(6, 5, generator=torch.Generator().manual_seed(seed))


def test_golden_kd_loss() -> None:
    golden = load("kd_loss.npz")
    student, teacher = golden["student_logits"].requires_grad_(), golden["teacher_logits"]
    terms = distillation_terms(student, teacher, DistillationSettings())
    assert close(terms.soft, golden["soft_T1"])
    assert close(terms.hard, golden["hard"])
    assert close(terms.bhattacharyya, golden["jsd_T1"])
    assert close(terms.total, golden["total_default"])
    (grad,) = torch.autograd.grad(terms.total, student)
    assert close(grad, golden["grad_student_default"])
    given_labels = distillation_terms(student, teacher, DistillationSettings(), golden["targets"])
    assert torch.equal(given_labels.total, terms.total)

    warm = distillation_terms(student, teacher, DistillationSettings(temperature=4))
    assert close(warm.soft, golden["soft_T4"])
    assert close(warm.bhattacharyya, golden["jsd_T4"])
    assert close(warm.total, golden["total_T4"])
    halves = DistillationSettings(temperature=2, alpha=0.5, beta=0.5)
    assert close(distillation_terms(student, teacher, halves).total, golden["total_a05_b05"])


def test_the_third_term_is_bhattacharyya_and_no_jensen_shannon() -> None:
    golden = load("kd_loss.npz")
    distance = bhattacharyya(golden["student_logits"], golden["teacher_logits"])
    assert close(distance, golden["independent_bhattacharyya_T1"])
    assert not close(distance, golden["independent_textbook_jsd_T1"], 0.1)
    mixed = (golden["student_logits"] + golden["teacher_logits"]) / 2
    # The published form: divergences from the softmax of the mean logits, averaged.
    to_student = soft_loss(golden["student_logits"], mixed)
    to_teacher = soft_loss(golden["teacher_logits"], mixed)
    assert close((to_student + to_teacher) / 2, distance.double())


@given(st.integers(0, 99), st.floats(0.1, 20), st.floats(0.5, 8))
@settings(max_examples=25, deadline=None)
def test_distances_are_non_negative_and_zero_on_equality(
    seed: int, scale: float, temperature: float
) -> None:
    first, second = logits(seed, scale), logits(seed + 1, scale)
    ahead = bhattacharyya(first, second, temperature)
    assert ahead >= -1e-6
    assert torch.allclose(ahead, bhattacharyya(second, first, temperature), atol=1e-6)
    assert bhattacharyya(first, first, temperature).abs() < 1e-5
    assert soft_loss(first, second, temperature) >= -1e-5
    assert soft_loss(first, first, temperature).abs() < 1e-4


def test_extreme_logits_stay_finite_and_the_teacher_gets_no_gradient() -> None:
    student = (1e4 * logits(0)).requires_grad_()
    teacher = (1e4 * logits(1)).requires_grad_()
    total = distillation_terms(student, teacher, DistillationSettings()).total
    student_grad, teacher_grad = torch.autograd.grad(total, [student, teacher], allow_unused=True)
    assert total.isfinite()
    assert student_grad.isfinite().all()
    assert teacher_grad is None


@pytest.mark.parametrize("field", ["alpha", "beta", "temperature"])
def test_negative_settings_are_refused(field: str) -> None:
    with pytest.raises(ValueError, match=field):
        DistillationSettings.model_validate({field: -1})
