"""One method on one small synthetic problem: seconds of clients and server, peak of memory."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmark.engine import configured_method
from benchmark.events import Events
from benchmark.experiment import PlannedRun, plan, resolve
from benchmark.federation.data import load_scenario_data
from benchmark.federation.federation import Federation, FederationOracle
from benchmark.protocol import run_protocol
from benchmark.registry import discover
from benchmark.specs import ComputeSpec
from benchmark.speed.peaks import PeakMemory
from benchmark.store import Cache
from benchmark.training.precision import configure_threads

TEST_SAMPLES = 200


@dataclass(frozen=True)
class Point:
    """A method on a problem of some size.

    Parameters
    ----------
    method : str
        The method.
    clients, classes : int
        Size of the problem.
    data : Path
        Archive that :func:`write_data` made.
    settings : tuple of (str, value)
        Fields of an experiment besides.
    """

    method: str
    clients: int
    classes: int
    data: Path
    settings: tuple[tuple[str, Any], ...] = ()


@dataclass(frozen=True)
class Spent:
    """What it took.

    Parameters
    ----------
    client_seconds, server_seconds : float
        CPU time of this one-threaded process, so that others on the machine don't count.
    memory : int
        Bytes that private memory grew by at its peak.
    reference : bool
        Whether the method is a reference row.
    """

    client_seconds: float
    server_seconds: float
    memory: int
    reference: bool


def write_data(path: Path, classes: int, samples: int) -> None:
    """Write a synthetic dataset, noise around a pattern of each class, as a NumPy archive."""
    random = np.random.default_rng(classes)
    patterns = random.integers(0, 200, (classes, 1, 32, 32))
    arrays: dict[str, Any] = {}
    for part, count in (("train", samples), ("test", max(TEST_SAMPLES, classes))):
        labels = np.arange(count) % classes
        noise = random.integers(0, 56, (count, 1, 32, 32))
        arrays[f"x_{part}"] = (patterns[labels] + noise).astype(np.uint8)
        arrays[f"y_{part}"] = labels.astype(np.int64)
    np.savez(path, **arrays)


def planned(point: Point) -> PlannedRun:
    """Return the run of a point; it may say that it is to be skipped."""
    settings = {
        "profile": "smoke",
        "methods": [point.method],
        "datasets": [f"npz:{point.data}"],
        "clients": [point.clients],
        **dict(point.settings),
    }
    experiment = resolve(settings, {}, "scaling")
    runs, _ = plan(experiment, discover(), ComputeSpec(precision="fp32"))
    return runs[0]


def measure(point: Point) -> Spent | None:
    """Run a point in this process, which should be a fresh one; None if it is not supported."""
    configure_threads(1)
    run = planned(point)
    if run.skip is not None:
        return None
    spec = run.spec
    with tempfile.TemporaryDirectory() as folder:
        data = load_scenario_data(spec.scenario, None, Path(folder) / "data")
        cache = Cache(Path(folder) / "cache")
        federation = Federation(spec.scenario, spec.compute, data, cache, Events(), code=spec.code)
        _settle(federation)
        oracle = FederationOracle(federation, Events())
        method = configured_method(discover().info(point.method), spec)
        of_clients = _Stopwatch(method.client_update)
        vars(method)["client_update"] = of_clients.call
        began = time.process_time()
        with PeakMemory() as memory:
            run_protocol(method, federation, spec.budget, lambda: oracle)
        # Wire and broadcasts are the server's.
        rest = time.process_time() - began - of_clients.seconds
        grown = memory.peak.private - memory.before.private
        return Spent(of_clients.seconds, rest, grown, method.kind == "reference")


class _Stopwatch:
    """Sums the CPU time of calls of a function."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.seconds = 0.0

        @wraps(function)
        def call(*arguments: Any) -> Any:
            began = time.process_time()
            try:
                return function(*arguments)
            finally:
                self.seconds += time.process_time() - began

        self.call = call


def _settle(federation: Federation) -> None:
    """Let torch load what it needs for a training step, which is no method's memory."""
    client = federation.client(0)
    model = client.initial_model().train()
    loss = model(client.task.normalization.from_uint8(client.images[:8])).sum()
    torch.autograd.backward(loss)
