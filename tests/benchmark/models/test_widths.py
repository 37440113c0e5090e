"""Widths: one reading of them, exact wherever what is written is."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from benchmark.errors import UserError
from benchmark.models.widths import as_width, scaled


@pytest.mark.parametrize(
    ("value", "width", "kept"),
    [(1, 1, 10), ("1", 1, 10), ("1/2", Fraction(1, 2), 5), (0.1, Fraction(1, 10), 1),
     (0.7, Fraction(7, 10), 7), ("1/3", Fraction(1, 3), 4), (1 / 3, Fraction(1, 3), 4),
     (" 0.25 ", Fraction(1, 4), 3), (np.float32(0.25), Fraction(1, 4), 3),
     ("1/2000", Fraction(1, 2000), 1), (0.0005, Fraction(1, 2000), 1),
     ("0.3333333", Fraction(3333333, 10**7), 4), (Fraction(1, 10**7), Fraction(1, 10**7), 1)],
)  # fmt: skip
def test_widths_are_exact(value: object, width: Fraction, kept: int) -> None:
    assert as_width(value) == width
    assert scaled(10, as_width(value)) == kept


@pytest.mark.parametrize(
    "value",
    [True, None, [], [1], "x", "1/0", 0, "0", -1, "2", 1.5, float("inf"), float("nan")],
)
def test_bad_widths_are_refused(value: object) -> None:
    with pytest.raises(UserError, match="a width") as refused:
        as_width(value)
    assert isinstance(refused.value, ValueError)  # which pydantic wants
