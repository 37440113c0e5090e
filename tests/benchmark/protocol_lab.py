"""A method that shows what the protocol does, and a run of it."""

from __future__ import annotations

from typing import Any

import torch

from benchmark.contract import Broadcast, GlobalModel, Method, MethodConfig, Upload
from benchmark.events import Events
from benchmark.federation.federation import Federation, FederationOracle
from benchmark.protocol import ProtocolResult, run_protocol
from benchmark.specs import BudgetSpec

BUDGET = BudgetSpec(history_points=4)


class Toy(Method[MethodConfig]):
    """Uploads a vector and its index; the server keeps what it saw."""

    name = "toy"
    summary = "for tests"
    turns = 1

    def __init__(self) -> None:
        super().__init__(MethodConfig())

    @property
    def rounds(self) -> int:
        return self.turns

    def client_update(self, client: Any, broadcast: Broadcast) -> Upload:
        vector = torch.arange(5, dtype=torch.float32) + client.info.index
        return Upload({"vector": {"v": vector}}, {"round": client.round})

    def server_update(self, uploads: Any, server: Any) -> GlobalModel:
        server.state.setdefault("seen", []).append(
            {index: (upload.parts, upload.values) for index, upload in uploads.items()}
        )
        return GlobalModel(server.initial_model())


class Local(Toy):
    """Uploads nothing but asks for the local model."""

    def client_update(self, client: Any, broadcast: Broadcast) -> Upload:
        client.local_model()
        return Upload()


def run(method: Method[Any], federation: Federation) -> ProtocolResult:
    oracle = FederationOracle(federation, Events())
    return run_protocol(method, federation, BUDGET, lambda: oracle)
