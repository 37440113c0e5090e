"""The terms of the generator's loss, one function each (arXiv:2505.19699).

The generator is asked to fool the discriminator, to make images that the client's own
classifier is sure of (entropy), of many classes in a batch (diversity), and, where the
client has little data, with the statistics its classifier remembers (inversion).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from methods.mosaic.settings import LossWeights

ENTROPY_EPSILON = 1e-5
"""Inside the logarithm of the entropy term (published code)."""
DIVERSITY_EPSILON = 1e-8
"""Inside the logarithm of the diversity term; ours, without it a collapsed batch is NaN."""


def full_precision(values: Tensor) -> Tensor:
    """Return half-precision values as float32, others as they are."""
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values


def adversarial_loss(scores: Tensor, *, real: bool) -> Tensor:
    """Cross-entropy of the discriminator's verdict with ``real`` or not.

    For the generator, ``real=True`` on generated images is the non-saturating loss.

    Parameters
    ----------
    scores : Tensor
        Log-odds of being real, [B].
    real : bool
        The verdict that is wanted.

    Returns
    -------
    Tensor
        Scalar, mean over the batch.
    """
    scores = full_precision(scores)
    wanted = torch.ones_like(scores) if real else torch.zeros_like(scores)
    return F.binary_cross_entropy_with_logits(scores, wanted)


def entropy_loss(logits: Tensor) -> Tensor:
    """Mean entropy of each image's predicted label (nats); small means sure.

    ``(1/B) sum_i sum_c -y_ic log(y_ic + 1e-5)`` with y the softmax of ``logits`` [B, C].
    """
    labels = full_precision(logits).softmax(dim=1)
    return -(labels * (labels + ENTROPY_EPSILON).log()).sum(dim=1).mean()


def diversity_loss(logits: Tensor) -> Tensor:
    """Negative entropy of the batch's mean label (nats); small means many classes.

    ``sum_c m_c log(m_c + 1e-8)`` with m the batch mean of the softmax of ``logits`` [B, C].
    Finite, gradient included, where a class has probability zero.
    """
    mean = full_precision(logits).softmax(dim=1).mean(dim=0)
    return (mean * (mean + DIVERSITY_EPSILON).log()).sum()


@dataclass(frozen=True)
class GeneratorTerms:
    """The generator's loss of one step, term by term (scalars, unweighted) and in total.

    Parameters
    ----------
    adversarial, entropy, diversity : Tensor
        The terms.
    inversion : Tensor
        Batch-norm distance, zero where the term is off.
    total : Tensor
        The weighted sum that is minimised.
    """

    adversarial: Tensor
    entropy: Tensor
    diversity: Tensor
    inversion: Tensor
    total: Tensor


def generator_terms(
    scores: Tensor, logits: Tensor, distance: Tensor | None, weights: LossWeights
) -> GeneratorTerms:
    """Compute and weigh the terms of the generator's loss.

    Parameters
    ----------
    scores : Tensor
        Discriminator's log-odds of the generated images, [B].
    logits : Tensor
        Classifier's logits of the generated images, [B, C].
    distance : Tensor or None
        Batch-norm statistics loss of the same images through the client's own frozen
        classifier; ``None`` where the inversion term is off.
    weights : LossWeights
        Weights of entropy, diversity and inversion.
    """
    adversarial = adversarial_loss(scores, real=True)
    entropy, diversity = entropy_loss(logits), diversity_loss(logits)
    inversion = torch.zeros_like(adversarial) if distance is None else distance
    total = adversarial
    for weight, term in (
        (weights.entropy, entropy),
        (weights.diversity, diversity),
        (weights.inversion, inversion),
    ):
        # A term that is off must not reach the sum: 0 times infinity is NaN.
        if weight:
            total = total + weight * term
    return GeneratorTerms(adversarial, entropy, diversity, inversion, total)
