"""``new-method``: a working plugin and its test, to start one's own method from."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console

from benchmark.cli import output
from benchmark.cli.checks import check_folder
from benchmark.cli.parsing import Parser, new_parser


def parser() -> Parser:
    """Return the parser of ``new-method``."""
    made = new_parser(
        "new-method",
        "Writes methods/NAME.py, a plugin that works, and tests/methods/test_NAME.py.",
    )
    made.add_argument("name", metavar="NAME", help="lower-case identifier, such as my_method")
    made.add_argument(
        "--distil",
        action="store_true",
        help="begin with a student of the clients' ensemble, not with an average of models",
    )
    made.add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        help="write an installable package of its own there instead",
    )
    return made


def execute(values: argparse.Namespace, talk: Console) -> int:
    """Write the files; return the exit status."""
    from benchmark.scaffold import write_method

    if values.output is not None:
        check_folder(values.output, "--output")
    written = write_method(values.name, values.output, kind="distil" if values.distil else "method")
    console = output.stdout()
    for path in (written.plugin, written.test, written.project):
        if path is not None:
            output.say(console, f"wrote {path}")
    if written.project is not None:
        output.say(console, f"install it: pip install --no-deps -e {written.project.parent}")
    output.say(console, f"test it:    python -m pytest {written.test}")
    output.say(console, f"run it:     python -m benchmark --methods {values.name} fedavg")
    return 0
