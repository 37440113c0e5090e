"""A small federation on the digits, on which the contract checks run a method in-process."""

from __future__ import annotations

import pickle
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from benchmark.contract import Method
from benchmark.engine import Evaluator
from benchmark.evaluation import Evaluation
from benchmark.events import Events
from benchmark.experiment import ExperimentSpec, PlannedRun, plan, resolve
from benchmark.federation.data import ScenarioData, load_scenario_data
from benchmark.federation.federation import Federation, FederationOracle
from benchmark.protocol import ProtocolResult, run_protocol
from benchmark.registry import MethodInfo, Registry, discover
from benchmark.specs import ComputeSpec, RunSpec
from benchmark.store import Cache

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
        before = _global_chance()
        result = self.run()
        after = _global_chance()
        return FirstRun(result, tuple(name for name in before if before[name] != after[name]))

    def evaluate(self, result: ProtocolResult) -> Evaluation:
        """Evaluate a run's global model on the test set."""
        federation = self.federation()
        return Evaluator(federation, _cpu())(result.output.model)


def _global_chance() -> dict[str, bytes]:
    """Return the states of the global random streams that methods must leave alone."""
    import numpy as np
    import torch

    return {
        "torch": torch.get_rng_state().numpy().tobytes(),
        "NumPy": pickle.dumps(np.random.get_state()),  # noqa: NPY002 - the one to be left alone
    }


def _cpu() -> Any:
    import torch

    return torch.device("cpu")
