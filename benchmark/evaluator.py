"""Judges models on images that methods never see."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from benchmark.evaluation import Evaluation, batch_gap, evaluate, inference_flops

if TYPE_CHECKING:
    import torch
    from torch import nn

    from benchmark.federation.data import Samples
    from benchmark.federation.federation import Federation

_MATES = 8
"""Images that are judged together and alone, to see whether that is the same."""


class Evaluator:
    """Holds the images that models are judged on; nothing that a method is given refers to it.

    Parameters
    ----------
    federation : Federation
        Whose data it is.
    device : torch.device
        Where the images go.
    judged_on : {"test", "holdout"}
        The test set; or, while something is tuned, the held-out part of the training data. The
        test set stays closed then.
    """

    def __init__(
        self, federation: Federation, device: torch.device, judged_on: str = "test"
    ) -> None:
        data = federation.data
        self._samples: Samples = (
            data.test(device) if judged_on == "test" else data.validation(device)
        )
        self._task = federation.task
        self._device = device
        self.seconds = 0.0

    def __call__(self, model: nn.Module) -> Evaluation:
        """Evaluate a model on these images, in fp32."""
        with self._timed():
            return evaluate(
                model,
                self._samples.images,
                self._samples.labels,
                normalization=self._task.normalization,
                num_classes=self._task.num_classes,
                device=self._device,
            )

    def inference_flops(self, model: nn.Module | None) -> int | None:
        """Return the operations of one answer, ``None`` of no model."""
        if model is None:
            return None
        image, norm = self._samples.images[:1], self._task.normalization
        with self._timed():
            return inference_flops(model, image, normalization=norm, device=self._device)

    def batch_gap(self, model: nn.Module) -> float:
        """Return by how much a logit moves with its batch, of a few of these images."""
        images, norm = self._samples.images[:_MATES], self._task.normalization
        with self._timed():
            return batch_gap(model, images, normalization=norm, device=self._device)

    @contextmanager
    def _timed(self) -> Iterator[None]:
        began = time.perf_counter()
        yield
        self.seconds += time.perf_counter() - began
