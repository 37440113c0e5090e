"""FedAvg (McMahan et al., AISTATS 2017): average the clients' models by their sample counts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from benchmark.contract import (
    Broadcast,
    Client,
    ClientInfo,
    GlobalModel,
    Information,
    Method,
    MethodConfig,
    Server,
    Source,
    Upload,
    parameter,
)
from benchmark.specs import BudgetSpec, ScenarioSpec
from methods.blocks.submodel_averaging import average_whole, head_names, held_classes, share


class FedAvgConfig(MethodConfig):
    """FedAvg's hyper-parameters."""

    rounds: int = parameter(
        1,
        "communication rounds; the local steps of one full local training are shared out over "
        "them, so that many rounds cost the clients no more than one",
        unit="rounds",
        ge=1,
    )
    weights: Literal["samples", "uniform"] = parameter(
        "samples",
        "what a client's model counts by: its samples, or all the same",
        source="paper",
    )
    label_masked: bool = parameter(
        False,
        "set the logits of classes that a client does not hold to zero in its loss, as FedRolex "
        "does; clients then train models of their own, not the shared ones",
        source="paper",
    )
    label_head: bool = parameter(
        False,
        "average each row of the last layer over the clients that hold its class, as FedRolex "
        "does; clients then upload which classes they hold",
        source="paper",
    )


class FedAvg(Method[FedAvgConfig]):
    """One round is one-shot FedAvg: the clients' shared local models, averaged once."""

    name = "fedavg"
    summary = "average of the clients' models, weighted by their sample counts"
    source = Source(
        "Communication-Efficient Learning of Deep Networks from Decentralized Data",
        2017,
        "https://arxiv.org/abs/1602.05629",
    )
    uses = frozenset({Information.WEIGHTS, Information.SAMPLE_COUNTS})
    uploads = (
        "the model's state dict (batch-norm buffers included) and the sample count; with "
        "label_head also the list of classes held"
    )
    implemented = (
        "Federated averaging with full participation. Batch-norm statistics are averaged like "
        "weights; integer counters become the truncated weighted mean."
    )
    deviations = (
        "All clients take part in every round; the paper also samples them.",
        "With several rounds the local steps of one full training are shared out over the "
        "rounds; the paper trains a fixed number of epochs in each.",
        "The recipe's schedule spans each round's steps: with `cosine` the learning rate falls to "
        "0 in every round, as FedRolex's does here.",
        "label_masked and label_head are not FedAvg's: with both, and uniform weights, it equals "
        "FedRolex at width 1 bit for bit, which tells that method's parts from each other.",
    )
    scenarios = "equal widths only: averaging needs models of one shape"
    Config = FedAvgConfig

    @property
    def rounds(self) -> int:
        """Communication rounds."""
        return self.config.rounds

    def unsupported(self, scenario: ScenarioSpec) -> str | None:
        """Refuse unequal widths."""
        return None if scenario.homogeneous else "averaging needs clients of equal width"

    def workload(self, scenario: ScenarioSpec, samples: int, budget: BudgetSpec) -> int:
        """Return one full local training unless the shared local models are used."""
        return samples * scenario.recipe.epochs if self._trains else 0

    @property
    def _trains(self) -> bool:
        return self.rounds > 1 or self.config.label_masked

    def broadcast(self, client: ClientInfo, server: Server) -> Broadcast:
        """Send the global model from the second round on."""
        if server.round == 0:
            return Broadcast()
        return Broadcast({"model": server.global_model.state_dict()})

    def client_update(self, client: Client, broadcast: Broadcast) -> Upload:
        """Train from the global model by this round's share of the local steps."""
        if not self._trains:
            model = client.local_model()
        else:
            model = client.initial_model()
            if broadcast.parts:
                model.load_state_dict(dict(broadcast.parts["model"]))
            if steps := share(client.local_steps(), self.rounds, client.round):
                client.train(model, steps=steps, label_masked=self.config.label_masked)
        values: dict[str, Any] = {"samples": client.num_samples}
        if self.config.label_head:
            values["classes"] = held_classes(client)
        return Upload({"model": model.state_dict()}, values)

    def server_update(self, uploads: Mapping[int, Upload], server: Server) -> GlobalModel:
        """Average the uploaded models."""
        uniform = self.config.weights == "uniform"
        model = server.initial_model()
        model.load_state_dict(
            average_whole(
                [upload.parts["model"] for upload in uploads.values()],
                [1 if uniform else upload.values["samples"] for upload in uploads.values()],
                server.global_model.state_dict(),
                head_names(model) if self.config.label_head else (),
                [upload.values.get("classes") for upload in uploads.values()],
            )
        )
        server.report(server.round + 1, self.rounds, model)
        details = {"also_uses": ["label sets"]} if self.config.label_head else {}
        return GlobalModel(model, details=details)
