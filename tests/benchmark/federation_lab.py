"""Small federations on the digits for tests, and the start of their methods."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmark.federation.federation import Federation
from benchmark.specs import BudgetSpec
from benchmark.testing import Bench

UNEQUAL = ("1/4,1/8,1/16",)
SMALL = {"train_samples": 150, "epochs": 2}
State = dict[str, Tensor]


def bench(folder: Path, **overrides: Any) -> Bench:
    return Bench("ensemble", {**SMALL, **overrides}, folder=folder)


def start_of(federation: Federation) -> State:
    """Return the global state that methods start from."""
    return dict(federation.server("x", 1, BudgetSpec()).initial_model().state_dict())


def equal(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(
        torch.equal(first[name], second[name]) for name in first
    )


def window(state: Mapping[str, Tensor], shapes: Mapping[str, Tensor], shift: int) -> State:
    """Cut a narrow state out by hand: k hidden channels from ``-shift`` on, around n."""
    narrow = {}
    for name, value in state.items():
        part = value
        for dim, kept in enumerate(shapes[name].shape):
            if kept != value.shape[dim]:
                chosen = (torch.arange(kept) - shift) % value.shape[dim]
                part = part.index_select(dim, chosen)
        narrow[name] = part
    return narrow
