"""How the global model learns: knowledge distillation on a pool of images.

Within an epoch neither the augmented images, nor their perturbation, nor the teacher's
logits depend on the student, so the teacher works ahead in large batches and the student
follows in small ones; and where an image comes again as it was, the teacher's answer is
remembered. The update equations are those of the published codes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from benchmark.errors import DivergedError, UserError
from benchmark.flops import counted
from benchmark.images import Normalization
from benchmark.seeds import seeded_global
from methods.blocks.batch_norm import reestimate_batch_norm
from methods.blocks.losses import distillation_loss
from methods.blocks.memory import TeacherMemory
from methods.blocks.parts import Batch, Epoch, Pool, Teacher
from methods.blocks.perturbation import Perturbation, perturb, random_directions
from methods.blocks.pool import grouped
from methods.blocks.runtime import Precision

#: From student and teacher logits [B, classes] to a scalar.
DistillationLoss = Callable[[Tensor, Tensor], Tensor]


class Distillation(BaseModel):
    """Settings of the distillation; the defaults are those of DENSE's README command.

    Parameters
    ----------
    optimizer : {"sgd", "adam"}
        One optimiser, with its state, for the whole run.
    learning_rate, momentum, weight_decay : float
        Of the optimiser; Adam has no momentum.
    cosine : bool
        Anneal the learning rate to 0, a step an epoch: lr/2 · (1 + cos(π e / E)).
    clip_norm : float or None
        Largest gradient norm of the student.
    temperature : float
        Temperature T of the loss T² · KL(teacher || student).
    batch_size : int
        Images an optimiser step.
    batch_norm : {"update", "freeze", "reestimate"}
        Train with batch statistics and update the running ones; or train in eval mode, on
        running statistics that stay as they are; or as the first, and re-estimate running
        statistics on the pool afterwards.
    reestimation_images : int
        Images of the re-estimation.
    perturbation : Perturbation or None
        Shift of the images towards harder ones, ``None`` for none.
    ahead : int
        Images the teacher computes together; bounds memory, changes no equation.
    report_every : int or None
        Student steps between reports inside an epoch; ``None``: only after each epoch.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    optimizer: Literal["sgd", "adam"] = "sgd"
    learning_rate: float = Field(default=0.005, gt=0)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    weight_decay: float = Field(default=0.0, ge=0)
    cosine: bool = False
    clip_norm: float | None = Field(default=None, gt=0)
    temperature: float = Field(default=20.0, gt=0)
    batch_size: int = Field(default=256, ge=1)
    batch_norm: Literal["update", "freeze", "reestimate"] = "update"
    reestimation_images: int = Field(default=4096, ge=2)
    perturbation: Perturbation | None = None
    ahead: int = Field(default=512, ge=1)
    report_every: int | None = Field(default=None, ge=1)


#: DENSE as its own repository has it (README command).
DENSE_DISTILLATION = Distillation()

#: DENSE as Co-Boosting's repository has it (``dense.sh``).
DENSE_CB_DISTILLATION = Distillation(
    learning_rate=0.01,
    weight_decay=1e-4,
    cosine=True,
    clip_norm=10.0,
    temperature=4.0,
    batch_size=128,
)

#: Co-Boosting (``co_boosting.sh``).
CO_BOOSTING_DISTILLATION = DENSE_CB_DISTILLATION.model_copy(update={"perturbation": Perturbation()})


@dataclass(frozen=True)
class Lesson:
    """What the student learns in one step: images and what the teacher says of them."""

    images: Tensor
    teacher_logits: Tensor


def lessons(
    batches: Iterator[Batch],
    teacher: TeacherMemory,
    *,
    ahead: int,
    shift: Callable[[Tensor, Tensor], Tensor] | None = None,
    directions: Callable[[Tensor], Tensor] | None = None,
) -> Iterator[Lesson]:
    """Let the teacher work ahead of the student.

    Random draws are made batch by batch, so that ``ahead`` does not change them.

    Parameters
    ----------
    batches : iterator of Batch
        The student's batches.
    teacher : TeacherMemory
        Images to logits.
    ahead : int
        Images looked at together; at least one batch.
    shift : callable, optional
        Perturbs images along directions, ``shift(images, directions)``.
    directions : callable, optional
        Draws the directions for a batch of images.
    """
    drawn: list[Tensor] = []

    def remembered() -> Iterator[Batch]:
        for batch in batches:
            if directions is not None:
                drawn.append(directions(batch.images))
            yield batch

    for group in grouped(remembered(), ahead):
        images = torch.cat([batch.images for batch in group])
        with counted():
            if shift is not None:
                # The look-ahead of `grouped` may have drawn for the next group already.
                mine = [drawn.pop(0) for _ in group]
                images = shift(images, torch.cat(mine))
            logits = teacher(images, _keys(group) if shift is None else None)
        sizes = [len(batch.images) for batch in group]
        for part, said in zip(torch.split(images, sizes), torch.split(logits, sizes), strict=True):
            yield Lesson(part, said)


def _keys(group: list[Batch]) -> Tensor | None:
    known = [batch.keys for batch in group if batch.keys is not None]
    return torch.cat(known) if len(known) == len(group) else None


def distil_step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    lesson: Lesson,
    loss_of: DistillationLoss,
    *,
    clip_norm: float | None = None,
    precision: Precision | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Take one optimiser step.

    Returns
    -------
    loss : Tensor
        Scalar, before the step; on the device.
    norm : Tensor or None
        Gradient norm before clipping, ``None`` if nothing is clipped.
    """
    student_logits = (precision or Precision()).run(model, lesson.images)
    loss = loss_of(student_logits, lesson.teacher_logits)
    optimizer.zero_grad(set_to_none=True)
    torch.autograd.backward(loss)
    norm = None
    if clip_norm is not None:
        norm = nn.utils.clip_grad_norm_(model.parameters(), clip_norm)
    optimizer.step()
    return loss.detach(), norm


class DistilledStudent:
    """A global model that learns from a teacher on a pool.

    Parameters
    ----------
    model : nn.Module
        From images in classifier range to logits; trained in place.
    settings : Distillation
        Optimiser, loss, batch-norm rule.
    normalization : Normalization
        Says what a unit pixel is, for the perturbation.
    num_classes : int
        Number of classes.
    generator : torch.Generator
        Source of order, augmentation, perturbation and dropout.
    loss : callable, optional
        Another loss than T² · KL, from student and teacher logits to a scalar.
    precision : Precision, optional
        Autocast and layout of the student (a teacher has its own).

    Raises
    ------
    UserError
        If the model has no trainable weight.
    """

    def __init__(
        self,
        model: nn.Module,
        settings: Distillation,
        *,
        normalization: Normalization,
        num_classes: int,
        generator: torch.Generator,
        loss: DistillationLoss | None = None,
        precision: Precision | None = None,
    ) -> None:
        if not any(parameter.requires_grad for parameter in model.parameters()):
            raise UserError("the student has no trainable weight; was it copied from a client?")
        self.settings = settings
        self._model = model
        self._normalization = normalization
        self._num_classes = num_classes
        self._generator = generator
        self._loss = loss or self._distillation_loss
        self._precision = precision or Precision()
        self._precision.prepare(model)
        self._optimizer = self._make_optimizer()
        self._memory: tuple[Teacher, Pool, TeacherMemory] | None = None

    @property
    def model(self) -> nn.Module:
        """The global model."""
        return self._model

    def _distillation_loss(self, student: Tensor, teacher: Tensor) -> Tensor:
        return distillation_loss(student, teacher, self.settings.temperature)

    def _make_optimizer(self) -> torch.optim.Optimizer:
        settings, weights = self.settings, list(self._model.parameters())
        if settings.optimizer == "adam":
            return torch.optim.Adam(
                weights, lr=settings.learning_rate, weight_decay=settings.weight_decay
            )
        return torch.optim.SGD(
            weights,
            lr=settings.learning_rate,
            momentum=settings.momentum,
            weight_decay=settings.weight_decay,
        )

    def _anneal(self, epoch: Epoch) -> None:
        factor = 1.0
        if self.settings.cosine:
            factor = (1 + math.cos(math.pi * epoch.plan.index / epoch.plan.epochs)) / 2
        for group in self._optimizer.param_groups:
            group["lr"] = self.settings.learning_rate * factor

    def _directions(self, images: Tensor) -> Tensor:
        return random_directions(len(images), self._num_classes, self._generator, images)

    def _lessons(self, epoch: Epoch, pool: Pool, teacher: Teacher) -> Iterator[Lesson]:
        settings = self.settings
        batches = pool.batches(
            settings.batch_size, generator=self._generator, images=epoch.plan.distilled_images
        )
        memory = self._remembering(teacher, pool)
        if settings.perturbation is None:
            return lessons(batches, memory, ahead=settings.ahead)
        shift = partial(
            perturb, teacher, settings=settings.perturbation, normalization=self._normalization
        )
        return lessons(
            batches, memory, ahead=settings.ahead, shift=shift, directions=self._directions
        )

    def _remembering(self, teacher: Teacher, pool: Pool) -> TeacherMemory:
        """Return the memory of earlier epochs if it still holds, or an empty one."""
        if self._memory is not None and teacher.fixed:
            whose, of_what, memory = self._memory
            if whose is teacher and of_what is pool:
                return memory
        self._memory = (teacher, pool, TeacherMemory(teacher))
        return self._memory[2]

    def learn(self, epoch: Epoch, pool: Pool, teacher: Teacher) -> None:
        """Distil the teacher on ``epoch.plan.distilled_images`` images of the pool.

        Raises
        ------
        DivergedError
            If a loss was NaN or infinite.
        """
        settings = self.settings
        first = epoch.counters.student_steps
        self._anneal(epoch)
        losses: list[Tensor] = []
        with seeded_global(self._generator):
            for lesson in self._lessons(epoch, pool, teacher):
                # Set at every step: an observer may have looked at the model in between.
                self._model.train(settings.batch_norm != "freeze")
                loss, _ = distil_step(
                    self._model,
                    self._optimizer,
                    lesson,
                    self._loss,
                    clip_norm=settings.clip_norm,
                    precision=self._precision,
                )
                losses.append(loss)
                epoch.counters.student_steps += 1
                epoch.counters.distilled_images += len(lesson.images)
                if settings.report_every and len(losses) % settings.report_every == 0:
                    self._note(epoch, losses, first)
                    epoch.report(self._model)
        if losses:
            self._note(epoch, losses, first)

    def _note(self, epoch: Epoch, losses: list[Tensor], first: int) -> None:
        values = torch.stack(losses)
        finite = torch.isfinite(values)
        if not bool(finite.all()):
            step = int((~finite).nonzero()[0])
            raise DivergedError("student", first + step, f"loss is {float(values[step])}")
        epoch.scalars["student/loss"] = float(values.mean())
        epoch.scalars["student/learning_rate"] = self._optimizer.param_groups[0]["lr"]

    def finish(self, pool: Pool) -> None:
        """Re-estimate batch-norm statistics on the pool, if that is the rule."""
        self._model.eval()
        if self.settings.batch_norm != "reestimate":
            return
        images = self.settings.reestimation_images
        if pool.size is not None:
            images = min(images, pool.size)
        batches = pool.batches(self.settings.batch_size, generator=self._generator, images=images)
        reestimate_batch_norm(self._model, (batch.images for batch in batches), self._precision)
