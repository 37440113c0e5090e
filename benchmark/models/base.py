"""The classifier contract, normalisation layers, and initial weights from a given generator."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

MAX_GROUPS = 4


class Classifier(nn.Module, ABC):
    """A network that exposes its penultimate features and its final linear layer.

    Subclasses set ``head`` and implement :meth:`features`.

    Attributes
    ----------
    head : nn.Linear
        From features [B, F] to logits [B, classes]; the last registered module.
    scalable : bool
        Whether :mod:`benchmark.models.structure` may slice it into narrower models.
    """

    head: nn.Linear
    scalable: bool = True

    @abstractmethod
    def features(self, images: Tensor) -> Tensor:
        """Return the input of the head, [B, F], for images [B, C, H, W] in classifier range."""

    def forward(self, images: Tensor) -> Tensor:
        """Return logits [B, classes] for images [B, C, H, W] in classifier range."""
        logits: Tensor = self.head(self.features(images))
        return logits

    @property
    def num_features(self) -> int:
        """Length F of a feature vector."""
        return self.head.in_features

    @property
    def num_classes(self) -> int:
        """Number of logits."""
        return self.head.out_features


def group_count(channels: int) -> int:
    """Return the number of groups of a group norm: the largest of 4, 3, 2, 1 dividing ``channels``.

    Four groups is the choice of FedRolex's published code; the fallback for widths at which
    4 does not divide is ours.
    """
    return max(groups for groups in range(1, MAX_GROUPS + 1) if channels % groups == 0)


def norm_layer(norm: str, channels: int) -> nn.Module:
    """Return the normalisation after a convolution of ``channels`` outputs.

    Parameters
    ----------
    norm : {"batch", "group", "none"}
        ``none`` is an identity without state.
    channels : int
        Number of channels.

    Raises
    ------
    ValueError
        For another name.
    """
    if norm == "batch":
        return nn.BatchNorm2d(channels)
    if norm == "group":
        return nn.GroupNorm(group_count(channels), channels)
    if norm == "none":
        return nn.Identity()
    raise ValueError(f"unknown norm {norm!r}; use batch, group or none")


@torch.no_grad()
def initialize(model: nn.Module, generator: torch.Generator) -> None:
    """Fill every parameter and buffer of ``model`` with PyTorch's default initial values, in place.

    Convolutions and linear layers are drawn from U(-b, b) with b = 1 / sqrt(fan in), which is what
    PyTorch's constructors do; norms become the identity. Draws follow registration order and come
    from ``generator`` alone, whose device must be that of the model.

    Raises
    ------
    TypeError
        If a layer owns state and is of another type.
    """
    for name, module in model.named_modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            bound = 1 / math.sqrt(module.weight[0].numel())
            module.weight.uniform_(-bound, bound, generator=generator)
            if module.bias is not None:
                module.bias.uniform_(-bound, bound, generator=generator)
        elif isinstance(module, (nn.BatchNorm2d, nn.GroupNorm)):
            module.weight.fill_(1)
            module.bias.fill_(0)
            if isinstance(module, nn.BatchNorm2d):
                module.reset_running_stats()
        elif (
            next(module.parameters(recurse=False), None) is not None
            or next(module.buffers(recurse=False), None) is not None
        ):
            raise TypeError(f"no initial values are known for {name!r} ({type(module).__name__})")
