"""Cut narrower models out of a full one, and put what they learnt back together.

The scheme is that of FedRolex (arXiv 2212.01548) and HeteroFL (arXiv 2010.01264) for every model
whose structure :mod:`benchmark.models.structure` understands.

Group norm: a window changes which channels share a group, so a sub-model's forward pass is not
that of the same channels inside the full model. Batch norm and no norm have no such coupling.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from benchmark.aggregation import weighted_average
from benchmark.models.structure import Entry, find_structure
from benchmark.models.windows import (
    WINDOWS,
    IndexSets,
    index_sets,
    misaligned_index_sets,
    rolling_window,
    staggered_phases,
    staggered_window,
)

__all__ = [
    "WINDOWS",
    "IndexSets",
    "OrderCounters",
    "SubmodelUpload",
    "aggregate",
    "extract",
    "find_structure",
    "index_sets",
    "misaligned_index_sets",
    "rolling_window",
    "scatter",
    "staggered_phases",
    "staggered_window",
]


@dataclass(frozen=True, eq=False)
class SubmodelUpload:
    """What one client brings to :func:`aggregate`.

    Parameters
    ----------
    state : mapping of str to Tensor
        The narrow model's state dict.
    index_sets : IndexSets
        Which channels of the full model it holds.
    labels : sequence of int or None
        Classes present in the client's data; None stands for all.
    """

    state: Mapping[str, Tensor]
    index_sets: IndexSets
    labels: Sequence[int] | None = None


@dataclass
class OrderCounters:
    """How often each entry has been touched, for the published code's order-dependent weights.

    Starts at one everywhere, is never reset, and lives on across rounds; :func:`aggregate` changes
    it in place.

    Parameters
    ----------
    counts : dict of str to Tensor
        Float64 counters shaped like the entries; empty at first.
    """

    counts: dict[str, Tensor] = field(default_factory=dict)

    def weigh(self, name: str, like: Tensor, index: tuple[Tensor, ...]) -> Tensor:
        """Return the present counters at ``index``, and count this touch."""
        counter = self.counts.setdefault(
            name, torch.ones(like.shape, dtype=torch.float64, device=like.device)
        )
        weight = counter[index].clone()
        counter[index] += 1
        return weight


@torch.no_grad()
def extract(state: Mapping[str, Tensor], index_sets: IndexSets) -> dict[str, Tensor]:
    """Cut a client's model out of a full state.

    Parameters
    ----------
    state : mapping of str to Tensor
        State dict of the full model.
    index_sets : IndexSets
        Which channels to keep, in which order.

    Returns
    -------
    dict of str to Tensor
        New tensors on the devices of ``state``. For widths that are 1 / integer the shapes are
        those of the same family built at (full width × width).

    Raises
    ------
    ValueError
        If ``state`` is not of the model that the index sets were made for.
    """
    _check_names(state, index_sets)
    result: dict[str, Tensor] = {}
    for name, tensor in state.items():
        part = tensor
        for dim, index in enumerate(index_sets.indices(name)):
            if index is not None:
                part = part.index_select(dim, index.to(tensor.device))
        result[name] = part.clone(memory_format=torch.contiguous_format)
    return result


class Scattered(Mapping[str, Tensor]):
    """A narrow state at its place in full-size tensors, each made when it is looked at.

    The full-size states of many narrow clients together would be as many full models.

    Parameters
    ----------
    state : mapping of str to Tensor
        The narrow model's state dict; not to be changed afterwards.
    index_sets : IndexSets
        Which channels of the full model it holds.
    like : mapping of str to Tensor
        A full state dict: gives shapes, types and devices.
    """

    def __init__(
        self, state: Mapping[str, Tensor], index_sets: IndexSets, like: Mapping[str, Tensor]
    ) -> None:
        self._state, self._sets, self._like = state, index_sets, like

    @torch.no_grad()
    def __getitem__(self, name: str) -> Tensor:
        target = self._like[name]
        fill = 1 if self._sets.structure.entries[name].kind == "variance" else 0
        full = torch.full_like(target, fill, memory_format=torch.contiguous_format)
        full[_mesh(self._sets, name, target.device)] = self._state[name].to(target)
        return full

    def __iter__(self) -> Iterator[str]:
        return iter(self._like)

    def __len__(self) -> int:
        return len(self._like)

    def __contains__(self, name: object) -> bool:
        return name in self._like


@torch.no_grad()
def scatter(
    state: Mapping[str, Tensor], index_sets: IndexSets, like: Mapping[str, Tensor]
) -> tuple[Scattered, dict[str, Tensor]]:
    """Put a client's state at its place in full-size tensors.

    Parameters
    ----------
    state : mapping of str to Tensor
        The narrow model's state dict; not to be changed afterwards.
    index_sets : IndexSets
        Which channels of the full model it holds.
    like : mapping of str to Tensor
        A full state dict: gives shapes, types and devices.

    Returns
    -------
    full : Scattered
        Where the client holds nothing: 1 for running variances, 0 otherwise. With batch norm or no
        norm this full model computes exactly the client's function (Mosaic's masked experts).
        Tensors are made when they are looked at, each time anew.
    masks : dict of str to Tensor
        Bool tensors of the same shapes, true where the client holds the entry; views that share
        memory, not to be written to.

    Raises
    ------
    ValueError
        If names or shapes are not those of the index sets.
    """
    _check_names(state, index_sets)
    _check_names(like, index_sets)
    masks: dict[str, Tensor] = {}
    for name, target in like.items():
        index = _mesh(index_sets, name, target.device)
        _check_shape(name, state[name], target, index)
        mask = torch.zeros(target.shape[: len(index)], dtype=torch.bool, device=target.device)
        mask[index] = True
        masks[name] = _pad(mask, target.dim()).expand_as(target)
    return Scattered(state, index_sets, like), masks


@torch.no_grad()
def aggregate(
    global_state: Mapping[str, Tensor],
    uploads: Iterable[SubmodelUpload],
    *,
    label_head: bool = True,
    order_counters: OrderCounters | None = None,
    weights: Sequence[float] | None = None,
) -> dict[str, Tensor]:
    """Average each entry over the clients that hold it (FedRolex, arXiv 2212.01548).

    Entries that no client holds keep their global value bit for bit. Running statistics of batch
    norm are averaged over the owners of each channel; integer counters become the truncated mean
    over all clients. Sums are made in float64.

    Parameters
    ----------
    global_state : mapping of str to Tensor
        State dict of the full model before this round.
    uploads : iterable of SubmodelUpload
        Consumed one at a time, in order.
    label_head : bool
        Whether a client contributes only the head's rows of classes that it holds (published code).
    order_counters : OrderCounters or None
        None averages uniformly, as the papers say. Given, it reproduces the published code, in
        which one-dimensional entries and linear weights are weighted by a counter that grows while
        clients are summed: the k-th client to touch an entry weighs k.
    weights : sequence of float or None
        Weight per upload, such as sample counts; uniform if None, as published. Clients with
        weight zero are skipped.

    Returns
    -------
    dict of str to Tensor
        New tensors with the types and devices of ``global_state``.

    Raises
    ------
    ValueError
        If names, shapes or numbers of weights do not fit, a label is no class, or both
        ``order_counters`` and ``weights`` are given.
    """
    if order_counters is not None and weights is not None:
        raise ValueError("order counters are weights already; give one of the two")
    running = {name: _Mean(tensor) for name, tensor in global_state.items() if tensor.dim()}
    counters: list[dict[str, Tensor]] = []
    used: list[float] = []
    seen = 0
    for seen, upload in enumerate(uploads, start=1):
        weight = 1.0 if weights is None else _weight(weights, seen - 1)
        _check_names(global_state, upload.index_sets)
        _check_names(upload.state, upload.index_sets)
        if weight == 0:
            continue
        _add_upload(running, upload, weight, label_head, order_counters)
        counters.append({n: upload.state[n] for n in global_state if n not in running})
        used.append(weight)
    if weights is not None and seen != len(weights):
        raise ValueError(f"{seen} uploads but {len(weights)} weights")
    counted = weighted_average(counters, used) if used else {}
    return {
        name: running[name].result(tensor)
        if name in running
        else counted.get(name, tensor).to(tensor.device, copy=True)
        for name, tensor in global_state.items()
    }


class _Mean:
    """Selective mean of one entry: sums over owners, and the weight that each position got."""

    def __init__(self, like: Tensor) -> None:
        self.sums = torch.zeros(like.shape, dtype=torch.float64, device=like.device)
        # Kernel positions always share their weight, so two dimensions are enough.
        self.weights = torch.zeros(like.shape[:2], dtype=torch.float64, device=like.device)

    def add(self, value: Tensor, weight: Tensor | float, index: tuple[Tensor, ...]) -> None:
        spread = _pad(weight, value.dim()) if isinstance(weight, Tensor) else weight
        self.sums[index] += value.to(self.sums) * spread
        self.weights[index] += weight

    def result(self, old: Tensor) -> Tensor:
        weights = _pad(self.weights, old.dim())
        mean = (self.sums / weights).to(old.dtype)
        return torch.where(weights > 0, mean, old)


def _add_upload(
    running: Mapping[str, _Mean],
    upload: SubmodelUpload,
    weight: float,
    label_head: bool,
    order_counters: OrderCounters | None,
) -> None:
    structure = upload.index_sets.structure
    for name, mean in running.items():
        index = _mesh(upload.index_sets, name, mean.sums.device)
        value = upload.state[name]
        _check_shape(name, value, mean.sums, index)
        if label_head and upload.labels is not None and structure.is_head(name):
            rows = _rows(upload.labels, mean.sums.shape[0], mean.sums.device)
            # All classes are held in order, so a row's number is its class in both models.
            value = value[rows.to(value.device)]
            index = (rows.view([-1] + [1] * (len(index) - 1)), *index[1:])
        if order_counters is not None and _order_weighted(structure.entries[name]):
            mean.add(value, order_counters.weigh(name, mean.sums, index), index)
        else:
            mean.add(value, weight, index)


def _order_weighted(entry: Entry) -> bool:
    return entry.kind in {"affine", "linear"}


def _mesh(index_sets: IndexSets, name: str, device: torch.device) -> tuple[Tensor, ...]:
    """Return index tensors that together address the held block of an entry's channel axes."""
    found = [index.to(device) for index in index_sets.indices(name) if index is not None]
    if len(found) == 2:
        return found[0][:, None], found[1][None, :]
    return tuple(found)


def _pad(tensor: Tensor, dims: int) -> Tensor:
    """Append dimensions of size 1 until there are ``dims``."""
    return tensor.reshape((*tensor.shape, *[1] * (dims - tensor.dim())))


def _rows(labels: Sequence[int], classes: int, device: torch.device) -> Tensor:
    wrong = [label for label in labels if not 0 <= label < classes]
    if wrong:
        raise ValueError(f"label {wrong[0]} is not one of {classes} classes")
    return torch.tensor(sorted(set(labels)), dtype=torch.int64, device=device)


def _weight(weights: Sequence[float], position: int) -> float:
    if position >= len(weights):
        raise ValueError(f"more uploads than the {len(weights)} weights")
    weight = float(weights[position])
    if not 0 <= weight < float("inf"):
        raise ValueError(f"weight {weight} of upload {position} is not finite and >= 0")
    return weight


def _check_names(state: Mapping[str, Tensor], index_sets: IndexSets) -> None:
    expected = index_sets.structure.entries
    if state.keys() != expected.keys():
        odd = sorted(state.keys() ^ expected.keys())[0]
        raise ValueError(f"entry {odd!r} is not in both the state and the index sets' model")


def _check_shape(name: str, part: Tensor, full: Tensor, index: tuple[Tensor, ...]) -> None:
    expected = (*(i.numel() for i in index), *full.shape[len(index) :])
    if tuple(part.shape) != expected:
        raise ValueError(
            f"entry {name!r} has shape {tuple(part.shape)}, the index sets name {expected}"
        )
