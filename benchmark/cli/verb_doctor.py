"""``doctor``: whether the installation is sound, for the user or for a bug report."""

from __future__ import annotations

import argparse
import sys

from rich.console import Console

from benchmark.cli import output
from benchmark.cli.parsing import Parser, new_parser
from benchmark.cli.run_flags import add_place_flags


def parser() -> Parser:
    """Return the parser of ``doctor``."""
    made = new_parser(
        "doctor", "Checks versions, hardware, data, disks and plugins, and says what is wrong."
    )
    made.add_argument(
        "--report", action="store_true", help="print Markdown, ready to paste into a bug report"
    )
    add_place_flags(made)
    return made


def execute(values: argparse.Namespace, talk: Console) -> int:
    """Print the examination; return 1 if something is wrong, else 0."""
    from benchmark.doctor import examine, markdown, problems

    sections = examine(values.results, values.data_root)
    wrong = problems(sections)
    if values.report:
        sys.stdout.write(markdown(sections))
        return int(bool(wrong))
    console = output.stdout()
    for section in sections:
        output.say(console, section.title)
        width = max((len(finding.name) for finding in section.findings), default=0)
        for finding in section.findings:
            output.say(console, f"  {finding.name:<{width}}  {finding.value}")
    output.say(console, "")
    for line in wrong:
        output.say(console, f"problem: {line}")
    if not wrong:
        output.say(console, "all is well")
    return int(bool(wrong))
