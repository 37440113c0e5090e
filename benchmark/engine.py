"""The engine: what a child process does to make one run's record."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmark.contract import Method
from benchmark.environment import computed_with, git_state, processor
from benchmark.errors import DivergedError
from benchmark.evaluation import SELECTION, Evaluation
from benchmark.evaluator import Evaluator
from benchmark.events import Events, Sink
from benchmark.federation.data import load_scenario_data
from benchmark.federation.federation import Federation, FederationOracle
from benchmark.generation import GenerationMeter
from benchmark.generation.inception import INCEPTION, find_weights
from benchmark.pictures import grid_name, picture
from benchmark.protocol import ProtocolResult, run_protocol, update_client
from benchmark.registry import MethodInfo, PluginError, load
from benchmark.specs import RunSpec
from benchmark.store import FLOPS_ESTIMATE, Attempt, Cache, Record, Status
from benchmark.training.precision import configure_device, configure_threads

# Asked while this code is loaded: hours later the checkout may hold other code.
git_state()

_BATCH_TOLERANCE = 0.01
"""Far above rounding on any device, far below what statistics of a batch do."""


def execute(payload: Mapping[str, Any], sink: Sink | None = None) -> None:
    """Make one run and publish its record.

    Parameters
    ----------
    payload : mapping
        ``spec`` (a run spec), ``info`` (the plugin's metadata), ``label``, ``attempt`` (the
        working folder), ``cache`` (folder), ``use_cache`` (bool), ``data_root`` (folder or
        null), ``inception_weights`` (file or null). With ``client`` (an index) only that
        client's work of the first round is done, for the cache, and nothing is published.
    sink : Sink, optional
        Where progress goes.
    """
    began = time.perf_counter()
    spec = RunSpec.parse(payload["spec"], "run spec")
    info = MethodInfo.model_validate(payload["info"])
    configure_threads(spec.compute.threads)
    configure_device(spec.compute.device)
    events = Events(sink)
    cache = Cache(Path(payload["cache"]), disabled=not payload["use_cache"])
    events.progress("loading data", 0, 1)
    loading = time.perf_counter()
    data = load_scenario_data(
        spec.scenario,
        Path(payload["data_root"]) if payload.get("data_root") else None,
        cache.datasets,
    )
    data_seconds = time.perf_counter() - loading
    if INCEPTION in spec.measure.extractors and "client" not in payload:
        find_weights(_weights(payload))  # on this node, too, and not after hours of training
    method = configured_method(info, spec)
    preparing = time.perf_counter()
    federation = Federation(spec.scenario, spec.compute, data, cache, events, code=spec.code)
    if "client" in payload:
        update_client(method, federation, spec.budget, payload["client"])
        return
    warmup_wall = time.perf_counter() - preparing
    result = run_protocol(
        method, federation, spec.budget, lambda: FederationOracle(federation, events)
    )
    judged = _Judged(payload, spec, federation, result)
    judged.measure(cache, events)
    seconds = {
        "data_seconds": data_seconds,
        "evaluation_seconds": judged.evaluator.seconds,
        "generation_seconds": judged.generation_seconds,
    }
    attempt = Attempt(Path(payload["attempt"]))
    judged.write_beside(attempt)
    total = time.perf_counter() - began
    known = warmup_wall + sum(seconds.values())
    timing = _timing(federation, result, total, known) | seconds
    attempt.publish(judged.record(info, timing))


class _Judged:
    """What the harness finds out about a finished method: accuracy, history, its images.

    Parameters
    ----------
    payload : mapping
        The job's, for the place of Inception's weights.
    spec : RunSpec
        The run.
    federation : Federation
        With the data that methods never saw.
    result : ProtocolResult
        What the method made.
    """

    def __init__(
        self,
        payload: Mapping[str, Any],
        spec: RunSpec,
        federation: Federation,
        result: ProtocolResult,
    ) -> None:
        self._payload, self._spec = payload, spec
        self._federation, self._result = federation, result
        device = torch.device(spec.compute.device)
        self.evaluator = Evaluator(federation, device, spec.measure.judged_on)
        self.metrics: dict[str, Any] = {}
        self.history: list[dict[str, Any]] = []
        self.signatures: list[str] = []
        self.generation_seconds = 0.0

    def measure(self, cache: Cache, events: Events) -> None:
        """Evaluate the model, its history, and the images that it learned from."""
        events.progress("evaluation", 0, 1)
        self.metrics = _metrics(self._spec, self._federation, self._result, self.evaluator)
        self._refuse_batch_statistics()
        self.history = _history(self._result, self.evaluator)
        began = time.perf_counter()
        self.metrics["generation"], self.signatures = self._generation(cache, events)
        self.generation_seconds = time.perf_counter() - began

    def record(self, info: MethodInfo, timing: Mapping[str, Any]) -> Record:
        """Return the run's record: numbers, costs, and where they were computed."""
        spec, federation, result = self._spec, self._federation, self._result
        others = sorted(federation.other_processors | result.other_processors)
        cache_ids = {str(key): ids for key, ids in result.cache_ids.items()}
        found = {"client_cache_ids": cache_ids, "other_processors": others}
        warnings = [*_warnings(federation, others), *result.output.warnings, *self.signatures]
        return Record(
            run_id=spec.run_id,
            cell_id=spec.cell_id,
            status=Status.DONE,
            label=self._payload["label"],
            spec=spec.canonical(),
            method=info.for_record(),
            metrics=self.metrics,
            communication=_communication(federation, result),
            timing=dict(timing),
            environment=computed_with(spec.compute) | found,
            warnings=warnings,
        )

    def write_beside(self, attempt: Attempt) -> None:
        """Write what lies beside the record: the history, and the sample grids."""
        if self.history:
            attempt.write_history(self.history)
        for name, images in self._result.output.images.items():
            attempt.write_bytes(grid_name(name), picture(name, images, self._federation.data))

    def _refuse_batch_statistics(self) -> None:
        output = self._result.output
        if output.details.get("not_for_tables"):
            return  # a published habit, kept out of tables
        for what, model in (("model", output.model), ("teacher", output.teacher)):
            gap = 0.0 if model is None else self.evaluator.batch_gap(model)
            if gap > _BATCH_TOLERANCE:
                raise PluginError(
                    f"method '{self._spec.method.name}': what its {what} says of an image depends "
                    f"on the others in the batch (a logit moves by {gap:.2g}): statistics of test "
                    "batches are refused"
                )

    def _generation(self, cache: Cache, events: Events) -> tuple[list[dict[str, Any]], list[str]]:
        generated = self._result.output.generated
        # They are compared with test images, which stay closed while something is tuned.
        if generated is None or self._spec.measure.judged_on != "test":
            return [], []
        meter = GenerationMeter(
            self._federation.data,
            self._spec.compute,
            cache,
            events,
            extractors=self._spec.measure.extractors,
            inception_weights=_weights(self._payload),
        )
        return meter(generated)


def _weights(payload: Mapping[str, Any]) -> Path | None:
    return Path(payload["inception_weights"]) if payload.get("inception_weights") else None


def configured_method(info: MethodInfo, spec: RunSpec) -> Method[Any]:
    """Return the plugin with the run's configuration.

    Raises
    ------
    PluginError
        If the plugin's source is not the one that the run was planned with.
    """
    if info.plugin != spec.code.plugin:
        raise PluginError(f"method '{info.name}' changed since the run was planned")
    cls = load(info)
    return cls(cls.Config.model_validate(spec.method.config))


def _metrics(
    spec: RunSpec, federation: Federation, result: ProtocolResult, evaluator: Evaluator
) -> dict[str, Any]:
    data = federation.data
    output = result.output
    try:
        numbers = _numbers(evaluator(output.model))
        teacher = None if output.teacher is None else _numbers(evaluator(output.teacher))
    except ValueError as error:  # logits of a wrong shape
        raise PluginError(f"method '{spec.method.name}': its model's {error}") from error
    return {
        "selection": SELECTION.name,
        "judged_on": spec.measure.judged_on,
        **numbers,
        "teacher": teacher,
        "inference_flops": {
            "model": evaluator.inference_flops(output.model),
            "teacher": evaluator.inference_flops(output.teacher),
        },
        "details": dict(output.details),
        "split": {
            **data.partition.summary(),
            "id": data.partition.digest[:16],
            "sizes": list(data.partition.sizes),
            "widths": [str(info.width) for info in federation.infos],
            "windows": [info.window for info in federation.infos],
            "held_out": len(data.held_out),
            "pool": len(data.pool),
        },
        "dataset_fingerprint": data.dataset.fingerprint,
        "class_names": list(data.dataset.class_names),
        "scenario_id": spec.scenario.digest(),
    }


def _numbers(evaluation: Evaluation) -> dict[str, Any]:
    return {
        "accuracy": evaluation.accuracy,
        "loss": evaluation.loss,
        "per_class_accuracy": list(evaluation.per_class),
        "confusion": [list(row) for row in evaluation.confusion],
        "test_samples": evaluation.n,
    }


_MEASURED = frozenset({"round", "step", "client", "accuracy", "loss", "teacher_accuracy"})
"""Columns of a history that are the harness's own."""


def _reported(scalars: Mapping[str, float]) -> dict[str, float]:
    """Return what a method reported, under names that can't be taken for what is measured here."""
    return {
        f"reported_{name}" if name in _MEASURED else name: value for name, value in scalars.items()
    }


def _history(result: ProtocolResult, evaluator: Evaluator) -> list[dict[str, Any]]:
    rows = []
    teacher: nn.Module | None = None
    teacher_accuracy: float | None = None
    for snapshot in result.server.snapshots:
        row: dict[str, Any] = {"round": snapshot.round, "step": snapshot.step}
        row |= _reported(snapshot.scalars)
        if snapshot.model is not None:
            numbers = _look(evaluator, snapshot.model)
            row["accuracy"] = None if numbers is None else numbers.accuracy
            row["loss"] = None if numbers is None else numbers.loss
        if snapshot.teacher is not None:
            # Most teachers stand still while their student learns.
            if teacher is None or not _same_state(teacher, snapshot.teacher):
                numbers = _look(evaluator, snapshot.teacher)
                teacher_accuracy = None if numbers is None else numbers.accuracy
            teacher = snapshot.teacher
            row["teacher_accuracy"] = teacher_accuracy
        rows.append(row)
    for client, reports in sorted(result.client_reports.items()):
        rows += [
            {"round": at, "step": step, "client": client, **_reported(scalars)}
            for (at, step), scalars in sorted(reports.items())
        ]
    return rows


def _look(evaluator: Evaluator, model: nn.Module) -> Evaluation | None:
    """Evaluate a model on the way; ``None`` if it has no finite logits.

    The history is passive: what it meets must not decide what becomes of the run.
    """
    try:
        return evaluator(model)
    except DivergedError:
        return None


def _same_state(first: nn.Module, second: nn.Module) -> bool:
    states = first.state_dict(), second.state_dict()
    return states[0].keys() == states[1].keys() and all(
        torch.equal(value, states[1][name]) for name, value in states[0].items()
    )


def _communication(federation: Federation, result: ProtocolResult) -> dict[str, Any]:
    clients = len(federation.infos)
    warmup = federation.warmup_traffic.summary(clients)
    own = result.traffic.summary(clients)
    del warmup["elements"]  # those of its model, round for round
    return {
        **own,
        "rounds": result.server.rounds,
        "warmup": {"rounds": federation.scenario.warmup.rounds, **warmup},
        "total_up": own["up"] + warmup["up"],
        "total_down": own["down"] + warmup["down"],
    }


def _timing(
    federation: Federation, result: ProtocolResult, total: float, known: float
) -> dict[str, Any]:
    clients = result.client_seconds
    worked = sum(clients.values()) - result.cached_client_seconds
    return {
        "client_seconds": {
            "sum": sum(clients.values()),
            "max": max(clients.values()),
            "per_client": {str(index): seconds for index, seconds in clients.items()},
        },
        "cached_client_seconds": result.cached_client_seconds,
        "warmup_seconds": federation.warmup_seconds,
        "server_seconds": result.server_seconds,
        "flops": {
            "clients": result.client_flops,
            "server": result.server_flops,
            "estimate": FLOPS_ESTIMATE,
        },
        "total_seconds": total,
        "engine_seconds": max(total - known - worked - result.server_seconds, 0.0),
    }


def _warnings(federation: Federation, others: Sequence[str]) -> list[str]:
    moved = sum(federation.data.partition.topped_up)
    found = []
    if moved:
        samples = f"{moved} samples were moved from the largest ones"
        found += [f"the split left clients too small: {samples}"]
    if others:
        here = processor(federation.compute.device)
        found += [
            f"part of the clients' work is from the cache, made on {', '.join(others)}: on this "
            f"processor ({here}) alone, numbers may differ"
        ]
    return found
