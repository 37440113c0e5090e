"""What the tests of Mosaic's parts share: golden files and the small nets they name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from benchmark.models.base import Classifier

GOLDEN = Path(__file__).parents[2] / "golden" / "mosaic"


def load(name: str) -> dict[str, Tensor]:
    """Read a golden file; text entries are left out."""
    values = dict(np.load(GOLDEN / name))
    return {k: torch.from_numpy(np.asarray(v)) for k, v in values.items() if v.dtype.kind != "U"}


def part(values: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the entries that start with ``prefix``, without it."""
    return {k[len(prefix) :]: v for k, v in values.items() if k.startswith(prefix)}


def close(actual: Tensor | float, wanted: Tensor, tolerance: float = 1e-4) -> bool:
    """Compare as the golden files' page says: |a - b| <= tolerance (1 + |b|)."""
    given = torch.as_tensor(actual).detach().double()
    if given.shape != wanted.shape:
        return False
    return bool(((given - wanted.double()).abs() <= tolerance * (1 + wanted.double().abs())).all())


class TinyBN(Classifier):
    """Two conv-BN-ReLU blocks, mean over space, linear."""

    def __init__(self, classes: int = 5, channels: int = 3) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 4, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(4)
        self.conv2 = nn.Conv2d(4, 6, 3, 2, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(6)
        self.head = nn.Linear(6, classes)

    def features(self, images: Tensor) -> Tensor:
        x = self.bn1(self.conv1(images)).relu()
        pooled: Tensor = self.bn2(self.conv2(x)).relu().mean((2, 3))
        return pooled


def tiny_bn(values: dict[str, Tensor], prefix: str, classes: int = 5) -> TinyBN:
    """Return the TinyBN of a golden file, in evaluation mode."""
    model = TinyBN(classes)
    state = part(values, prefix)
    model.load_state_dict({k.replace("linear.", "head."): v.clone() for k, v in state.items()})
    return model.eval()


def random_tiny(seed: int, classes: int = 4, channels: int = 3) -> TinyBN:
    """Return a TinyBN with drawn weights and statistics, in evaluation mode."""
    random = torch.Generator().manual_seed(seed)
    model = TinyBN(classes, channels)
    for name, value in model.state_dict().items():
        if value.is_floating_point():
            drawn = torch.randn(value.shape, generator=random) * 0.5
            value.copy_(drawn.abs() + 0.5 if name.endswith("running_var") else drawn)
    return model.eval()
