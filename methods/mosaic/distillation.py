"""Mosaic's distillation loss: soft labels, hard labels, and a Bhattacharyya distance.

The published code (arXiv:2505.19699) calls its third term a Jensen-Shannon divergence. It
mixes the two *logit vectors* instead of the two distributions, and then collapses to the
Bhattacharyya distance, which is symmetric and unbounded; it is named so here.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from methods.mosaic.settings import DistillationSettings


def soft_loss(student: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
    """``T² · KL(teacher_T ‖ student_T)``: summed over classes, mean over the batch.

    Parameters
    ----------
    student, teacher : Tensor
        Logits [B, C].
    temperature : float
        T.

    Returns
    -------
    Tensor
        Scalar in nats.
    """
    log_student = F.log_softmax(student / temperature, dim=1)
    log_teacher = F.log_softmax(teacher / temperature, dim=1)
    divergence = F.kl_div(log_student, log_teacher, reduction="batchmean", log_target=True)
    return divergence * temperature**2


def bhattacharyya(first: Tensor, second: Tensor, temperature: float = 1.0) -> Tensor:
    """Bhattacharyya distance, ``mean_i -log sum_c sqrt(p_ic q_ic)``.

    Parameters
    ----------
    first, second : Tensor
        Logits [B, C] of p and q.
    temperature : float
        T of both softmaxes.

    Returns
    -------
    Tensor
        Scalar in nats, at least 0 and without upper bound.
    """
    log_p = F.log_softmax(first / temperature, dim=1)
    log_q = F.log_softmax(second / temperature, dim=1)
    return -torch.logsumexp((log_p + log_q) / 2, dim=1).mean()


@dataclass(frozen=True)
class DistillationTerms:
    """The student's loss, term by term (scalars, unweighted) and in total."""

    soft: Tensor
    hard: Tensor
    bhattacharyya: Tensor
    total: Tensor


def distillation_terms(
    student: Tensor, teacher: Tensor, settings: DistillationSettings, labels: Tensor | None = None
) -> DistillationTerms:
    """Compute ``alpha · soft + (1 - alpha) · hard + beta · bhattacharyya``.

    Parameters
    ----------
    student, teacher : Tensor
        Logits [B, C]; no gradient reaches the teacher.
    settings : DistillationSettings
        Temperature and weights.
    labels : Tensor, optional
        Hard labels [B]; the teacher's most likely classes if not given. The hard term
        uses logits at temperature 1.
    """
    teacher = teacher.detach()
    targets = teacher.argmax(dim=1) if labels is None else labels
    soft = soft_loss(student, teacher, settings.temperature)
    hard = F.cross_entropy(student, targets)
    distance = bhattacharyya(student, teacher, settings.temperature)
    total = settings.alpha * soft + (1 - settings.alpha) * hard + settings.beta * distance
    return DistillationTerms(soft, hard, distance, total)
