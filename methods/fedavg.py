"""FedAvg (McMahan et al., AISTATS 2017): average the clients' models by their sample counts."""

from __future__ import annotations

from collections.abc import Mapping

from benchmark.aggregation import weighted_average
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
from benchmark.specs import ScenarioSpec


class FedAvgConfig(MethodConfig):
    """FedAvg's hyper-parameters."""

    rounds: int = parameter(
        1,
        "communication rounds; the local steps of one full local training are shared out over "
        "them, so that many rounds cost the clients no more than one",
        unit="rounds",
        ge=1,
    )
    weights: str = parameter(
        "samples",
        "what a client's model counts by: its samples, or all the same",
        source="paper",
        pattern="^(samples|uniform)$",
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
    uploads = "the model's state dict (batch-norm buffers included) and the sample count"
    implemented = (
        "Federated averaging with full participation. Batch-norm statistics are averaged like "
        "weights; integer counters become the truncated weighted mean."
    )
    deviations = (
        "All clients take part in every round; the paper also samples them.",
        "With several rounds the local steps of one full training are shared out over the "
        "rounds; the paper trains a fixed number of epochs in each.",
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

    def broadcast(self, client: ClientInfo, server: Server) -> Broadcast:
        """Send the global model from the second round on."""
        if server.round == 0:
            return Broadcast()
        return Broadcast({"model": server.global_model.state_dict()})

    def client_update(self, client: Client, broadcast: Broadcast) -> Upload:
        """Train from the global model by this round's share of the local steps."""
        if self.rounds == 1:
            model = client.local_model()
        else:
            model = client.initial_model()
            if broadcast.parts:
                model.load_state_dict(dict(broadcast.parts["model"]))
            if steps := share(client.local_steps(), self.rounds, client.round):
                client.train(model, steps=steps)
        return Upload({"model": model.state_dict()}, {"samples": client.num_samples})

    def server_update(self, uploads: Mapping[int, Upload], server: Server) -> GlobalModel:
        """Average the uploaded models."""
        uniform = self.config.weights == "uniform"
        weights = [1 if uniform else upload.values["samples"] for upload in uploads.values()]
        average = weighted_average([upload.parts["model"] for upload in uploads.values()], weights)
        model = server.initial_model()
        model.load_state_dict(average)
        server.report(server.round + 1, self.rounds, model)
        return GlobalModel(model)


def share(total: int, parts: int, index: int) -> int:
    """Return the size of part ``index`` of ``total`` cut into ``parts`` as even as can be.

    All parts together are exactly ``total``.
    """
    return total * (index + 1) // parts - total * index // parts
