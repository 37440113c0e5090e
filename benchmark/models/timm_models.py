"""Any timm classifier as a :class:`~benchmark.models.base.Classifier`, at width 1."""

from __future__ import annotations

import difflib
from typing import Any

import timm
import torch
from torch import Tensor, nn

from benchmark.errors import UserError
from benchmark.models.base import Classifier
from benchmark.models.registry import TIMM_PREFIX
from benchmark.seeds import seeded_global


class TimmClassifier(Classifier):
    """A timm backbone without its classifier, and that classifier as ``head``.

    Parameters
    ----------
    backbone : nn.Module
        A timm model whose classifier was taken away, mapping images to features [B, F].
    head : nn.Linear
        The classifier taken from it.
    """

    scalable = False

    def __init__(self, backbone: nn.Module, head: nn.Linear) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head

    def features(self, images: Tensor) -> Tensor:
        """Return the backbone's pooled features, [B, F]."""
        out: Tensor = self.backbone(images)
        return out


def check_timm_name(name: str) -> None:
    """Check that timm knows a model.

    Parameters
    ----------
    name : str
        A timm model name, without the ``timm:`` prefix.

    Raises
    ------
    UserError
        If it does not, with the closest names.
    """
    if timm.is_model(name):
        return
    close = difflib.get_close_matches(name, timm.list_models(), n=3)
    hint = f"closest: {', '.join(close)}" if close else "see timm.list_models()"
    raise UserError(f"timm has no model {name!r}; {hint}")


def build_timm(
    name: str, *, num_classes: int, channels: int, image_size: int, generator: torch.Generator
) -> TimmClassifier:
    """Build a randomly initialised timm classifier.

    timm draws from PyTorch's global stream, which is therefore seeded from ``generator`` and
    restored afterwards.

    Parameters
    ----------
    name : str
        A timm model name, without the ``timm:`` prefix.
    num_classes, channels, image_size : int
        Logits, image channels, image side in pixels.
    generator : torch.Generator
        Source of the initial weights; the model is put on its device.

    Raises
    ------
    UserError
        If timm does not know the model, or the model does not fit the images or the contract of
        pooled features followed by one linear layer.
    """
    check_timm_name(name)
    label = f"{TIMM_PREFIX}{name}"
    config = timm.get_pretrained_cfg(name)
    sized: dict[str, Any] = {}
    if config is not None and config.fixed_input_size:
        sized["img_size"] = image_size
    try:
        with seeded_global(generator):
            backbone: Any = timm.create_model(
                name, pretrained=False, num_classes=num_classes, in_chans=channels, **sized
            )
    except (TypeError, ValueError, AssertionError, RuntimeError) as error:
        raise UserError(
            f"model {label!r} cannot be built for {channels}x{image_size}x{image_size} images: "
            f"{_first_line(error)}"
        ) from error
    head = backbone.get_classifier()
    if not isinstance(head, nn.Linear):
        raise UserError(f"model {label!r} does not end in one linear layer; choose another")
    backbone.reset_classifier(0)
    model = TimmClassifier(backbone, head)
    _check_features(label, model, channels, image_size)
    return model.to(generator.device)


@torch.no_grad()
def _check_features(label: str, model: TimmClassifier, channels: int, image_size: int) -> None:
    """Run one black image through the backbone: only then a wrong input size shows."""
    model.eval()
    try:
        features = model.features(torch.zeros(1, channels, image_size, image_size))
    except (RuntimeError, ValueError, AssertionError, TypeError) as error:
        raise UserError(
            f"model {label!r} does not take {channels}x{image_size}x{image_size} images: "
            f"{_first_line(error)}"
        ) from error
    if not isinstance(features, Tensor) or features.shape != (1, model.num_features):
        raise UserError(f"model {label!r} gives no pooled feature vector; choose another")
    model.train()


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
