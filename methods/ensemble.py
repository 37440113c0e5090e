"""The plain ensemble of the clients' models: the teacher that distillation starts from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from benchmark.contract import (
    Broadcast,
    Client,
    GlobalModel,
    Information,
    Method,
    MethodConfig,
    Server,
    Upload,
    parameter,
)
from methods.blocks.ensemble import ClientEnsemble
from methods.blocks.teachers import EnsembleTeacher


class EnsembleConfig(MethodConfig):
    """How client outputs are combined."""

    average: Literal["logits", "probabilities"] = parameter(
        "logits",
        "what is averaged: logits, or softmax probabilities",
    )
    weights: Literal["uniform", "samples"] = parameter(
        "uniform",
        "what a client counts by: all the same, or by its samples",
    )


class WeightedEnsemble(EnsembleTeacher):
    """Weighted mean of client outputs.

    Parameters
    ----------
    ensemble : ClientEnsemble
        The frozen client models.
    weights : Tensor
        [clients], non-negative, not all zero.
    probabilities : bool
        Whether softmax probabilities are averaged; the log of their mean is returned.
    """

    weights: Tensor

    def __init__(self, ensemble: ClientEnsemble, weights: Tensor, probabilities: bool) -> None:
        super().__init__(ensemble)
        self.probabilities = probabilities
        device = next(ensemble.parameters()).device
        self.register_buffer("weights", (weights / weights.sum()).to(device))

    def combine(self, client_logits: Tensor) -> Tensor:
        """Return combined logits, [clients, B, classes] to [B, classes]."""
        if self.probabilities:
            logs = client_logits.log_softmax(dim=-1) + self.weights.log().view(-1, 1, 1)
            return logs.logsumexp(dim=0)
        return torch.einsum("k,kbc->bc", self.weights, client_logits)


class Ensemble(Method[EnsembleConfig]):
    """All client models are kept and asked: K times the inference cost of one model."""

    name = "ensemble"
    summary = "reference: the mean of all clients' logits (no single model)"
    kind = "reference"
    uses = frozenset({Information.WEIGHTS})
    uploads = "the model's state dict and the sample count"
    implemented = "Uniform mean of logits by default, as DENSE and Co-Boosting distil it."
    Config = EnsembleConfig

    def client_update(self, client: Client, broadcast: Broadcast) -> Upload:
        """Upload the local model."""
        return Upload({"model": client.local_model().state_dict()}, {"samples": client.num_samples})

    def server_update(self, uploads: Mapping[int, Upload], server: Server) -> GlobalModel:
        """Return the ensemble."""
        ensemble = ClientEnsemble(
            [server.client_model(index, up.parts["model"]) for index, up in uploads.items()]
        )
        uniform = self.config.weights == "uniform"
        weights = [1 if uniform else upload.values["samples"] for upload in uploads.values()]
        probabilities = self.config.average == "probabilities"
        return GlobalModel(
            WeightedEnsemble(ensemble, torch.tensor(weights, dtype=torch.float32), probabilities)
        )
