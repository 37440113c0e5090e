"""How every method's seconds and memory grow with the clients and with the classes.

``python -m benchmark.speed.scaling`` runs all methods on a small synthetic problem with 5 to 100
clients (10 classes) and with 10 to 200 classes (10 clients), each point in a process of its own,
and fits the exponent p of size^p: the slope of a line through the points on logarithmic axes.
Budgets (generator steps, generated and distilled images, samples per client) are the same at all
points. Client and server seconds are CPU time of one thread, summed over all clients; memory is
what private memory grew by at its peak. It writes ``scaling.csv``, ``exponents.csv`` and a figure
into ``--out``; points that are in ``scaling.csv`` already are not measured again. It returns 1
if an exponent is above what the algorithms need.
"""

from __future__ import annotations

import argparse
import csv
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmark.errors import UserError
from benchmark.registry import discover
from benchmark.speed.method_probe import Point, Spent, measure, write_data
from benchmark.speed.peaks import in_child
from benchmark.speed.power_laws import ALLOWED, MEASURES, Row, exponents
from benchmark.speed.scaling_figure import draw

CLIENTS = (5, 10, 20, 50, 100)
CLASSES = (10, 100, 200)
SAMPLES_PER_CLIENT = 20
FIXED_CLIENTS = 10
FIXED_SAMPLES = 2000
"""Training samples of the points along the classes: ten of each of two hundred."""
COLUMNS = ("axis", "method", "reference", "size", *MEASURES)


def settings_of(axis: str, size: int) -> tuple[tuple[str, Any], ...]:
    """Return a point's experiment settings: the same budget everywhere."""
    clients = size if axis == "clients" else FIXED_CLIENTS
    train = SAMPLES_PER_CLIENT * clients if axis == "clients" else FIXED_SAMPLES
    return (
        ("partition", "iid"),
        ("models", ["cnn"]),
        ("widths", ["1/2"]),
        ("train_samples", train),
        ("epochs", 1),
        ("generator_steps", 4),
        ("generated_images", 128),
        ("distilled_images", 512),
        ("history_points", 0),
        # The growth of a step is what counts; one step at 200 classes takes minutes.
        ("set", {"mosaic": {"meta_steps": 2}}),
    )


def points(
    axis: str, sizes: Sequence[int], methods: Sequence[str], folder: Path
) -> Iterator[Point]:
    """Yield the points along an axis, size by size."""
    for size in sizes:
        clients, classes = (size, 10) if axis == "clients" else (FIXED_CLIENTS, size)
        data = folder / f"{classes}.npz"
        if not data.exists():
            write_data(
                data, classes, max(FIXED_SAMPLES, SAMPLES_PER_CLIENT * max(CLIENTS)) * 5 // 4
            )
        for method in methods:
            yield Point(method, clients, classes, data, settings_of(axis, size))


def read(path: Path) -> list[Row]:
    """Return the rows of an earlier ``scaling.csv``; none if there is no such file."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return [
            {
                **row,
                "size": int(row["size"]),
                "reference": row["reference"] == "True",
                **{name: float(row[name]) for name in MEASURES},
            }
            for row in csv.DictReader(file)
        ]


def write(path: Path, rows: Sequence[Row], columns: Sequence[str]) -> None:
    """Write rows as CSV."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)


def collect(axes: Mapping[str, Sequence[int]], methods: Sequence[str], path: Path) -> list[Row]:
    """Measure all points that ``path`` does not hold, and add them to it one by one."""
    rows = read(path)
    known = {(row["axis"], row["method"], row["size"]) for row in rows}
    with tempfile.TemporaryDirectory() as folder:
        for axis, sizes in axes.items():
            for point in points(axis, sizes, methods, Path(folder)):
                size = point.clients if axis == "clients" else point.classes
                if (axis, point.method, size) in known:
                    continue
                spent: Spent | None = in_child(measure, point)
                if spent is None:
                    continue
                row = {"axis": axis, "size": size, "method": point.method, **vars(spent)}
                rows.append(row)
                write(path, rows, COLUMNS)
                sys.stderr.write(
                    f"{axis} {size:4d} {point.method:18s} clients {spent.client_seconds:6.2f} s, "
                    f"server {spent.server_seconds:6.2f} s, {spent.memory / 2**20:6.0f} MiB\n"
                )
    return rows


def table(found: Sequence[Row]) -> str:
    """Return the exponents as a Markdown table; in brackets what is too small to be judged."""
    keys = [(axis, name) for axis in ALLOWED for name in MEASURES]
    cells = {(row["axis"], row["measure"], row["method"]): row for row in found}
    lines = ["| method | " + " | ".join(f"{a}: {n.replace('_', ' ')}" for a, n in keys) + " |"]
    lines.append("| --- |" + " --- |" * len(keys))
    for method in dict.fromkeys(row["method"] for row in found):
        texts = []
        for axis, name in keys:
            row = cells.get((axis, name, method))
            text = "–" if row is None else f"{row['exponent']:.2f}"
            if row is not None and not row["judged"]:
                text = f"({text})"
            texts.append(f"**{text}**" if row is not None and row["too_fast"] else text)
        lines.append(f"| {method} | " + " | ".join(texts) + " |")
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, write, draw and print; return 1 if something grows faster than it must."""
    parser = argparse.ArgumentParser(prog="python -m benchmark.speed.scaling")
    parser.description = (__doc__ or "").partition("\n")[0]
    parser.add_argument("--methods", nargs="+", default=["all"])
    parser.add_argument("--clients", type=int, nargs="*", default=list(CLIENTS))
    parser.add_argument("--classes", type=int, nargs="*", default=list(CLASSES))
    parser.add_argument("--out", type=Path, default=Path("results/studies/scaling"))
    options = parser.parse_args(arguments)
    registry = discover()
    methods = sorted(registry.methods) if options.methods == ["all"] else options.methods
    options.out.mkdir(parents=True, exist_ok=True)
    axes = {"clients": options.clients, "classes": options.classes}
    try:
        rows = collect(axes, methods, options.out / "scaling.csv")
    except UserError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    found = exponents(rows)
    write(options.out / "exponents.csv", found, list(found[0]) if found else ["axis"])
    for ending, content in draw(rows).items():
        (options.out / f"scaling.{ending}").write_bytes(content)
    sys.stdout.write(table(found))
    return 1 if any(row["too_fast"] for row in found) else 0


if __name__ == "__main__":
    sys.exit(main())
