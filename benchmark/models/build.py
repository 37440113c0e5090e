"""Build a classifier by family name."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

import torch
from torch import nn

from benchmark.errors import UserError
from benchmark.models.base import Classifier, initialize
from benchmark.models.convnets import CNN, CNNCifar, CNNMnist, LeNet
from benchmark.models.registry import TIMM_PREFIX, check_model
from benchmark.models.resnet import ResNet18
from benchmark.models.widths import as_width

_Maker = Callable[[int, int, Fraction, str, int], Classifier]

_MAKERS: dict[str, _Maker] = {
    "resnet18": lambda classes, channels, width, norm, _: ResNet18(classes, channels, width, norm),
    "cnn": lambda classes, channels, width, norm, _: CNN(classes, channels, width, norm),
    "lenet": LeNet,
    "cnn_cifar": CNNCifar,
    "cnn_mnist": CNNMnist,
}


def build(
    family: str,
    *,
    num_classes: int,
    channels: int,
    image_size: int = 32,
    width: Fraction | float | str = 1,
    norm: str | None = None,
    generator: torch.Generator,
) -> Classifier:
    """Build a classifier with initial weights drawn from ``generator`` alone.

    Parameters
    ----------
    family : str
        One of :func:`benchmark.models.registry.families`, or ``timm:NAME``.
    num_classes, channels, image_size : int
        Logits, image channels, image side in pixels.
    width : Fraction, float or str
        Fraction of each layer's channels to keep, in (0, 1]; a layer of n keeps ``ceil(width*n)``.
    norm : str or None
        Normalisation; None is the family's default.
    generator : torch.Generator
        Source of the initial weights (PyTorch's default distributions). The model is put on its
        device; a CPU generator followed by ``.to(device)`` gives the same weights on any device.

    Returns
    -------
    Classifier
        In train mode.

    Raises
    ------
    UserError
        If the family, norm, width or image size is not possible.
    """
    info = check_model(family, norm=norm, width=width, image_size=image_size)
    if family.startswith(TIMM_PREFIX):
        from benchmark.models.timm_models import build_timm

        return build_timm(
            family.removeprefix(TIMM_PREFIX),
            num_classes=num_classes,
            channels=channels,
            image_size=image_size,
            generator=generator,
        )
    model = skeleton(
        family,
        num_classes=num_classes,
        channels=channels,
        image_size=image_size,
        width=width,
        norm=norm or info.default_norm,
    )
    model.to_empty(device=generator.device)
    initialize(model, generator)
    return model


def skeleton(
    family: str,
    *,
    num_classes: int,
    channels: int,
    image_size: int = 32,
    width: Fraction | float | str = 1,
    norm: str | None = None,
) -> Classifier:
    """Build a family's classifier on the meta device: shapes and names, no memory, no weights.

    Enough for :func:`benchmark.models.structure.find_structure` and for counting bytes.
    Parameters are those of :func:`build`.

    Raises
    ------
    UserError
        If the family, norm, width or image size is not possible, or for ``timm:`` models, which
        exist with weights only.
    """
    info = check_model(family, norm=norm, width=width, image_size=image_size)
    if family not in _MAKERS:
        raise UserError(f"model {family!r} has no skeleton; build it")
    with torch.device("meta"):
        return _MAKERS[family](
            num_classes, channels, as_width(width), norm or info.default_norm, image_size
        )


def state_bytes(model: nn.Module) -> int:
    """Return the bytes of all tensors of the state dict: what an upload of the model weighs."""
    return sum(t.numel() * t.element_size() for t in model.state_dict().values())
