"""A DENSE epoch the plain way, as research codes take it; the yardstick of the speed script.

Full precision in plain memory order, upsampling and then convolution, weight gradients in every
client, batch-norm hooks that each epoch adds and none removes, every image through a PNG file and
back, fresh loaders with worker processes, a value read from the device at every step.
"""

from __future__ import annotations

import copy
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from benchmark.speed import dense_scene
from benchmark.speed.dense_scene import (
    AUGMENTATION,
    DISTILLATION,
    NORMALIZATION,
    PADDING,
    SIZE,
    STREAMS,
    Outcome,
    Scene,
)
from benchmark.speed.timing import processor_seconds
from methods.blocks.distill import DENSE_DISTILLATION
from methods.blocks.generator import DenseGenerator, UpsampledConv2d
from methods.blocks.runtime import draw_integers, draw_permutation


class PngFolder(torch.utils.data.Dataset[Tensor]):
    """A folder of PNG files, decoded one by one, flipped where it is told.

    Parameters
    ----------
    files : list of Path
        The images.
    flips : list of bool
        Which to mirror: drawn beforehand, so that every way flips the same images.
    dtype : torch.dtype
        Floating type of what is read.
    """

    def __init__(self, files: list[Path], flips: list[bool], dtype: torch.dtype) -> None:
        self.files, self.flips, self.dtype = files, flips, dtype

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Tensor:
        with Image.open(self.files[index]) as opened:
            image = opened.convert("L")
        if self.flips[index]:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        pixels = torch.from_numpy(np.array(image)[None]).to(self.dtype) / 255
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


def add_hooks(clients: Sequence[nn.Module]) -> list[Hook]:
    """Hang a hook on every batch norm, beside those that are there."""
    layers = [m for client in clients for m in client.modules() if isinstance(m, nn.BatchNorm2d)]
    return [Hook(layer) for layer in layers]


def plain_generator(generator: DenseGenerator) -> DenseGenerator:
    """Return a copy that upsamples, and then convolves with the same weights."""
    copied = copy.deepcopy(generator)
    for index, layer in enumerate(copied.draw):
        if isinstance(layer, UpsampledConv2d):
            channels = layer.in_channels, layer.out_channels
            convolution = nn.Conv2d(*channels, 3, padding=1, bias=False, device="meta")
            convolution.weight = layer.weight
            copied.draw[index] = nn.Sequential(nn.Upsample(scale_factor=2), convolution)
    return copied


def _view(images: Tensor, draws: torch.Generator) -> Tensor:
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


def _kl(teacher: Tensor, student: Tensor, temperature: float) -> Tensor:
    target = F.softmax(teacher / temperature, dim=1)
    guess = F.log_softmax(student / temperature, dim=1)
    return F.kl_div(guess, target, reduction="none").sum(1)


class PlainLoss:
    """The generator's loss of a step, written out.

    Parameters
    ----------
    start : Scene
        Gives the classes that images are made for.
    clients, student : nn.Module
        In evaluation mode.
    """

    def __init__(self, start: Scene, clients: Sequence[nn.Module], student: nn.Module) -> None:
        self._targets, self._clients, self._student = start.targets, clients, student
        self._hooks = add_hooks(clients)
        self._draws = STREAMS.torch(AUGMENTATION)

    def __call__(self, images: Tensor) -> Tensor:
        """Return the loss of images [B, 1, 32, 32] in unit range: that of the next step."""
        weights = dense_scene.SYNTHESIS
        inputs = NORMALIZATION.from_unit(_view(images, self._draws))
        teacher_logits = torch.stack([client(inputs) for client in self._clients]).mean(0)
        student_logits = self._student(inputs)
        differ = (teacher_logits.argmax(1) != student_logits.argmax(1)).to(images.dtype)
        onehot = F.cross_entropy(teacher_logits, self._targets)
        disagreement = (_kl(teacher_logits, student_logits, 1.0) * differ).mean()
        statistics = torch.stack([hook.loss for hook in self._hooks]).sum()
        loss: Tensor = weights.onehot * onehot - weights.adversarial * disagreement
        return loss + weights.batch_norm * statistics


def _synthesis(
    start: Scene, clients: Sequence[nn.Module], student: nn.Module
) -> tuple[list[float], Tensor]:
    generator, noise = plain_generator(start.generator), start.noise.clone().requires_grad_(True)
    settings = dense_scene.SYNTHESIS
    optimizer = torch.optim.Adam(
        [*generator.parameters(), noise],
        lr=settings.learning_rate,
        betas=(settings.beta1, settings.beta2),
    )
    student.eval()
    loss_of, best, kept, losses = PlainLoss(start, clients, student), 1e6, None, list[float]()
    for _ in range(start.steps):
        images = generator(noise)
        loss = loss_of(images)
        losses.append(loss.item())
        if kept is None or losses[-1] < best:
            best, kept = losses[-1], images.detach().clone()
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
    return losses, start.noise if kept is None else kept


def _distillation(
    start: Scene,
    clients: Sequence[nn.Module],
    student: nn.Module,
    files: list[Path],
    workers: int,
) -> float:
    draws, count = STREAMS.torch(DISTILLATION), len(files)
    cpu = torch.device("cpu")
    draw_integers(2**62, 1, draws, cpu)  # ours seeds dropout here, and order comes after it
    order = draw_permutation(count, draws, cpu).tolist()
    flips = [False] * count
    for part in range(0, count, start.batch):
        chosen = order[part : part + start.batch]
        for _unused in range(2):  # a crop without padding: ours draws its corners too
            draw_integers(1, len(chosen), draws, cpu)
        mirrored = draw_integers(2, len(chosen), draws, cpu).tolist()
        for index, flip in zip(chosen, mirrored, strict=True):
            flips[index] = bool(flip)
    folder = PngFolder(files, flips, start.dtype)
    loader = torch.utils.data.DataLoader(
        folder, batch_size=start.batch, sampler=order, num_workers=workers
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
        divergence = _kl(teacher_logits, student(inputs), settings.temperature).mean()
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
        add_hooks(clients)  # those of the epochs before
    with _folder(start) as (folder, files):
        began, cpu = time.perf_counter(), processor_seconds()
        losses, made = _synthesis(start, clients, student)
        images = (made.clamp(0, 1) * 255).to(torch.uint8)
        added = _write(images, folder, len(files))
        middle = time.perf_counter()
        distilled = _distillation(start, clients, student, files + added, workers)
        ended = time.perf_counter()
        seconds = (middle - began, ended - middle)
        return Outcome(losses, distilled, images, seconds, processor_seconds() - cpu)


def plain_distillation(start: Scene, made: Tensor) -> float:
    """Return the mean loss of the student on the pool with ``made`` (uint8) for new images."""
    clients, student = copy.deepcopy(start.clients), copy.deepcopy(start.student)
    with _folder(start) as (folder, files):
        added = _write(made, folder, len(files))
        return _distillation(start, clients, student, files + added, 0)


@contextmanager
def _folder(start: Scene) -> Iterator[tuple[Path, list[Path]]]:
    with tempfile.TemporaryDirectory(prefix="dense-epoch-") as name:
        yield Path(name), _write(start.images, Path(name), 0)


def _write(images: Tensor, folder: Path, first: int) -> list[Path]:
    files = []
    for index, image in enumerate(images):
        files.append(folder / f"{first + index}.png")
        Image.fromarray(image[0].numpy()).save(files[-1])
    return files
