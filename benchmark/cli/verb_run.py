"""``run``: a grid of methods and scenarios, resumed where it stopped, and its tables."""

from __future__ import annotations

import argparse
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from benchmark.cli import output
from benchmark.cli.checks import (
    check_experiment,
    check_file,
    check_folder,
    check_force,
    check_threads,
    check_weights,
    load_data,
    not_at_hand,
    outdated,
)
from benchmark.cli.dry_run import dry_run
from benchmark.cli.failures import say_failures
from benchmark.cli.flags import experiment_of
from benchmark.cli.naming import run_titles
from benchmark.cli.parsing import Parser, new_parser, settings
from benchmark.cli.progress import Listener, listening, loading
from benchmark.cli.run_flags import add_run_flags
from benchmark.entries import settings_asked_for
from benchmark.errors import UserError
from benchmark.trackers import TrackedListener, check_tracker

if TYPE_CHECKING:
    from benchmark.executor import Executor
    from benchmark.executor.ray_engine import RayExecutor
    from benchmark.experiment import ExperimentSpec, PlannedRun
    from benchmark.grid import GridResult, Options
    from benchmark.grid import Listener as Listening
    from benchmark.registry import BrokenPlugin, Registry
    from benchmark.specs import ComputeSpec

_DESCRIPTION = """\
Runs every method on every scenario of the grid, then prints its tables. What is done is not
done again: the same command goes on where it stopped. A flag counts before the file of
--config, the file before the profile, the profile before the defaults. Shown are the values of
profile quick."""


def parser() -> Parser:
    """Return the parser of ``run``."""
    made = new_parser("run", _DESCRIPTION)
    add_run_flags(made)
    return made


def execute(values: argparse.Namespace, talk: Console) -> int:
    """Run the grid; return the exit status."""
    experiment = experiment_of(values)
    _check_flags(values, experiment)
    check_experiment(experiment)
    if values.engine != "ray":
        check_threads(experiment.threads)
    from benchmark.experiment import plan
    from benchmark.registry import discover

    registry = discover()
    for name in (*experiment.methods, *settings_asked_for(experiment)):
        if name != "all":
            registry.info(name)  # refused before torch is loaded
    compute = compute_of(experiment, elsewhere=values.engine == "ray")
    runs, broken = plan(experiment, registry, compute)
    _refuse_idle_settings(values, {run.info.name for run in runs} | {it.name for it in broken})
    options = _compared(experiment, runs, _options(values, runs, compute), talk)
    if values.dry_run:
        from benchmark.cli.main import OK

        dry_run(experiment, runs, broken, options)
        return OK
    from benchmark.store import Store

    todo = _to_run(experiment, runs, options)
    if todo:
        Store(options.results).check_writable()
        check_weights(todo, options)
        # What is downloaded or decoded now can be compared with records only after it.
        later = not_at_hand(runs, options)
        with loading(talk, quiet=values.quiet) as progress:
            load_data(todo, options, progress)
        if later:
            options = _compared(experiment, later, options, talk)
            todo = _to_run(experiment, runs, options)
    executor = _ray_executor(values, compute) if values.engine == "ray" else None
    if executor is not None:
        from benchmark.executor.ray_engine import RETRIES

        room = max(1, executor.room(compute.threads))
        options = replace(
            options, workers=room, gpus=(), retries=RETRIES, share_clients=not values.ship
        )
    return _run(
        experiment,
        runs,
        broken,
        options,
        talk,
        executor=executor,
        quiet=values.quiet,
        todo=len(todo),
        report=None if values.no_report else registry,
        tracker=values.tracker,
    )


def _compared(
    experiment: ExperimentSpec, runs: Sequence[PlannedRun], options: Options, talk: Console
) -> Options:
    """Return options that also name those of the runs recorded from other data than lies there."""
    found = outdated(runs, options, experiment.experiment)
    if found:
        runs_were = output.counted(len(found), "run was", "runs were")
        output.say(talk, f"data changed since {runs_were} recorded: to be run again")
    return replace(options, outdated=options.outdated | found)


def _to_run(
    experiment: ExperimentSpec, runs: Sequence[PlannedRun], options: Options
) -> list[PlannedRun]:
    from benchmark.preview import preview

    return [run for run, state in preview(experiment, runs, options) if state == "to run"]


def _check_flags(values: argparse.Namespace, experiment: ExperimentSpec) -> None:
    """Refuse what is wrong with places and helpers, before anything is imported for them."""
    _check_engine(values)
    check_folder(values.results, "--results")
    if values.data_root is not None:
        check_folder(values.data_root, "--data-root")
    if values.inception_weights is not None:
        check_file(values.inception_weights, "--inception-weights")
        if "inception" not in experiment.measure_spec().extractors:
            raise UserError("--inception-weights has no effect: it needs --extractors inception")
    if values.tracker is not None:
        check_tracker(values.tracker)


def _refuse_idle_settings(values: argparse.Namespace, methods: Collection[str]) -> None:
    """Refuse ``--set`` for a method that the grid does not run; a file's may lie idle."""
    for name, own in settings(values.set or ()).items():
        if name not in methods:
            raise UserError(
                f"--set {name}.{next(iter(own))} has no effect: it needs --methods {name}"
            )


def _check_engine(values: argparse.Namespace) -> None:
    """Refuse flags of the Ray engine beside another one."""
    if values.engine != "ray":
        for flag in ("address", "ship"):
            if getattr(values, flag):
                raise UserError(f"--{flag} is for --engine ray only")


def _ray_executor(values: argparse.Namespace, compute: ComputeSpec) -> RayExecutor:
    from benchmark.executor.ray_engine import RayExecutor
    from benchmark.grid import PRELOAD, TARGET

    return RayExecutor(
        TARGET,
        address=values.address or "auto",
        workers=None if values.workers == "auto" else values.workers,
        gpu=compute.device == "cuda",
        ship=values.ship,
        preload=PRELOAD,
    )


def compute_of(experiment: ExperimentSpec, *, elsewhere: bool = False) -> ComputeSpec:
    """Return device, precision, threads and compilation with nothing left to ``auto``.

    Parameters
    ----------
    experiment : ExperimentSpec
        The grid.
    elsewhere : bool
        Whether other machines compute; then this one needs no GPU itself.

    Raises
    ------
    UserError
        If CUDA is asked for and absent, or compilation without a compiler.
    """
    from benchmark.specs import ComputeSpec
    from benchmark.training import precision

    values: dict[str, object] = {"threads": experiment.threads, "compile": experiment.compile}
    if elsewhere and experiment.device == "cuda" and precision.resolve_device().type != "cuda":
        if experiment.precision == "auto":
            raise UserError(
                "--device cuda: this machine has no GPU to ask what it can do; add "
                "--precision bf16 (Ampere or later) or --precision fp32"
            )
        values |= {"device": "cuda", "precision": experiment.precision}
    else:
        device = precision.resolve_device(experiment.device)
        if experiment.compile:
            precision.check_compiler(device)
        chosen = precision.resolve_precision(experiment.precision, device)
        values |= {"device": device.type, "precision": chosen}
    return ComputeSpec.parse(values, "command line")


def workers_of(asked: int | str, compute: ComputeSpec) -> int:
    """Return the number of runs at a time: as asked, or what the machine has room for.

    On a CPU, the cores that this process may use over each run's threads; on CUDA one a GPU.
    """
    if isinstance(asked, int):
        return asked
    from benchmark.environment import usable_cores
    from benchmark.training.precision import visible_gpus

    if compute.device == "cuda":
        return max(1, len(visible_gpus()))
    return max(1, usable_cores() // compute.threads)


def _options(
    values: argparse.Namespace, runs: Sequence[PlannedRun], compute: ComputeSpec
) -> Options:
    from benchmark.grid import Options
    from benchmark.training.precision import visible_gpus

    return Options(
        results=values.results,
        data_root=values.data_root,
        inception_weights=values.inception_weights,
        cache=not values.no_cache,
        timeout=values.timeout,
        workers=workers_of(values.workers, compute),
        gpus=visible_gpus() if compute.device == "cuda" else (),
        force=check_force(values.force, runs),
    )


def _run(
    experiment: ExperimentSpec,
    runs: Sequence[PlannedRun],
    broken: Sequence[BrokenPlugin],
    options: Options,
    talk: Console,
    *,
    executor: Executor | None,
    quiet: bool,
    todo: int,
    report: Registry | None,
    tracker: str | None,
) -> int:
    from benchmark import grid
    from benchmark.cli.main import INTERRUPTED

    began = time.monotonic()
    try:
        with (
            listening(run_titles(runs), talk, quiet=quiet, todo=todo) as listener,
            _tracked(listener, tracker, options, experiment, quiet=quiet) as told,
        ):
            result = grid.execute(experiment, runs, broken, options, told, executor=executor)
    except KeyboardInterrupt:
        output.error_line(_how_to_go_on(options))
        return INTERRUPTED
    if report is not None:
        show_report(options.results / result.experiment, report, None if quiet else talk)
    if not quiet:
        output.say(talk, summary(result, time.monotonic() - began))
    return _conclude(result, listener, options.results)


def _how_to_go_on(options: Options) -> str:
    """Return what to say after Ctrl-C: --force once more would run all of it anew."""
    if options.force:
        return (
            "interrupted; finished runs are kept: give the command without --force to go on with "
            "what has no result (runs whose turn had not come keep the one they had)"
        )
    return "interrupted; finished runs are kept: give the same command again to go on"


@contextmanager
def _tracked(
    listener: Listener,
    tracker: str | None,
    options: Options,
    experiment: ExperimentSpec,
    *,
    quiet: bool,
) -> Iterator[Listening]:
    """Return the listener, with a tracker beside it if one is asked for."""
    if tracker is None:
        yield listener
        return
    folder = options.results / experiment.experiment
    told = TrackedListener.with_tracker(listener, tracker, folder, experiment.experiment)
    try:
        yield told
    finally:
        told.close()
        if quiet and told.failure:  # else it was said at once
            output.error_line(told.failure)


def show_report(folder: Path, registry: Registry, talk: Console | None) -> None:
    """Write an experiment's tables and print them on stdout; say what other code has made.

    Parameters
    ----------
    folder : Path
        The experiment's folder.
    registry : Registry
        The plugins as they were found when the command began.
    talk : Console or None
        Where that is said; nowhere if there is none.
    """
    from benchmark.cli.stale import say_stale
    from reports.api import write_report
    from reports.terminal import print_report

    print_report(write_report(folder), output.stdout())
    if talk is not None:
        say_stale(folder, registry, talk)


def summary(result: GridResult, seconds: float) -> str:
    """Return what a command did, one line."""
    skipped = f", {result.skipped} skipped" if result.skipped else ""
    if not result.done and not result.failed:
        every = "the run is" if result.already == 1 else f"all {result.already} runs are"
        return f"nothing to do: {every} done{skipped}"
    parts = [output.counted(result.done, "run done", "runs done")]
    if result.already:
        parts.append(output.counted(result.already, "was done before", "were done before"))
    if result.failed:
        parts.append(f"{result.failed} failed")
    return f"{', '.join(parts)}{skipped}, in {output.human_seconds(seconds)}"


def _conclude(result: GridResult, listener: Listener, results: Path) -> int:
    from benchmark.cli.main import OK, RUN_FAILED, USER_ERROR
    from benchmark.store import Store

    say_failures(listener, Store(results, read_only=True).experiment(result.experiment))
    earlier = result.failed - sum(map(len, listener.problems.values()))
    if earlier > 0:
        output.error_line(
            f"{output.counted(earlier, 'run', 'runs')} diverged in an earlier command, not tried "
            "again; the report says why, --force METHOD tries once more"
        )
    if result.user_error:
        return USER_ERROR
    return RUN_FAILED if result.failed else OK
