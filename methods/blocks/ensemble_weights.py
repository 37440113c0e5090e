"""Co-Boosting's ensemble weights: weighted logits, and their sign-gradient update.

Clients' logits do not depend on the weights, so the gradient has a closed form and no
client is differentiated (arXiv 2402.15070; the published code backpropagates through all).
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor


def _divisor(weights: Tensor) -> Tensor:
    total = weights.sum()
    return torch.where(total > 0, total, torch.ones_like(total))


def _effective(weights: Tensor) -> Tensor:
    return torch.where(weights.sum() > 0, weights, torch.full_like(weights, 1 / len(weights)))


def weighted_logits(client_logits: Tensor, weights: Tensor) -> Tensor:
    """Return sum_k w_k f_k / sum_k w_k.

    Parameters
    ----------
    client_logits : Tensor
        [clients, B, classes].
    weights : Tensor
        [clients], at least 0, not necessarily summing to 1. All zero counts as uniform
        (ours: 0 / 0 otherwise).

    Returns
    -------
    Tensor
        [B, classes].
    """
    weights = _effective(weights)
    return torch.einsum("k,kbc->bc", weights, client_logits) / weights.sum()


def weight_gradient(
    client_logits: Tensor, weights: Tensor, labels: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the ensemble's mean cross-entropy and its gradient in the weights.

    With ensemble logits e and d = softmax(e) - onehot(y): g_k = mean <d, f_k - e> / sum(w).

    Parameters
    ----------
    client_logits : Tensor
        [clients, B, classes].
    weights : Tensor
        [clients].
    labels : Tensor
        [B] int64.

    Returns
    -------
    loss : Tensor
        Scalar.
    gradient : Tensor
        [clients]; sum_k w_k g_k = 0.
    """
    ensemble = weighted_logits(client_logits, weights)
    loss = F.cross_entropy(ensemble, labels)
    slope = F.softmax(ensemble, dim=1)
    slope = slope - F.one_hot(labels, slope.shape[1]).to(slope.dtype)
    gradient = ((client_logits - ensemble) * slope).sum(2).mean(1)
    return loss, gradient / _divisor(weights)


def sign_step(weights: Tensor, gradient: Tensor, size: float) -> Tensor:
    """Return clamp(w - size · sign(g), 0, 1); not renormalised (published code)."""
    return (weights - size * gradient.sign()).clamp(0, 1)


def improve_weights(
    weights: Tensor, batches: Iterable[tuple[Tensor, Tensor]], size: float
) -> tuple[Tensor, list[Tensor]]:
    """Take one sign step a mini-batch.

    Parameters
    ----------
    weights : Tensor
        [clients], left as it is.
    batches : iterable of (Tensor, Tensor)
        Client logits [clients, B, classes] and labels [B].
    size : float
        Step size, the same for all batches of an epoch.

    Returns
    -------
    weights : Tensor
        [clients].
    losses : list of Tensor
        Cross-entropy of each batch before its step.
    """
    losses = []
    for client_logits, labels in batches:
        loss, gradient = weight_gradient(client_logits, weights, labels)
        weights = sign_step(weights, gradient, size)
        losses.append(loss)
    return weights, losses
