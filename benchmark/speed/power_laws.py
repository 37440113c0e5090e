"""Exponents of growth: power laws fitted to measured points, and which of them are too high."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

MEASURES = ("client_seconds", "server_seconds", "memory")
ALLOWED = {"clients": 1.15, "classes": 2.0}
"""Highest exponents: work is done client by client; experts answer about every class each."""
PUBLISHED = {("classes", "mosaic", "server_seconds"): 3.0}
"""Where a published method must grow faster: Mosaic's meta model reads a token of each of C
classes, and a token has 10·C entries, which a transformer multiplies by square matrices."""
TOO_SMALL = {"client_seconds": 0.2, "server_seconds": 0.2, "memory": 16 * 2**20}
"""A measure that stays below this at its largest point is only noise and is not judged."""

Row = dict[str, Any]


@dataclass(frozen=True)
class Fit:
    """A straight line on logarithmic axes.

    Parameters
    ----------
    exponent : float
        Its slope.
    factor : float
        Its value at size 1.
    """

    exponent: float
    factor: float

    def at(self, size: float) -> float:
        """Return the fitted value."""
        return float(self.factor * size**self.exponent)


def fit(sizes: Sequence[float], values: Sequence[float]) -> Fit | None:
    """Fit a power law by least squares of logarithms; None with fewer than two positive points."""
    points = [(math.log(x), math.log(y)) for x, y in zip(sizes, values, strict=True) if y > 0]
    if len({x for x, _ in points}) < 2:
        return None
    logs = np.array(points)
    slope, offset = np.polyfit(logs[:, 0], logs[:, 1], 1)
    return Fit(float(slope), math.exp(offset))


def series(
    rows: Sequence[Row], axis: str, method: str, measure_name: str
) -> tuple[list[float], list[float]]:
    """Return sizes and values of one line."""
    mine = sorted((row["size"], row[measure_name]) for row in rows
                  if (row["axis"], row["method"]) == (axis, method))  # fmt: skip
    return [float(size) for size, _ in mine], [float(value) for _, value in mine]


def exponents(rows: Sequence[Row]) -> list[Row]:
    """Return the exponent of every line, and whether it is above what is allowed."""
    found = []
    for axis, method in dict.fromkeys((row["axis"], row["method"]) for row in rows):
        for name in MEASURES:
            sizes, values = series(rows, axis, method, name)
            line = fit(sizes, values)
            if line is None:
                continue
            judged = max(values) >= TOO_SMALL[name]
            too_fast = judged and line.exponent > PUBLISHED.get((axis, method, name), ALLOWED[axis])
            found.append({
                "axis": axis, "method": method, "measure": name, "exponent": line.exponent,
                "judged": judged, "too_fast": too_fast,
            })  # fmt: skip
    return found
