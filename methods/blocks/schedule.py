"""From a budget to a schedule: what each epoch of a distillation method may spend.

A profile fixes generator steps, generated images and distilled images for all methods
alike, and not epochs: one pass over an ever-growing pool per epoch makes distillation
grow with the square of the epochs. The rule (ours) keeps the shape of the published
schedule, so that with the published budget it *is* the published schedule.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from benchmark.errors import UserError


@dataclass(frozen=True)
class Budget:
    """What a server may spend in a whole run.

    Parameters
    ----------
    generator_steps : int
        Optimiser steps of image generators.
    generated_images : int
        Images kept for distillation.
    distilled_images : int
        Images the student learns from, each repetition counted.

    Raises
    ------
    UserError
        If a number is below 1.
    """

    generator_steps: int
    generated_images: int
    distilled_images: int

    def __post_init__(self) -> None:
        for name in ("generator_steps", "generated_images", "distilled_images"):
            if (value := getattr(self, name)) < 1:
                raise UserError(f"budget {name} is {value}; it must be at least 1")

    def scaled(self, factor: float) -> Budget:
        """Return the budget times ``factor``, each part rounded and at least 1."""
        parts = (self.generator_steps, self.generated_images, self.distilled_images)
        return Budget(*(max(1, round(part * factor)) for part in parts))


@dataclass(frozen=True)
class EpochPlan:
    """One epoch's share of the budget.

    Parameters
    ----------
    index, epochs : int
        This epoch (0-based) and how many there are.
    generator_steps, generated_images, distilled_images : int
        What this epoch spends of each.
    """

    index: int
    epochs: int
    generator_steps: int
    generated_images: int
    distilled_images: int


def shares(total: int, weights: Sequence[int]) -> list[int]:
    """Split ``total`` in whole parts proportional to ``weights``; they sum to ``total``.

    Each running sum is the exact one rounded down, so no part is off by one or more.
    """
    whole = sum(weights)
    marks = [total * mark // whole for mark in accumulate(weights)]
    return [mark - previous for mark, previous in zip(marks, [0, *marks[:-1]], strict=True)]


def derive_schedule(budget: Budget, synthesis_batch: int) -> tuple[EpochPlan, ...]:
    """Share a budget out over epochs of at most ``synthesis_batch`` new images (ours).

    As few epochs as that allows; equal shares of steps and images; distilled images in
    proportion to the pool's size after each epoch.

    Parameters
    ----------
    budget : Budget
        What the whole run may spend; the schedule's sums equal it exactly.
    synthesis_batch : int
        Images generated together, at least 1.

    Raises
    ------
    UserError
        If the steps are fewer than the epochs (an epoch without a step makes no image).
    """
    if synthesis_batch < 1:
        raise UserError(f"synthesis batch is {synthesis_batch}; it must be at least 1")
    epochs = -(-budget.generated_images // synthesis_batch)
    if budget.generator_steps < epochs:
        raise UserError(
            f"budget of {budget.generator_steps} generator steps is too small for {epochs} "
            f"epochs of {synthesis_batch} images; allow at least {epochs} steps, "
            "or a larger synthesis batch"
        )
    even = [1] * epochs
    steps = shares(budget.generator_steps, even)
    images = shares(budget.generated_images, even)
    distilled = shares(budget.distilled_images, list(accumulate(images)))
    return tuple(
        EpochPlan(index, epochs, steps[index], images[index], distilled[index])
        for index in range(epochs)
    )


def single_epoch(distilled_images: int) -> tuple[EpochPlan, ...]:
    """Return the schedule of a method that distils once and trains no server generator."""
    if distilled_images < 1:
        raise UserError(f"distilled images is {distilled_images}; it must be at least 1")
    return (EpochPlan(0, 1, 0, 0, distilled_images),)


def split_epoch(plan: EpochPlan, epochs: int) -> tuple[EpochPlan, ...]:
    """Share one epoch out over several equal ones, as far as its images go (ours)."""
    epochs = max(1, min(epochs, plan.distilled_images))
    even = [1] * epochs
    parts = zip(
        shares(plan.generator_steps, even),
        shares(plan.generated_images, even),
        shares(plan.distilled_images, even),
        strict=True,
    )
    return tuple(EpochPlan(index, epochs, *part) for index, part in enumerate(parts))


def published_budget(epochs: int, generator_steps: int, synthesis_batch: int) -> Budget:
    """Return what the published DENSE and Co-Boosting loops spend (arXiv 2112.12371, 2402.15070).

    Every epoch adds one batch to the pool and then passes over the whole pool once.

    Parameters
    ----------
    epochs, generator_steps, synthesis_batch : int
        Server epochs E, generator steps per epoch G, images per epoch.
    """
    return Budget(
        generator_steps=epochs * generator_steps,
        generated_images=epochs * synthesis_batch,
        distilled_images=synthesis_batch * epochs * (epochs + 1) // 2,
    )
