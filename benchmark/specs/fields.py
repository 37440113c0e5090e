"""Types of an experiment's fields that hold several values, as flags and files write them."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from benchmark.specs.scenario import Width


def _as_seeds(value: Any) -> Any:
    """Refuse texts such as ``0-2``, of which pydantic reads the end alone."""
    values = as_tuple(value)
    for item in values if isinstance(values, list | tuple) else ():
        if isinstance(item, str) and not re.fullmatch(r"\s*[+-]?\d+\s*", item):
            raise ValueError(f"a seed is a whole number from 0, not {item!r}")
    return values


def as_tuple(value: Any) -> Any:
    """Take a single text or number for a list of one."""
    return (value,) if isinstance(value, str | int | float) else value


def _as_plan(value: Any) -> Any:
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(","))
    return (value,) if isinstance(value, int | float | Fraction) else value


def as_extractors(value: Any) -> Any:
    """Take the word ``none`` for no extractor: a flag needs one to say so."""
    return () if value in ("none", ["none"], ("none",)) else as_tuple(value)


Seed = Annotated[int, Field(ge=0)]
Plan = Annotated[tuple[Width, ...], BeforeValidator(_as_plan)]
Strings = Annotated[tuple[str, ...], BeforeValidator(as_tuple), Field(min_length=1)]
Seeds = Annotated[tuple[Seed, ...], BeforeValidator(_as_seeds), Field(min_length=1)]
