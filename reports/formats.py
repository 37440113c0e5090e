"""Numbers as tables print them: the only place where anything is rounded."""

from __future__ import annotations

from collections.abc import Callable

from reports.statistics import Summary

_BYTES = (("GB", 1e9), ("MB", 1e6), ("kB", 1e3))
MISSING = "–"
"""What stands where there is nothing to say."""


def percent(share: float) -> str:
    """Return a share in [0, 1] as a percentage with two decimals, without the sign."""
    return f"{100 * share:.2f}"


def points(share: float, *, signed: bool = False) -> str:
    """Return a difference of shares in percentage points, with two decimals and a minus sign."""
    sign = "+" if signed else "-"
    return f"{round(100 * share, 2) + 0.0:{sign}.2f}".replace("-", "−")  # no zero has a minus


def percent_parts(summary: Summary) -> tuple[str, str]:
    """Return mean and spread of a share as percentages; the spread is empty with one value."""
    return percent(summary.mean), "" if summary.sd is None else percent(summary.sd)


def size(count: float) -> str:
    """Return a number of bytes with a decimal unit (1 kB = 1000 bytes)."""
    for unit, factor in _BYTES:
        if count >= factor:
            return f"{_three(count / factor)} {unit}"
    return f"{count:.0f} B"


def _three(value: float) -> str:
    decimals = 2 if value < 10 else 1 if value < 100 else 0
    return f"{value:.{decimals}f}"


def figures_of(value: float, count: int = 3) -> str:
    """Return a number in so many figures, whole numbers with all of theirs."""
    text = f"{value:.{count}g}"
    # Rounding may add a digit: 999.6 has four.
    return f"{value:,.0f}" if abs(float(text)) >= 10**count else text


def seconds(value: float) -> str:
    """Return a duration in seconds, in three figures or so."""
    if 0 < value < 0.01:
        return "<0.01"
    return _three(value) if value < 1000 else f"{value:.0f}"


def count(number: float) -> str:
    """Return a count, such as ``2,560``; a mean of counts with one decimal where it has any."""
    return f"{number:,.0f}" if number == int(number) else f"{number:,.1f}"


def operations(count: float) -> str:
    """Return a number of floating-point operations, such as ``1.25 T``."""
    for unit, factor in (("P", 1e15), ("T", 1e12), ("G", 1e9), ("M", 1e6)):
        if count >= factor:
            return f"{_three(count / factor)} {unit}"
    return f"{count:.0f}"


def probability(p: float) -> str:
    """Return a p value."""
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def count_of(count: int, total: int, what: str) -> str:
    """Return such as ``failed 1 of 3``, or the word alone where it holds for all."""
    return what if count == total == 1 else f"{what} {count} of {total}"


def spread_of(summary: Summary, form: Callable[[float], str]) -> str:
    """Return a spread in its form; nothing where there is none."""
    return form(summary.sd) if summary.sd else ""


def cost_spread_of(summary: Summary, form: Callable[[float], str]) -> str:
    """Return a cost's spread; nothing below half a percent of the mean.

    Bytes are the same for every seed but for the odd digit of a count: such a spread says
    nothing beside the mean.
    """
    if not summary.sd or summary.sd < abs(summary.mean) / 200:
        return ""
    spread = form(summary.sd)
    return "" if spread.startswith("<") else spread
