"""What workers bring: a grid of small runs with one worker and with several, in turns.

``python -m benchmark.speed.workers`` runs the same grid of independent scenarios with
``--workers 1`` and ``--workers N``, each time into an empty results folder, and prints the
ratio of wall times; records must be the same, bit for bit.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from benchmark.experiment import plan, resolve
from benchmark.grid import Options, execute
from benchmark.registry import discover
from benchmark.specs import ComputeSpec
from benchmark.store import Store


class _Silent:
    """Listens to a grid and says nothing."""

    def started(self, *_: Any) -> None:
        """Ignore."""

    def progress(self, *_: Any) -> None:
        """Ignore."""

    def finished(self, *_: Any) -> None:
        """Ignore."""

    def note(self, *_: Any) -> None:
        """Ignore."""


def run(workers: int, seeds: int, epochs: int) -> tuple[float, dict[str, Any]]:
    """Run the grid; return seconds and metrics by run id."""
    experiment = resolve(
        {
            "profile": "smoke",
            "methods": ["fedavg"],
            "seeds": list(range(seeds)),
            "train_samples": 1000,
            "epochs": epochs,
            "widths": "1/2",
        },
        {},
        "speed",
    )
    runs, _ = plan(experiment, discover(), ComputeSpec())
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        execute(
            experiment,
            runs,
            [],
            Options(Path(folder), workers=workers),
            _Silent(),
        )
        seconds = time.perf_counter() - began
        records = Store(Path(folder)).experiment(experiment.experiment).records()
        return seconds, {record.run_id: record.metrics for record in records}


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the ratios; return 1 if records differ or the bound is missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmark.speed.workers")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seeds", type=int, default=8, help="runs of the grid")
    parser.add_argument("--epochs", type=int, default=10, help="local epochs of a run")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--bound", type=float, default=1.7)
    values = parser.parse_args(arguments)
    run(values.workers, values.workers, 1)  # imports, and the fork server
    ratios = []
    load = os.getloadavg()[0]
    sys.stdout.write(f"{os.cpu_count()} cores, load {load:.1f}\n")
    same = True
    for turn in range(values.turns):
        alone, first = run(1, values.seeds, values.epochs)
        together, second = run(values.workers, values.seeds, values.epochs)
        same &= first == second
        ratios.append(alone / together)
        sys.stdout.write(
            f"turn {turn}: 1 worker {alone:.1f} s, {values.workers} workers {together:.1f} s, "
            f"ratio {ratios[-1]:.2f}, records {'equal' if first == second else 'DIFFER'}\n"
        )
        sys.stdout.flush()
    sys.stdout.write(f"median ratio {median(ratios):.2f} (bound {values.bound:g})\n")
    return 0 if same and median(ratios) >= values.bound else 1


if __name__ == "__main__":
    sys.exit(main())
