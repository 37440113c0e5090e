"""Three parts make a distillation method, and this is the loop that joins them.

::

    for epoch:  pool    <- images.make(teacher, student)     who invents the images
                teacher <- teacher.improve(pool)             whom to believe on an image
                student <- student.learn(pool, teacher)      how the global model learns

DENSE, Co-Boosting and Mosaic are presets of parts; any other combination runs as well.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from benchmark.contract import Generated
from methods.blocks.runtime import kept_modes
from methods.blocks.schedule import EpochPlan


@dataclass(frozen=True)
class Batch:
    """Images of a pool.

    Parameters
    ----------
    images : Tensor
        [B, C, H, W] in classifier range.
    labels : Tensor or None
        [B] int64 class each image was made for, ``None`` where the source knows none.
    keys : Tensor or None
        [B] int64, at least 0: equal keys mean equal images, in every batch of one pool and
        however it grows. ``None`` where each image is read as it comes once only.
    """

    images: Tensor
    labels: Tensor | None
    keys: Tensor | None = None


class Pool(Protocol):
    """Images to learn from: a stored collection, or an endless source of fresh ones."""

    @property
    def size(self) -> int | None:
        """Number of stored images; ``None`` if the source is endless."""

    def batches(
        self, batch_size: int, *, generator: torch.Generator, images: int | None = None
    ) -> Iterator[Batch]:
        """Yield batches that hold ``images`` images in all (default: one shuffled pass)."""

    def older(self) -> Pool | None:
        """Return the pool as it was before the newest images, ``None`` if it was empty.

        An endless source returns itself: none of its images is newer than another.
        """


class Report(Protocol):
    """A passive observer: nothing it does or returns reaches the method."""

    def __call__(
        self, step: int, total: int, scalars: Mapping[str, float], model: nn.Module
    ) -> None:
        """Take note that ``step`` of ``total`` images were distilled into ``model``."""


@dataclass
class Counters:
    """What a run spent, counted where it is spent.

    Parameters
    ----------
    generator_steps, generated_images, distilled_images : int
        The three quantities a budget fixes.
    student_steps : int
        Optimiser steps of the student.
    weighed_images : int
        Images on which a teacher was improved.
    """

    generator_steps: int = 0
    generated_images: int = 0
    distilled_images: int = 0
    student_steps: int = 0
    weighed_images: int = 0


@dataclass
class Epoch:
    """What parts are told about the current epoch, and where they leave notes.

    Parameters
    ----------
    plan : EpochPlan
        This epoch's share of the budget.
    counters : Counters
        Counts of the run so far; parts add what they spend.
    total : int
        Distilled images of the whole run.
    observer : Report or None
        Told of progress.
    scalars : dict
        Numbers of this epoch by name, for the observer.
    """

    plan: EpochPlan
    counters: Counters
    total: int
    observer: Report | None = None
    scalars: dict[str, float] = field(default_factory=dict)

    def report(self, model: nn.Module) -> None:
        """Show ``model`` to the observer, and undo what looking at it changed.

        Train/eval flags and the global random streams are put back, so that a run with
        an observer and one without end with the same bits.
        """
        if self.observer is None:
            return
        cuda = [p.device for p in model.parameters() if p.device.type == "cuda"][:1]
        with kept_modes(model), torch.random.fork_rng(devices=cuda):
            self.observer(self.counters.distilled_images, self.total, dict(self.scalars), model)


class Student(Protocol):
    """How the global model learns."""

    @property
    def model(self) -> nn.Module:
        """The global model, from images in classifier range to logits."""

    def learn(self, epoch: Epoch, pool: Pool, teacher: Teacher) -> None:
        """Distil ``teacher`` into the model on ``epoch.plan.distilled_images`` images."""

    def finish(self, pool: Pool) -> None:
        """Do what is left after the last epoch (for instance batch-norm re-estimation)."""


class Teacher(Protocol):
    """Whom to believe on an image. Implementations are modules, and can be evaluated."""

    @property
    def fixed(self) -> bool:
        """Whether the answer to an image is the same in all epochs, so that it may be kept."""

    def __call__(self, images: Tensor) -> Tensor:
        """Return logits [B, classes] for images in classifier range, differentiably."""

    def improve(self, epoch: Epoch, pool: Pool) -> None:
        """Get better with the help of the pool, in place; may do nothing."""


class Images(Protocol):
    """Who invents the images."""

    def make(self, epoch: Epoch, teacher: Teacher, student: Student) -> Pool:
        """Return the pool of this epoch."""


@runtime_checkable
class Generative(Protocol):
    """Images that a generator made, and that can be shown to the harness."""

    def generated(self) -> Generated:
        """Return the images that the student learned from, or a sample of them."""


def distil(
    schedule: Sequence[EpochPlan],
    images: Images,
    teacher: Teacher,
    student: Student,
    *,
    report: Report | None = None,
) -> Counters:
    """Run the loop of the three parts.

    Parameters
    ----------
    schedule : sequence of EpochPlan
        One entry an epoch, see :func:`methods.blocks.schedule.derive_schedule`.
    images, teacher, student
        The parts. Teacher and student change in place.
    report : Report, optional
        Told after each epoch; the last call sees the finished model.

    Returns
    -------
    Counters
        What was spent.
    """
    counters = Counters()
    total = sum(plan.distilled_images for plan in schedule)
    for plan in schedule:
        epoch = Epoch(plan, counters, total, report)
        pool = images.make(epoch, teacher, student)
        teacher.improve(epoch, pool)
        student.learn(epoch, pool, teacher)
        if plan is schedule[-1]:
            student.finish(pool)
        epoch.report(student.model)
    return counters
