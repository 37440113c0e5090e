"""Teachers made of client models; each is a module, so it can be evaluated as a model."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from typing import Any, Literal, Self

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from benchmark.errors import UserError
from benchmark.flops import counted
from methods.blocks.ensemble import ClientEnsemble
from methods.blocks.ensemble_weights import improve_weights, weighted_logits
from methods.blocks.parts import Batch, Epoch, Pool
from methods.blocks.pool import grouped


class EnsembleTeacher(nn.Module):
    """Base of teachers that combine the clients' logits, image by image.

    Parameters
    ----------
    ensemble : ClientEnsemble
        The frozen client models.
    """

    fixed = False
    """Whether :meth:`improve` never changes an answer; a subclass says so of itself."""

    def __init__(self, ensemble: ClientEnsemble) -> None:
        super().__init__()
        self.ensemble = ensemble

    def combine(self, client_logits: Tensor) -> Tensor:
        """Return the mean of client logits, [clients, B, classes] to [B, classes]."""
        return client_logits.mean(0)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits [B, classes] for images [B, C, H, W] in classifier range."""
        return self.combine(self.ensemble(images))

    def improve(self, epoch: Epoch, pool: Pool) -> None:
        """Do nothing: this teacher does not learn."""

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        # The clients never change, so snapshots of a teacher share them; and its random
        # stream stays with the original.
        clone = type(self).__new__(type(self))
        memo[id(self)] = clone
        for value in (self.ensemble, *vars(self).values()):
            if isinstance(value, ClientEnsemble | torch.Generator):
                memo[id(value)] = value
        clone.__dict__.update({name: deepcopy(value, memo) for name, value in vars(self).items()})
        return clone


class MeanTeacher(EnsembleTeacher):
    """Every client counts the same: the mean of logits (DENSE, arXiv 2112.12371)."""

    fixed = True


Average = Literal["logits", "probabilities"]
"""What of the clients' outputs is averaged."""


class ClassShareTeacher(EnsembleTeacher):
    """A client's answer for class c counts by its share of that class's samples (ours).

    Needs the clients' label counts, which is more information than weights alone.

    Parameters
    ----------
    ensemble : ClientEnsemble
        The frozen client models.
    label_counts : Tensor
        [clients, classes], samples of each class at each client. A class that nobody has
        is shared equally.
    average : {"logits", "probabilities"}
        Of what. A client that never saw a class puts a large logit somewhere all the same;
        its probabilities are bounded, so that it can't outvote those who know.

    Raises
    ------
    UserError
        If there is not one row for each client, or a count is negative.
    """

    fixed = True
    shares: Tensor

    def __init__(
        self, ensemble: ClientEnsemble, label_counts: Tensor, average: Average = "logits"
    ) -> None:
        super().__init__(ensemble)
        self.average = average
        if label_counts.dim() != 2 or len(label_counts) != len(ensemble):
            raise UserError(
                f"label counts have shape {tuple(label_counts.shape)}; "
                f"{len(ensemble)} clients need ({len(ensemble)}, classes)"
            )
        if bool((label_counts < 0).any()):
            raise UserError("label counts hold a negative number; counts are at least 0")
        first = next(ensemble.parameters())
        counts = label_counts.to(torch.float64)
        counts = torch.where(counts.sum(0) > 0, counts, torch.ones_like(counts))
        self.register_buffer("shares", (counts / counts.sum(0)).to(first.device, first.dtype))

    def combine(self, client_logits: Tensor) -> Tensor:
        """Return sum_k share_kc f_kc, [clients, B, classes] to [B, classes].

        Of probabilities: log sum_k share_kc softmax(f_k)_c, not normalised over classes.
        """
        if self.average == "probabilities":
            exact = torch.promote_types(client_logits.dtype, torch.float32)
            logs = client_logits.to(exact).log_softmax(dim=-1) + self.shares.log()[:, None]
            return logs.logsumexp(dim=0)
        return torch.einsum("kc,kbc->bc", self.shares.to(client_logits.dtype), client_logits)


class WeightUpdate(BaseModel):
    """Settings of the search for ensemble weights (arXiv 2402.15070, published scripts).

    Parameters
    ----------
    step : float
        Size of a sign step in the first epoch (mu).
    decay : float
        Factor on the step for each epoch (wdc).
    passes : int
        Passes over the older part of the pool in an epoch (wa_steps); 0 keeps the weights.
    batch_size : int
        Images a sign step.
    ahead : int
        Images whose client logits are computed together; bounds memory, changes nothing.
    missing_labels : {"error", "ensemble"}
        What to do with images that come without a label: refuse them, or take the
        prediction of the uniform ensemble (ours).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    step: float = Field(default=0.01, ge=0)
    decay: float = Field(default=0.99, gt=0, le=1)
    passes: int = Field(default=1, ge=0)
    batch_size: int = Field(default=128, ge=1)
    ahead: int = Field(default=512, ge=1)
    missing_labels: Literal["error", "ensemble"] = "error"


class BoostedTeacher(EnsembleTeacher):
    """Weighted logits, with weights improved on the pool (Co-Boosting, arXiv 2402.15070).

    Parameters
    ----------
    ensemble : ClientEnsemble
        The frozen client models.
    settings : WeightUpdate
        Step sizes and batches.
    generator : torch.Generator
        Source of the order and augmentation of the pool's images.
    """

    weights: Tensor

    def __init__(
        self, ensemble: ClientEnsemble, settings: WeightUpdate, generator: torch.Generator
    ) -> None:
        super().__init__(ensemble)
        self.settings = settings
        self._generator = generator
        first = next(ensemble.parameters())
        uniform = torch.full(
            (len(ensemble),), 1 / len(ensemble), dtype=first.dtype, device=first.device
        )
        self.register_buffer("weights", uniform)

    def combine(self, client_logits: Tensor) -> Tensor:
        """Return sum_k w_k f_k / sum_k w_k, [clients, B, classes] to [B, classes]."""
        return weighted_logits(client_logits, self.weights.to(client_logits.dtype))

    def improve(self, epoch: Epoch, pool: Pool) -> None:
        """Take a sign step a mini-batch of the images older than this epoch's.

        Nothing happens in the first epoch. With the published budget this is ``passes``
        times one pass over the older images; with another one the number of images keeps
        its ratio to the distilled images (ours).

        Raises
        ------
        UserError
            If images have no label and ``missing_labels`` is ``"error"``.
        """
        older = pool.older()
        if epoch.plan.index == 0 or older is None or self.settings.passes == 0:
            return
        images = self._images(epoch, pool, older)
        if images == 0:
            return
        batches = older.batches(self.settings.batch_size, generator=self._generator, images=images)
        size = self.settings.step * self.settings.decay**epoch.plan.index
        weights, losses = improve_weights(self.weights, self._logits_ahead(batches), size)
        self.weights.copy_(weights)
        epoch.counters.weighed_images += images
        epoch.scalars["teacher/loss"] = float(torch.stack(losses).mean())

    def _images(self, epoch: Epoch, pool: Pool, older: Pool) -> int:
        distilled = epoch.plan.distilled_images
        if pool.size is None or older.size is None:
            return self.settings.passes * distilled
        return round(self.settings.passes * distilled * older.size / pool.size)

    def _labels(self, batch: Batch, logits: Tensor) -> Tensor:
        if batch.labels is not None:
            return batch.labels
        if self.settings.missing_labels == "ensemble":
            return logits.mean(0).argmax(1)
        raise UserError(
            "teacher 'boosted' needs labelled images, and these have none; "
            "choose other images, or missing_labels=ensemble"
        )

    @torch.no_grad()
    def _logits_ahead(self, batches: Iterator[Batch]) -> Iterator[tuple[Tensor, Tensor]]:
        for group in grouped(batches, self.settings.ahead):
            with counted():
                logits = self.ensemble(torch.cat([batch.images for batch in group]))
            parts = torch.split(logits, [len(batch.images) for batch in group], dim=1)
            for batch, part in zip(group, parts, strict=True):
                yield part, self._labels(batch, part)
