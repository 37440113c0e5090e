"""``report``: the tables of experiments, made anew from their records."""

from __future__ import annotations

import argparse

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
        "experiments", nargs="*", metavar="EXPERIMENT", help="all in --results if not given"
    )
    add_results_flag(made)
    return made


def execute(values: argparse.Namespace, talk: Console) -> int:
    """Write and print the reports; return the exit status."""
    from benchmark.store import Store

    check_folder(values.results, "--results")
    known = Store(values.results).experiments()
    for name in values.experiments:
        if name not in known:
            raise unknown(f"experiment in {values.results}", name, known)
    if not known:
        raise UserError(
            f"no experiment in {values.results}; run one first, or name its folder with --results"
        )
    for name in dict.fromkeys(values.experiments or known):
        folder = values.results / name
        output.say(talk, f"report of {folder}")
        show_report(folder)
    return 0
