"""Widths in the federation: initial weights, windows and slices of one full-width state."""

from __future__ import annotations

from collections.abc import Mapping
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
from benchmark.models.submodel import index_sets as rolling_index_sets


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


def index_sets(task: Task, full: Fraction, width: Fraction, window: int) -> IndexSets:
    """Return FedRolex's rolling window of a client of ``width`` in a global model of ``full``."""
    structure = _structure(task, full)
    return rolling_index_sets(structure, width / full, "rolling", round_index=window)


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
