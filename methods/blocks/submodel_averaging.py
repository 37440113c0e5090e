"""Averaging by class and by owner, and sharing out of local steps: FedAvg and its relatives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from benchmark.aggregation import weighted_average
from benchmark.contract import Client
from benchmark.models.base import Classifier
from benchmark.models.submodel import IndexSets

State = Mapping[str, Tensor]


def held_classes(client: Client) -> list[int]:
    """Return the classes that a client holds samples of, ascending."""
    return [int(label) for label in client.label_counts.nonzero().flatten()]


def head_names(model: Classifier) -> tuple[str, ...]:
    """Return the state-dict names of a classifier's last layer."""
    own = {id(parameter) for parameter in model.head.parameters()}
    return tuple(name for name, value in model.named_parameters() if id(value) in own)


@torch.no_grad()
def average_whole(
    states: Sequence[State],
    weights: Sequence[float],
    before: State,
    head: Sequence[str] = (),
    classes: Sequence[Sequence[int] | None] = (),
) -> dict[str, Tensor]:
    """Average models of one shape, each row of the last layer over those that hold its class.

    Equal in bits to :func:`benchmark.models.submodel.aggregate` at full width.

    Parameters
    ----------
    states : sequence of mapping of str to Tensor
        The clients' state dicts.
    weights : sequence of float
        One per client, above zero.
    before : mapping of str to Tensor
        The global state, whose rows stay for classes that nobody holds.
    head : sequence of str
        Names of the entries whose rows [num_classes, ...] are averaged by class; none by default.
    classes : sequence of (sequence of int or None)
        Classes that each client holds; None stands for all. Read for ``head`` only.

    Returns
    -------
    dict of str to Tensor
        New tensors.
    """
    average = weighted_average(states, weights)
    for name in head:
        old = before[name]
        sums = torch.zeros(old.shape, dtype=torch.float64, device=old.device)
        total = torch.zeros(len(old), dtype=torch.float64, device=old.device)
        for state, weight, held in zip(states, weights, classes, strict=True):
            rows = list(range(len(old)) if held is None else held)
            sums[rows] += state[name][rows].to(sums) * weight
            total[rows] += weight
        total = total.view(-1, *[1] * (old.dim() - 1))
        average[name] = torch.where(total > 0, (sums / total).to(old.dtype), old)
    return average


def mark_trained(
    trained: dict[str, Tensor],
    state: State,
    sets: Sequence[IndexSets],
    classes: Sequence[Sequence[int] | None],
) -> float:
    """Mark the parameters that clients held this round.

    Parameters
    ----------
    trained : dict of str to Tensor
        Bool masks over an entry's channel axes, changed in place; empty at first.
    state : mapping of str to Tensor
        The global state.
    sets : sequence of IndexSets
        The clients' channels.
    classes : sequence of (sequence of int or None)
        Rows of the last layer that they contribute; None stands for all.

    Returns
    -------
    float
        Share of the global model's parameters that any client has held so far, in [0, 1].
    """
    structure = sets[0].structure
    names = [n for n, e in structure.entries.items() if e.kind in {"conv", "linear", "affine"}]
    held = total = 0
    for name in names:
        mask = trained.setdefault(name, torch.zeros(state[name].shape[:2], dtype=torch.bool))
        for chosen, labels in zip(sets, classes, strict=True):
            rows, columns = chosen.indices(name)
            if labels is not None and structure.is_head(name):
                rows = torch.tensor(list(labels), dtype=torch.int64)
            if rows is not None:
                mask[rows if columns is None else (rows[:, None], columns[None])] = True
        size = state[name].numel()
        held += int(mask.sum()) * (size // mask.numel())
        total += size
    return held / total


def share(total: int, parts: int, index: int) -> int:
    """Return the size of part ``index`` of ``total`` cut into ``parts`` as even as can be.

    All parts together are exactly ``total``.
    """
    return total * (index + 1) // parts - total * index // parts
