"""Records that other code made: tables show them, and nothing in them says so by itself."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from rich.console import Console

from benchmark.cli import output
from benchmark.registry import Registry
from benchmark.specs import CodeSpec
from benchmark.store import ExperimentStore, Status

SHOWN = 6
"""Rows named; of more only their number is said."""


def say_stale(folder: Path, registry: Registry, talk: Console) -> None:
    """Name the rows of an experiment that the code of now would make anew, if there are any."""
    found = stale_rows(ExperimentStore(folder, read_only=True), registry)
    if found:
        named = [f"{label} ({output.counted(n, 'run', 'runs')})" for label, n in found.items()]
        more = [f"{len(named) - SHOWN} more"] if len(named) > SHOWN else []
        said = ", ".join([*named[:SHOWN], *more])
        output.say(talk, f"made by other code than the present, and kept as it was: {said}")


def stale_rows(store: ExperimentStore, registry: Registry) -> Counter[str]:
    """Return how many finished runs of each row were made by other code than the present.

    By the digests and versions that are on record; nothing is said of methods that aren't there.
    """
    found: Counter[str] = Counter()
    for state in store.states():
        info = registry.methods.get(state.cell.method)
        if info is None or state.record is None or state.status is not Status.DONE:
            continue
        now = CodeSpec(plugin=info.plugin, parts=info.parts).model_dump(mode="json")
        if state.record.spec.get("code") != now:
            found[state.cell.label] += 1
    return found
