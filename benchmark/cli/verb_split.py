"""``split``: a partition as the engine draws it, in numbers and as a picture."""

from __future__ import annotations

import argparse
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from benchmark.cli import output
from benchmark.cli.checks import check_experiment, check_folder
from benchmark.cli.flags import add_scenario_flags, experiment_of
from benchmark.cli.naming import scenario_title, titles
from benchmark.cli.parsing import Parser, new_parser
from benchmark.cli.progress import loading
from benchmark.cli.run_flags import add_place_flags
from benchmark.errors import UserError, unknown
from benchmark.specs import ScenarioSpec

if TYPE_CHECKING:
    from datasets import ImageDataset
    from reports.split import SplitPanel

FORMATS = (".png", ".pdf", ".svg")
MOST_PANELS = 24
"""Partitions in one picture; more could not be read."""


def parser() -> Parser:
    """Return the parser of ``split``."""
    made = new_parser(
        "split",
        "Draws the partition of a scenario, exactly as `run` would: a count table on stdout, "
        "and a bubble plot. Several values of a flag make several panels.",
    )
    add_scenario_flags(made)
    add_place_flags(made)
    made.add_argument(
        "--output",
        type=Path,
        default=Path("split.png"),
        metavar="FILE",
        help="the bubble plot: .png, .pdf or .svg (default: split.png)",
    )
    return made


def execute(values: argparse.Namespace, talk: Console) -> int:
    """Print the tables and write the picture; return the exit status."""
    experiment = experiment_of(values)
    target: Path = values.output
    if target.suffix.lower() not in FORMATS:
        raise unknown("picture format", target.suffix or str(target), FORMATS)
    check_folder(target.parent, "--output")
    check_folder(values.results, "--results")
    check_experiment(experiment)
    scenarios = _distinct(experiment.scenarios())
    if len(scenarios) > MOST_PANELS:
        raise UserError(
            f"{len(scenarios)} partitions are too many for one picture; at most {MOST_PANELS}"
        )
    from benchmark.grid_types import Options
    from datasets import load
    from reports.split import save_splits

    folder = Options(results=values.results).data_cache

    @cache
    def opened(dataset: str, size: int) -> ImageDataset:
        """Open the data as runs do, once for all panels."""
        with loading(talk, quiet=False) as progress:
            return load(
                dataset,
                data_root=values.data_root,
                image_size=size,
                cache_dir=folder,
                progress=progress,
            )

    console = output.stdout()
    names = titles(scenarios) if len(scenarios) > 1 else [scenario_title(scenarios[0])]
    panels: list[SplitPanel] = []
    for scenario, name in zip(scenarios, names, strict=True):
        panel, facts = _draw(scenario, name, opened(scenario.dataset, scenario.image_size))
        panels.append(panel)
        _print(console, panel, facts)
    target.parent.mkdir(parents=True, exist_ok=True)
    save_splits(panels, target)
    output.say(talk, f"wrote {target}")
    return 0


def _distinct(scenarios: list[ScenarioSpec]) -> list[ScenarioSpec]:
    """Leave out scenarios that differ in nothing that decides the split."""
    unique: dict[tuple[object, ...], ScenarioSpec] = {}
    for item in scenarios:
        key = (
            item.dataset,
            item.train_samples,
            item.holdout,
            item.partition,
            item.widths,
            item.split_seed,
        )
        unique.setdefault(key, item)
    return list(unique.values())


def _draw(scenario: ScenarioSpec, name: str, dataset: ImageDataset) -> tuple[SplitPanel, list[str]]:
    from benchmark.federation.data import deal
    from benchmark.federation.federation import assign_widths
    from reports.split import SplitPanel

    data = deal(scenario, dataset)
    split = data.partition
    facts = [
        f"scheme {split.scheme} version {split.version}, accepted at draw {split.attempts}, "
        f"split id {split.digest[:16]}"
    ]
    least = f"every client holds at least {split.min_samples} samples"
    if split.min_samples < scenario.partition.min_samples:
        least += f", not {scenario.partition.min_samples}: that is over half of an equal share"
    facts.append(least)
    if len(data.held_out):
        facts.append(f"held out before the split: {len(data.held_out)} samples")
    moved = {client: count for client, count in enumerate(split.topped_up) if count}
    if moved:
        listed = ", ".join(f"client {client}: {count}" for client, count in moved.items())
        facts.append(f"topped up from the largest clients to {split.min_samples} samples: {listed}")
    panel = SplitPanel(
        title=name,
        counts=split.counts,
        class_names=data.dataset.class_names,
        widths=tuple(str(width) for width in assign_widths(scenario)),
    )
    return panel, facts


def _print(console: Console, panel: SplitPanel, facts: list[str]) -> None:
    from reports.split import count_table

    columns, rows = count_table(panel)
    console.print(output.table(panel.title, columns, rows))
    for fact in facts:
        output.say(console, fact)
    console.print()
