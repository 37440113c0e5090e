"""The start of a DENSE epoch, from which every way of taking it works on copies."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmark.images import Normalization
from benchmark.models.build import build
from benchmark.seeds import Streams
from methods.blocks.generator import DenseGenerator
from methods.blocks.synthesis import DENSE_SYNTHESIS

SIZE, CLASSES, PADDING = 32, 10, 4
NORMALIZATION = Normalization((0.286,), (0.353,))
SYNTHESIS = DENSE_SYNTHESIS.model_copy(update={"batch_norm": 1.0})
STREAMS = Streams(0)
AUGMENTATION, DISTILLATION = "speed augmentation", "speed distillation"
"""Names of the streams that every way draws from."""


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
        Of the new batch; the noise has the floating type that all is computed in.
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

    @property
    def dtype(self) -> torch.dtype:
        """Floating type of everything."""
        return self.noise.dtype

    def double(self) -> Scene:
        """Return the same start in float64."""
        return replace(
            self,
            clients=[copy.deepcopy(client).double() for client in self.clients],
            student=copy.deepcopy(self.student).double(),
            generator=copy.deepcopy(self.generator).double(),
            noise=self.noise.double(),
        )


@dataclass(frozen=True)
class Outcome:
    """Losses and price of an epoch.

    Parameters
    ----------
    synthesis : list of float
        Loss before each generator step.
    distillation : float
        Mean loss of the student's steps.
    images : Tensor
        uint8 [B, 1, 32, 32], what the epoch added to the pool.
    seconds : tuple of float
        Wall time of synthesis and of distillation.
    cpu : float
        Processor time of both together, that of loader workers included.
    """

    synthesis: list[float]
    distillation: float
    images: Tensor
    seconds: tuple[float, float]
    cpu: float


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
