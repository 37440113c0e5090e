"""Widths: which fraction of each layer's channels a model keeps. Imports no torch."""

from __future__ import annotations

import math
from fractions import Fraction
from numbers import Real

from benchmark.errors import UserError

_LARGEST_DENOMINATOR = 1_000_000


class WidthError(UserError, ValueError):
    """What is given is no width; a ``ValueError`` for the validation of specs."""


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
    WidthError
        If ``value`` is no number or lies outside (0, 1].
    """
    width = _fraction(value)
    if width is None:
        raise WidthError(f"a width is a fraction such as 1 or 1/2, not {value!r}")
    if not 0 < width <= 1:
        raise WidthError(f"a width lies above 0 and at most at 1, not {value!r}")
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
