"""``repeat``: a record's run made anew, and compared with it value by value."""

from __future__ import annotations

import argparse
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from benchmark.cli import output
from benchmark.cli.checks import check_folder, check_threads, check_weights, load_data
from benchmark.cli.differences import compared, made_otherwise
from benchmark.cli.failures import say_failures
from benchmark.cli.naming import run_titles
from benchmark.cli.parsing import Parser, new_parser
from benchmark.cli.progress import listening, loading
from benchmark.cli.run_flags import add_data_flag, add_weights_flag
from benchmark.errors import UserError

if TYPE_CHECKING:
    from benchmark.experiment import ExperimentSpec, PlannedRun
    from benchmark.grid import Options
    from benchmark.registry import Registry
    from benchmark.store import Record

EXPERIMENT = "repeat"
"""Name of the experiment that the new records are of."""

_DESCRIPTION = """\
Makes the runs of records anew, with the code of now and without any cache, and compares their
metrics and bytes value by value. Says before what else differs: code, versions, machine. Exit
status: 0 if every value is equal, 1 if one differs, 2 if a run can't be made."""


def parser() -> Parser:
    """Return the parser of ``repeat``."""
    made = new_parser("repeat", _DESCRIPTION)
    made.add_argument(
        "records", nargs="+", type=Path, metavar="RECORD", help="a record.json, or its folder"
    )
    kept = "where the new records are kept (default: nowhere)"
    made.add_argument("--results", type=Path, metavar="DIR", help=kept)
    add_data_flag(made)
    add_weights_flag(made)
    made.add_argument("--quiet", action="store_true", help="no progress, only what came out")
    return made


def execute(values: argparse.Namespace, talk: Console) -> int:
    """Make the runs anew and print what differs; return the exit status."""
    from benchmark.cli.main import INTERRUPTED, OK, RUN_FAILED
    from benchmark.grid import Options
    from benchmark.registry import discover
    from benchmark.training.precision import visible_gpus

    if values.results is not None:
        check_folder(values.results, "--results")
    registry = discover()
    planned = [(path, *_plan(path, registry)) for path in values.records]
    folder = values.results or Path(tempfile.mkdtemp(prefix="oneshot-fl-repeat-"))
    keep = values.results is not None
    cuda = any(run.spec.compute.device == "cuda" for *_, run in planned)
    options = Options(
        results=folder,
        data_root=values.data_root,
        inception_weights=values.inception_weights,
        cache=False,
        gpus=visible_gpus()[:1] if cuda else (),
        share_clients=False,
        force=frozenset({"all"}),
    )
    worst = OK
    try:
        runs = [run for *_, run in planned]
        check_weights(runs, options)
        with loading(talk, quiet=values.quiet) as progress:
            load_data(runs, options, progress)
        for path, record, experiment, run in planned:
            title = run_titles([run])[run.spec.run_id]
            told = made_otherwise(record, run.spec)
            _say(f"{path}: {title}", told or ["code, versions and machine are the record's"])
            status, new = _run(experiment, run, options, talk, quiet=values.quiet)
            keep |= new is None  # its traceback lies there
            if new is not None:
                differ, result = compared(record, new)
                _say(str(path), [*differ, result])
                status = RUN_FAILED if differ else OK
            worst = max(worst, status)
    except KeyboardInterrupt:
        output.error_line("interrupted: nothing is known of the runs that were left")
        return INTERRUPTED
    finally:
        if not keep:
            shutil.rmtree(folder, ignore_errors=True)
    return worst


def _plan(path: Path, registry: Registry) -> tuple[Record, ExperimentSpec, PlannedRun]:
    """Return a record, and its run as the code of now would make it.

    Raises
    ------
    UserError
        If the record can't be read or repeated here.
    """
    from benchmark.cli.verb_run import compute_of
    from benchmark.entries import configure
    from benchmark.experiment import ExperimentSpec, PlannedRun
    from benchmark.registry import asking, load
    from benchmark.specs import CodeSpec, MethodSpec, RunSpec

    record = _read(path)
    old = RunSpec.parse(record.spec, f"{path}: spec")
    info = registry.info(old.method.name)
    check_threads(old.compute.threads)
    experiment = ExperimentSpec(
        experiment=EXPERIMENT,
        methods=(info.name,),
        datasets=(old.scenario.dataset,),
        judged_on=old.measure.judged_on,
        **old.compute.model_dump(),
    )
    compute_of(experiment)  # refuses a device or precision that is not here
    with asking(info):
        method = configure(record.label, info, load(info), old.method.config)
        if (reason := method.unsupported(old.scenario)) is not None:
            raise UserError(f"{path}: method '{info.name}' can't run this scenario now: {reason}")
        made_by = MethodSpec(name=info.name, config=method.config.model_dump(mode="json"))
        code = CodeSpec(plugin=info.plugin, parts=info.parts)
        spec = old.model_copy(update={"method": made_by, "code": code})
        run = PlannedRun(record.label, spec, info, None, rounds=method.rounds)
    return record, experiment, run


def _read(path: Path) -> Record:
    from benchmark.store import DamagedError, Status, read_record
    from benchmark.store.records import RECORD_NAME, UnknownSchemaError

    folder = path.parent if path.name == RECORD_NAME else path
    try:
        record = read_record(folder)
    except (FileNotFoundError, NotADirectoryError):
        runs = sorted(path.glob(f"*/{RECORD_NAME}"))
        hint = f"; name one of its runs, such as {runs[0].parent}" if runs else ""
        raise UserError(f"{path}: there is no {RECORD_NAME}{hint}") from None
    except (DamagedError, UnknownSchemaError) as error:
        raise UserError(f"{path}: the record can't be used: {error}") from None
    if record.status is not Status.DONE:
        raise UserError(f"{path}: its run is '{record.status}': there is nothing to compare")
    return record


def _run(
    experiment: ExperimentSpec, run: PlannedRun, options: Options, talk: Console, *, quiet: bool
) -> tuple[int, Record | None]:
    """Make the run as any command does; return its status and record, none if it failed."""
    from benchmark import grid
    from benchmark.cli.main import RUN_FAILED, USER_ERROR
    from benchmark.store import Status, Store

    with listening(run_titles([run]), talk, quiet=quiet) as listener:
        result = grid.execute(experiment, [run], [], options, listener)
    store = Store(options.results).experiment(EXPERIMENT)
    say_failures(listener, store)
    record = store.find(run.spec.run_id)
    done = record is not None and record.status is Status.DONE
    return USER_ERROR if result.user_error else RUN_FAILED, record if done else None


def _say(title: str, lines: Sequence[str]) -> None:
    console = output.stdout()
    output.say(console, title)
    for line in lines:
        output.say(console, f"  {line}")
