"""Short names of runs: what tells each from the others of its grid."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from benchmark.specs import ScenarioSpec, plan_name

if TYPE_CHECKING:
    from benchmark.experiment import PlannedRun


def axes(scenario: ScenarioSpec) -> dict[str, str]:
    """Return what a scenario is made of, short, by axis."""
    partition = scenario.partition
    split = "" if scenario.split_seed == scenario.seed else f" split {scenario.split_seed}"
    return {
        "dataset": scenario.dataset,
        "partition": partition.scheme,
        "alpha": f"alpha {partition.alpha:g}" if partition.alpha is not None else "",
        "clients": f"{partition.clients} clients",
        "model": scenario.model.family,
        "widths": f"widths {plan_name(scenario.widths)}",
        "warm-up": f"warm-up {scenario.warmup.rounds}",
        "seed": f"seed {scenario.seed}{split}",
    }


def scenario_title(scenario: ScenarioSpec) -> str:
    """Return a scenario's whole name, one line."""
    return ", ".join(part for part in axes(scenario).values() if part)


def titles(scenarios: Sequence[ScenarioSpec]) -> list[str]:
    """Return names that leave out what all scenarios share; the dataset always stands."""
    parts = [axes(scenario) for scenario in scenarios]
    varying = {
        axis for axis in (parts[0] if parts else {}) if len({part[axis] for part in parts}) > 1
    }
    varying |= {"dataset", "seed"}
    return [
        ", ".join(text for axis, text in part.items() if axis in varying and text) for part in parts
    ]


def run_titles(runs: Sequence[PlannedRun]) -> dict[str, str]:
    """Return a name for each run, by run id: the method's label and its scenario."""
    names = titles([run.spec.scenario for run in runs])
    return {run.spec.run_id: f"{run.label} ({name})" for run, name in zip(runs, names, strict=True)}
