"""Exponents of growth: the fit, what is judged, what is written, and one real point."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmark.speed import scaling
from benchmark.speed.method_probe import Point, Spent, measure
from benchmark.speed.power_laws import exponents, fit


def test_a_power_law_is_found_again() -> None:
    law = fit([5, 10, 50], [3 * size**1.5 for size in (5, 10, 50)])
    assert law is not None
    assert law.exponent == pytest.approx(1.5)
    assert law.at(20) == pytest.approx(3 * 20**1.5)


@pytest.mark.parametrize(("sizes", "values"), [([5], [1]), ([5, 10], [0, 1]), ([5, 5], [1, 2])])
def test_too_few_points_have_no_exponent(sizes: list[float], values: list[float]) -> None:
    assert fit(sizes, values) is None


def rows(power: float, scale: float) -> list[dict[str, Any]]:
    return [
        {
            "axis": "clients",
            "method": "m",
            "reference": False,
            "size": size,
            "client_seconds": scale * size**power,
            "server_seconds": 0.0,
            "memory": 1.0,
        }
        for size in (5, 10, 100)
    ]


@pytest.mark.parametrize(
    ("power", "scale", "too_fast"), [(1.0, 1.0, False), (2.0, 1.0, True), (2.0, 1e-9, False)]
)
def test_growth_is_judged_where_it_is_more_than_noise(
    power: float, scale: float, too_fast: bool
) -> None:
    (found,) = [row for row in exponents(rows(power, scale)) if row["measure"] == "client_seconds"]
    assert found["exponent"] == pytest.approx(power)
    assert found["too_fast"] is too_fast


def test_a_point_of_a_real_method(tmp_path: Path) -> None:
    (point,) = scaling.points("clients", [5], ["fedavg"], tmp_path)
    assert (point.clients, point.classes) == (5, 10)
    spent = measure(point)
    assert spent is not None
    assert spent.client_seconds > spent.server_seconds > 0
    assert not spent.reference


def test_unsupported_points_are_left_out(tmp_path: Path) -> None:
    (point,) = scaling.points("classes", [10], ["best_client"], tmp_path)
    unheld = Point(point.method, 10, 10, point.data, (*point.settings, ("holdout", 0.0)))
    assert measure(unheld) is None


def run(folder: Path, *arguments: str) -> int:
    return scaling.main(["--methods", "fedavg", "dense", "--out", str(folder), *arguments])


@pytest.mark.long
def test_the_script_writes_table_and_figure_and_goes_on_where_it_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[tuple[str, int, int]] = []

    def pretend(_: Any, point: Point) -> Spent:
        asked.append((point.method, point.clients, point.classes))
        growth = point.clients * (point.classes if point.method == "dense" else 1)
        return Spent(0.1 * growth, 0.2 * point.clients**2, growth * 2**20, False)

    monkeypatch.setattr(scaling, "in_child", pretend)
    assert run(tmp_path, "--clients", "5", "10", "--classes", "10") == 1
    assert len(asked) == 6
    out = capsys.readouterr().out
    assert "| dense | 1.00 | **2.00** |" in out
    assert run(tmp_path, "--clients", "5", "10", "--classes", "10", "100") == 1
    assert len(asked) == 8
    assert {path.name for path in tmp_path.iterdir()} == {
        "scaling.csv", "exponents.csv", "scaling.pdf", "scaling.png"
    }  # fmt: skip
    assert (tmp_path / "scaling.png").read_bytes().startswith(b"\x89PNG")
