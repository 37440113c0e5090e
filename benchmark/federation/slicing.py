"""Widths in the federation: initial weights, windows and slices of one full-width state."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction
from functools import lru_cache

import torch
from torch import Tensor

from benchmark.contract import ClientInfo, Task
from benchmark.models.base import Classifier
from benchmark.models.build import build, skeleton
from benchmark.models.registry import TIMM_PREFIX
from benchmark.models.structure import Structure, find_structure
from benchmark.models.submodel import IndexSets, extract
from benchmark.models.submodel import index_sets as choose_channels


def initial_state(task: Task, width: Fraction, generator: torch.Generator) -> dict[str, Tensor]:
    """Return freshly drawn weights of the scenario's model at a width, on the CPU."""
    model = build(
        task.model.family,
        num_classes=task.num_classes,
        channels=task.channels,
        image_size=task.image_size,
        width=width,
        norm=task.model.norm,
        generator=generator,
    )
    return dict(model.state_dict())


def empty_model(task: Task, info: ClientInfo, device: torch.device) -> Classifier:
    """Return a client's architecture on a device, to be loaded with a state."""
    if task.model.family.startswith(TIMM_PREFIX):
        # timm's models exist with weights only; these are overwritten by the caller.
        return build(
            task.model.family,
            num_classes=task.num_classes,
            channels=task.channels,
            image_size=task.image_size,
            generator=torch.Generator(),
        ).to(device)
    return _skeleton(task, info.width).to_empty(device=device)


def index_sets(
    task: Task,
    full: Fraction,
    width: Fraction,
    window: int,
    *,
    scheme: str = "rolling",
    phase: Fraction = Fraction(0),
    generator: torch.Generator | None = None,
) -> IndexSets:
    """Return the window of a client of ``width`` in a global model of ``full``.

    By default FedRolex's rolling window; see the contract's :class:`Server`.
    """
    structure = _structure(task, full)
    if width == full:
        # All channels: a rolled order would be the same function, in other bits.
        return choose_channels(structure, 1)
    sets = choose_channels(
        structure, width / full, scheme, round_index=window, phase=phase, generator=generator
    )
    return _rolled(sets, window) if scheme == "staggered" else sets


def _rolled(sets: IndexSets, window: int) -> IndexSets:
    """Move a window backwards by one channel a round, as the rolling one moves."""
    layers = sets.structure.layers
    channels = tuple(
        kept if layer.fixed else (kept - window) % layer.size
        for layer, kept in zip(layers, sets.channels, strict=True)
    )
    return replace(sets, channels=channels)


def slice_state(state: Mapping[str, Tensor], sets: IndexSets) -> dict[str, Tensor]:
    """Return the part of a global state that a client's window names."""
    return extract(state, sets)


@lru_cache(maxsize=8)
def _structure(task: Task, width: Fraction) -> Structure:
    return find_structure(_skeleton(task, width))


def _skeleton(task: Task, width: Fraction) -> Classifier:
    return skeleton(
        task.model.family,
        num_classes=task.num_classes,
        channels=task.channels,
        image_size=task.image_size,
        width=width,
        norm=task.model.norm,
    )
