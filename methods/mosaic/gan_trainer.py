"""The training loop of a client's generator: batches, precision, history, divergence."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from benchmark.errors import DivergedError
from benchmark.images import Normalization
from methods.blocks.bn_statistics import BatchNormStatistics
from methods.mosaic.adversarial import LOSS_NAMES, Autocast, Guide, gan_step, make_gan
from methods.mosaic.modes import frozen
from methods.mosaic.networks import GanShape, Generator
from methods.mosaic.settings import GeneratorSettings


@dataclass(frozen=True)
class GanHistory:
    """What happened in training.

    Parameters
    ----------
    losses : Tensor
        [steps, 7] float32 on the CPU, columns named by ``LOSS_NAMES``.
    class_histograms : Tensor
        [intervals, C] int64 on the CPU: labels of the generated images, as the classifier
        sees them, summed over each interval.
    interval : int
        Steps per interval (the last one of a run may be shorter).
    """

    losses: Tensor
    class_histograms: Tensor
    interval: int


class GanTrainer:
    """Train a client's generator, some steps at a time.

    Parameters
    ----------
    images : Tensor
        The client's images [n, C, H, W], n ≥ 1: uint8, or floating in unit range. Training
        runs on their device.
    classifier : Module
        The client's own trained model; used in evaluation mode without weight gradients,
        and handed back as it was.
    num_classes : int
        Number of classes C.
    settings : GeneratorSettings
        Hyper-parameters; decides by n whether the inversion term is on.
    normalization : Normalization
        The way from tanh range to the classifier's.
    random : torch.Generator
        Stream of initial weights, batch order and noise; any device.
    autocast : callable
        Makes the context of forward passes, for reduced precision.
    channels_last : bool
        Whether networks and images use the channels-last memory format.
    augment : callable, optional
        From a batch [B, C, H, W] of ``images`` and the random stream to a changed batch.
    interval : int
        Steps between looks at the losses: divergence is noticed, ``report`` called, and a
        class histogram closed. Each look waits for the device.
    report : callable, optional
        Called as ``report(step, total, **losses)``.
    name : str
        What a divergence is blamed on.

    Raises
    ------
    ValueError
        If there is no image, or floating images leave unit range.
    """

    def __init__(
        self,
        images: Tensor,
        classifier: nn.Module,
        *,
        num_classes: int,
        settings: GeneratorSettings,
        normalization: Normalization,
        random: torch.Generator,
        autocast: Autocast = nullcontext,
        channels_last: bool = False,
        augment: Callable[[Tensor, torch.Generator], Tensor] | None = None,
        interval: int = 100,
        report: Callable[..., None] | None = None,
        name: str = "generator",
    ) -> None:
        _check_images(images)
        if interval < 1:
            raise ValueError(f"interval must be at least 1 step, got {interval}")
        self._images, self._classifier = images, classifier
        self._classes, self._settings, self._normalization = num_classes, settings, normalization
        self._random, self._autocast, self._augment = random, autocast, augment
        self._interval, self._report, self._name = interval, report, name
        self._format = torch.channels_last if channels_last else torch.contiguous_format
        self.shape = GanShape(
            channels=images.shape[1],
            image_size=images.shape[2],
            noise=settings.noise,
            width=settings.width,
            discriminator_width=settings.discriminator_width,
        )
        self.weights = settings.loss_weights(images.shape[0])
        self.gan = make_gan(
            self.shape.build_generator(random).to(images.device, memory_format=self._format),  # type: ignore[call-overload]
            self.shape.build_discriminator(random).to(images.device, memory_format=self._format),  # type: ignore[call-overload]
            settings,
        )
        self._order = endless_order(images.shape[0], settings.batch_size, random)
        self._losses: list[Tensor] = []
        self._histograms: list[Tensor] = []
        self._step = 0

    @property
    def generator(self) -> Generator:
        """The generator in training."""
        return self.gan.generator

    @property
    def history(self) -> GanHistory:
        """Losses and class histograms so far."""
        losses = torch.cat([*self._losses, torch.empty(0, len(LOSS_NAMES))])
        histograms = torch.zeros(0, self._classes, dtype=torch.int64)
        return GanHistory(
            losses,
            torch.stack(self._histograms) if self._histograms else histograms,
            self._interval,
        )

    def run(self, steps: int) -> GanHistory:
        """Train for ``steps`` more steps and return the history so far.

        Raises
        ------
        DivergedError
            If a loss is NaN or infinite.
        """
        self.gan.generator.train()
        self.gan.discriminator.train()
        inversion = bool(self.weights.inversion)
        with frozen(self._classifier):
            watch = BatchNormStatistics(self._classifier) if inversion else None
            with watch or nullcontext():
                guide = Guide(self._classifier, self._to_classifier, watch)
                done = 0
                while done < steps:
                    count = min(self._interval, steps - done)
                    self._run_interval(guide, count, done, steps)
                    done += count
        return self.history

    def _run_interval(self, guide: Guide, count: int, done: int, total: int) -> None:
        device = self._images.device
        losses = torch.empty(count, len(LOSS_NAMES), device=device)
        histogram = torch.zeros(self._classes, dtype=torch.int64, device=device)
        one = torch.ones(self._settings.batch_size, dtype=torch.int64, device=device)
        for row in losses:
            values, labels = gan_step(
                self.gan, self._real(), self._noise(), guide, self.weights, autocast=self._autocast
            )
            row.copy_(values)
            histogram.index_add_(0, labels, one)
        # The only wait for the device: once an interval, not once a step.
        losses = losses.cpu()
        bad = (~losses.isfinite()).nonzero()
        if len(bad):
            row_index, column = (int(i) for i in bad[0])
            value = float(losses[row_index, column])
            raise DivergedError(
                self._name, self._step + row_index, f"{LOSS_NAMES[column]} loss is {value}"
            )
        self._losses.append(losses)
        self._histograms.append(histogram.cpu())
        self._step += count
        if self._report is not None:
            last = dict(zip(LOSS_NAMES, losses[-1].tolist(), strict=True))
            self._report(done + count, total, **last)

    def _real(self) -> Tensor:
        """Draw the next batch of real images, in the range the discriminator is shown."""
        batch = self._images[next(self._order).to(self._images.device)]
        if self._augment is not None:
            batch = self._augment(batch, self._random)
        tanh = batch.float() / 127.5 - 1 if batch.dtype == torch.uint8 else batch * 2 - 1
        if self._settings.pixel_range == "raw":
            tanh = self._normalization.from_tanh(tanh)
        return tanh.contiguous(memory_format=self._format)

    def _noise(self) -> Tensor:
        shape = (self._settings.batch_size, self._settings.noise, 1, 1)
        noise = torch.randn(shape, generator=self._random, device=self._random.device)
        return noise.to(self._images.device)

    def _to_classifier(self, fake: Tensor) -> Tensor:
        raw = self._settings.pixel_range == "raw"
        return fake if raw else self._normalization.from_tanh(fake)


def steps_of_epochs(samples: int, settings: GeneratorSettings) -> int:
    """Return the steps of the settings' epochs over ``samples`` images."""
    return settings.epochs * -(-samples // settings.batch_size)


def endless_order(samples: int, batch: int, random: torch.Generator) -> Iterator[Tensor]:
    """Yield indices [batch] of shuffled passes over ``samples`` images, without end.

    Batches reach over the end of a pass, so all are full: a client with fewer images than
    a batch repeats them (ours; with published batches of n images, diversity would be
    asked of a single image where n is 1).
    """
    passes = -(-batch // samples)
    left = torch.empty(0, dtype=torch.int64, device=random.device)
    while True:
        if len(left) < batch:
            keys = torch.rand(passes, samples, generator=random, device=random.device)
            left = torch.cat([left, keys.argsort(dim=1).flatten()])
        yield left[:batch]
        left = left[batch:]


def _check_images(images: Tensor) -> None:
    if images.ndim != 4 or images.shape[0] == 0 or images.shape[2] != images.shape[3]:
        raise ValueError(f"images must be [n, C, H, H] with n >= 1, got {list(images.shape)}")
    if images.dtype != torch.uint8 and not bool(((images >= 0) & (images <= 1)).all()):
        raise ValueError("floating images must lie in [0, 1]")
