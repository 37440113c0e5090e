"""A partition as a table of counts and as a bubble plot. Imports no torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_COLUMNS = 3
"""Panels beside each other in one picture."""

LARGEST_BUBBLE = 0.86
"""Diameter of the largest bubble, in cells of the grid."""

_COLOR = "#2f6f9f"
_NAMES, _THINNEST, _TALLEST = 1.2, 0.12, 6.0
"""In a picture of given width, inches: room for the classes' names, a client's width before
panels are set beneath each other, a panel's height."""


@dataclass(frozen=True, eq=False)
class SplitPanel:
    """One partition, ready to be shown.

    Parameters
    ----------
    title : str
        What stands above it.
    counts : numpy.ndarray
        int64 [K, C], samples of each class that each client holds.
    class_names : tuple of str
        C names, in label order.
    widths : tuple of str
        K model widths such as ``"1/2"``; empty if they are not to be shown.

    Raises
    ------
    ValueError
        If the lengths don't agree.
    """

    title: str
    counts: npt.NDArray[np.int64]
    class_names: tuple[str, ...]
    widths: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.counts.ndim != 2 or self.counts.shape[1] != len(self.class_names):
            raise ValueError(
                f"counts of shape {self.counts.shape} for {len(self.class_names)} classes"
            )
        if self.widths and len(self.widths) != len(self.counts):
            raise ValueError(f"{len(self.widths)} widths for {len(self.counts)} clients")


def count_table(panel: SplitPanel) -> tuple[list[str], list[list[int | str]]]:
    """Return the partition as columns and rows.

    Returns
    -------
    columns : list of str
        Client, width (where there are any), each class, all samples, classes held.
    rows : list of list
        One per client, and the sums over clients last.
    """
    shown = bool(panel.widths)
    columns = ["client", *(["width"] if shown else []), *panel.class_names, "samples", "classes"]
    rows: list[list[int | str]] = []
    for client, held in enumerate(panel.counts.tolist()):
        width = [panel.widths[client]] if shown else []
        rows.append([client, *width, *held, sum(held), sum(count > 0 for count in held)])
    sums = panel.counts.sum(axis=0).tolist()
    held_classes = sum(count > 0 for count in sums)
    rows.append(["all", *([""] if shown else []), *sums, sum(sums), held_classes])
    return columns, rows


def draw_splits(panels: Sequence[SplitPanel], width: float | None = None) -> Figure:
    """Draw partitions as bubbles: clients by classes, areas by samples.

    All panels share one scale, so that areas can be compared between them.

    Parameters
    ----------
    panels : sequence of SplitPanel
        At least one.
    width : float, optional
        Width of the picture, inches; as wide as its panels need if not given.

    Returns
    -------
    matplotlib.figure.Figure
        Not registered with pyplot: nobody has to close it.

    Raises
    ------
    ValueError
        If there are no panels.
    """
    if not panels:
        raise ValueError("there is no partition to draw")
    from matplotlib.figure import Figure

    clients = max(len(panel.counts) for panel in panels)
    classes = max(len(panel.class_names) for panel in panels)
    columns = min(MOST_COLUMNS, len(panels))
    if width is not None:  # fewer beside each other where a client would be too thin
        columns = max(1, min(columns, int(width / (_NAMES + _THINNEST * clients))))
    rows = math.ceil(len(panels) / columns)
    cell = row = 0.32
    size = (
        columns * (1.6 + cell * min(max(clients, 6), 50)),
        rows * (1.3 + cell * min(max(classes, 5), 100)),
    )
    if width is not None:
        cell = min(max(width / columns - _NAMES, 0.5) / clients, 0.2)
        row = min(0.2, _TALLEST / classes)
        # Square cells, unless there are so many clients that squares would leave no height.
        cell, row = (
            (cell, min(row, _THINNEST)) if cell < min(row, _THINNEST) else (min(cell, row),) * 2
        )
        size = (width, rows * (0.85 + row * max(classes, 3)))
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    largest = max(int(panel.counts.max(initial=0)) for panel in panels)
    for axes, panel in zip(grid.flat, panels, strict=False):
        _draw_panel(axes, panel, max(largest, 1), cell, row)
        if row > cell:  # one scale for all: a bubble is as wide as a client at most
            axes.set_xlim(-0.6, clients - 0.4)
    for axes in list(grid.flat)[len(panels) :]:
        axes.set_axis_off()
    return figure


def save_splits(panels: Sequence[SplitPanel], path: Path) -> None:
    """Draw partitions into a file; its suffix says the format.

    The file is the same bytes for the same partitions: it carries no date, and no user's fonts
    or settings change it.

    Raises
    ------
    OSError
        If it can't be written.
    """
    from reports.figures.style import reproducible

    kind = path.suffix.lower().removeprefix(".")
    dates = {"pdf": {"CreationDate": None}, "svg": {"Date": None}}
    temporary = path.with_name(f".{path.name}.partial")
    try:
        with reproducible():
            figure = draw_splits(panels)
            figure.savefig(temporary, format=kind, dpi=160, metadata=dates.get(kind))
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _draw_panel(axes: Axes, panel: SplitPanel, largest: int, cell: float, row: float) -> None:
    from matplotlib.collections import EllipseCollection

    held = np.argwhere(panel.counts > 0)
    diameters = LARGEST_BUBBLE * np.sqrt(panel.counts[tuple(held.T)] / largest)
    # Diameters in units of the axes: areas stay right whatever the size of the picture.
    bubbles = EllipseCollection(
        diameters,
        diameters,
        np.zeros(len(held)),
        units="x",
        offsets=held,
        offset_transform=axes.transData,
        facecolor=_COLOR,
        edgecolor="none",
        alpha=0.85,
    )
    axes.add_collection(bubbles)
    clients, classes = panel.counts.shape
    axes.set_xlim(-0.6, clients - 0.4)
    axes.set_ylim(classes - 0.4, -0.6)  # the first class on top, as in the table
    if cell == row:  # else bubbles stay round, but clients stand closer than classes
        axes.set_aspect("equal", adjustable="box")
    small = cell < 0.3
    axes.set_title(panel.title, fontsize=7.5 if small else 9, loc="left", wrap=True)
    every = math.ceil(0.1 / row)
    axes.set_yticks(
        range(0, classes, every), panel.class_names[::every], fontsize=6.5 if small else 8
    )
    step = max(math.ceil(clients / 25), math.ceil(0.15 / cell))
    marks = range(0, clients, step)
    unequal = len(set(panel.widths)) > 1
    names = [f"{mark}\n{panel.widths[mark]}" if unequal else str(mark) for mark in marks]
    axes.set_xticks(list(marks), names, fontsize=6.5 if small else 7 if unequal else 8)
    most = f"largest: {int(panel.counts.max(initial=0)):,} samples"
    axes.set_xlabel(
        f"{'client, width' if unequal else 'client'}\n{most}", fontsize=7 if small else 8
    )
    axes.grid(visible=True, color="0.92", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_color("0.8")
