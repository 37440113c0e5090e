"""Losses of data-free distillation; logits are [B, classes], results are scalars."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def kl_per_sample(teacher: Tensor, student: Tensor, temperature: float = 1.0) -> Tensor:
    """Return KL(softmax(teacher / T) || softmax(student / T)) for each row, [B] in nats."""
    target = F.log_softmax(teacher / temperature, dim=1)
    guess = F.log_softmax(student / temperature, dim=1)
    return (target.exp() * (target - guess)).sum(1)


def distillation_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Return T² · KL(teacher || student) at temperature T, averaged over the batch.

    Summed over classes. No label takes part (published codes of DENSE and Co-Boosting).
    """
    return temperature**2 * kl_per_sample(teacher, student, temperature).mean()


def hard_weighted_cross_entropy(logits: Tensor, targets: Tensor, hardness: float) -> Tensor:
    """Return the mean of (1 - p)^hardness · CE, p the detached probability of the target.

    A plain mean over the batch, not divided by the sum of weights (arXiv 2402.15070,
    published code). ``hardness`` 0 is plain cross-entropy.
    """
    losses = F.cross_entropy(logits, targets, reduction="none")
    if hardness == 0:
        return losses.mean()
    with torch.no_grad():
        probability = F.softmax(logits, dim=1).gather(1, targets[:, None])[:, 0]
    return ((1 - probability) ** hardness * losses).mean()


def adversarial_loss(
    teacher: Tensor, student: Tensor, *, temperature: float, masked: bool
) -> Tensor:
    """Return -T² · KL(teacher || student), what a generator lowers to find disagreement.

    Gradients reach both. The mean is over all rows; with ``masked`` rows where the two
    predict the same class count as 0 (DENSE, published code). The mask has no gradient.
    """
    losses = kl_per_sample(teacher, student, temperature)
    if masked:
        losses = losses * (teacher.argmax(1) != student.argmax(1))
    return -(temperature**2) * losses.mean()
