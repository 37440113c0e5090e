"""What a grid would cost: counted steps and bytes, and seconds calibrated on this machine."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import torch

from benchmark.contract import ClientInfo
from benchmark.engine import configured_method
from benchmark.experiment import PlannedRun
from benchmark.federation.data import ScenarioData, load_scenario_data
from benchmark.federation.federation import assign_widths
from benchmark.federation.slicing import empty_model, initial_state
from benchmark.grid import Options
from benchmark.models.build import state_bytes
from benchmark.seeds import Streams
from benchmark.specs import ComputeSpec, ScenarioSpec
from benchmark.training.trainer import train

_CALIBRATION_STEPS = 4


@dataclass(frozen=True)
class Estimate:
    """What the runs that are left would take.

    Parameters
    ----------
    optimizer_steps : int
        Training batches, of clients, references and servers together.
    seconds : float
        At the speed of a few steps measured just now; cached client models are not deducted.
    upload_bytes : int
        Bytes of model weights that all clients upload.
    """

    optimizer_steps: int
    seconds: float
    upload_bytes: int


def estimate(runs: Sequence[PlannedRun], options: Options) -> Estimate:
    """Estimate the cost of runs; those to be skipped count nothing.

    Shared local training counts once a scenario, whatever the number of methods.

    Raises
    ------
    UserError
        If a dataset is not on this machine: nothing is downloaded for an estimate.
    """
    steps, upload, seconds = 0, 0, 0.0
    speeds: dict[tuple[str, str, Fraction], float] = {}
    scenarios: dict[str, ScenarioData] = {}
    for run in runs:
        if run.skip is not None:
            continue
        scenario = run.spec.scenario
        images = 0
        if scenario.digest() not in scenarios:
            folder = options.data_cache
            scenarios[scenario.digest()] = load_scenario_data(
                scenario, options.data_root, folder, download=False
            )
            images += _local_images(scenario, scenarios[scenario.digest()])
        data = scenarios[scenario.digest()]
        key = (scenario.dataset, scenario.model.family, scenario.max_width)
        if key not in speeds:
            speeds[key] = _seconds_per_image(scenario, data, run.spec.compute)
        method = configured_method(run.info, run.spec)
        images += method.workload(scenario, len(data.pool), run.spec.budget)
        steps += -(-images // scenario.recipe.batch_size)
        seconds += images * speeds[key]
        upload += method.rounds * sum(
            _model_bytes(data, width) for width in assign_widths(scenario)
        )
    return Estimate(steps, seconds, upload)


def _local_images(scenario: ScenarioSpec, data: ScenarioData) -> int:
    warmup = scenario.warmup
    batch = scenario.recipe.batch_size
    clients = scenario.partition.clients
    images = warmup.rounds * warmup.steps * batch * clients
    if warmup.rounds and warmup.local == "steps":
        return images + warmup.steps * batch * clients
    return images + scenario.recipe.epochs * sum(data.partition.sizes)


def _seconds_per_image(scenario: ScenarioSpec, data: ScenarioData, compute: ComputeSpec) -> float:
    device = torch.device(compute.device)
    width = scenario.max_width
    model = empty_model(data.task, ClientInfo(0, width), device)
    model.load_state_dict(initial_state(data.task, width, Streams(0).torch("calibration")))
    samples = data.client(0, device)
    batch = min(scenario.recipe.batch_size, len(samples))

    def fit(steps: int) -> float:
        began = time.perf_counter()
        train(
            model,
            samples.images,
            samples.labels,
            recipe=scenario.recipe,
            normalization=data.task.normalization,
            generator=Streams(0).torch("calibration", device=device),
            # Compiling would take longer than what it is to tell.
            compute=compute.model_copy(update={"compile": False}),
            steps=steps,
            where="calibration",
        )
        return time.perf_counter() - began

    fit(2)  # first steps pay for one-time preparations
    return fit(_CALIBRATION_STEPS) / (_CALIBRATION_STEPS * batch)


def _model_bytes(data: ScenarioData, width: Fraction) -> int:
    return state_bytes(empty_model(data.task, ClientInfo(0, width), torch.device("cpu")))
