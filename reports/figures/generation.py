"""Generated images: their scores by method, and samples of them."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from benchmark.store.files import digest
from reports.figures.style import COLUMN, PAGE, error_bars, look, titled
from reports.generation import OLD_RATIO, RATIO, extractors
from reports.grid import Grid
from reports.load import DONE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

_DISTANCES = {
    RATIO: "Fréchet distance ÷ real",
    OLD_RATIO: "Fréchet distance ÷ all real",
    "fid": "Fréchet distance",
}
_SCORES = (
    ("inception_score", "Inception score", False),
    ("usefulness", "accuracy of a network\ntrained on them (%)", False),
)
_ACROSS = 3
_GAP, _TITLE_LINE = 0.08, 0.125
"""Between two pictures, and the height of a line of a title, inches."""
_TITLE_SIGNS = 44
_SIGNS_AN_INCH = 16
"""Signs of a title's line, and of an inch of the heading."""
MOST_SAMPLES, _MOST_IN_ALL = 10, 30
"""Pictures of a method in the figure of samples, and of all, one of each method at least.

More are megabytes that nobody reads.
"""


@dataclass(frozen=True)
class Bar:
    """One method's score."""

    label: str
    place: int
    reference: bool
    value: float
    spread: float


@dataclass(frozen=True)
class Scores:
    """A figure of scores of generated images by method, one panel a score.

    Parameters
    ----------
    heading : str
        The scenario.
    extractor : str
        Whose features and probabilities they rest on.
    panels : tuple of (str, bool, tuple of Bar)
        Axis label, whether the axis is logarithmic, and the bars.
    name : str
        Stem of its files.
    """

    heading: str
    extractor: str
    panels: tuple[tuple[str, bool, tuple[Bar, ...]], ...]
    name: str

    @property
    def title(self) -> str:
        """What it shows, and of what."""
        return titled(f"Generated images, judged by {self.extractor}", [self.heading])

    def draw(self) -> Figure:
        """Return the figure."""
        from matplotlib.figure import Figure
        from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

        bars = max(len(panel) for _, _, panel in self.panels)
        figure = Figure(figsize=(PAGE, 0.28 * bars + 0.9), layout="constrained")
        axes = figure.subplots(1, len(self.panels), squeeze=False)[0]
        for axis, (label, logarithmic, panel) in zip(axes, self.panels, strict=True):
            at = np.arange(len(panel))[::-1]
            draw = _draw_points if logarithmic else _draw_bars
            draw(axis, at, panel)
            axis.set_yticks(at, [bar.label for bar in panel] if axis is axes[0] else [])
            axis.set_ylim(-0.6, len(panel) - 0.4)
            axis.set_xlabel(label)
            axis.grid(axis="y", visible=False)
            if logarithmic:
                axis.set_xscale("log")
                # 1 is as good as real; no other distance has a point to be seen against.
                ratio = label == _DISTANCES[RATIO]
                values = [bar.value for bar in panel if bar.value > 0] or [1.0]
                axis.set_xlim(left=0.8 * min([1.0] * ratio + values))
                axis.set_xlim(right=1.3 * max(bar.value + bar.spread for bar in panel))
                if ratio:
                    axis.axvline(1, color="0.5", linewidth=0.7, linestyle="--")
                axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
                axis.xaxis.set_major_locator(FixedLocator(_log_ticks(*axis.get_xlim())))
                axis.xaxis.set_minor_locator(NullLocator())
        title = f"judged by {self.extractor}"
        figure.suptitle(f"{self.heading}, {title}" if self.heading else title, fontsize=7.5)
        return figure


def _log_ticks(low: float, high: float) -> list[float]:
    """Return the roundest numbers in a range above 0, two at least where there are; few fit."""
    found: list[float] = []
    for digits in ((1.0,), (1.0, 2.0, 5.0), (1.0, 1.5, 2.0, 3.0, 5.0, 7.0)):
        powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        found = [digit * 10.0**power for power in powers for digit in digits]
        found = [value for value in found if low <= value <= high]
        if len(found) > 1:
            break
    return found


def _draw_bars(axis: Axes, at: NDArray[np.int_], panel: Sequence[Bar]) -> None:
    axis.barh(
        at,
        [bar.value for bar in panel],
        xerr=error_bars([bar.spread for bar in panel]),
        color=[look(bar.place, bar.reference).color for bar in panel],
        height=0.62,
        error_kw={"elinewidth": 0.7, "capsize": 1.5},
    )


def _draw_points(axis: Axes, at: NDArray[np.int_], panel: Sequence[Bar]) -> None:
    """Draw points: on a logarithmic axis the length of a bar is that of where it was cut off."""
    for place, bar in zip(at, panel, strict=True):
        axis.errorbar(
            bar.value,
            place,
            xerr=error_bars([bar.spread]),
            fmt="o",
            markersize=4,
            color=look(bar.place, bar.reference).color,
            elinewidth=0.7,
            capsize=1.5,
        )


def generation_scores(grid: Grid) -> Iterator[Scores]:
    """Yield scores of generated images, a figure for each scenario and extractor.

    The distance is drawn by the ratio that all rows have, or as it is where records of both
    kinds of ratio stand together.
    """
    for number, scenario in enumerate(grid.scenarios):
        for extractor in extractors(grid):
            scores = [
                (label, logarithmic, _bars(grid, scenario, column, extractor))
                for column, label, logarithmic in _SCORES
            ]
            distances = [
                (label, True, _bars(grid, scenario, column, extractor))
                for column, label in _DISTANCES.items()
            ]
            rows = {len(bars) for _, _, bars in scores}
            if len(rows) == 1 and rows != {0}:
                panels = [one for one in distances if {len(one[2])} == rows][:1] + scores
                several = len(grid.scenarios) > 1
                name = f"generation_{extractor}" + (f"_{number + 1}" if several else "")
                heading = ", ".join(grid.axes.header(scenario))
                yield Scores(heading, extractor, tuple(panels), name)


def _bars(grid: Grid, scenario: tuple[str, ...], column: str, extractor: str) -> tuple[Bar, ...]:
    """Return a score of every row that has it, shares in percent."""
    from reports.figures.lines import places

    looks, names = places(grid), grid.figure_labels(scenario)
    key, scale = (column, 100) if column == "usefulness" else (f"{extractor}.{column}", 1)
    return tuple(
        Bar(
            names[row],
            looks[row],
            row.reference,
            scale * found.mean,
            scale * (found.sd or 0.0),
        )
        for row, cell in grid.column(scenario)
        if (found := cell.summary(key))
    )


@dataclass(frozen=True)
class Sample:
    """A grid of generated images beside a run's record.

    Parameters
    ----------
    title : str
        What it shows.
    path : Path
        Where it lies now, which is no part of the figure's data.
    content : str
        Digest of its bytes.
    """

    title: str
    path: Path
    content: str


@dataclass(frozen=True)
class Samples:
    """Generated images of each method, those of real clients beside theirs.

    Parameters
    ----------
    rows : tuple of (str, tuple of Sample)
        A method, or several with the same pictures, and the pictures of its first finished run.
    heading : str
        The scenario, and what is not drawn of it.
    name : str
        Stem of its files.
    """

    rows: tuple[tuple[str, tuple[Sample, ...]], ...]
    heading: str = ""
    name: str = "samples"

    @property
    def title(self) -> str:
        """What it shows, and of what."""
        return titled("Samples of generated images", [self.heading])

    def draw(self) -> Figure:
        """Return the figure."""
        from matplotlib.figure import Figure

        # A name that all pictures share stands above them once.
        common = self.rows[0][0] if len(self.rows) == 1 else ""
        pictures = [
            (
                one.title if common else f"{fill(label, _TITLE_SIGNS)}\n{one.title}",
                np.asarray(Image.open(one.path)),
            )
            for label, found in self.rows
            for one in found
        ]
        width = (PAGE - _GAP * (_ACROSS + 1)) / _ACROSS
        lines = [pictures[start : start + _ACROSS] for start in range(0, len(pictures), _ACROSS)]
        titles = [_TITLE_LINE * max(1 + title.count("\n") for title, _ in line) for line in lines]
        sizes = [max(one.shape[0] / one.shape[1] for _, one in line) * width for line in lines]
        taken = _GAP + max(map(len, lines)) * (width + _GAP)
        # A few pictures leave no empty part of a page; the heading has a column at least.
        page = max(taken, COLUMN)
        # A page of one picture is a column wide.
        said = [common, *self.heading.splitlines()]
        heading = "\n".join(fill(line, int(_SIGNS_AN_INCH * page)) for line in said if line)
        over = (1.6 + heading.count("\n")) * _TITLE_LINE if heading else 0.0
        height = over + sum(titles) + sum(sizes) + _GAP * len(lines)
        figure = Figure(figsize=(page, height))
        figure.text(0.5, 1 - 0.03 / height, heading, ha="center", va="top")
        top = height - over
        for line, title_height, size in zip(lines, titles, sizes, strict=True):
            top -= title_height
            for place, (title, picture) in enumerate(line):
                high = width * picture.shape[0] / picture.shape[1]
                left = (page - taken) / 2 + _GAP + place * (width + _GAP)
                # Every picture has its own shape, so places are reckoned in inches.
                box = (left / page, (top - high) / height, width / page, high / height)
                axis = figure.add_axes(box)
                axis.set_axis_off()
                axis.imshow(picture, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
                axis.set_title(title, fontsize=6.5, pad=2.5)
            top -= size + _GAP
        return figure


@dataclass
class _Kept:
    """Pictures of a scenario: by themselves the rows that have them, and rows without."""

    rows: dict[tuple[tuple[str, str], ...], tuple[list[str], list[Sample]]]
    without: list[str]
    seeds: int = 0

    @property
    def size(self) -> tuple[int, int]:
        """How many rows have pictures, and how many pictures there are."""
        labels, pictures = zip(*self.rows.values(), strict=True) if self.rows else ((), ())
        return sum(map(len, labels)), sum(map(len, pictures))


def samples(grid: Grid, folder: Path) -> Iterator[Samples]:
    """Yield the figure of samples, of the scenario that most rows have any of; it says so.

    Methods with the same pictures, such as those that share the clients' generators, share a row.
    Those whose images were measured but not kept, for the method handed over none, are named.
    """
    kept = {scenario: _kept(grid, scenario, folder) for scenario in grid.scenarios}
    scenario = max(kept, key=lambda one: kept[one].size, default=None)
    if scenario is None or not kept[scenario].rows:
        return
    found = kept[scenario]
    most = _most([len(pictures) for _, pictures in found.rows.values()])
    left = sum(len(pictures[most:]) for _, pictures in found.rows.values())
    heading = _which(grid, scenario, found.seeds, most, left)
    if found.without:
        heading = "\n".join(filter(None, [heading, f"none kept of {', '.join(found.without)}"]))
    drawn = ((", ".join(labels), tuple(them[:most])) for labels, them in found.rows.values())
    yield Samples(tuple(drawn), heading)


def _kept(grid: Grid, scenario: tuple[str, ...], folder: Path) -> _Kept:
    kept = _Kept({}, [])
    for row, cell in grid.column(scenario):
        done = [run for run in cell.runs if run["shown"] == DONE]
        found = _pictures(folder / str(done[0]["run_id"])) if done else []
        if found:
            kept.seeds = max(kept.seeds, len(done))
            labels, _ = kept.rows.setdefault(
                tuple((one.title, one.content) for one in found), ([], found)
            )
            labels.append(row.label)
        elif done and done[0].get("extractors"):
            kept.without.append(row.label)
    return kept


def _most(counts: Sequence[int]) -> int:
    """Return how many pictures of a method are drawn at most, of methods that have so many."""
    fitting = (
        most
        for most in range(MOST_SAMPLES, 0, -1)
        if sum(min(count, most) for count in counts) <= _MOST_IN_ALL
    )
    return next(fitting, 1)


def _which(grid: Grid, scenario: tuple[str, ...], seeds: int, most: int, left: int) -> str:
    """Return which scenario and seed samples are of, and how many of its pictures are left out."""
    words = [", ".join(grid.axes.header(scenario))]
    if len(grid.scenarios) > 1:
        words[0] += f" (one of {len(grid.scenarios)} scenarios)"
    if seeds > 1:
        words.append(f"the first of {seeds} seeds")
    if left:
        words.append(f"at most {most} of a method: {left} more in these runs")
    return "; ".join(filter(None, words))


def picture_title(path: Path) -> str | None:
    """Return what a sample grid shows, such as ``client 0 generated | real``.

    ``None`` if it is no picture. Grids of before they carried a title show real images only
    beside those of a client.
    """
    try:
        with Image.open(path) as picture:
            picture.load()
            said = picture.info.get("Title")
    except (OSError, SyntaxError, ValueError):
        return None
    if said:
        return str(said)
    name = path.stem.removeprefix("grid-").replace("-", " ")
    return f"{name} | real" if re.fullmatch(r"client \d+ generated", name) else name


def _pictures(folder: Path) -> list[Sample]:
    paths = sorted(
        folder.glob("grid-*.png"),
        key=lambda path: [
            int(part) if part.isdigit() else part for part in re.split(r"(\d+)", path.stem)
        ],
    )
    found = [(path, title) for path in paths if (title := picture_title(path)) is not None]
    return [
        Sample(title, path, digest({"bytes": path.read_bytes().hex()})) for path, title in found
    ]
