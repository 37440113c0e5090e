"""What differs between two records, or between a record and what would be made of it now."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from benchmark.environment import computed_with

if TYPE_CHECKING:
    from benchmark.specs import RunSpec
    from benchmark.store import Record

NOTHING = "nothing"
"""What stands for a value that one side does not have."""


def made_otherwise(record: Record, spec: RunSpec) -> list[str]:
    """Return what differs between a record and this machine with this code, one line each."""
    then = _made_by(record.spec, record.environment)
    return differing(then, _made_by(spec.canonical(), computed_with(spec.compute)))


def compared(record: Record, new: Record) -> tuple[list[str], str]:
    """Return which metrics and bytes differ, one line each, and the result in a sentence."""
    then, now = ({"metrics": it.metrics, "communication": it.communication} for it in (record, new))
    old, found = dict(leaves(then)), dict(leaves(now))
    differ = differing(old, {name: found[name] for name in old if name in found})
    result = f"{len(differ):,} of {len(old):,} values differ"
    if not differ:
        result = f"equal in every value ({len(old):,} compared)"
    # Such as a measure that the code of then did not take: nothing contradicts it.
    more = len(found.keys() - old.keys())
    return differ, result + (f"; {more:,} are new, not in the record" if more else "")


def _made_by(spec: Mapping[str, Any], found: Mapping[str, Any]) -> dict[str, Any]:
    hardware = found.get("hardware", {})
    return {
        "code": spec.get("code", {}),
        "method": spec.get("method", {}),
        "versions": found.get("versions", {}),
        "commit": found.get("git", {}).get("commit"),
        "hardware": {name: hardware.get(name) for name in ("cpu", "system")},
        "gpu": found.get("gpu"),
    }


def differing(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return the values that differ in a bit or are on one side only, one line each."""
    old, new = dict(leaves(then)), dict(leaves(now))
    names = [*old, *(name for name in new if name not in old)]
    # As text: a NaN is equal to itself, and -0.0, 0.0 and 0 are three values.
    sides = [
        (name, *(repr(it[name]) if name in it else NOTHING for it in (old, new))) for name in names
    ]
    return [f"{name}: {a} in the record, {b} now" for name, a, b in sides if a != b]


def leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the values of nested JSON by name, such as ``metrics.split.sizes[2]``."""
    if isinstance(value, Mapping) and value:
        for key, item in value.items():
            yield from leaves(item, f"{name}.{key}" if name else key)
    elif isinstance(value, list) and value:
        for index, item in enumerate(value):
            yield from leaves(item, f"{name}[{index}]")
    else:
        yield name, value
