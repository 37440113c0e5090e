"""``report``: the tables of experiments, made anew from their records."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from benchmark.cli import output
from benchmark.cli.checks import check_folder
from benchmark.cli.parsing import Parser, new_parser
from benchmark.cli.run_flags import add_results_flag
from benchmark.cli.verb_run import show_report
from benchmark.errors import UserError, unknown


def parser() -> Parser:
    """Return the parser of ``report``."""
    made = new_parser("report", "Makes the tables of experiments anew from their records.")
    made.add_argument(
        "experiments",
        nargs="*",
        metavar="EXPERIMENT",
        help="its name in --results, or its folder; all in --results if not given",
    )
    add_results_flag(made)
    return made


def execute(values: argparse.Namespace, talk: Console) -> int:
    """Write and print the reports; return the exit status."""
    from benchmark.registry import discover
    from benchmark.store import ExperimentStore, Store

    check_folder(values.results, "--results")
    known = Store(values.results).experiments()
    folders = [_folder(name, values.results, known) for name in values.experiments or known]
    if not folders:
        if ExperimentStore(values.results, read_only=True).exists():
            raise UserError(f"{values.results} is itself an experiment: report {values.results}")
        raise UserError(
            f"no experiment in {values.results}; run one first, or name its folder with --results"
        )
    registry = discover()
    for folder in dict.fromkeys(folders):
        output.say(talk, f"report of {folder}")
        show_report(folder, registry, talk)
    return 0


def _folder(named: str, results: Path, known: Sequence[str]) -> Path:
    """Return the folder of an experiment that is called by its name, or by that folder."""
    from benchmark.store import ExperimentStore

    path = Path(named)
    if named in known:
        return results / named
    if (path.is_absolute() or named != path.name) and ExperimentStore(
        path, read_only=True
    ).exists():
        return path
    if not known:
        raise UserError(f"no experiment in {results}, nor is '{named}' the folder of one")
    raise unknown(f"experiment in {results}", named, known)
