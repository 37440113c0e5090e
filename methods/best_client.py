"""The best single client: what a user has without any federation, if well advised."""

from __future__ import annotations

from collections.abc import Mapping

from benchmark.contract import (
    Broadcast,
    Client,
    GlobalModel,
    Information,
    MethodConfig,
    Oracle,
    Reference,
    Server,
    Upload,
)
from benchmark.specs import ScenarioSpec


class BestClient(Reference[MethodConfig]):
    """Chosen by accuracy on the held-out part of the training data, never on the test set."""

    name = "best_client"
    summary = "reference: the client model with the best accuracy on held-out training data"
    uses = frozenset({Information.WEIGHTS, Information.VALIDATION})
    uploads = "the model's state dict"
    implemented = "Ties go to the lower client index."
    scenarios = "needs held-out training data to choose on (`--holdout 0.1`)"

    def unsupported(self, scenario: ScenarioSpec) -> str | None:
        """Refuse scenarios that hold nothing out."""
        return None if scenario.holdout else "nothing is held out to choose on; use --holdout 0.1"

    def client_update(self, client: Client, broadcast: Broadcast) -> Upload:
        """Upload the local model."""
        return Upload({"model": client.local_model().state_dict()})

    def reference_update(
        self, uploads: Mapping[int, Upload], server: Server, oracle: Oracle
    ) -> GlobalModel:
        """Return the model that does best on the validation data."""
        accuracies = {
            index: oracle.accuracy(
                server.client_model(index, upload.parts["model"]),
                oracle.validation_images,
                oracle.validation_labels,
            )
            for index, upload in uploads.items()
        }
        best = max(accuracies, key=lambda index: (accuracies[index], -index))
        details = {
            "client": best,
            "validation_accuracy": {str(index): value for index, value in accuracies.items()},
        }
        return GlobalModel(server.client_model(best, uploads[best].parts["model"]), details=details)
