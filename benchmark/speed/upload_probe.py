"""What the server's memory grows by while it makes something of many clients' uploads.

Nothing is trained: clients send the initial weights, disturbed by noise of their own stream.
From there on everything is the suite's own, wire and spool included.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch

from benchmark.contract import Broadcast, Client, GlobalModel, Method, Server, Upload
from benchmark.events import Events
from benchmark.experiment import plan, resolve
from benchmark.federation.data import load_scenario_data
from benchmark.federation.federation import Federation
from benchmark.protocol import run_protocol
from benchmark.registry import discover
from benchmark.specs import ComputeSpec, RunSpec
from benchmark.speed.peaks import Memory, PeakMemory
from benchmark.spool import IN_MEMORY, Spool
from benchmark.store import Cache
from benchmark.training.precision import configure_threads
from methods.blocks.composition import Materials
from methods.blocks.schedule import Budget
from methods.blocks.submodel_averaging import held_classes
from methods.fedavg import FedAvg
from methods.fedrolex import FedRolex
from methods.mosaic.teaching import ClassExperts, make_experts

NOISE = 0.01
BATCH = 32
"""Images that experts are asked about."""


@dataclass(frozen=True)
class Case:
    """What is measured.

    Parameters
    ----------
    method : str
        A key of :data:`SERVERS`.
    clients : int
        Number of clients.
    family : str
        Of their models.
    widths : str
        Their width plan.
    in_memory : int
        Bytes of uploads that may stay in memory.
    """

    method: str
    clients: int
    family: str = "resnet18"
    widths: str = "1"
    in_memory: int = IN_MEMORY


@dataclass(frozen=True)
class Found:
    """What came out.

    Parameters
    ----------
    uploads : int
        Bytes that all clients sent.
    before, peak : Memory
        Before the round, and the most during it.
    seconds : float
        Of the round.
    """

    uploads: int
    before: Memory
    peak: Memory
    seconds: float


class _Disturbed(Method[Any]):
    """Clients that send noisy initial weights, and all that a server may ask for."""

    def client_update(self, client: Client, broadcast: Broadcast) -> Upload:
        state = client.initial_model().state_dict()
        noise = client.generator("disturbance")
        for value in state.values():
            if value.is_floating_point():
                value.add_(torch.randn(value.shape, generator=noise), alpha=NOISE)
        return Upload(
            {"model": state, "counts": {"labels": client.label_counts}},
            {"samples": client.num_samples, "classes": held_classes(client)},
        )


class _FedAvg(_Disturbed, FedAvg):
    pass


class _FedRolex(_Disturbed, FedRolex):
    pass


class _MosaicExperts(_Disturbed):
    """Makes Mosaic's experts and asks them about a batch."""

    name = "mosaic"
    summary = "the experts alone"

    def server_update(self, uploads: Mapping[int, Upload], server: Server) -> GlobalModel:
        materials = Materials(server, uploads, Budget(1, 1, 1))
        experts, _ = make_experts(materials, ClassExperts())
        task = server.task
        shape = (BATCH, task.channels, task.image_size, task.image_size)
        experts.logits(torch.randn(shape, generator=server.generator("images")))
        return GlobalModel(server.initial_model())


SERVERS: Mapping[str, type[Method[Any]]] = {
    "fedavg": _FedAvg,
    "fedrolex": _FedRolex,
    "mosaic experts": _MosaicExperts,
}


class _Spooling(Federation):
    """A federation whose uploads wait where the case says."""

    in_memory: ClassVar[int] = IN_MEMORY

    def spool(self) -> Spool:
        return Spool(super().spool().folder, self.in_memory)


def measure(case: Case) -> Found:
    """Run a case in this process, which should be a fresh one."""
    configure_threads(1)
    spec = _spec(case)
    _Spooling.in_memory = case.in_memory
    with tempfile.TemporaryDirectory() as folder:
        data = load_scenario_data(spec.scenario, None, None)
        cache = Cache(Path(folder))
        federation = _Spooling(spec.scenario, spec.compute, data, cache, Events())
        with torch.no_grad():  # what torch itself takes for a forward pass is no upload's
            federation.client(0).initial_model()(torch.zeros(BATCH, 1, 32, 32))
        server = SERVERS[case.method]
        method = server(server.Config())
        began = time.perf_counter()
        with PeakMemory() as memory:
            result = run_protocol(method, federation, spec.budget, _no_oracle)
        seconds = time.perf_counter() - began
        return Found(result.traffic.totals()[0], memory.before, memory.peak, seconds)


def _spec(case: Case) -> RunSpec:
    settings = {
        "profile": "smoke",
        "methods": ["fedrolex"],
        "models": [case.family],
        "widths": [case.widths],
        "clients": [case.clients],
        "train_samples": None,
        "holdout": 0.0,
        "history_points": 0,
    }
    experiment = resolve(settings, {}, "memory")
    runs, _ = plan(experiment, discover(), ComputeSpec(precision="fp32"))
    return runs[0].spec


def _no_oracle() -> Any:
    raise AssertionError("no reference is measured here")
