"""What all figures share."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from matplotlib import get_data_path, rc_context, rcParams
from matplotlib.figure import Figure
from matplotlib.font_manager import fontManager

from reports.figures.style import _SETTINGS, accuracy_axes, paper, rendered


def _figure(*lines: tuple[float, float]) -> Figure:
    figure = Figure()
    axes = figure.subplots(1, len(lines), squeeze=False)[0]
    for axis, line in zip(axes, lines, strict=True):
        axis.plot(line)
    return figure


def _ranges(*lines: tuple[float, float], alike: bool = False) -> list[tuple[float, float]]:
    figure = _figure(*lines)
    accuracy_axes(figure.axes, alike=alike)
    assert {axis.get_ylabel() for axis in figure.axes} == {"test accuracy (%)"}
    return [axis.get_ylim() for axis in figure.axes]


def test_an_axis_of_accuracy_covers_ten_points_at_least() -> None:
    (low, high), wide = _ranges((36.7, 37.6), (30.0, 60.0))
    assert (low, high) == (pytest.approx(32.15), pytest.approx(42.15))
    assert wide == (pytest.approx(28.5), pytest.approx(61.5)), "wide ones stay as they are"
    bottom, top = _ranges((1.0, 1.4), (99.2, 99.6))
    assert bottom == (pytest.approx(0, abs=0.1), pytest.approx(10, abs=0.1))
    assert top == (pytest.approx(90, abs=0.1), pytest.approx(100, abs=0.1))


def test_axes_to_be_compared_have_one_range() -> None:
    first, second = _ranges((36.7, 37.6), (35.9, 37.5), alike=True)
    assert first == second
    assert first[1] - first[0] == pytest.approx(10)
    assert first[0] < 35.9 - 3
    assert first[1] > 37.6 + 3


def test_files_do_not_depend_on_the_fonts_of_a_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    def files() -> dict[str, bytes]:
        with paper():
            return rendered(_figure((1.0, 2.0)))

    expected = files()
    other = Path(get_data_path(), "fonts", "ttf", "DejaVuSerif-Bold.ttf")
    monkeypatch.setattr(fontManager, "ttflist", [])
    fontManager.addfont(other)
    installed = [replace(font, name="DejaVu Sans") for font in fontManager.ttflist]
    monkeypatch.setattr(fontManager, "ttflist", installed)
    with rc_context(_SETTINGS):  # type: ignore[arg-type]
        assert rendered(_figure((1.0, 2.0))) != expected, "else nothing is shown by what follows"
    # What that list was asked for is forgotten again: paper() reads the fonts anew.
    assert files() == expected
    assert fontManager.ttflist is installed, "others keep what they had"


def test_files_do_not_depend_on_a_users_settings() -> None:
    def files() -> dict[str, bytes]:
        with paper():
            return rendered(_figure((1.0, 2.0)))

    expected = files()
    with rc_context({"font.family": "Nimbus Sans", "lines.linestyle": "--", "axes.grid": False}):
        assert files() == expected
        assert rcParams["font.family"] == ["Nimbus Sans"]
