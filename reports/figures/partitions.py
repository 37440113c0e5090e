"""Who holds how much of what: the partitions of an experiment as bubbles."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from reports.axes import plain_text
from reports.figures.style import pages, titled
from reports.grid import Grid
from reports.load import DONE

if TYPE_CHECKING:
    from matplotlib.figure import Figure


_DECIDING = ("dataset", "train_samples", "holdout", "partition", "widths")


@dataclass(frozen=True)
class Partition:
    """One split.

    Parameters
    ----------
    title : str
        Its scenario and split seed.
    counts : tuple of tuple of int
        Samples by client and class.
    class_names : tuple of str
        In label order.
    widths : tuple of str
        Model width of each client.
    """

    title: str
    counts: tuple[tuple[int, ...], ...]
    class_names: tuple[str, ...]
    widths: tuple[str, ...]


@dataclass(frozen=True)
class Partitions:
    """A panel of bubbles for each split, all on one scale."""

    panels: tuple[Partition, ...]
    name: str = "partitions"

    @property
    def title(self) -> str:
        """What it shows, and of what."""
        return titled("Partitions", [one.title for one in self.panels])

    def draw(self) -> Figure:
        """Return the figure."""
        import numpy as np

        from reports.figures.style import COLUMN, PAGE
        from reports.split import SplitPanel, draw_splits

        made = [
            SplitPanel(one.title, np.asarray(one.counts), one.class_names, one.widths)
            for one in self.panels
        ]
        return draw_splits(made, width=COLUMN if len(made) == 1 else PAGE)


def partitions(grid: Grid, most: int) -> Iterator[Partitions]:
    """Yield figures of the first split of each partition, ``most`` partitions a figure."""
    found: dict[str, Partition] = {}
    for scenario in grid.scenarios:
        runs = (run for _, cell in grid.column(scenario) for run in cell.runs)
        run = next((one for one in runs if one["shown"] == DONE and one.get("split_counts")), None)
        if run is not None:
            key = f"{run.get('split_id')} {run.get('split_widths')}"
            found.setdefault(key, _partition(run, _split_in_words(grid, scenario)))
    for ending, chosen in pages(list(found.values()), most):
        yield Partitions(chosen, f"partitions{ending}")


def _split_in_words(grid: Grid, scenario: tuple[str, ...]) -> str:
    """Return the settings of a scenario that decide who holds what: another budget does not."""
    words = zip(grid.axes.shown, grid.axes.header(scenario), strict=True)
    return ", ".join(text for field, text in words if field.split(".")[0] in _DECIDING)


def _partition(run: Mapping[str, Any], heading: str) -> Partition:
    counts = tuple(map(tuple, json.loads(str(run["split_counts"]))))
    names = json.loads(str(run["class_names"])) if run.get("class_names") else []
    if len(names) != len(counts[0]):
        names = [str(label) for label in range(len(counts[0]))]
    seed = f"split seed {plain_text(run.get('split_seed'))}"
    title = ", ".join(part for part in (heading, seed) if part)
    widths = json.loads(str(run.get("split_widths") or "[]"))
    return Partition(title, counts, tuple(map(str, names)), tuple(map(str, widths)))
