"""States of Mosaic's experts: one weighted average of the clients' models for each class.

Expert c is the average of the clients' whole states, batch-norm buffers included,
weighted by how many samples of class c each client holds (arXiv:2505.19699). With
unequal widths the average is taken coordinate by coordinate over the clients that own
the coordinate; the paper states no rule for the others, so it is an option (ours).
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from benchmark.aggregation import weighted_average

State = Mapping[str, Tensor]
Fill = Literal["zero", "global"]
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ExpertWeights:
    """How much each client counts for each class's expert.

    Parameters
    ----------
    values : Tensor
        [C, K] float64, samples of class c at client k; for a class nobody holds, the
        clients' sizes.
    sizes : Tensor
        [K] float64, samples of each client.
    unheld : tuple of int
        Classes nobody holds, whose expert is the global average.
    """

    values: Tensor
    sizes: Tensor
    unheld: tuple[int, ...]

    @property
    def num_experts(self) -> int:
        """Number of experts C."""
        return len(self.values)

    @property
    def shares(self) -> Tensor:
        """Weights that sum to one over clients, [C, K]."""
        return self.values / self.values.sum(dim=1, keepdim=True)


def expert_weights(label_counts: Tensor, sizes: Tensor | None = None) -> ExpertWeights:
    """Derive experts' weights from label counts.

    A class that nobody holds falls back to the size-weighted average of all clients, with
    a logged warning (the published code crashes).

    Parameters
    ----------
    label_counts : Tensor
        [K, C], samples of each class at each client.
    sizes : Tensor, optional
        [K], samples of each client; the sums of ``label_counts`` if not given.

    Raises
    ------
    ValueError
        If counts are negative, or nobody holds anything.
    """
    counts = label_counts.to("cpu", torch.float64)
    if counts.ndim != 2 or bool((counts < 0).any()):
        raise ValueError(f"label counts must be [clients, classes] >= 0, got {label_counts}")
    size = counts.sum(dim=1) if sizes is None else sizes.to("cpu", torch.float64)
    if size.shape != counts.shape[:1] or float(size.sum()) <= 0:
        raise ValueError(f"client sizes must be [{len(counts)}] with a positive sum, got {size}")
    values = counts.T.clone()
    missing = values.sum(dim=1) == 0
    values[missing] = size
    unheld = tuple(missing.nonzero().flatten().tolist())
    if unheld:
        _log.warning("no client holds classes %s; their experts are the global average", unheld)
    return ExpertWeights(values, size, unheld)


@torch.no_grad()
def masked_average(
    clients: Iterable[tuple[State, State]],
    weights: Sequence[float],
    fill: State | None = None,
) -> dict[str, Tensor]:
    """Average full-size states coordinate by coordinate over the clients that own each.

    ``sum_k w_k M_k S_k / sum_k w_k M_k`` where the denominator is positive. Elsewhere
    ``fill``, or else 0, and 1 for running variances: the network then computes there what
    a network without these channels computes.

    Parameters
    ----------
    clients : iterable of (state, mask)
        Full-size tensors and their 0/1 coordinate masks, entry by entry, as
        :func:`benchmark.models.submodel.scatter` makes them. Read once, one at a time.
    weights : sequence of float
        w_k ≥ 0, one per client. A client of weight 0 is not looked at, nor is what lies
        outside a client's mask, so neither can spoil the average.
    fill : mapping of str to Tensor, optional
        What coordinates without an owner hold.

    Returns
    -------
    dict of str to Tensor
        Floating entries in their own type, summed in float64. Integer entries are
        averaged over all clients and truncated, as in :func:`weighted_average`.

    Raises
    ------
    ValueError
        If all weights are zero.
    """
    tops: dict[str, Tensor] = {}
    bottoms: dict[str, Tensor] = {}
    like: State = {}
    counters: list[State] = []
    counted: list[float] = []
    for (state, mask), weight in zip(clients, weights, strict=True):
        if weight == 0:
            continue
        like = like or state
        counters.append({n: v for n, v in state.items() if not v.is_floating_point()})
        counted.append(weight)
        for name, value in state.items():
            if not value.is_floating_point():
                continue
            owned = mask[name].to(value.device, torch.bool).expand_as(value)
            part = torch.where(owned, value, torch.zeros_like(value)).double() * weight
            tops[name] = tops[name] + part if name in tops else part
            share = owned.double() * weight
            bottoms[name] = bottoms[name] + share if name in bottoms else share
    if not counted:
        raise ValueError("no client has a positive weight")
    whole = weighted_average(counters, counted)
    return {
        name: whole[name]
        if name in whole
        else _divide(name, tops[name], bottoms[name], fill).to(value.dtype)
        for name, value in like.items()
    }


def _divide(name: str, top: Tensor, bottom: Tensor, fill: State | None) -> Tensor:
    if fill is not None:
        elsewhere = fill[name].to(top)
    else:
        neutral = 1.0 if name.rpartition(".")[2] == "running_var" else 0.0
        elsewhere = torch.full_like(top, neutral)
    owned = bottom > 0
    return torch.where(owned, top / torch.where(owned, bottom, 1.0), elsewhere)


class ExpertMixer:
    """Make any expert's state on demand; holds the clients' states and no expert's.

    Parameters
    ----------
    states : sequence of mapping of str to Tensor
        The clients' states, full size.
    weights : ExpertWeights
        Who counts for which expert.
    masks : sequence of mapping of str to Tensor, optional
        0/1 coordinate masks of the clients, where widths differ.
    fill : {'zero', 'global'}
        What an expert holds where no holder of its class owns the coordinate. ``zero``
        (default): nothing, so that the expert of a class with one holder *is* that
        client's model. ``global``: the average over all clients that own it.
    previous : mapping of str to Tensor, optional
        The last global state, for coordinates that no client owns; ``zero`` ignores it
        except in :meth:`global_state`.

    Raises
    ------
    ValueError
        If there is not one state (and mask) for each client in ``weights``.
    """

    def __init__(
        self,
        states: Sequence[State],
        weights: ExpertWeights,
        *,
        masks: Sequence[State] | None = None,
        fill: Fill = "zero",
        previous: State | None = None,
    ) -> None:
        clients = weights.values.shape[1]
        if len(states) != clients or (masks is not None and len(masks) != clients):
            raise ValueError(f"{clients} clients have label counts, but {len(states)} have states")
        self.weights = weights
        self._states, self._masks = states, masks
        self._previous = previous
        self._fill = self.global_state() if masks is not None and fill == "global" else None

    @property
    def num_experts(self) -> int:
        """Number of experts C."""
        return self.weights.num_experts

    def global_state(self) -> dict[str, Tensor]:
        """Return the size-weighted average of all clients."""
        return self._average(self.weights.sizes.tolist(), None, self._previous)

    def state(self, expert: int, names: Collection[str] | None = None) -> dict[str, Tensor]:
        """Return the state of one expert, or only the entries in ``names``."""
        return self._average(self.weights.values[expert].tolist(), names, self._fill)

    def _average(
        self, weights: list[float], names: Collection[str] | None, fill: State | None
    ) -> dict[str, Tensor]:
        states = (_only(state, names) for state in self._states)
        if self._masks is None:
            return weighted_average(states, weights)
        masks = (_only(mask, names) for mask in self._masks)
        return masked_average(zip(states, masks, strict=True), weights, fill)


def _only(state: State, names: Collection[str] | None) -> State:
    return state if names is None else {name: state[name] for name in state if name in names}
