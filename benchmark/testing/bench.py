"""A small federation on the digits, on which the contract checks run a method in-process."""

from __future__ import annotations

import copy
import pickle
import random
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from benchmark.contract import Method
from benchmark.evaluation import Evaluation
from benchmark.evaluator import Evaluator
from benchmark.events import Events
from benchmark.experiment import ExperimentSpec, PlannedRun, plan, resolve
from benchmark.federation.data import ScenarioData, load_scenario_data
from benchmark.federation.federation import Federation, FederationOracle
from benchmark.protocol import ProtocolResult, run_protocol
from benchmark.registry import MethodInfo, Registry, discover
from benchmark.specs import ComputeSpec, RunSpec
from benchmark.store import Cache
from benchmark.testing.watch import Watch

UNEQUAL_WIDTHS = ("1/2,1/4,1/8",)


@dataclass(frozen=True)
class FirstRun:
    """A run that nobody disturbed or watched.

    Parameters
    ----------
    result : ProtocolResult
        What came of it.
    moved : tuple of str
        The global random streams that were in another state afterwards.
    """

    result: ProtocolResult
    moved: tuple[str, ...]


@dataclass(frozen=True)
class SecondRun:
    """A run of the same in an empty cache, watched.

    Parameters
    ----------
    outcome : ProtocolResult or Exception
        What came of it.
    watch : Watch
        What was seen on the way, as far as it came.
    local_models : mapping of int to pair of dict
        By client, the state of the shared local model before and after the run.
    """

    outcome: ProtocolResult | Exception
    watch: Watch
    local_models: Mapping[int, tuple[dict[str, Any], dict[str, Any]]]

    @property
    def result(self) -> ProtocolResult:
        """What came of it; raises what the run raised."""
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome

    def completed(self) -> None:
        """Raise what the run raised, if it did."""
        _ = self.result


@dataclass
class Bench:
    """Runs one method on one small scenario.

    Parameters
    ----------
    name : str
        The method.
    overrides : mapping
        Fields of :class:`benchmark.experiment.ExperimentSpec` on top of profile ``smoke``;
        ``set`` configures the method.
    folder : Path
        Where the cache lies; benches that share it share trained clients.
    registry : Registry
        Where the method is looked up.
    precision : {"fp32", "bf16"}
        What forward passes are computed in.
    """

    name: str
    overrides: Mapping[str, Any] = field(default_factory=dict)
    folder: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="contract-")))
    registry: Registry = field(default_factory=discover)
    precision: Literal["fp32", "bf16"] = "fp32"

    @cached_property
    def info(self) -> MethodInfo:
        """The plugin's metadata."""
        return self.registry.info(self.name)

    @cached_property
    def experiment(self) -> ExperimentSpec:
        """The grid of this one run."""
        settings = {"profile": "smoke", "methods": [self.name], **self.overrides}
        return resolve(settings, {}, "contract check")

    @cached_property
    def spec(self) -> RunSpec:
        """The run."""
        return self._planned[0].spec

    @cached_property
    def skip(self) -> str | None:
        """Why the method does not support the scenario, or ``None``."""
        return self._planned[0].skip

    @cached_property
    def _planned(self) -> list[PlannedRun]:
        runs, _ = plan(
            self.experiment, self.registry, ComputeSpec(precision=self.precision, threads=1)
        )
        return runs

    @cached_property
    def data(self) -> ScenarioData:
        """The scenario's data, dealt out."""
        return load_scenario_data(self.spec.scenario, None, self.folder / "data")

    def federation(self) -> Federation:
        """Return a fresh federation; trained clients come from the cache."""
        cache = Cache(self.folder)
        spec = self.spec
        return Federation(spec.scenario, spec.compute, self.data, cache, Events(), code=spec.code)

    def method(self) -> Method[Any]:
        """Return the configured plugin."""
        from benchmark.engine import configured_method

        return configured_method(self.info, self.spec)

    def run(
        self,
        watch: Callable[[Method[Any], Federation], None] | None = None,
        federation: Federation | None = None,
    ) -> ProtocolResult:
        """Run the method once.

        Parameters
        ----------
        watch : callable, optional
            Called with method and federation before the run, to put probes in.
        federation : Federation, optional
            Where to run; a fresh one if not given.
        """
        method = self.method()
        federation = federation or self.federation()
        if watch is not None:
            watch(method, federation)
        oracle = FederationOracle(federation, Events())
        return run_protocol(method, federation, self.spec.budget, lambda: oracle)

    @cached_property
    def first(self) -> FirstRun:
        """A plain run, made once for all checks that only look at what came of it."""
        # Made before: opening data imports libraries, of which one draws from Python's chance.
        federation = self.federation()
        before = _global_chance()
        result = self.run(federation=federation)
        after = _global_chance()
        return FirstRun(result, tuple(name for name in before if before[name] != after[name]))

    @cached_property
    def second(self) -> SecondRun:
        """A watched run, made once for all checks that look at what a method does on the way.

        Global chance has moved since the first, and the cache is empty: what clients train and
        make is made again.
        """
        _move_global_chance()
        with tempfile.TemporaryDirectory(prefix="contract-again-") as folder:
            bench = replace(self, folder=Path(folder))
            federation = bench.federation()
            watch = Watch(bench.data, bench.folder / "data")
            before = _local_models(federation)
            outcome: ProtocolResult | Exception
            try:
                outcome = bench.run(watch, federation)
            except Exception as error:  # noqa: BLE001 - each check raises it, after its findings
                outcome = error
            after = _local_models(federation)
        pairs = {index: (state, after[index]) for index, state in before.items()}
        return SecondRun(outcome, watch, pairs)

    def evaluate(self, result: ProtocolResult) -> Evaluation:
        """Evaluate a run's global model on the test set."""
        federation = self.federation()
        return Evaluator(federation, _cpu())(result.output.model)


def _global_chance() -> dict[str, bytes]:
    """Return the states of the global random streams that methods must leave alone."""
    import numpy as np
    import torch

    states = {
        "torch": torch.get_rng_state().numpy().tobytes(),
        "NumPy": pickle.dumps(np.random.get_state()),  # noqa: NPY002 - the one to be left alone
        "Python": pickle.dumps(random.getstate()),
    }
    if torch.cuda.is_available():
        of_devices = torch.cuda.get_rng_state_all()
        states["CUDA"] = b"".join(state.numpy().tobytes() for state in of_devices)
    return states


def _move_global_chance() -> None:
    import numpy as np
    import torch

    torch.rand(7)
    np.random.random(7)  # noqa: NPY002 - the global stream is what is to be moved
    random.random()
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            torch.rand(7, device=torch.device("cuda", index))


def _local_models(federation: Federation) -> dict[int, dict[str, Any]]:
    """Return copies of the clients' shared models by index."""
    clients = {info.index: federation.client(info.index) for info in federation.infos}
    return {
        index: copy.deepcopy(client.local_model().state_dict()) for index, client in clients.items()
    }


def _cpu() -> Any:
    import torch

    return torch.device("cpu")
