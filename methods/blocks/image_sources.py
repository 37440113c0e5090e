"""Who invents the images: a server generator, a fresh sampler, or real data (an oracle)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from benchmark.contract import Generated
from benchmark.images import Normalization
from methods.blocks.ensemble import ClientEnsemble
from methods.blocks.generator import DenseGenerator
from methods.blocks.parts import Batch, Epoch, Student, Teacher
from methods.blocks.pool import FreshPool, GrowingPool
from methods.blocks.runtime import Precision
from methods.blocks.synthesis import Synthesis, draw_noise, draw_targets, synthesise


class GeneratorImages:
    """A generator trained against teacher and student, anew in every epoch.

    Each epoch re-initialises the generator, its noise and its optimiser, and adds the best
    batch to a pool that only grows (DENSE, Co-Boosting).

    Parameters
    ----------
    generator : DenseGenerator
        On the device that everything runs on.
    pool : GrowingPool
        Where images go, with the classes they were made for.
    num_classes : int
        Number of classes.
    settings : Synthesis
        Losses and optimiser.
    normalization : Normalization
        From unit range to classifier range.
    stream : torch.Generator
        Source of weights, noise, targets and augmentation.
    ensemble : ClientEnsemble, optional
        Client models for the batch-norm statistics term.
    precision : Precision, optional
        Autocast and layout of generator and student.
    """

    def __init__(
        self,
        generator: DenseGenerator,
        pool: GrowingPool,
        *,
        num_classes: int,
        settings: Synthesis,
        normalization: Normalization,
        stream: torch.Generator,
        ensemble: ClientEnsemble | None = None,
        precision: Precision | None = None,
    ) -> None:
        self.pool = pool
        self._generator = generator
        self._num_classes = num_classes
        self._settings = settings
        self._normalization = normalization
        self._stream = stream
        self._ensemble = ensemble
        self._precision = precision or Precision()
        self._precision.prepare(generator)

    def make(self, epoch: Epoch, teacher: Teacher, student: Student) -> GrowingPool:
        """Add one batch of ``epoch.plan.generated_images`` images and return the pool."""
        plan, generator = epoch.plan, self._generator
        generator.reinitialise(self._stream)
        like = next(generator.parameters())
        result = synthesise(
            generator,
            draw_noise(plan.generated_images, generator.noise_size, self._stream, like),
            draw_targets(
                plan.generated_images,
                self._num_classes,
                self._settings,
                self._stream,
                like.device,
            ),
            teacher,
            student.model,
            steps=plan.generator_steps,
            settings=self._settings,
            normalization=self._normalization,
            stream=self._stream,
            ensemble=self._ensemble,
            precision=self._precision,
        )
        self.pool.add(result.images, result.targets)
        epoch.counters.generator_steps += plan.generator_steps
        epoch.counters.generated_images += plan.generated_images
        epoch.scalars["images/loss"] = float(result.best_loss)
        return self.pool

    def generated(self) -> Generated:
        """Return all stored images."""
        return Generated(self.pool.images.cpu().clone())

    def samples(self, count: int) -> Tensor:
        """Return up to ``count`` stored images, uint8 [n, C, H, W], evenly from first to last."""
        count = min(count, self.pool.size)
        index = torch.arange(count) * self.pool.size // max(count, 1)
        return self.pool.images.cpu()[index]


class FreshImages:
    """An endless sampler, for instance of the clients' own generators (Mosaic).

    Parameters
    ----------
    sample : callable
        ``sample(count, generator)`` returns a :class:`Batch` of that many images. Each
        image drawn counts as a generated one.
    """

    def __init__(self, sample: Callable[[int, torch.Generator], Batch]) -> None:
        self._sample = sample

    def make(self, epoch: Epoch, teacher: Teacher, student: Student) -> FreshPool:
        """Return the source, counting what is drawn from it."""

        def counted(count: int, generator: torch.Generator) -> Batch:
            with torch.no_grad():
                batch = self._sample(count, generator)
            epoch.counters.generated_images += len(batch.images)
            return batch

        return FreshPool(counted)


class RealImages:
    """Real images in place of invented ones: an oracle that no method may use.

    Parameters
    ----------
    pool : GrowingPool
        Holds the images; never grows here.
    """

    def __init__(self, pool: GrowingPool) -> None:
        pool.settle()
        self.pool = pool

    def make(self, epoch: Epoch, teacher: Teacher, student: Student) -> GrowingPool:
        """Return the pool as it is."""
        return self.pool
