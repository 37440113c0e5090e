"""One DENSE epoch of ours against the plain way of doing the same mathematics, in one run.

``python -m benchmark.speed.dense_epoch`` takes one late epoch (images for a generator's steps,
then a pass over the whole pool) with five clients of family ``cnn`` on 1×32×32 images, in turns:
ours at the machine's precision, ours in fp32, the plain way (:mod:`benchmark.speed.dense_plain`).

Losses must be equal, and what that means is checked before anything is timed. Both ways make the
same random draws. In float64 a small epoch has the same losses, step by step, to nine digits: the
mathematics is the same. In fp32, at full size, every generator step has the same loss on the same
images to five digits, and the student's pass over the same pool the same mean loss to three: at
T = 20 it is 400 times a difference of nearly equal numbers. Left to themselves the two ways drift
apart in fp32, from a rounding at the first step: Adam divides a gradient by its own size, so that
one near zero moves a weight as far as a large one does. That drift is printed.

The script stops with an error unless losses are equal and ours is ``--least`` times faster, by
wall time and by processor time.
"""

from __future__ import annotations

import argparse
import copy
import os
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from statistics import median

import torch
from torch import Tensor, nn

from benchmark.errors import UserError
from benchmark.specs import ComputeSpec
from benchmark.speed import dense_scene
from benchmark.speed.dense_plain import PlainLoss, plain, plain_distillation
from benchmark.speed.dense_scene import (
    AUGMENTATION,
    DISTILLATION,
    NORMALIZATION,
    SIZE,
    STREAMS,
    Outcome,
    Scene,
    scene,
)
from benchmark.speed.timing import processor_seconds
from benchmark.training.precision import autocast, configure_threads, resolve_precision
from methods.blocks.distill import DENSE_DISTILLATION, DistilledStudent
from methods.blocks.ensemble import ClientEnsemble
from methods.blocks.parts import Counters, Epoch
from methods.blocks.pool import GrowingPool
from methods.blocks.runtime import Precision
from methods.blocks.schedule import EpochPlan
from methods.blocks.synthesis import synthesise
from methods.blocks.teachers import MeanTeacher

DOUBLE, SINGLE, DISTILLED = 1e-9, 1e-5, 1e-3
"""Largest relative differences: float64; fp32 on the same images, of generator and student."""
POOL = 4
"""Batches of the pool on which equal losses of the student are checked, at most."""


class Watched(nn.Module):
    """A generator whose images are kept, to show them to another loss.

    Parameters
    ----------
    generator : nn.Module
        Used as it is.
    """

    def __init__(self, generator: nn.Module) -> None:
        super().__init__()
        self.generator = generator
        self.images: list[Tensor] = []

    def forward(self, noise: Tensor) -> Tensor:
        """Return the generator's images."""
        images: Tensor = self.generator(noise)
        self.images.append(images.detach())
        return images


def ours(start: Scene, precision: str = "fp32", watched: list[Tensor] | None = None) -> Outcome:
    """Take the epoch with the suite's building blocks.

    Parameters
    ----------
    start : Scene
        Left as it is.
    precision : str
        Of the forward passes; ``fp32`` leaves the scene's type alone.
    watched : list of Tensor, optional
        Is given the images [B, 1, 32, 32] of every step.
    """
    compute = ComputeSpec.model_validate({"precision": precision})
    blocks = Precision(
        nullcontext if precision == "fp32" else lambda: autocast(compute), torch.channels_last
    )
    ensemble = ClientEnsemble(copy.deepcopy(start.clients), precision=blocks)
    teacher, generator = MeanTeacher(ensemble), copy.deepcopy(start.generator)
    blocks.prepare(generator)
    maker = generator if watched is None else Watched(generator)
    student = DistilledStudent(
        copy.deepcopy(start.student),
        DENSE_DISTILLATION.model_copy(update={"batch_size": start.batch}),
        normalization=NORMALIZATION,
        num_classes=dense_scene.CLASSES,
        generator=STREAMS.torch(DISTILLATION),
        precision=blocks,
    )
    images = len(start.images) + start.batch
    shape = (1, SIZE, SIZE)
    pool = GrowingPool(shape, NORMALIZATION, capacity=images, flip=True, dtype=start.dtype)
    pool.add(start.images)
    began, cpu = time.perf_counter(), processor_seconds()
    made = synthesise(
        maker,
        start.noise,
        start.targets,
        teacher,
        student.model,
        steps=start.steps,
        settings=dense_scene.SYNTHESIS,
        normalization=NORMALIZATION,
        stream=STREAMS.torch(AUGMENTATION),
        ensemble=ensemble,
        precision=blocks,
    )
    pool.add(made.images, made.targets)
    middle = time.perf_counter()
    epoch = Epoch(EpochPlan(1, 2, start.steps, start.batch, images), Counters(), images)
    student.learn(epoch, pool, teacher)
    ended, spent = time.perf_counter(), processor_seconds() - cpu
    if isinstance(maker, Watched) and watched is not None:
        watched.extend(maker.images)
    return Outcome(
        made.losses.tolist(),
        epoch.scalars["student/loss"],
        pool.images[-start.batch :].clone(),
        (middle - began, ended - middle),
        spent,
    )


@dataclass(frozen=True)
class Gaps:
    """Relative differences of losses between the two ways.

    Parameters
    ----------
    synthesis : list of float
        For each generator step.
    distillation : float
        Of the student's mean loss.
    """

    synthesis: list[float]
    distillation: float

    @property
    def largest(self) -> float:
        """The largest of all."""
        return max(*self.synthesis, self.distillation)


def _gap(mine: float, other: float) -> float:
    return abs(mine - other) / abs(other)


def drift(mine: Outcome, other: Outcome) -> Gaps:
    """Return how far two ways are apart that each went their own road."""
    pairs = zip(mine.synthesis, other.synthesis, strict=True)
    return Gaps([_gap(a, b) for a, b in pairs], _gap(mine.distillation, other.distillation))


def on_the_same_images(start: Scene) -> Gaps:
    """Return the differences where both ways are shown the images that ours makes."""
    shown: list[Tensor] = []
    mine = ours(start, watched=shown)
    clients, student = copy.deepcopy(start.clients), copy.deepcopy(start.student)
    with torch.no_grad():
        loss_of = PlainLoss(start, clients, student.eval())
        plainly = [float(loss_of(images)) for images in shown]
    gaps = [_gap(a, b) for a, b in zip(mine.synthesis, plainly, strict=True)]
    return Gaps(gaps, _gap(mine.distillation, plain_distillation(start, mine.images)))


def check_losses(start: Scene) -> str:
    """Return a line that says how equal losses are.

    Raises
    ------
    UserError
        If they are not: in float64 on a small epoch, or in fp32 on the same images.
    """
    small = scene(batch=8, epoch=3, steps=4, width="1/8", clients=2).double()
    double = drift(ours(small), plain(small, 0)).largest
    pool = start.images[: (POOL - 1) * start.batch]
    single = on_the_same_images(replace(start, images=pool))
    steps, student = max(single.synthesis), single.distillation
    said = (
        f"largest relative difference of a loss: {double:.1e} in float64 (a small epoch); in "
        f"fp32 on the same images {steps:.1e} of a generator step, {student:.1e} of the student"
    )
    if double > DOUBLE or steps > SINGLE or student > DISTILLED:
        raise UserError(f"losses differ; {said}")
    return said


def measure(start: Scene, workers: int, rounds: int, least: float) -> str:
    """Let all ways take turns; return a Markdown table.

    Raises
    ------
    UserError
        If ours is not ``least`` times faster, by wall time and by processor time.
    """
    fast = resolve_precision("auto", "cpu")
    base, single, other = f"ours, {fast}", "ours, fp32", f"plain, {workers} workers"
    # The first two are one where the machine gains nothing from bf16.
    ways: dict[str, Callable[[], Outcome]] = {
        base: lambda: ours(start, fast),
        single: lambda: ours(start),
        other: lambda: plain(start, workers),
    }
    taken: dict[str, list[Outcome]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            taken[name].append(way())
    lines = [
        f"| way | synthesis, s | distillation, s | processor, s | ratio to {base} "
        f"(range of {rounds}) | by processor time |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    lines += [_row(name, taken[name], taken[base]) for name in ways]
    apart = drift(taken[single][0], taken[other][0])
    lines += [
        "",
        f"left to themselves in fp32: {apart.synthesis[0]:.1e} at the first step, "
        f"{max(apart.synthesis):.1e} at most, distillation {apart.distillation:.1e}",
    ]
    speedup = min(_speedup(taken[other], taken[base]))
    if speedup < least:
        raise UserError("\n".join([*lines, f"only {speedup:.2f} times faster, not {least:g}"]))
    return "\n".join(lines) + "\n"


def _speedup(slow: Sequence[Outcome], fast: Sequence[Outcome]) -> tuple[float, float]:
    """Return the median ratio, turn by turn, of wall time and of processor time."""
    turns = list(zip(slow, fast, strict=True))
    wall = median(sum(a.seconds) / sum(b.seconds) for a, b in turns)
    return wall, median(a.cpu / b.cpu for a, b in turns)


def _row(name: str, outcomes: Sequence[Outcome], base: Sequence[Outcome]) -> str:
    wall, cpu = _speedup(outcomes, base)
    turns = zip(outcomes, base, strict=True)
    ratios = [sum(a.seconds) / sum(b.seconds) for a, b in turns]
    parts = [median(outcome.seconds[part] for outcome in outcomes) for part in range(2)]
    return (
        f"| {name} | {parts[0]:.2f} | {parts[1]:.2f} | {median(o.cpu for o in outcomes):.2f} | "
        f"{wall:.2f} ({min(ratios):.2f} … {max(ratios):.2f}) | {cpu:.2f} |"
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print; see ``--help``."""
    parser = argparse.ArgumentParser(prog="python -m benchmark.speed.dense_epoch")
    parser.description = (__doc__ or "").partition("\n")[0]
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of each way")
    workers = min(4, os.cpu_count() or 1)
    parser.add_argument(
        "--workers", type=int, default=workers, help="loader workers (published: 4)"
    )
    parser.add_argument("--rounds", type=int, default=3, help="turns of each way")
    parser.add_argument("--batch", type=int, default=256, help="images of a batch")
    parser.add_argument("--epoch", type=int, default=20, help="which epoch: size of the pool")
    parser.add_argument("--steps", type=int, default=30, help="generator steps")
    parser.add_argument("--width", default="1", help="width of clients and student")
    parser.add_argument("--clients", type=int, default=5)
    parser.add_argument("--least", type=float, default=4.0, help="speed-up to insist on")
    options = parser.parse_args(arguments)
    configure_threads(options.threads)
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    sys.stdout.write(f"torch {torch.__version__}, {os.cpu_count()} cores, load {load}\n\n")
    start = scene(options.batch, options.epoch, options.steps, options.width, options.clients)
    try:
        sys.stdout.write(f"{check_losses(start)}\n\n")
        sys.stdout.flush()
        sys.stdout.write(measure(start, options.workers, options.rounds, options.least))
    except UserError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(1)


if __name__ == "__main__":
    main()
