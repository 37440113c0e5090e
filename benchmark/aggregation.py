"""Weighted average of model states: FedAvg, and one expert per class, from a stream of states."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from benchmark.errors import UserError

# Decimals kept before a counter is truncated, so that 9.999999999 made by rounding counts as 10.
_COUNTER_DECIMALS = 6


class NoWeightError(UserError):
    """No state carries weight, such as for a class that no client holds; choose a fallback."""


@torch.no_grad()
def weighted_average(
    states: Iterable[Mapping[str, Tensor]], weights: Sequence[float]
) -> dict[str, Tensor]:
    """Average model states entry by entry with the given weights.

    FedAvg (arXiv 1602.05629) with sample counts as weights; the experts of Mosaic
    (arXiv 2505.19699, published code) with the label counts of one class.

    - Floating entries, batch-norm statistics included, are averaged linearly in float64 and
      rounded once to their own type. The spread between clients' means is not added to the
      averaged variances, as in the published codes of Mosaic and DENSE.
    - Integer entries (batch counters) become the weighted mean truncated toward zero, as in
      Mosaic's code. DENSE's code divides them to a float; ours stay integers.
    - A state with weight zero is skipped altogether, so a diverged model that nobody asked for
      cannot leak its NaN.

    States are consumed one at a time and not kept: memory is one state and one accumulator.

    Parameters
    ----------
    states : iterable of mapping of str to Tensor
        State dicts with equal names and shapes, one per weight. Tensors may live on any device;
        the result lives where the first state with weight does.
    weights : sequence of float
        Non-negative, finite; need not sum to one.

    Returns
    -------
    dict of str to Tensor
        New tensors of the states' types, in the order of the first state with weight.

    Raises
    ------
    NoWeightError
        If all weights are zero or there are none.
    ValueError
        If a weight is negative or not finite, counts differ, or names or shapes differ.
    """
    total = _check_weights(weights)
    sums: dict[str, Tensor] = {}
    dtypes: dict[str, torch.dtype] = {}
    for index, (state, weight) in enumerate(_paired(states, weights)):
        if weight == 0:
            continue
        if not sums:
            sums = {name: _accumulator(tensor) for name, tensor in state.items()}
            dtypes = {name: tensor.dtype for name, tensor in state.items()}
        _add(sums, state, weight, index)
    return {name: _finish(value, total, dtypes[name]) for name, value in sums.items()}


def _check_weights(weights: Sequence[float]) -> float:
    for index, weight in enumerate(weights):
        if not (math.isfinite(weight) and weight >= 0):
            raise ValueError(f"weight {weight} of state {index} is not finite and >= 0")
    total = float(sum(weights))
    if total == 0:
        raise NoWeightError(f"all {len(weights)} weights are zero; there is nothing to average")
    return total


def _paired(
    states: Iterable[Mapping[str, Tensor]], weights: Sequence[float]
) -> Iterable[tuple[Mapping[str, Tensor], float]]:
    seen = 0
    for state in states:
        if seen == len(weights):
            raise ValueError(f"more states than the {len(weights)} weights")
        yield state, float(weights[seen])
        seen += 1
    if seen != len(weights):
        raise ValueError(f"{seen} states but {len(weights)} weights")


def _accumulator(tensor: Tensor) -> Tensor:
    return torch.zeros(tensor.shape, dtype=torch.float64, device=tensor.device)


def _add(sums: dict[str, Tensor], state: Mapping[str, Tensor], weight: float, index: int) -> None:
    if state.keys() != sums.keys():
        odd = sorted(state.keys() ^ sums.keys())[0]
        raise ValueError(f"state {index} and the states before it do not share the entry {odd!r}")
    for name, value in state.items():
        if value.shape != sums[name].shape:
            raise ValueError(
                f"entry {name!r} of state {index} has shape {tuple(value.shape)}, the states "
                f"before it have {tuple(sums[name].shape)}; unequal widths need "
                "benchmark.models.submodel.aggregate"
            )
        sums[name] += value.to(sums[name]) * weight


def _finish(value: Tensor, total: float, dtype: torch.dtype) -> Tensor:
    mean = value.div_(total)
    if not dtype.is_floating_point:
        mean = mean.round_(decimals=_COUNTER_DECIMALS).trunc_()
    return mean.to(dtype)
