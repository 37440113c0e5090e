"""The trainer's step against the plain way of training, as ratios measured in one run.

``python -m benchmark.speed.trainer`` trains each family at width 1/4 on 3×32×32 images, batch
64, random crop and flip included, in turns: a few steps of ours, a few of the plain way, and so
on, each way in its own process. The plain way is fp32 in plain memory order, fed by a torch
``DataLoader`` over PIL images with torchvision's transforms, without and with worker processes
(which use further cores).
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from multiprocessing.connection import Connection
from statistics import median
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torchvision import transforms

from benchmark.images import Normalization
from benchmark.models.build import build
from benchmark.seeds import Streams
from benchmark.specs import ComputeSpec, RecipeSpec
from benchmark.training.batches import NoAugmentation
from benchmark.training.precision import configure_threads, resolve_precision
from benchmark.training.trainer import train

BATCH = 64
CLASSES = 10
SAMPLES = 4096
PADDING = 4
NORMALIZATION = Normalization((0.49, 0.48, 0.45), (0.25, 0.24, 0.26))
RECIPE = RecipeSpec(batch_size=BATCH)
STREAMS = Streams(0)
SETTLE = 3
"""Steps of a turn that are not counted: caches, and what loader workers have in store."""

Turn = Callable[[int], list[float]]
"""Takes a number of steps and returns the seconds of each."""


class PilImages(torch.utils.data.Dataset[tuple[Tensor, int]]):
    """Arrays as a torchvision dataset serves them: one PIL image at a time, then transforms.

    Parameters
    ----------
    images : Tensor
        uint8 [n, C, H, W].
    labels : Tensor
        int64 [n].
    """

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        self.arrays: np.ndarray = images.permute(0, 2, 3, 1).contiguous().numpy()
        self.labels: list[int] = labels.tolist()
        self.transform: Callable[[Image.Image], Tensor] = _plain_transform(images.shape[-1])

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(Image.fromarray(self.arrays[index])), self.labels[index]


def _plain_transform(size: int) -> Callable[[Image.Image], Tensor]:
    made: Any = transforms  # torchvision's constructors carry no types
    steps = [
        made.RandomCrop(size, padding=PADDING),
        made.RandomHorizontalFlip(),
        made.ToTensor(),
        made.Normalize(NORMALIZATION.mean, NORMALIZATION.std),
    ]
    pipeline: Callable[[Image.Image], Tensor] = made.Compose(steps)
    return pipeline


def _data() -> tuple[Tensor, Tensor]:
    generator = STREAMS.torch("speed data")
    shape = (SAMPLES, 3, 32, 32)
    images = torch.randint(256, shape, dtype=torch.uint8, generator=generator)
    return images, torch.randint(CLASSES, (SAMPLES,), generator=generator)


def _model(family: str) -> nn.Module:
    generator = STREAMS.torch("speed model")
    return build(family, num_classes=CLASSES, channels=3, width="1/4", generator=generator)


def ours(family: str, compute: ComputeSpec) -> Turn:
    """Return a turn of :func:`benchmark.training.trainer.train`."""
    configure_threads(compute.threads)
    model, (images, labels) = _model(family), _data()
    generator = STREAMS.torch("speed training")

    def turn(steps: int) -> list[float]:
        marks: list[float] = []
        train(
            model,
            images,
            labels,
            recipe=RECIPE,
            normalization=NORMALIZATION,
            augmentation=NoAugmentation(crop_padding=PADDING, flip=True),
            generator=generator,
            compute=compute,
            steps=steps + SETTLE + 1,
            on_step=lambda step, total, loss: marks.append(time.perf_counter()),
        )
        return _differences(marks)

    return turn


def plain(family: str, workers: int, threads: int) -> Turn:
    """Return a turn of the plain way with a number of loader workers."""
    torch.set_num_threads(threads)
    model, (images, labels) = _model(family).train(), _data()
    loader = torch.utils.data.DataLoader(
        PilImages(images, labels),
        batch_size=BATCH,
        shuffle=True,
        num_workers=workers,
        persistent_workers=workers > 0,
    )
    batches = _forever(loader)
    optimizer = torch.optim.SGD(model.parameters(), lr=RECIPE.lr, momentum=RECIPE.momentum)

    def turn(steps: int) -> list[float]:
        marks: list[float] = []
        # Two batches a worker were made in advance while it was not this way's turn.
        for _ in range(steps + SETTLE + 1 + 2 * workers):
            inputs, targets = next(batches)
            optimizer.zero_grad()
            loss = F.cross_entropy(model(inputs), targets)
            torch.autograd.backward(loss)
            optimizer.step()
            marks.append(time.perf_counter())
        return _differences(marks[2 * workers :])

    return turn


class Remote:
    """A way of training in a process of its own, so that none shares another's settings.

    Parameters
    ----------
    make : callable
        Makes the turn, in that process; importable by name.
    *arguments
        Its arguments.
    """

    def __init__(self, make: Callable[..., Turn], *arguments: Any) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, make, arguments))
        self._process.start()
        theirs.close()

    def __call__(self, steps: int) -> list[float]:
        """Take a turn and wait for it."""
        self._pipe.send(steps)
        seconds: list[float] = self._pipe.recv()
        return seconds

    def close(self) -> None:
        """End the process."""
        self._pipe.send(0)
        self._process.join()


def _serve(pipe: Connection, make: Callable[..., Turn], arguments: tuple[Any, ...]) -> None:
    turn = make(*arguments)
    while steps := pipe.recv():
        pipe.send(turn(steps))


def _forever(
    loader: torch.utils.data.DataLoader[tuple[Tensor, int]],
) -> Iterator[tuple[Tensor, Tensor]]:
    while True:
        yield from loader


def _differences(marks: Sequence[float]) -> list[float]:
    return [after - before for before, after in pairwise(marks[SETTLE:])]


@dataclass(frozen=True)
class Ratio:
    """How many of our steps fit into one of another way.

    Parameters
    ----------
    name : str
        The other way.
    seconds : float
        Median of its step.
    median, low, high : float
        Of the ratios of the rounds, each that of two medians.
    """

    name: str
    seconds: float
    median: float
    low: float
    high: float


def compare(ways: Mapping[str, Turn], base: str, rounds: int, steps: int) -> list[Ratio]:
    """Let all ways take turns, and return each one's time over that of ``base``.

    Parameters
    ----------
    ways : mapping of str to callable
        Ways of training by name.
    base : str
        The way that ratios are relative to.
    rounds : int
        Turns of each way.
    steps : int
        Counted steps of a turn.
    """
    for turn in ways.values():
        turn(1)
    taken = [{name: median(turn(steps)) for name, turn in ways.items()} for _ in range(rounds)]
    results = []
    for name in ways:
        ratios = [times[name] / times[base] for times in taken]
        seconds = median(times[name] for times in taken)
        results.append(Ratio(name, seconds, median(ratios), min(ratios), max(ratios)))
    return results


def measure(family: str, threads: int, workers: Sequence[int], rounds: int, steps: int) -> str:
    """Return the table of one family as Markdown."""
    fast = ComputeSpec(precision=resolve_precision("auto", "cpu"), threads=threads)
    base = f"ours, {fast.precision}"
    ways = {base: Remote(ours, family, fast)}
    ways["ours, fp32"] = Remote(ours, family, fast.model_copy(update={"precision": "fp32"}))
    for count in workers:
        ways[f"plain, {count} workers"] = Remote(plain, family, count, threads)
    lines = [
        f"{family}, width 1/4, batch {BATCH} of 3×32×32, crop and flip, {threads} threads",
        "",
        f"| way | step, ms | ratio to {base} (range of {rounds}) | ratio to ours, fp32 |",
        "| --- | --- | --- | --- |",
    ]
    try:
        rows = compare(ways, base, rounds, steps)
    finally:
        for way in ways.values():
            way.close()
    single = next(row for row in rows if row.name == "ours, fp32").median
    lines += [
        f"| {row.name} | {row.seconds * 1e3:.2f} | {row.median:.2f} "
        f"({row.low:.2f} … {row.high:.2f}) | {row.median / single:.2f} |"
        for row in rows
    ]
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print; see ``--help``."""
    parser = argparse.ArgumentParser(prog="python -m benchmark.speed.trainer", description=__doc__)
    parser.add_argument("--families", nargs="+", default=["cnn", "resnet18"])
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of each way")
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2], help="loader workers")
    parser.add_argument("--rounds", type=int, default=7, help="turns of each way")
    parser.add_argument("--steps", type=int, default=8, help="counted steps of a turn")
    options = parser.parse_args(arguments)
    if options.threads < 1:
        parser.error(f"--threads must be at least 1, got {options.threads}")
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    sys.stdout.write(f"torch {torch.__version__}, {os.cpu_count()} cores, load {load}\n\n")
    for family in options.families:
        table = measure(family, options.threads, options.workers, options.rounds, options.steps)
        sys.stdout.write(f"{table}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
