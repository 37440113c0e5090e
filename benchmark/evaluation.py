"""Evaluation: what a model predicts, image by image, and the rule that picks its accuracy."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmark.errors import DivergedError, UserError
from benchmark.flops import operations
from benchmark.images import Normalization
from benchmark.training.batches import check_images
from benchmark.training.precision import moved


@dataclass(frozen=True)
class Evaluation:
    """How well a model classifies a set of images.

    Parameters
    ----------
    accuracy : float
        Share of right predictions, in [0, 1].
    loss : float
        Mean negative log-likelihood, nats.
    per_class : tuple of (float or None)
        Share of right predictions among the images of each class, ``None`` for absent ones.
    confusion : tuple of tuple of int
        ``confusion[i][j]`` images of class i were predicted as class j.
    n : int
        Number of images.
    """

    accuracy: float
    loss: float
    per_class: tuple[float | None, ...]
    confusion: tuple[tuple[int, ...], ...]
    n: int


def evaluate(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    normalization: Normalization,
    num_classes: int,
    device: torch.device | str | None = None,
    batch_size: int = 500,
) -> Evaluation:
    """Evaluate ``model`` in fp32 and eval mode; its mode is restored.

    Parameters
    ----------
    model : nn.Module
        From images [B, C, H, W] in classifier range to logits [B, num_classes].
    images : Tensor
        uint8 [n, C, H, W], n ≥ 1, anywhere.
    labels : Tensor
        int64 [n] in [0, num_classes).
    normalization : Normalization
        To classifier range.
    num_classes : int
        Number of classes.
    device : torch.device or str, optional
        Where the model is; found out if not given.
    batch_size : int
        Images at a time; no prediction depends on it.

    Raises
    ------
    UserError
        If there are no images.
    ValueError
        If images, labels, normalisation and logits don't fit each other.
    DivergedError
        If a logit is NaN or infinite: such a model has no accuracy. The step is the index of
        the first such image.
    """
    if len(labels) == 0:
        raise UserError("nothing to evaluate: the evaluation set holds no images")
    check_images(images, labels, normalization)
    logits = predict(
        model, images, normalization=normalization, device=device, batch_size=batch_size
    )
    labels = labels.to(logits.device)
    _check_logits(logits, labels, num_classes)
    cells = torch.bincount(labels * num_classes + logits.argmax(1), minlength=num_classes**2)
    confusion = cells.view(num_classes, num_classes).cpu()
    right, held = confusion.diagonal().tolist(), confusion.sum(1).tolist()
    return Evaluation(
        accuracy=sum(right) / len(labels),
        # In fp64, so that the mean does not depend on the number of threads either.
        loss=float(F.cross_entropy(logits.double(), labels)),
        per_class=tuple(r / h if h else None for r, h in zip(right, held, strict=True)),
        confusion=tuple(tuple(row) for row in confusion.tolist()),
        n=len(labels),
    )


@torch.no_grad()
def predict(
    model: nn.Module,
    images: Tensor,
    *,
    normalization: Normalization,
    device: torch.device | str | None = None,
    batch_size: int = 500,
) -> Tensor:
    """Return ``model``'s logits in fp32 and eval mode; its mode is restored.

    Parameters
    ----------
    model : nn.Module
        From images [B, C, H, W] in classifier range to logits.
    images : Tensor
        uint8 [n, C, H, W], anywhere.
    normalization : Normalization
        To classifier range.
    device : torch.device or str, optional
        Where the model is; found out if not given.
    batch_size : int
        Images at a time.

    Returns
    -------
    Tensor
        float32 [n, classes] on the model's device.

    Raises
    ------
    ValueError
        If there are no images, or the batch size is below 1.
    """
    if batch_size < 1 or len(images) == 0:
        raise ValueError(f"can't predict {len(images)} images in batches of {batch_size}")
    place = torch.device(device) if device is not None else _device_of(model)
    with _eval_mode(model), torch.autocast(place.type, enabled=False):
        parts = [
            model(_inputs(moved(images[start : start + batch_size], place), normalization)).float()
            for start in range(0, len(images), batch_size)
        ]
    return torch.cat(parts)


def batch_gap(
    model: nn.Module,
    images: Tensor,
    *,
    normalization: Normalization,
    device: torch.device | str | None = None,
) -> float:
    """Return by how much a logit moves with the other images of its batch, of the largest one.

    About 1e-6 where each image is judged alone: rounding. A model that normalises with the
    statistics of its batch has some tenths.
    """
    told = [
        predict(model, images, normalization=normalization, device=device, batch_size=size)
        for size in (len(images), 1)
    ]
    return float((told[0] - told[1]).abs().max() / told[0].abs().max().clamp(min=1.0))


def inference_flops(
    model: nn.Module,
    image: Tensor,
    *,
    normalization: Normalization,
    device: torch.device | str | None = None,
) -> int:
    """Return the floating-point operations of classifying one image alone, what it cost to ask.

    Parameters
    ----------
    model : nn.Module
        From images [B, C, H, W] in classifier range to logits: one network, or many behind it.
    image : Tensor
        uint8 [1, C, H, W], anywhere.
    normalization : Normalization
        To classifier range.
    device : torch.device or str, optional
        Where the model is; found out if not given.

    Returns
    -------
    int
        A multiply-add counts two; matrix products, convolutions and attention are counted.
    """
    return operations(lambda: predict(model, image, normalization=normalization, device=device))


def _inputs(images: Tensor, normalization: Normalization) -> Tensor:
    # Channels-last convolutions are the faster ones, whatever the order of the weights. Permuted
    # by hand, because for a single channel ``contiguous`` leaves the strides as they are.
    pixels = normalization.from_uint8(images).permute(0, 2, 3, 1).contiguous()
    return pixels.permute(0, 3, 1, 2)


def _device_of(model: nn.Module) -> torch.device:
    for tensor in (*model.parameters(), *model.buffers()):
        return tensor.device
    return torch.device("cpu")


@contextmanager
def _eval_mode(model: nn.Module) -> Iterator[None]:
    """Put all modules in eval mode, then each back in its own, mixed modes included."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def _check_logits(logits: Tensor, labels: Tensor, num_classes: int) -> None:
    if logits.shape != (len(labels), num_classes):
        raise ValueError(
            f"logits have shape {list(logits.shape)}, expected {[len(labels), num_classes]}"
        )
    if int(labels.min()) < 0 or int(labels.max()) >= num_classes:
        raise ValueError(f"labels lie outside 0 … {num_classes - 1}")
    bad = ~torch.isfinite(logits).all(1)
    if bool(bad.any()):
        said = f"{int(bad.sum())} of {len(bad)} images have no finite logits"
        raise DivergedError("the model's answers", None, said)


class SelectionRule(Protocol):
    """Which of a run's evaluations is the accuracy of record."""

    @property
    def name(self) -> str:
        """Name in records and tables."""

    @property
    def description(self) -> str:
        """One sentence, printed by the engine."""

    def select(self, accuracies: list[float]) -> float:
        """Return the accuracy of record from those of a run, oldest first."""


@dataclass(frozen=True)
class Last:
    """The accuracy of record is that of the final model, never the best one on the way."""

    name: str = field(default="last", init=False)
    description: str = field(
        default="The accuracy of record is that of the final model; nothing is selected on the "
        "test set.",
        init=False,
    )

    def select(self, accuracies: list[float]) -> float:
        """Return the last accuracy.

        Raises
        ------
        ValueError
            If there is none.
        """
        if not accuracies:
            raise ValueError("no accuracy to select from")
        return accuracies[-1]


SELECTION = Last()
"""The only rule."""
