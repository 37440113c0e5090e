from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from benchmark.images import Normalization
from methods.blocks.parts import Batch

GOLDEN = Path(__file__).parents[2] / "golden" / "dense_coboost"


class TinyNet(nn.Module):
    """The small classifier of the golden files (see their README)."""

    def __init__(self, channels: int = 5, classes: int = 6, bn: bool = False, inputs: int = 3):
        super().__init__()
        self.conv = nn.Conv2d(inputs, channels, 3, stride=2, padding=1)
        self.bn = nn.BatchNorm2d(channels) if bn else nn.Identity()
        self.fc = nn.Linear(channels, classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(self.bn(torch.tanh(self.conv(images))).mean((2, 3)))


class Slice(nn.Module):
    """A client whose logits for image [K, 1, C] are row k: fixed logits by construction."""

    def __init__(self, row: int):
        super().__init__()
        self.row = row
        self.anchor = nn.Parameter(torch.zeros((), dtype=torch.float64))

    def forward(self, images: Tensor) -> Tensor:
        return images[:, self.row, 0, :] + 0 * self.anchor


class ListPool:
    """Batches in a fixed order, as the golden files have them."""

    def __init__(self, batches: list[Batch], older: list[Batch] | None = None):
        self._batches = batches
        self._older = older

    @property
    def size(self) -> int:
        return sum(len(batch.images) for batch in self._batches)

    def older(self) -> ListPool | None:
        return None if self._older is None else ListPool(self._older)

    def batches(
        self, batch_size: int, *, generator: torch.Generator, images: int | None = None
    ) -> Iterator[Batch]:
        yield from self._batches


def filled(model: nn.Module) -> nn.Module:
    """Fill a model's floating tensors by the rule of the golden README."""
    k = 0
    for name, value in model.state_dict().items():
        if not value.is_floating_point():
            continue
        numel = value.numel()
        with np.errstate(over="ignore"):
            a = np.arange(numel, dtype=np.uint32) * np.uint32(2654435761)
            a = a + np.uint32((k * 374761393 + 1) % 2**32)
            a ^= a >> np.uint32(15)
            a = a * np.uint32(2246822519)
            a ^= a >> np.uint32(13)
        s = a.astype(np.float64) / 2**31 - 1
        if value.dim() >= 2:
            s = np.sqrt(6 / (numel / value.shape[0])) * s
        elif name.endswith("weight"):
            s = 1 + 0.1 * s
        elif name.endswith("running_var"):
            s = 1 + 0.25 * s**2
        else:
            s = 0.1 * s
        value.copy_(torch.from_numpy(s).view(value.shape))
        k += 1
    return model


def ramp(*shape: int) -> Tensor:
    """Input f(shape) of the golden README, in float64."""
    i = np.arange(int(np.prod(shape)))
    return torch.from_numpy(0.5 + 0.5 * np.sin(0.11 * i + 0.5 * np.sin(0.013 * i))).view(shape)


def state_of(arrays: Mapping[str, Any], prefix: str) -> dict[str, Tensor]:
    return {
        key.removeprefix(prefix + "."): torch.as_tensor(arrays[key])
        for key in arrays
        if key.startswith(prefix + ".")
    }


def tiny_from(arrays: Mapping[str, Any], prefix: str) -> TinyNet:
    state = state_of(arrays, prefix)
    channels, classes = state["conv.bias"].numel(), state["fc.bias"].numel()
    model = TinyNet(channels, classes, bn="bn.weight" in state).double()
    model.load_state_dict(state)
    return model


def stream(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def tiny(seed: int, **kwargs: Any) -> TinyNet:
    """A TinyNet with weights from its own stream and batch-norm statistics off their start."""
    with torch.random.fork_rng(devices=[]):
        model = TinyNet(**kwargs)
    generator = stream(seed)
    with torch.no_grad():
        for name, value in model.state_dict().items():
            if value.is_floating_point():
                draw = torch.randn(value.shape, generator=generator)
                value.copy_(draw.abs() + 0.5 if name.endswith("var") else draw)
    return model


@pytest.fixture
def golden() -> Callable[[str], dict[str, Any]]:
    def load(name: str) -> dict[str, Any]:
        with np.load(GOLDEN / name, allow_pickle=False) as arrays:
            return {
                key: torch.from_numpy(value)
                if value.dtype.kind in "fiub" and value.dtype != np.bool_
                else value
                for key, value in arrays.items()
            }

    return load


@pytest.fixture
def kit() -> SimpleNamespace:
    """Helpers the block tests share."""
    return SimpleNamespace(
        TinyNet=TinyNet,
        Slice=Slice,
        ListPool=ListPool,
        filled=filled,
        ramp=ramp,
        state_of=state_of,
        tiny_from=tiny_from,
        tiny=tiny,
        stream=stream,
        unit=Normalization((0.0,) * 3, (1.0,) * 3),
        symmetric=Normalization((0.5,) * 3, (0.5,) * 3),
    )
