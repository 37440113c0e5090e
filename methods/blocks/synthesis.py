"""Synthesis: a generator and its noise are trained to make one batch of useful images.

DENSE (arXiv 2112.12371), Co-Boosting (arXiv 2402.15070) and the DENSE baseline inside
Co-Boosting's code share this loop and differ by the switches of :class:`Synthesis`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from benchmark.errors import DivergedError, UserError
from benchmark.images import Normalization
from methods.blocks.augment import random_crop_and_flip
from methods.blocks.bn_statistics import BatchNormStatistics
from methods.blocks.ensemble import ClientEnsemble
from methods.blocks.losses import adversarial_loss, hard_weighted_cross_entropy
from methods.blocks.runtime import Precision, draw_integers, draw_normal, frozen


class Synthesis(BaseModel):
    """Settings of the synthesis; the defaults are those of DENSE's README command.

    Parameters
    ----------
    onehot, adversarial, batch_norm : float
        Weights of the cross-entropy, of the disagreement with the student and of the
        batch-norm statistics. (In DENSE's published code the last has no effect: its hooks
        never attach. Hence 0.)
    hardness : float
        Exponent of the (1 - p) weights on the cross-entropy; 0 is plain cross-entropy.
    temperature : float
        Temperature T of the disagreement; its factor is T².
    masked : bool
        Count only images on which ensemble and student predict different classes.
    sorted_targets : bool
        Sort the random target classes.
    crop_padding, flip : int, bool
        Differentiable augmentation between generator and classifiers.
    clip_norm : float or None
        Largest gradient norm of the generator's weights (the noise is not part of it).
    learning_rate, beta1, beta2 : float
        Adam, for generator and noise alike; made anew for every batch.
    batch_norm_average : bool
        Divide the batch-norm term by the number of clients.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    onehot: float = Field(default=1.0, ge=0)
    adversarial: float = Field(default=1.0, ge=0)
    batch_norm: float = Field(default=0.0, ge=0)
    hardness: float = Field(default=0.0, ge=0)
    temperature: float = Field(default=1.0, gt=0)
    masked: bool = True
    sorted_targets: bool = True
    crop_padding: int = Field(default=4, ge=0)
    flip: bool = True
    clip_norm: float | None = Field(default=None, gt=0)
    learning_rate: float = Field(default=1e-3, gt=0)
    beta1: float = Field(default=0.5, ge=0, lt=1)
    beta2: float = Field(default=0.999, ge=0, lt=1)
    batch_norm_average: bool = False


#: DENSE as its own repository has it (README command).
DENSE_SYNTHESIS = Synthesis()

#: DENSE as Co-Boosting's repository has it (``dense.sh``).
DENSE_CB_SYNTHESIS = Synthesis(
    temperature=3.0, crop_padding=0, flip=False, clip_norm=10.0, batch_norm_average=True
)

#: Co-Boosting (``co_boosting.sh``).
CO_BOOSTING_SYNTHESIS = DENSE_CB_SYNTHESIS.model_copy(
    update={"hardness": 1.0, "masked": False, "sorted_targets": False}
)


@dataclass(frozen=True)
class Synthesised:
    """What a synthesis made.

    Parameters
    ----------
    images : Tensor
        [B, C, H, W] in unit range, without augmentation: the batch of the lowest loss.
    targets : Tensor
        [B] int64 classes the images were made for.
    losses : Tensor
        [steps], the loss before each step.
    best_loss : Tensor
        Loss of the batch that was kept, a scalar.
    """

    images: Tensor
    targets: Tensor
    losses: Tensor
    best_loss: Tensor


def draw_targets(
    count: int,
    num_classes: int,
    settings: Synthesis,
    generator: torch.Generator,
    device: torch.device,
) -> Tensor:
    """Return ``count`` random target classes, sorted if the settings say so."""
    targets = draw_integers(num_classes, count, generator, device)
    return targets.sort().values if settings.sorted_targets else targets


def synthesis_loss(
    teacher_logits: Tensor,
    student_logits: Tensor,
    targets: Tensor,
    settings: Synthesis,
    batch_norm: Tensor | None = None,
) -> Tensor:
    """Return the generator's loss, a scalar; nothing is detached but weights and mask.

    Parameters
    ----------
    teacher_logits, student_logits : Tensor
        [B, classes] on the same images.
    targets : Tensor
        [B] int64.
    settings : Synthesis
        Weights and switches.
    batch_norm : Tensor, optional
        The batch-norm statistics term.
    """
    onehot = hard_weighted_cross_entropy(teacher_logits, targets, settings.hardness)
    disagreement = adversarial_loss(
        teacher_logits, student_logits, temperature=settings.temperature, masked=settings.masked
    )
    loss = settings.onehot * onehot + settings.adversarial * disagreement
    return loss if batch_norm is None else loss + settings.batch_norm * batch_norm


@contextmanager
def batch_norm_term(
    teacher: Callable[[Tensor], Tensor], ensemble: ClientEnsemble | None, settings: Synthesis
) -> Iterator[Callable[[Tensor], Tensor] | None]:
    """Make the batch-norm term: to be called with the images *after* the teacher saw them.

    Hooks are registered once on entering and removed on leaving, and not at all when the
    term has no weight. If the teacher runs the same clients its forward pass is used,
    otherwise the clients are run.

    Raises
    ------
    ValueError
        If the term has a weight and there is no ensemble to take statistics from.
    """
    if settings.batch_norm == 0:
        yield None
        return
    if ensemble is None:
        raise ValueError("batch_norm is above 0, which needs the ensemble of client models")
    shared = getattr(teacher, "ensemble", None) is ensemble
    divisor = len(ensemble) if settings.batch_norm_average else 1
    with ExitStack() as stack:
        stack.enter_context(ensemble.looping())
        readers = [stack.enter_context(BatchNormStatistics(client)) for client in ensemble.clients]

        def term(images: Tensor) -> Tensor:
            if not shared:
                ensemble(images)
            return torch.stack([reader.loss() for reader in readers]).sum() / divisor

        yield term


class _Best:
    """The batch of the lowest loss so far, compared on the device without waiting for it."""

    def __init__(self) -> None:
        self._losses: list[Tensor] = []
        self._loss: Tensor | None = None
        self._images: Tensor | None = None

    def see(self, loss: Tensor, images: Tensor) -> None:
        """Take note of a batch and of its loss before the step; the first is always kept."""
        if self._loss is None or self._images is None:
            self._loss, self._images = loss.nan_to_num(torch.inf, torch.inf, -torch.inf), images
        else:
            better = loss < self._loss
            self._loss = torch.where(better, loss, self._loss)
            self._images = torch.where(better, images, self._images)
        self._losses.append(loss)

    def result(self, targets: Tensor) -> Synthesised:
        """Return what was kept; the only place that waits for the device."""
        losses = torch.stack(self._losses)
        if self._loss is None or self._images is None or not bool(torch.isfinite(self._loss)):
            step = int((~torch.isfinite(losses)).nonzero()[0])
            raise DivergedError("synthesis", step, f"loss is {float(losses[step])}")
        return Synthesised(self._images, targets, losses, self._loss)


def synthesise(
    generator: nn.Module,
    noise: Tensor,
    targets: Tensor,
    teacher: Callable[[Tensor], Tensor],
    student: nn.Module,
    *,
    steps: int,
    settings: Synthesis,
    normalization: Normalization,
    stream: torch.Generator,
    ensemble: ClientEnsemble | None = None,
    precision: Precision | None = None,
) -> Synthesised:
    """Train a generator and its noise for some steps and return the best batch on the way.

    The best batch is tracked on the device: no step waits for the host. The student is in
    eval mode and gathers no weight gradients meanwhile.

    Parameters
    ----------
    generator : nn.Module
        Noise to unit-range images; trained in place, in train mode.
    noise : Tensor
        [B, noise_size] starting noise, left as it is.
    targets : Tensor
        [B] int64 classes, the same at every step.
    teacher : callable
        Images in classifier range to logits, weights frozen.
    student : nn.Module
        The global model so far.
    steps : int
        Optimiser steps, at least 1.
    settings : Synthesis
        Losses, optimiser, augmentation.
    normalization : Normalization
        From unit range to classifier range.
    stream : torch.Generator
        Source of the augmentation's draws.
    ensemble : ClientEnsemble, optional
        Whose batch-norm statistics count, if ``settings.batch_norm`` is above 0.
    precision : Precision, optional
        Autocast and layout of generator and student (a teacher has its own).

    Raises
    ------
    DivergedError
        If no step had a finite loss.
    UserError
        If no gradient flows through the teacher.
    """
    if steps < 1:
        raise ValueError(f"{steps} synthesis steps make no image; at least 1 is needed")
    precision = precision or Precision()
    noise = noise.detach().clone().requires_grad_(True)
    optimizer = torch.optim.Adam(
        [*generator.parameters(), noise],
        lr=settings.learning_rate,
        betas=(settings.beta1, settings.beta2),
    )
    best = _Best()
    generator.train()
    with frozen(student), batch_norm_term(teacher, ensemble, settings) as term:
        for _ in range(steps):
            images = precision.run(generator, noise)
            view = random_crop_and_flip(
                images, stream, padding=settings.crop_padding, flip=settings.flip
            )
            inputs = normalization.from_unit(view)
            teacher_logits, student_logits = teacher(inputs), precision.run(student, inputs)
            if not teacher_logits.requires_grad:
                raise UserError(
                    "a generator can't learn from this teacher: no gradient flows through it; "
                    "choose other images or another teacher"
                )
            statistics = term(inputs) if term else None
            loss = synthesis_loss(teacher_logits, student_logits, targets, settings, statistics)
            best.see(loss.detach(), images.detach())
            optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward(loss)
            if settings.clip_norm is not None:
                nn.utils.clip_grad_norm_(generator.parameters(), settings.clip_norm)
            optimizer.step()
    return best.result(targets)


def draw_noise(count: int, size: int, generator: torch.Generator, like: Tensor) -> Tensor:
    """Return noise [count, size] ~ N(0, 1) with the device and dtype of ``like``."""
    return draw_normal((count, size), generator, like)
