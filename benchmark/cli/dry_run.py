"""``run --dry-run``: what a command would run, and what that would cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from benchmark.cli import output
from benchmark.cli.naming import run_titles
from benchmark.errors import UserError

if TYPE_CHECKING:
    from benchmark.experiment import ExperimentSpec, PlannedRun
    from benchmark.grid import Options
    from benchmark.registry import BrokenPlugin

_COLUMNS = ("#", "run", "id", "state")


def dry_run(
    experiment: ExperimentSpec,
    runs: Sequence[PlannedRun],
    broken: Sequence[BrokenPlugin],
    options: Options,
) -> None:
    """Print every run with its state, and what those to run would cost here."""
    from benchmark.preview import made_by_other_code, preview

    console = output.stdout()
    names = run_titles(runs)
    states = preview(experiment, runs, options)
    rows = [
        (index, names[run.spec.run_id], run.spec.run_id, state)
        for index, (run, state) in enumerate(states, start=1)
    ]
    console.print(output.table(f"experiment {experiment.experiment}", _COLUMNS, rows))
    for plugin in broken:
        output.say(console, f"not installed: {plugin.name}: {output.one_line(plugin.reason)}")
    counts = Counter(state.split(":")[0] for _, state in states)
    output.say(console, ", ".join(f"{count} {state}" for state, count in sorted(counts.items())))
    todo = [run for run, state in states if state == "to run"]
    if todo:
        former = made_by_other_code(todo, options, experiment.experiment)
        if former:
            output.say(
                console,
                f"{former} of those to run {'has' if former == 1 else 'have'} a result of other "
                "code (an edit, another version of the suite), which tables keep until then",
            )
        output.say(console, _cost(todo, options))
        if said := _weights(todo, options):
            output.say(console, said)


def _weights(todo: Sequence[PlannedRun], options: Options) -> str | None:
    """Return what is to be said of Inception's weights where they are wanted and not here."""
    from benchmark.generation.inception import INCEPTION, WeightsMissingError, find_weights

    if not any(INCEPTION in run.spec.measure.extractors for run in todo):
        return None
    try:
        find_weights(options.inception_weights, download=False)
    except WeightsMissingError as error:
        return f"{error}"
    return None


def _cost(todo: Sequence[PlannedRun], options: Options) -> str:
    """Return what some runs would cost; nothing is downloaded to find out."""
    from benchmark.estimate import estimate
    from benchmark.training.precision import resolve_device

    try:
        # On a cluster the runs are other machines' work; this one can't tell how fast those are.
        resolve_device(todo[0].spec.compute.device)
        cost = estimate(todo, options)
    except UserError as error:
        return f"cost not estimated: {error}"
    # What trains or distils and does not say so is as good as free here.
    free = ", ".join(dict.fromkeys(run.label for run in todo if not run.work))
    seconds = output.human_seconds(cost.seconds / min(options.workers, len(todo)))
    return (
        f"estimated cost: {cost.optimizer_steps:,} optimiser steps, about {seconds} on this "
        f"machine ({options.workers} at a time), uploads of "
        f"{output.human_bytes(cost.upload_bytes)} (models alone)"
        + (f"; counted with no work of their own: {free}" if free else "")
    )
