"""Centralised training: what the model would reach if all data were in one place."""

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
from benchmark.specs import BudgetSpec, ScenarioSpec


class Centralized(Reference[MethodConfig]):
    """Sees all clients' data, which no federated method may: an upper reference."""

    name = "centralized"
    summary = "reference: one model trained on all clients' data by the clients' recipe"
    uses = frozenset({Information.ALL_DATA})
    uploads = "nothing: the data is taken to be in one place"
    implemented = (
        "The clients' recipe, on the pooled data, for the same number of epochs; "
        "in full where a warm-up is followed by a few steps alone (--warmup-local steps)."
    )

    def workload(self, scenario: ScenarioSpec, samples: int, budget: BudgetSpec) -> int:
        """Return the images of one full training on all data."""
        return samples * scenario.recipe.epochs

    def client_update(self, client: Client, broadcast: Broadcast) -> Upload:
        """Upload nothing."""
        return Upload()

    def reference_update(
        self, uploads: Mapping[int, Upload], server: Server, oracle: Oracle
    ) -> GlobalModel:
        """Train on everything, from the state that the clients start from."""
        model = server.initial_model()
        oracle.train_centrally(model)
        return GlobalModel(model)
