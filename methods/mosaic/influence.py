"""Which expert decides, on generated images of a class; and whether its clients hold the class.

A check of the paper's idea (ours): expert c is made by the clients that hold class c, so it should
decide on images of class c. The published meta model is not told which expert said what.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

MOST_EXPERTS = 32
"""Experts up to which influence is measured: the work grows with their number to the fourth."""


@dataclass(frozen=True)
class Influence:
    """How much the teacher's answers hang on each expert.

    Parameters
    ----------
    images : Tensor
        int64 [C], images that the teacher gives each class.
    matrix : Tensor
        float64 [C, E], mean fall of the teacher's probability of class c, on images that it gives
        class c, where expert e says what the others say on average. NaN for a class without images.
    """

    images: Tensor
    matrix: Tensor

    def own_share(self) -> float | None:
        """Return the share of all positive influence that a class's own expert has, or ``None``.

        In [0, 1]; 1 / C if the experts decide alike. Needs as many experts as classes.
        """
        positive = self._positive()
        total = float(positive.sum())
        return float(positive.diagonal().sum()) / total if total > 0 else None

    def follows_holders(self, shares: Tensor) -> float | None:
        """Return how closely clients' influence on a class follows who holds it, or ``None``.

        Parameters
        ----------
        shares : Tensor
            [E, K], weight of each client in each expert: its share of that class's samples.

        Returns
        -------
        float or None
            Pearson correlation over classes and clients, in [-1, 1], of a client's share of the
            influence (through all experts that it is part of) and its share of the class.
        """
        positive = self._positive()
        known = positive.sum(dim=1) > 0
        by_client = positive[known] @ shares.to(positive)
        if by_client.numel() < 2:
            return None
        by_client = by_client / by_client.sum(dim=1, keepdim=True)
        pair = torch.stack([by_client.flatten(), shares.to(positive)[known].flatten()])
        found = float(torch.corrcoef(pair)[0, 1])
        return None if math.isnan(found) else found

    def _positive(self) -> Tensor:
        return self.matrix.nan_to_num(0.0).clamp(min=0)

    def for_record(self, shares: Tensor) -> dict[str, Any]:
        """Return it as it stands in a record; classes without images have ``None``."""
        rows = [None if torch.isnan(row).any() else row.tolist() for row in self.matrix]
        return {
            "images": self.images.tolist(),
            "matrix": rows,
            "own_share": self.own_share(),
            "follows_holders": self.follows_holders(shares),
        }


@torch.no_grad()
def expert_influence(logits: Tensor, combine: Callable[[Tensor], Tensor]) -> Influence | None:
    """Measure how much each expert decides.

    Parameters
    ----------
    logits : Tensor
        [B, E, C] of generated images, axis 1 the expert.
    combine : callable
        The teacher: from expert logits to logits [B, C].

    Returns
    -------
    Influence or None
        ``None`` for fewer than two experts, or more than :data:`MOST_EXPERTS`.
    """
    count = logits.shape[1]
    if not 2 <= count <= MOST_EXPERTS:
        return None
    before = combine(logits).double().softmax(dim=1)
    answer = before.argmax(dim=1)
    held = before.gather(1, answer[:, None])[:, 0]
    classes = before.shape[1]
    images = torch.bincount(answer, minlength=classes).cpu()
    columns = []
    for expert in range(count):
        without = logits.clone()
        # The others' mean, and no gap: a sum over experts would change by its length alone.
        without[:, expert] = (logits.sum(dim=1) - logits[:, expert]) / (count - 1)
        after = combine(without).double().softmax(dim=1).gather(1, answer[:, None])[:, 0]
        fall = torch.zeros(classes, dtype=torch.float64, device=logits.device)
        columns.append(fall.index_add(0, answer, held - after).cpu() / images)
    return Influence(images, torch.stack(columns, dim=1))
