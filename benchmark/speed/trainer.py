"""The trainer's step against the plain way of training, as ratios measured in one run.

``python -m benchmark.speed.trainer`` trains each family at width 1/4 on 3×32×32 images, batch
64, random crop and flip included, in turns: a few steps of ours, a few of the plain way, and so
on, each way in its own process. The plain way is fp32 in plain memory order, fed by a torch
``DataLoader`` over PIL images with torchvision's transforms, without and with worker processes
(which use further cores).

Beside wall time stands the CPU time of the training process, loader workers left out: without
workers it is the ratio to trust where other programs use the machine.
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

Times = tuple[float, float]
"""Seconds of wall time, and of CPU time of the training process."""

Turn = Callable[[int], list[Times]]
"""Takes a number of steps and returns the times of each."""


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

    def turn(steps: int) -> list[Times]:
        marks: list[Times] = []
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
            on_step=lambda step, total, loss: marks.append(_now()),
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

    def turn(steps: int) -> list[Times]:
        marks: list[Times] = []
        # Two batches a worker were made in advance while it was not this way's turn.
        for _ in range(steps + SETTLE + 1 + 2 * workers):
            inputs, targets = next(batches)
            optimizer.zero_grad()
            loss = F.cross_entropy(model(inputs), targets)
            torch.autograd.backward(loss)
            optimizer.step()
            marks.append(_now())
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

    def __call__(self, steps: int) -> list[Times]:
        """Take a turn and wait for it."""
        self._pipe.send(steps)
        times: list[Times] = self._pipe.recv()
        return times

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


def _now() -> Times:
    return time.perf_counter(), time.process_time()


def _differences(marks: Sequence[Times]) -> list[Times]:
    return [(b[0] - a[0], b[1] - a[1]) for a, b in pairwise(marks[SETTLE:])]


@dataclass(frozen=True)
class Row:
    """One way of training, and how many steps of the base way fit into one of its steps.

    Parameters
    ----------
    name : str
        The way.
    wall, cpu : float
        Median seconds of a step: wall time, and CPU time of the training process.
    ratios : tuple of float
        Wall time over that of the base way, of each round, by the medians of their turns.
    cpu_ratios : tuple of float
        The same of CPU time.
    """

    name: str
    wall: float
    cpu: float
    ratios: tuple[float, ...]
    cpu_ratios: tuple[float, ...]

    def cells(self, workers: bool) -> str:
        """Return the row in Markdown; CPU ratios only mean something without loader workers."""
        cpu = "" if workers else _spread(self.cpu_ratios)
        times = f"{self.wall * 1e3:.2f} | {self.cpu * 1e3:.2f}"
        return f"| {self.name} | {times} | {_spread(self.ratios)} | {cpu} |"


def _spread(ratios: Sequence[float]) -> str:
    return f"{median(ratios):.2f} ({min(ratios):.2f} … {max(ratios):.2f})"


def compare(ways: Mapping[str, Turn], base: str, rounds: int, steps: int) -> list[Row]:
    """Let all ways take turns, and compare each one's steps with those of ``base``.

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
    taken: list[dict[str, Times]] = []
    for _ in range(rounds):
        turns = {name: turn(steps) for name, turn in ways.items()}
        taken.append({name: _medians(times) for name, times in turns.items()})
    return [
        Row(
            name,
            *_medians([times[name] for times in taken]),
            ratios=tuple(times[name][0] / times[base][0] for times in taken),
            cpu_ratios=tuple(times[name][1] / times[base][1] for times in taken),
        )
        for name in ways
    ]


def _medians(times: Sequence[Times]) -> Times:
    return median(wall for wall, _ in times), median(cpu for _, cpu in times)


def measure(family: str, threads: int, workers: Sequence[int], rounds: int, steps: int) -> str:
    """Return the table of one family as Markdown."""
    fast = ComputeSpec(precision=resolve_precision("auto", "cpu"), threads=threads)
    slow = fast.model_copy(update={"precision": "fp32"})
    base = f"ours, {fast.precision}"
    ways = {base: Remote(ours, family, fast)}
    if fast != slow:
        ways["ours, fp32"] = Remote(ours, family, slow)
    with_workers = {f"plain, {count} workers": count for count in workers}
    for name, count in with_workers.items():
        ways[name] = Remote(plain, family, count, threads)
    try:
        rows = compare(ways, base, rounds, steps)
    finally:
        for way in ways.values():
            way.close()
    lines = [
        f"{family}, width 1/4, batch {BATCH} of 3×32×32, crop and flip, threads {threads}",
        "",
        f"| way | wall, ms | CPU, ms | wall ÷ {base} (range of {rounds}) | CPU ÷ {base} |",
        "| --- | --- | --- | --- | --- |",
        *(row.cells(workers=with_workers.get(row.name, 0) > 0) for row in rows),
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
