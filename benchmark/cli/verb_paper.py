"""``paper``: the tables and figures of the Mosaic paper, run and drawn by name."""

from __future__ import annotations

import argparse

from rich.console import Console

from benchmark.cli import output, verb_run
from benchmark.cli.flags import experiment_of
from benchmark.cli.parsing import Parser, bundled_experiments, new_parser
from benchmark.cli.run_flags import add_run_flags
from benchmark.entries import count_entries
from benchmark.errors import UserError, unknown
from benchmark.experiment import ExperimentSpec
from benchmark.store import Status, Store

PREFIX, TWIN = "paper_", "_cpu"
"""What the names of the files begin with, and end with where they are sized for a CPU."""

_DESCRIPTION = """\
Without a name, lists what can be made. With one, runs what is missing of its grid and draws
it: with the paper's settings (a GPU or a cluster), or with --cpu its twin on Fashion-MNIST.
All flags of `run` hold, and count before the experiment's file; one left out has the file's
value, else that of profile paper (with --cpu: profile cpu), see `list profiles`."""


def parser() -> Parser:
    """Return the parser of ``paper``."""
    made = new_parser("paper", _DESCRIPTION)
    made.add_argument("name", nargs="?", metavar="NAME", help="what to make; a list if not given")
    made.add_argument("--cpu", action="store_true", help="the CPU-sized twin")
    add_run_flags(made, defaults=False)
    return made


def names() -> list[str]:
    """Return the names of the paper's tables and figures."""
    found = [name for name in bundled_experiments() if name.startswith(PREFIX)]
    return [name.removeprefix(PREFIX) for name in found if not name.endswith(TWIN)]


def execute(values: argparse.Namespace, talk: Console) -> int:
    """List, or run and draw; return the exit status."""
    if values.name is None:
        return _list(values)
    if values.config is not None:
        raise UserError("paper: --config and a name are two experiments; give one of them")
    if values.name not in names():
        raise unknown("table or figure of the paper", values.name, names())
    values.config = f"{PREFIX}{values.name}{TWIN if values.cpu else ''}"
    return verb_run.execute(values, talk)


def _list(values: argparse.Namespace) -> int:
    rows = []
    for name in names():
        for twin in (False, True):
            values.config = f"{PREFIX}{name}{TWIN if twin else ''}"
            experiment = experiment_of(values)
            command = f"paper {name}{' --cpu' if twin else ''}"
            rows.append((command, experiment.description, _size(values, experiment)))
    console = output.stdout()
    console.print(output.table("the Mosaic paper", ("command", "what it shows", "records"), rows))
    return 0


def _size(values: argparse.Namespace, experiment: ExperimentSpec) -> str:
    """Return how many runs of an experiment are on the disk, of how many."""
    folder = values.results / experiment.experiment
    runs = count_entries(experiment) * len(experiment.scenarios())
    if not folder.is_dir():
        return f"none of {runs}"
    # Records of other code or other grids lie there too: those of today's cells count.
    store = Store(values.results, read_only=True)
    states = store.experiment(experiment.experiment).states()
    done = sum(state.status is Status.DONE for state in states)
    return f"{done or 'none'} of {runs}"
