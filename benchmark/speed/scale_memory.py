"""Memory of the server with a hundred ResNet-18 clients: FedAvg, FedRolex, Mosaic's experts.

``python -m benchmark.speed.scale_memory`` lets each of them make what it makes of the uploads of
``--clients`` clients, each in a fresh process, through the real protocol and wire, and prints
the peak of resident memory: private (what can't be given back), and total (with pages of files
and libraries). Nothing is trained; clients send noisy initial weights. The script returns 1 if a
total is over ``--bound``.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from benchmark.errors import UserError
from benchmark.speed.peaks import in_child
from benchmark.speed.upload_probe import SERVERS, Case, Found, measure

MEBI, GIBI = 2**20, 2**30
UNEQUAL = "1,1/2,1/4"
"""Width plan of the cases with narrow clients."""


def cases(clients: int, family: str, chosen: Sequence[str]) -> list[Case]:
    """Return what is measured: with equal widths, and with unequal ones where that is possible."""
    found = [Case(name, clients, family) for name in chosen]
    return found + [Case(name, clients, family, UNEQUAL) for name in chosen if name != "fedavg"]


def row(case: Case, found: Found) -> str:
    """Return a case's line of the Markdown table."""
    return (
        f"| {case.method} | {case.widths} | {found.uploads / MEBI:.0f} "
        f"| {found.before.private / MEBI:.0f} | {found.peak.private / MEBI:.0f} "
        f"| {found.peak.total / MEBI:.0f} | {found.seconds:.0f} |\n"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; return 1 if a peak is over the bound."""
    parser = argparse.ArgumentParser(prog="python -m benchmark.speed.scale_memory")
    parser.description = (__doc__ or "").partition("\n")[0]
    parser.add_argument("--clients", type=int, default=100)
    parser.add_argument("--model", default="resnet18", help="model family of the clients")
    parser.add_argument("--bound", type=float, default=4.0, help="largest peak allowed, GiB")
    parser.add_argument("--only", nargs="+", choices=list(SERVERS), default=list(SERVERS))
    options = parser.parse_args(arguments)
    write = sys.stdout.write
    write("| what | widths | uploads, MiB | before, MiB | peak private | peak total | seconds |\n")
    write("| --- | --- | --- | --- | --- | --- | --- |\n")
    worst = 0
    for case in cases(options.clients, options.model, options.only):
        try:
            found: Found = in_child(measure, case)
        except UserError as error:
            sys.stderr.write(f"error: {case.method}: {error}\n")
            return 1
        worst = max(worst, found.peak.total)
        write(row(case, found))
        sys.stdout.flush()
    write(f"largest peak {worst / GIBI:.2f} GiB (bound {options.bound:g} GiB)\n")
    return 0 if worst <= options.bound * GIBI else 1


if __name__ == "__main__":
    sys.exit(main())
