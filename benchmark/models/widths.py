"""Widths: which fraction of each layer's channels a model keeps. Imports no torch."""

from __future__ import annotations

import math
from fractions import Fraction
from numbers import Real

from benchmark.errors import UserError

_LARGEST_DENOMINATOR = 1_000_000


def as_width(value: object) -> Fraction:
    """Return ``value`` as an exact width.

    Parameters
    ----------
    value : Fraction, int, float or str
        A number in (0, 1], or text such as ``"1/4"`` or ``"0.25"``. A float is read as the
        nearest simple fraction, so that 0.1 means one tenth exactly.

    Returns
    -------
    Fraction
        The width, in (0, 1].

    Raises
    ------
    UserError
        If ``value`` is no number or lies outside (0, 1].
    """
    width = _fraction(value)
    if width is None:
        raise UserError(f"width {value!r} is not a number; use a fraction such as 1, 1/2 or 1/4")
    if not 0 < width <= 1:
        raise UserError(f"width {value} is out of range; a width is above 0 and at most 1")
    return width


def _fraction(value: object) -> Fraction | None:
    if isinstance(value, bool):
        return None
    try:
        if isinstance(value, (int, str, Fraction)):
            return Fraction(value)
        if isinstance(value, Real):
            return Fraction(float(value)).limit_denominator(_LARGEST_DENOMINATOR)
    except (ValueError, OverflowError, ZeroDivisionError):
        return None
    return None


def scaled(channels: int, width: Fraction) -> int:
    """Return how many of ``channels`` a model of ``width`` keeps: ``ceil(width * channels)``.

    The rounding is that of the published FedRolex code (arXiv 2212.01548, whose text has a floor).
    """
    return math.ceil(width * channels)
