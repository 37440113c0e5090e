"""Figures: PDF for the paper and PNG to look at, drawn anew only when their data changed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from benchmark.store.files import (
    DamagedError,
    digest,
    make_folder,
    read_json,
    write_bytes,
    write_json,
)
from reports.comparisons import Ranks
from reports.figures.ablations import ablation_figures
from reports.figures.attribution import parts_maps
from reports.figures.classes import by_class
from reports.figures.generation import generation_scores, samples
from reports.figures.lines import by_setting, histories
from reports.figures.lost import lost_figures
from reports.figures.partitions import partitions
from reports.figures.ranks import critical_difference
from reports.figures.style import STYLE_VERSION, paper, rendered
from reports.figures.traffic import traffic
from reports.figures.warm_up import warm_up
from reports.grid import Grid
from reports.load import Results

if TYPE_CHECKING:
    from dataclasses import Field

    from matplotlib.figure import Figure

MOST_SCENARIOS = 6
"""Scenarios that get a panel in one figure; further ones stand in figures ``_2``, ``_3``, …"""

_DRAWN = "drawn.json"
_ENDINGS = ("pdf", "png")


class Plot(Protocol):
    """A figure's data, a frozen dataclass that can draw itself."""

    __dataclass_fields__: ClassVar[dict[str, Field[object]]]

    @property
    def name(self) -> str:
        """Stem of its files."""

    @property
    def title(self) -> str:
        """What it shows, and of which scenarios."""

    def draw(self) -> Figure:
        """Return the figure."""


@dataclass(frozen=True)
class Drawn:
    """A figure that lies in the report's folder.

    Parameters
    ----------
    title : str
        What it shows, and of which scenarios.
    files : tuple of Path
        Its PDF and its PNG.
    """

    title: str
    files: tuple[Path, ...]


def plots(results: Results, grid: Grid, ranks: Ranks | str) -> Iterator[Plot]:
    """Yield the data of every figure that the experiment has the numbers for."""
    yield from partitions(grid, MOST_SCENARIOS)
    if grid.validation:  # scores of trials are no results, and all figures below show results
        return
    yield from by_setting(grid)
    yield from ablation_figures(grid, MOST_SCENARIOS)
    yield from parts_maps(grid)
    yield from lost_figures(grid)
    yield from traffic(grid, MOST_SCENARIOS)
    yield from warm_up(grid)
    yield from histories(grid, results.folder, MOST_SCENARIOS)
    yield from by_class(grid)
    yield from generation_scores(grid)
    yield from samples(grid, results.folder)
    if not isinstance(ranks, str):
        names = {row.label: name for row, name in grid.figure_labels().items()}
        yield critical_difference(ranks, names)


def draw_all(results: Results, grid: Grid, ranks: Ranks | str, folder: Path) -> list[Drawn]:
    """Draw the figures whose data (or style) changed, and remove those that no longer apply.

    Returns
    -------
    list of Drawn
        All figures, drawn now or before.

    Raises
    ------
    benchmark.store.StoreError
        If the folder can't be written to.
    """
    wanted = {plot.name: plot for plot in plots(results, grid, ranks)}
    before = _drawn(folder)
    digests = {name: _digest(plot) for name, plot in wanted.items()}
    paths = {name: [folder / f"{name}.{end}" for end in _ENDINGS] for name in wanted}
    if wanted:
        make_folder(folder)
    for name, plot in wanted.items():
        there = all(path.is_file() for path in paths[name])
        if before.get(name) != digests[name] or not there:
            _draw(plot, folder)
    for name in before.keys() - wanted.keys():
        for ending in _ENDINGS:
            (folder / f"{name}.{ending}").unlink(missing_ok=True)
    if digests != before:
        write_json(folder / _DRAWN, {"figures": digests})
    return [Drawn(plot.title, tuple(paths[name])) for name, plot in wanted.items()]


def _draw(plot: Plot, folder: Path) -> None:
    with paper():
        for ending, data in rendered(plot.draw()).items():
            write_bytes(folder / f"{plot.name}.{ending}", data)


def _digest(plot: Plot) -> str:
    kind = type(plot)
    values = asdict(plot, dict_factory=_without_places)
    return digest({"style": STYLE_VERSION, "kind": kind.__qualname__, "data": values})


def _without_places(values: list[tuple[str, Any]]) -> dict[str, Any]:
    # Results that were copied elsewhere are the same results.
    return {name: value for name, value in values if not isinstance(value, Path)}


def _drawn(folder: Path) -> dict[str, str]:
    try:
        figures = read_json(folder / _DRAWN).get("figures", {})
    except (OSError, DamagedError):
        return {}
    return {str(name): str(value) for name, value in figures.items()}
