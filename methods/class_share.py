"""The ensemble weighted by class share: what label counts alone are worth."""

from __future__ import annotations

from collections.abc import Mapping

import torch

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
from methods.blocks.teachers import Average, ClassShareTeacher


class ClassShareConfig(MethodConfig):
    """How client outputs are combined."""

    average: Average = parameter(
        "logits", "what is averaged: logits, or softmax probabilities, which no client can outshout"
    )


class ClassShare(Method[ClassShareConfig]):
    """Each client's logit of a class counts by its share of that class's samples."""

    name = "class_share"
    summary = "reference: clients' logits, each class weighted by who holds its samples"
    kind = "reference"
    uses = frozenset({Information.WEIGHTS, Information.LABEL_COUNTS})
    uploads = "the model's state dict and the label counts"
    implemented = "A class that nobody holds is shared equally."
    Config = ClassShareConfig

    def client_update(self, client: Client, broadcast: Broadcast) -> Upload:
        """Upload the local model and the label counts."""
        return Upload(
            {
                "model": client.local_model().state_dict(),
                "counts": {"labels": client.label_counts},
            }
        )

    def server_update(self, uploads: Mapping[int, Upload], server: Server) -> GlobalModel:
        """Return the ensemble."""
        ensemble = ClientEnsemble(
            [server.client_model(index, up.parts["model"]) for index, up in uploads.items()]
        )
        counts = torch.stack([upload.parts["counts"]["labels"] for upload in uploads.values()])
        return GlobalModel(ClassShareTeacher(ensemble, counts, self.config.average))
