"""One style for all figures: readable in a two-column paper, safe for the colour-blind."""

from __future__ import annotations

import io
import math
import textwrap
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_Item = TypeVar("_Item")

STYLE_VERSION = "21"
"""Raised when figures should be drawn anew though their data did not change."""

COLUMN = 3.4
"""Width of one column of a paper, inches."""
PAGE = 7.0
"""Width of both columns, inches."""

# Okabe and Ito's colours without yellow, which is too faint for lines on white, then two of
# Paul Tol's: as many as the suite has methods before dashes are needed.
_COLOURS = (
    *("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000"),
    *("#882255", "#999933"),
)
COLOURS = len(_COLOURS)
"""Places of methods until a colour comes again, with other dashes."""

_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "h")
_DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1.5, 1)))
_GREYS = ("#444444", "#777777", "#999999")
_REFERENCE_DASHES: tuple[Any, ...] = ((0, (4, 2)), (0, (1, 1.5)), (0, (4, 1, 1, 1)), (0, (8, 2)))

_LEGEND_LINE = 0.15
"""Height of a legend's line, inches."""

_LEGEND_LETTER, _LEGEND_KEY = 0.05, 0.46
"""Widths of a legend's mean letter, and of its handle with the room around, inches."""

_HEADING = 44
"""Letters of a line above a column's axes."""

_LEAST_RANGE = 10.0
"""Percentage points that an axis of accuracy covers at least: a tenth of one is no cliff."""

_SALT = {"svg.hashsalt": "figures"}
"""Without it an SVG names its parts anew each time."""

_SETTINGS = {
    "font.size": 7.5,
    "axes.titlesize": 7.5,
    "axes.labelsize": 7.5,
    "legend.fontsize": 7,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.5,
    "axes.axisbelow": True,
    "axes.linewidth": 0.6,
    "lines.linewidth": 1.2,
    "lines.markersize": 4,
    "legend.frameon": False,
    "pdf.fonttype": 42,
    **_SALT,
    "savefig.dpi": 200,
}


@dataclass(frozen=True)
class Look:
    """How a method is drawn, in every figure alike.

    Parameters
    ----------
    color : str
        Hexadecimal colour.
    marker : str
        Marker of matplotlib.
    dashes : object
        Line style of matplotlib.
    """

    color: str
    marker: str
    dashes: Any


def look(place: int, reference: bool) -> Look:
    """Return the look of the ``place``-th method or the ``place``-th reference row.

    Methods differ in colour, marker and, after the colours end, dashes; references are
    grey and dashed.
    """
    marker = _MARKERS[place % len(_MARKERS)]
    if reference:
        dashes = _REFERENCE_DASHES[place % len(_REFERENCE_DASHES)]
        return Look(_GREYS[place % len(_GREYS)], marker, dashes)
    dashes = _DASHES[(place // len(_COLOURS)) % len(_DASHES)]
    return Look(_COLOURS[place % len(_COLOURS)], marker, dashes)


@contextmanager
def paper() -> Iterator[None]:
    """Return the context in which a report's figures are made and saved."""
    with reproducible(_SETTINGS):
        yield


@contextmanager
def reproducible(settings: Mapping[str, Any] = _SALT) -> Iterator[None]:
    """Return a context in which equal data make equal files.

    Only the fonts that come with matplotlib are known in it, and no setting of a user's
    matplotlibrc counts: either would make other files of equal data.
    """
    from matplotlib import get_data_path, rc_context, rcdefaults, rcParams
    from matplotlib.font_manager import fontManager

    known, fontManager.ttflist = fontManager.ttflist, []
    try:
        for path in sorted(Path(get_data_path(), "fonts", "ttf").glob("*.ttf")):
            fontManager.addfont(path)
        with rc_context():
            rcdefaults()
            rcParams.update(settings)  # type: ignore[arg-type] # its keys are literals
            yield
    finally:
        fontManager.ttflist = known


def panels(count: int, height: float = 2.2, most: int = 3) -> tuple[Figure, list[Axes]]:
    """Return a figure with ``count`` panels in rows of at most ``most``.

    Parameters
    ----------
    count : int
        Number of panels, at least 1.
    height : float
        Height of a panel, inches.
    most : int
        Panels in a row.
    """
    from matplotlib.figure import Figure

    across = min(count, most)
    down = math.ceil(count / across)
    width = COLUMN if across == 1 else PAGE
    figure = Figure(figsize=(width, height * down), layout="constrained")
    axes = figure.subplots(down, across, squeeze=False).ravel().tolist()
    for spare in axes[count:]:
        spare.set_visible(False)
    return figure, axes[:count]


def pages(items: Sequence[_Item], most: int) -> Iterator[tuple[str, tuple[_Item, ...]]]:
    """Yield the items of one figure after the other, with the ending of its name.

    Parameters
    ----------
    items : sequence
        What gets a panel each; nothing of it is left out.
    most : int
        Panels of a figure.
    """
    for start in range(0, len(items), most):
        yield (f"_{start // most + 1}" if start else ""), tuple(items[start : start + most])


def titled(what: str, headings: Sequence[str]) -> str:
    """Return a figure's title: what it shows, and on which scenarios."""
    places = "; ".join(filter(None, headings))
    return f"{what}: {places}" if places else what


def column_heading(heading: str) -> str:
    """Return a heading in as many lines as it takes above the axes of one column."""
    return textwrap.fill(heading, _HEADING)


def name_columns(axis: Axes, names: Sequence[str], *, aslant: bool) -> None:
    """Name a heat map's columns, aslant where they would run into each other."""
    axis.set_xticks(range(len(names)), list(names), rotation=30 if aslant else 0)
    for text in axis.get_xticklabels() if aslant else ():
        text.set(ha="right", rotation_mode="anchor")


def accuracy_axes(axes: Sequence[Axes], *, alike: bool = False) -> None:
    """Name y axes of test accuracy, and let each cover ten points at least, of 0 to 100.

    Parameters
    ----------
    axes : sequence of Axes
        With all that stands on them, in percent.
    alike : bool
        Whether all get one range, to be compared.
    """
    ranges = [axis.get_ylim() for axis in axes]
    if alike:
        least, most = zip(*ranges, strict=True)
        ranges = [(min(least), max(most))] * len(axes)
    for axis, (low, high) in zip(axes, ranges, strict=True):
        axis.set_ylabel("test accuracy (%)")
        more = max(0.0, _LEAST_RANGE - (high - low)) / 2
        if more or alike:  # what is set does not follow what is drawn later
            # Room that is only added does not reach where no accuracy can be.
            shift = min(max(0.0, more - low), more) - min(max(0.0, high + more - 100), more)
            axis.set_ylim(low - more + shift, high + more + shift)


def spread_words(counts: Collection[int], drawn: str = "bars") -> str:
    """Return what bars or bands are: a standard deviation over how many seeds; nothing of one.

    Parameters
    ----------
    counts : collection of int
        Seeds of each mean that is drawn.
    drawn : str
        What shows the spread.
    """
    seeds = seeds_words(counts)
    return f"{drawn}: ± 1 standard deviation over {seeds}" if seeds else ""


def seeds_words(counts: Collection[int]) -> str:
    """Return over how many seeds means are, such as ``1 to 3 seeds``; nothing of one alone."""
    if not counts or max(counts) < 2:
        return ""
    least, most = min(counts), max(counts)
    return f"{most} seeds" if least == most else f"{least} to {most} seeds"


def legend_below(
    figure: Figure, axes: Sequence[Axes], order: Sequence[str], note: str = ""
) -> None:
    """Put one legend for all panels below them: each label once, those in ``order`` first.

    A note stands over its entries.
    """
    found: dict[str, Any] = {}
    for axis in axes:
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    if found:
        ranks = {label: place for place, label in enumerate(order)}
        found = dict(sorted(found.items(), key=lambda item: ranks.get(item[0], len(ranks))))
        width = figure.get_figwidth()
        room = max(20, int((width - _LEGEND_KEY) / _LEGEND_LETTER))
        texts = [textwrap.fill(label, room) for label in found]
        lines = [line for text in texts for line in text.splitlines()]
        longest = max(map(len, lines))
        across = min(len(found), max(1, int(width / (_LEGEND_LETTER * longest + _LEGEND_KEY))))
        # The legend has its own room: the panels keep theirs, however many methods there are.
        down = math.ceil(len(lines) / across) + bool(note)
        figure.set_figheight(figure.get_figheight() + _LEGEND_LINE * down)
        figure.legend(
            list(found.values()),
            texts,
            loc="outside lower center",
            ncols=across,
            columnspacing=1.0,
            handletextpad=0.5,
            handlelength=2.3,  # shows the dashes of references apart
            title=note or None,
            title_fontsize=6.5,
        )


def rendered(figure: Figure) -> dict[str, bytes]:
    """Return a figure as files by ending; no date is in them, so equal figures are equal."""
    made = {}
    _take_names_as_they_are(figure)
    # The layout is solved once, not again for every format.
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    for ending, metadata in (("pdf", {"CreationDate": None}), ("png", {"Software": None})):
        buffer = io.BytesIO()
        figure.savefig(buffer, format=ending, metadata=metadata)
        made[ending] = buffer.getvalue()
    made["png"] = _grey_as_grey(made["png"])
    return made


def _take_names_as_they_are(figure: Figure) -> None:
    """Let no name of a method, class or dataset be read as mathematics for its dollar signs."""
    from matplotlib.text import Text

    for text in figure.findobj(Text):
        words = text.get_text() if isinstance(text, Text) else ""
        # Logarithmic axes write their ticks as mathematics, and mean it.
        if isinstance(text, Text) and "$" in words and not words.startswith(r"$\mathdefault"):
            text.set_parse_math(False)


def _grey_as_grey(png: bytes) -> bytes:
    """Return a picture without colours with one channel for four: half the bytes, equal pixels."""
    from PIL import Image, ImageChops

    with Image.open(io.BytesIO(png)) as image:
        red, green, blue, opacity = image.convert("RGBA").split()
        pairs = ((red, green), (red, blue))
        coloured = any(ImageChops.difference(*pair).getbbox() for pair in pairs)
        if coloured or opacity.getextrema() != (255, 255):
            return png
        buffer = io.BytesIO()
        red.save(buffer, "PNG", optimize=True, dpi=image.info["dpi"])
    return buffer.getvalue()


def error_bars(spreads: Sequence[float]) -> list[float] | None:
    """Return lengths of error bars, none where a spread is 0, as it is of one seed.

    A bar of length 0 would be drawn as its caps, and say that seeds agree.
    """
    lengths = [spread or math.nan for spread in spreads]
    return None if all(math.isnan(length) for length in lengths) else lengths
