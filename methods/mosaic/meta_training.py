"""Training of the meta model on prototypes or on generated images, and its weight average.

The published loop asks for epochs but takes one batch of each (arXiv:2505.19699): what
counts is a number of steps, each on a random batch, and so it is written here.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Adam

from benchmark.errors import DivergedError
from benchmark.seeds import seeded_global
from methods.mosaic.experts import Experts
from methods.mosaic.meta import MetaTransformer, examples_together
from methods.mosaic.prototypes import Prototypes
from methods.mosaic.settings import MetaSettings

MetaBatch = tuple[Tensor, Tensor]
"""Expert logits [B, E, C] and labels [B]."""
BatchSource = Callable[[torch.Generator], MetaBatch]


class PrototypeBatches:
    """Random batches of prototypes, seen by the experts' heads.

    Parameters
    ----------
    experts : Experts
        Their heads read the prototypes' features.
    prototypes : Prototypes
        All clients' prototypes, on the device to compute on.
    batch_size : int
        Prototypes of a batch, drawn without replacement; all of them if there are fewer.

    Raises
    ------
    ValueError
        If there is no prototype.
    """

    def __init__(self, experts: Experts, prototypes: Prototypes, batch_size: int) -> None:
        if not len(prototypes):
            raise ValueError("the meta model needs at least one prototype")
        self._experts, self._prototypes, self._batch_size = experts, prototypes, batch_size

    def __call__(self, random: torch.Generator) -> MetaBatch:
        """Draw a batch."""
        order = torch.randperm(len(self._prototypes), generator=random, device=random.device)
        index = order[: self._batch_size].to(self._prototypes.labels.device)
        features = self._prototypes.features[index]
        return self._experts.head_logits(features), self._prototypes.labels[index]


class ImageBatches:
    """Batches of generated images, seen by the whole experts.

    Parameters
    ----------
    experts : Experts
        They read the images.
    draw : callable
        From (count, random stream) to images [count, C, H, W] in classifier range and
        the client [count] that made each, as :meth:`GeneratorMixture.draw`.
    label : callable
        From images, owners and expert logits to labels [count].
    batch_size : int
        Images of a batch.
    """

    def __init__(
        self,
        experts: Experts,
        draw: Callable[[int, torch.Generator], tuple[Tensor, Tensor]],
        label: Callable[[Tensor, Tensor, Tensor], Tensor],
        batch_size: int,
    ) -> None:
        self._experts, self._draw, self._label = experts, draw, label
        self._batch_size = batch_size

    def __call__(self, random: torch.Generator) -> MetaBatch:
        """Draw a batch."""
        images, owners = self._draw(self._batch_size, random)
        logits = self._experts.logits(images)
        return logits, self._label(images, owners, logits)


def mean_expert_label(_images: Tensor, _owners: Tensor, logits: Tensor) -> Tensor:
    """Label generated images [B] by the mean of the experts' logits [B, E, C] (ours)."""
    return logits.mean(dim=1).argmax(dim=1)


class WeightAverage:
    """Exponential moving average of a model's parameters.

    ``a_t = decay · a_{t-1} + (1 - decay) · w_t`` from ``a_0 = w_0`` (published). After t
    updates the initial weights still count for decay^t: 22 % after 150 at 0.99. With
    bias correction they are taken out again, ``(a_t - decay^t w_0) / (1 - decay^t)``.

    Parameters
    ----------
    model : Module
        Its present parameters are w_0.
    decay : float
        In [0, 1).
    bias_correction : bool
        Whether :meth:`apply_to` takes the initial weights out.
    """

    def __init__(self, model: nn.Module, decay: float, *, bias_correction: bool) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"decay must lie in [0, 1), got {decay}")
        self._decay, self._corrected = decay, bias_correction
        self._updates = 0
        self._initial = [p.detach().clone() for p in model.parameters()]
        # Kept from zero, so that the initial weights can enter with any share afterwards.
        self._sums = [torch.zeros_like(p) for p in self._initial]

    @property
    def initial_share(self) -> float:
        """Weight that the initial parameters have in the average."""
        plain: float = self._decay**self._updates
        return 0.0 if self._corrected and self._updates else plain

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Take in the model's present parameters."""
        self._updates += 1
        for total, parameter in zip(self._sums, model.parameters(), strict=True):
            total.lerp_(parameter.detach(), 1 - self._decay)

    @torch.no_grad()
    def apply_to(self, model: nn.Module) -> None:
        """Write the average into ``model``'s parameters."""
        rest: float = self._decay**self._updates
        for total, first, parameter in zip(
            self._sums, self._initial, model.parameters(), strict=True
        ):
            if self._corrected and self._updates:
                parameter.copy_(total / (1 - rest))
            else:
                parameter.copy_(total + rest * first)


@dataclass(frozen=True)
class TrainedMeta:
    """Result of the meta model's training.

    Parameters
    ----------
    model : MetaTransformer
        The weight average, frozen, in evaluation mode: the one to use.
    current : MetaTransformer
        The last iterate.
    losses : Tensor
        Cross-entropy of each step, [steps] float32 on the CPU.
    initial_share : float
        Weight of the random initial parameters in ``model``.
    """

    model: MetaTransformer
    current: MetaTransformer
    losses: Tensor
    initial_share: float


def _backward(meta: MetaTransformer, logits: Tensor, labels: Tensor) -> Tensor:
    """Add the gradients of the mean cross-entropy of a batch; return the loss, a scalar.

    A batch that takes too much memory is taken in pieces.
    """
    size = examples_together(meta.num_classes, logits.shape[1])
    if len(labels) <= size:
        whole = F.cross_entropy(meta(logits), labels)
        torch.autograd.backward(whole)
        return whole.detach()
    total = torch.zeros((), device=logits.device)
    for part, known in zip(torch.split(logits, size), torch.split(labels, size), strict=True):
        loss = F.cross_entropy(meta(part), known, reduction="sum") / len(labels)
        torch.autograd.backward(loss)
        total += loss.detach()
    return total


def train_meta(
    meta: MetaTransformer, batches: BatchSource, settings: MetaSettings, random: torch.Generator
) -> TrainedMeta:
    """Train ``meta`` in place: Adam on cross-entropy, one fresh batch a step.

    Parameters
    ----------
    meta : MetaTransformer
        On the device of the batches.
    batches : callable
        Draws a batch from the random stream.
    settings : MetaSettings
        Steps, learning rate and weight average.
    random : torch.Generator
        Stream of batches and dropout, on the device of ``meta``.

    Raises
    ------
    DivergedError
        If a loss is NaN or infinite.
    """
    average = WeightAverage(meta, settings.ema_decay, bias_correction=settings.bias_correction)
    optimizer = Adam(meta.parameters(), lr=settings.lr)
    losses: list[Tensor] = []
    meta.train()
    # PyTorch's dropout knows only the global stream: it is lent ours for the while.
    with seeded_global(random):
        for _ in range(settings.steps):
            logits, labels = batches(random)
            optimizer.zero_grad(set_to_none=True)
            losses.append(_backward(meta, logits, labels))
            optimizer.step()
            average.update(meta)
    history = torch.stack(losses).float().cpu()
    bad = (~history.isfinite()).nonzero().flatten()
    if len(bad):
        step = int(bad[0])
        raise DivergedError("meta model", step, f"loss is {float(history[step])}")
    model = copy.deepcopy(meta).eval().requires_grad_(False)
    average.apply_to(model)
    return TrainedMeta(model, meta, history, average.initial_share)
