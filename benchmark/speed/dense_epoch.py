"""One DENSE epoch of ours against the plain way of doing the same mathematics, in one run.

``python -m benchmark.speed.dense_epoch`` takes one late epoch (images for a generator's steps,
then a pass over the whole pool) with five clients of family ``cnn`` on 1×32×32 images, in turns:
ours at the machine's precision, ours in fp32, the plain way. The plain way is what research codes
do: fp32 in plain memory order, weight gradients in every client, batch-norm hooks that each epoch
adds and none removes, every image through a PNG file and back, fresh loaders with worker
processes, a value read from the device at every step. The script stops with an error unless
losses of both agree in fp32 and ours is ``--least`` times faster.
"""

from __future__ import annotations

import argparse
import copy
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from benchmark.errors import UserError
from benchmark.images import Normalization
from benchmark.models.build import build
from benchmark.seeds import Streams
from benchmark.specs import ComputeSpec
from benchmark.training.precision import autocast, configure_threads, resolve_precision
from methods.blocks.distill import DENSE_DISTILLATION, DistilledStudent
from methods.blocks.ensemble import ClientEnsemble
from methods.blocks.generator import DenseGenerator
from methods.blocks.parts import Counters, Epoch
from methods.blocks.pool import GrowingPool
from methods.blocks.runtime import Precision, draw_integers, draw_permutation
from methods.blocks.schedule import EpochPlan
from methods.blocks.synthesis import DENSE_SYNTHESIS, synthesise
from methods.blocks.teachers import MeanTeacher

SIZE, CLASSES, PADDING = 32, 10, 4
NORMALIZATION = Normalization((0.286,), (0.353,))
SYNTHESIS = DENSE_SYNTHESIS.model_copy(update={"batch_norm": 1.0})
STREAMS = Streams(0)


@dataclass(frozen=True)
class Scene:
    """What an epoch starts from; every way works on copies of it.

    Parameters
    ----------
    clients, student, generator : nn.Module
        Trained far enough that batch-norm statistics mean something.
    images : Tensor
        uint8 [N, 1, 32, 32], the pool before the epoch.
    noise, targets : Tensor
        Of the new batch.
    steps : int
        Generator steps.
    """

    clients: list[nn.Module]
    student: nn.Module
    generator: DenseGenerator
    images: Tensor
    noise: Tensor
    targets: Tensor
    steps: int

    @property
    def batch(self) -> int:
        """Images of a batch, in synthesis and in distillation."""
        return len(self.noise)

    @property
    def epoch(self) -> int:
        """Number of this epoch, from 1."""
        return len(self.images) // self.batch + 1


@dataclass(frozen=True)
class Outcome:
    """Losses and seconds of an epoch."""

    synthesis: list[float]
    distillation: float
    seconds: tuple[float, float]


def scene(batch: int, epoch: int, steps: int, width: str, clients: int) -> Scene:
    """Return the start of an epoch, the same in every call."""
    models = [_classifier(width, f"client {index}") for index in range(clients)]
    draws = STREAMS.torch("speed images")
    shape = ((epoch - 1) * batch, 1, SIZE, SIZE)
    coarse = torch.rand((shape[0], 1, 8, 8), generator=draws)
    smooth = F.interpolate(coarse, size=SIZE, mode="bilinear")
    generator = DenseGenerator(STREAMS.torch("speed generator"), channels=1)
    return Scene(
        models,
        _classifier(width, "student"),
        generator,
        (smooth * 255).to(torch.uint8),
        torch.randn((batch, generator.noise_size), generator=draws),
        torch.randint(CLASSES, (batch,), generator=draws).sort().values,
        steps,
    )


def _classifier(width: str, name: str) -> nn.Module:
    generator = STREAMS.torch(name)
    model = build("cnn", num_classes=CLASSES, channels=1, width=width, generator=generator)
    with torch.no_grad():
        model.train()
        for _ in range(3):
            model(torch.randn((64, 1, SIZE, SIZE), generator=generator))
    return model.eval()


def ours(start: Scene, precision: str) -> Outcome:
    """Take the epoch with the suite's building blocks."""
    compute = ComputeSpec.model_validate({"precision": precision})
    blocks = Precision(
        nullcontext if precision == "fp32" else lambda: autocast(compute), torch.channels_last
    )
    ensemble = ClientEnsemble(copy.deepcopy(start.clients), precision=blocks)
    teacher, generator = MeanTeacher(ensemble), copy.deepcopy(start.generator)
    blocks.prepare(generator)
    student = DistilledStudent(
        copy.deepcopy(start.student),
        DENSE_DISTILLATION.model_copy(update={"batch_size": start.batch}),
        normalization=NORMALIZATION,
        num_classes=CLASSES,
        generator=STREAMS.torch("speed distillation"),
        precision=blocks,
    )
    images = len(start.images) + start.batch
    pool = GrowingPool((1, SIZE, SIZE), NORMALIZATION, capacity=images, flip=True)
    pool.add(start.images)
    began = time.perf_counter()
    made = synthesise(
        generator,
        start.noise,
        start.targets,
        teacher,
        student.model,
        steps=start.steps,
        settings=SYNTHESIS,
        normalization=NORMALIZATION,
        stream=STREAMS.torch("speed augmentation"),
        ensemble=ensemble,
        precision=blocks,
    )
    pool.add(made.images, made.targets)
    middle = time.perf_counter()
    epoch = Epoch(EpochPlan(1, 2, start.steps, start.batch, images), Counters(), images)
    student.learn(epoch, pool, teacher)
    ended = time.perf_counter()
    seconds = (middle - began, ended - middle)
    return Outcome(made.losses.tolist(), epoch.scalars["student/loss"], seconds)


class PngFolder(torch.utils.data.Dataset[Tensor]):
    """A folder of PNG files, decoded one by one, flipped where it is told.

    Parameters
    ----------
    files : list of Path
        The images.
    flips : list of bool
        Which to mirror: drawn beforehand, so that every way flips the same images.
    """

    def __init__(self, files: list[Path], flips: list[bool]) -> None:
        self.files, self.flips = files, flips

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Tensor:
        with Image.open(self.files[index]) as opened:
            image = opened.convert("L")
        if self.flips[index]:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        pixels = torch.from_numpy(np.array(image, dtype=np.float32)[None] / 255)
        return NORMALIZATION.from_unit(pixels[None])[0]


class Hook:
    """Batch-norm statistics of one layer, computed in every forward pass from now on."""

    def __init__(self, layer: nn.BatchNorm2d) -> None:
        self.loss = torch.zeros(())
        layer.register_forward_hook(self.read)

    def read(self, layer: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        """Compare the batch with the running statistics."""
        rows = inputs[0].permute(1, 0, 2, 3).flatten(1)
        mean, variance = rows.mean(1), rows.var(1, unbiased=False)
        of_mean = torch.norm(layer.running_mean - mean, 2)
        self.loss = torch.norm(layer.running_var - variance, 2) + of_mean


def _add_hooks(clients: list[nn.Module]) -> list[Hook]:
    layers = [m for client in clients for m in client.modules() if isinstance(m, nn.BatchNorm2d)]
    return [Hook(layer) for layer in layers]


def _plain_view(images: Tensor, draws: torch.Generator) -> Tensor:
    """Crop and flip each image on its own, with the draws that ours makes."""
    count, device = len(images), images.device
    top = draw_integers(2 * PADDING + 1, count, draws, device).tolist()
    left = draw_integers(2 * PADDING + 1, count, draws, device).tolist()
    flips = draw_integers(2, count, draws, device).tolist()
    padded = F.pad(images, (PADDING,) * 4)
    views = []
    for image, row, column, flip in zip(padded, top, left, flips, strict=True):
        view = image[:, row : row + SIZE, column : column + SIZE]
        views.append(view.flip(2) if flip else view)
    return torch.stack(views)


def _plain_kl(teacher: Tensor, student: Tensor, temperature: float) -> Tensor:
    target = F.softmax(teacher / temperature, dim=1)
    guess = F.log_softmax(student / temperature, dim=1)
    return F.kl_div(guess, target, reduction="none").sum(1)


def _plain_synthesis(
    start: Scene, clients: list[nn.Module], student: nn.Module
) -> tuple[list[float], Tensor]:
    generator, noise = copy.deepcopy(start.generator), start.noise.clone().requires_grad_(True)
    settings = SYNTHESIS
    optimizer = torch.optim.Adam(
        [*generator.parameters(), noise],
        lr=settings.learning_rate,
        betas=(settings.beta1, settings.beta2),
    )
    hooks = _add_hooks(clients)
    draws = STREAMS.torch("speed augmentation")
    best, kept, losses = 1e6, None, []
    student.eval()
    for _ in range(start.steps):
        images = generator(noise)
        inputs = NORMALIZATION.from_unit(_plain_view(images, draws))
        teacher_logits = torch.stack([client(inputs) for client in clients]).mean(0)
        student_logits = student(inputs)
        differ = (teacher_logits.argmax(1) != student_logits.argmax(1)).float()
        loss = F.cross_entropy(teacher_logits, start.targets)
        loss = loss - (_plain_kl(teacher_logits, student_logits, 1.0) * differ).mean()
        loss = loss + torch.stack([hook.loss for hook in hooks]).sum()
        losses.append(loss.item())
        if kept is None or losses[-1] < best:
            best, kept = losses[-1], images.detach().clone()
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
    return losses, start.noise if kept is None else kept


def _plain_distillation(
    start: Scene, clients: list[nn.Module], student: nn.Module, files: list[Path], workers: int
) -> float:
    draws, count = STREAMS.torch("speed distillation"), len(files)
    cpu = torch.device("cpu")
    order = draw_permutation(count, draws, cpu).tolist()
    flips = [False] * count
    for part in range(0, count, start.batch):
        chosen = order[part : part + start.batch]
        for _unused in range(2):  # a crop without padding: ours draws its corners too
            draw_integers(1, len(chosen), draws, cpu)
        mirrored = draw_integers(2, len(chosen), draws, cpu).tolist()
        for index, flip in zip(chosen, mirrored, strict=True):
            flips[index] = bool(flip)
    loader = torch.utils.data.DataLoader(
        PngFolder(files, flips), batch_size=start.batch, sampler=order, num_workers=workers
    )
    settings = DENSE_DISTILLATION
    optimizer = torch.optim.SGD(
        student.parameters(), lr=settings.learning_rate, momentum=settings.momentum
    )
    student.train()
    losses = []
    for inputs in loader:
        with torch.no_grad():
            teacher_logits = torch.stack([client(inputs) for client in clients]).mean(0)
        divergence = _plain_kl(teacher_logits, student(inputs), settings.temperature).mean()
        loss = settings.temperature**2 * divergence
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        losses.append(loss.item())
    return sum(losses) / len(losses)


def plain(start: Scene, workers: int) -> Outcome:
    """Take the epoch the plain way."""
    clients, student = copy.deepcopy(start.clients), copy.deepcopy(start.student)
    for _ in range(start.epoch - 1):
        _add_hooks(clients)  # those of the epochs before
    with tempfile.TemporaryDirectory(prefix="dense-epoch-") as folder:
        files = _write(start.images, Path(folder), 0)
        began = time.perf_counter()
        losses, made = _plain_synthesis(start, clients, student)
        files += _write((made.clamp(0, 1) * 255).to(torch.uint8), Path(folder), len(files))
        middle = time.perf_counter()
        distilled = _plain_distillation(start, clients, student, files, workers)
        ended = time.perf_counter()
    return Outcome(losses, distilled, (middle - began, ended - middle))


def _write(images: Tensor, folder: Path, first: int) -> list[Path]:
    files = []
    for index, image in enumerate(images):
        files.append(folder / f"{first + index}.png")
        Image.fromarray(image[0].numpy()).save(files[-1])
    return files


def agree(ours_fp32: Outcome, plainly: Outcome, strict: int = 5) -> float:
    """Return the largest relative difference of losses, and stop where it is no rounding.

    Raises
    ------
    UserError
        If one of the first ``strict`` synthesis losses, or the mean distillation loss,
        differs by more than 0.1 %; a later synthesis loss by more than 5 % (Adam magnifies
        rounding step by step).
    """
    pairs = [*zip(ours_fp32.synthesis, plainly.synthesis, strict=True)]
    gaps = [abs(a - b) / abs(b) for a, b in pairs]
    last = abs(ours_fp32.distillation - plainly.distillation) / plainly.distillation
    if max(gaps[:strict]) > 1e-3 or max(gaps) > 5e-2 or last > 1e-2:
        raise UserError(f"losses differ: synthesis by {max(gaps):.2g}, distillation by {last:.2g}")
    return max(*gaps, last)


def measure(start: Scene, workers: int, rounds: int, least: float) -> str:
    """Let all ways take turns; return a Markdown table.

    Raises
    ------
    UserError
        If losses differ in fp32, or ours is not ``least`` times faster.
    """
    fast = resolve_precision("auto", "cpu")
    ways: dict[str, Callable[[], Outcome]] = {
        f"ours, {fast}": lambda: ours(start, fast),
        "ours, fp32": lambda: ours(start, "fp32"),
        f"plain, {workers} workers": lambda: plain(start, workers),
    }
    taken: dict[str, list[Outcome]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            taken[name].append(way())
    base, single, other = taken
    gap = agree(taken[single][0], taken[other][0])
    totals = {name: [sum(outcome.seconds) for outcome in taken[name]] for name in ways}
    lines = [
        f"| way | synthesis, s | distillation, s | ratio to {base} (range of {rounds}) |",
        "| --- | --- | --- | --- |",
    ]
    for name, outcomes in taken.items():
        ratios = [a / b for a, b in zip(totals[name], totals[base], strict=True)]
        parts = [median(outcome.seconds[part] for outcome in outcomes) for part in range(2)]
        lines.append(
            f"| {name} | {parts[0]:.2f} | {parts[1]:.2f} | {median(ratios):.2f} "
            f"({min(ratios):.2f} … {max(ratios):.2f}) |"
        )
    speedup = median(totals[other]) / median(totals[base])
    lines += ["", f"largest relative difference of a loss in fp32: {gap:.1e}"]
    if speedup < least:
        raise UserError("\n".join([*lines, f"only {speedup:.2f} times faster, not {least:g}"]))
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print; see ``--help``."""
    parser = argparse.ArgumentParser(prog="python -m benchmark.speed.dense_epoch")
    parser.description = __doc__
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
        sys.stdout.write(measure(start, options.workers, options.rounds, options.least))
    except UserError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(1)


if __name__ == "__main__":
    main()
