"""The contract as checks: each takes a bench, and raises ``AssertionError`` with what is wrong."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from benchmark.contract import GlobalModel
from benchmark.evaluation import batch_gap
from benchmark.protocol import ProtocolResult
from benchmark.testing.bench import UNEQUAL_WIDTHS, Bench

Check = Callable[[Bench], None]

LOGIT_TOLERANCE = 1e-4
"""Largest difference of a logit between batch sizes: rounding, never batch mates."""

_BRIEF = {"generator_steps": 5, "generated_images": 40, "distilled_images": 64}
"""A budget with as many steps an image as the profile's, and a second epoch of its batches."""


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise AssertionError(message)


def _require_none(findings: Sequence[str]) -> None:
    for finding in findings:
        raise AssertionError(finding)


def says_what_it_is(bench: Bench) -> None:
    """State name, summary, information used, and a meaning for every parameter."""
    info = bench.info
    _require(bool(info.summary.strip()), f"{info.name}: the summary is empty")
    _require("\n" not in info.summary, f"{info.name}: the summary is one line")
    _require(bool(info.uses), f"{info.name}: say what information it uses")
    for parameter in info.parameters:
        _require(bool(parameter.meaning), f"{info.name}.{parameter.name} has no meaning")
        known = parameter.source in {"paper", "code", "ours"}
        _require(known, f"{info.name}.{parameter.name}: source is paper, code or ours")


def has_a_strict_configuration(bench: Bench) -> None:
    """Have valid defaults, a frozen configuration that round-trips, and refuse unknown keys."""
    config = bench.method().config
    again = type(config).model_validate(config.model_dump(mode="json"))
    _require(again == config, f"{bench.name}: the configuration does not round-trip")
    for wrong in ({"no_such_parameter": 1},):
        try:
            type(config).model_validate(wrong)
        except ValueError:
            continue
        raise AssertionError(f"{bench.name}: an unknown parameter is accepted")
    _require(bool(config.model_config.get("frozen")), f"{bench.name}: the config is not frozen")


def runs_and_classifies(bench: Bench) -> None:
    """End with a finite model over all classes, after an upload from every client."""
    result = bench.first.result
    evaluation = bench.evaluate(result)
    _require(0 <= evaluation.accuracy <= 1, f"{bench.name}: accuracy {evaluation.accuracy}")
    senders = {client for _, client in result.traffic.uploads}
    _require(len(senders) == len(bench.federation().infos), f"{bench.name}: a client is missing")


def repeats_bit_for_bit(bench: Bench) -> None:
    """Agree in every bit between two runs, whatever global chance did in between.

    The second one finds an empty cache: what clients train and make is made again.
    """
    _require_alike(bench, bench.first.result, bench.second.result, "two runs")


def finds_what_it_kept(bench: Bench) -> None:
    """Agree in every bit where what ``client.cached`` keeps is found and not made.

    What ``make`` leaves elsewhere, in ``self`` say, is missing then: after an interruption, or
    where another run made it.
    """
    first = bench.first.result  # makes what the next one finds
    bench.second.completed()
    if not bench.second.watch.artefacts:
        return
    try:
        again = bench.run()
    except Exception as error:
        kept = ", ".join(sorted(bench.second.watch.artefacts))
        error.add_note(
            f"{bench.name}: it happens where what client.cached keeps ({kept}) is found, not made: "
            "all that is needed of `make` has to be in what it returns"
        )
        raise
    _require_alike(bench, first, again, "a run that makes what it keeps, and one that finds it")


def _require_alike(bench: Bench, first: ProtocolResult, second: ProtocolResult, by: str) -> None:
    for what, one, other in (
        ("", first.output.model, second.output.model),
        ("teacher's ", first.output.teacher, second.output.teacher),
    ):
        again = _state(other)
        for name, value in _state(one).items():
            same = name in again and torch.equal(value, again[name])
            _require(same, f"{bench.name}: {what}'{name}' differs between {by}")
    made = [_generated(run.output) for run in (first, second)]
    same = torch.equal(made[0], made[1])
    _require(same, f"{bench.name}: generated images differ between {by}")
    _require(first.traffic == second.traffic, f"{bench.name}: traffic differs between {by}")
    details = dict(first.output.details), dict(second.output.details)
    _require(details[0] == details[1], f"{bench.name}: details differ between {by}")


def leaves_global_chance_alone(bench: Bench) -> None:
    """Neither draw from nor seed a global random stream."""
    moved = bench.first.moved
    _require(
        not moved,
        f"{bench.name}: uses the global RNG of {' and '.join(moved)}; draw from "
        "client.generator(purpose) or server.generator(purpose); layers that are built, and "
        "dropout, know torch's global one alone: with benchmark.seeds.seeded_global(generator)",
    )


def draws_each_stream_once(bench: Bench) -> None:
    """Ask once a round for a stream: the same purpose gives the same numbers each time."""
    second = bench.second
    _require_none(second.watch.repeated)
    second.completed()


def trains_in_one_piece(bench: Bench) -> None:
    """Give a client's training all its steps at once: every call begins the same batches anew."""
    second = bench.second
    _require_none(second.watch.restarted)
    second.completed()


def starts_students_as_the_scenario_says(bench: Bench) -> None:
    """Ask the scenario how a student starts, where one of fresh weights is made."""
    second = bench.second
    second.completed()  # who stops on the way may not have come to ask
    _require_none(second.watch.unruled)


def ignores_batch_mates(bench: Bench) -> None:
    """Predict an image alike whichever others are in its batch."""
    output = bench.first.result.output
    images = bench.data.test(torch.device("cpu")).images[:64]
    for model in filter(None, (output.model, output.teacher)):
        gap = batch_gap(model, images, normalization=bench.data.task.normalization)
        _require(gap < LOGIT_TOLERANCE, f"{bench.name}: a logit moves by {gap:.2g} with the batch")


def sees_only_what_it_may(bench: Bench) -> None:
    """Reach no image on the server, only its own on a client, never the test set or a data file."""
    second = bench.second
    _require_none(second.watch.reached)
    second.completed()


def declares_what_it_uploads(bench: Bench) -> None:
    """Upload no label counts or sets that the method does not say it uses."""
    second = bench.second
    _require_none(second.watch.undeclared)
    second.completed()


def describes_what_it_caches(bench: Bench) -> None:
    """Name every parameter that ``client.cached`` keeps something of in its description."""
    second = bench.second
    _require_none(second.watch.shared)
    second.completed()


def leaves_its_inputs_alone(bench: Bench) -> None:
    """Change neither a client's data nor the shared local models."""
    second = bench.second
    _require_none(second.watch.changed)
    second.completed()
    for index, (before, after) in second.local_models.items():
        for name, value in after.items():
            same = torch.equal(value, before[name])
            _require(same, f"client {index}: '{name}' of the shared local model was changed")


def counts_what_crosses(bench: Bench) -> None:
    """Book the bytes of every tensor that was sent, part by part, each round and both ways."""
    traffic = bench.second.result.traffic
    for (way, *place), parts in bench.second.watch.sent.items():
        booked = getattr(traffic, way).get(tuple(place), {})
        for part, count in parts.items():
            same = booked.get(part) == count
            _require(same, f"{way} {place}: '{part}' has {count} bytes, booked are {booked}")


def survives_tiny_clients(bench: Bench) -> None:
    """Train clients with one class, or fewer samples than a batch, without error."""
    small = _brief(bench, alpha=[0.01], clients=[8], train_samples=60)
    if small.skip is None:
        small.run()


def takes_unequal_widths_or_says_why(bench: Bench) -> None:
    """Run on unequal widths, or refuse them with a reason."""
    # A plan is for as many clients as it names, at least.
    clients = max(bench.experiment.clients[0], UNEQUAL_WIDTHS[0].count(",") + 1)
    narrow = _brief(bench, widths=UNEQUAL_WIDTHS, clients=[clients])
    if narrow.skip is None:
        result = narrow.run()
        narrow.evaluate(result)
    else:
        _require(bool(narrow.skip.strip()), f"{bench.name}: refuses without a reason")


def _brief(bench: Bench, **scenario: Any) -> Bench:
    """Return a bench on another scenario, where a run that ends says as much as a long one."""
    own = bench.overrides.keys() & _BRIEF.keys()
    budget = {} if own else _BRIEF
    return replace(bench, overrides={"epochs": 1, **budget, **bench.overrides, **scenario})


def _generated(output: GlobalModel) -> Tensor:
    return torch.empty(0) if output.generated is None else output.generated.images


def _state(model: nn.Module | None) -> dict[str, Tensor]:
    return {} if model is None else dict(model.state_dict())


CHECKS: tuple[Check, ...] = (
    says_what_it_is,
    has_a_strict_configuration,
    runs_and_classifies,
    repeats_bit_for_bit,
    finds_what_it_kept,
    leaves_global_chance_alone,
    draws_each_stream_once,
    trains_in_one_piece,
    starts_students_as_the_scenario_says,
    ignores_batch_mates,
    sees_only_what_it_may,
    declares_what_it_uploads,
    describes_what_it_caches,
    leaves_its_inputs_alone,
    counts_what_crosses,
    survives_tiny_clients,
    takes_unequal_widths_or_says_why,
)
"""The contract test suite, in the order in which failures are easiest to understand."""
