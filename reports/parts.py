"""What crossed the wire, part by part, with the closed form beside the measured bytes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pandas as pd

from reports.formats import MISSING, percent, size
from reports.grid import Grid, GridCell, RowKey
from reports.load import DONE, Results
from reports.scores import cell_facts
from reports.table import Cell, Row, Table

DIRECTIONS = ("up", "down")
"""Directions of a record."""

BYTES_OF: Mapping[str, int] = {
    **{"float64": 8, "int64": 8, "float32": 4, "int32": 4},
    **{"float16": 2, "bfloat16": 2, "int16": 2, "int8": 1, "uint8": 1, "bool": 1},
}
"""Bytes of a number of each type that the wire carries."""

_CONTAINER = {"header": "names and shapes", "values": "JSON text"}
"""Parts that are no tensors: they have no closed form."""


def closed_form(kinds: Mapping[str, int]) -> int:
    """Return the bytes of so many numbers of each type.

    Raises
    ------
    KeyError
        If a type is not known.
    """
    return sum(BYTES_OF[kind] * count for kind, count in kinds.items())


def part_entries(run: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield a run's bytes by direction and part, over all clients and rounds, without warm-up.

    Yields
    ------
    dict
        ``direction``, ``part``, ``bytes``, ``numbers`` (of each type, as JSON text; null in
        records that don't count them) and ``closed_form`` (bytes; null where there is none).
    """
    booked: Mapping[str, Mapping[str, int]] = json.loads(run.get("parts") or "{}")
    counted: Mapping[str, Mapping[str, Any]] = json.loads(run.get("elements") or "{}")
    for direction in DIRECTIONS:
        for part, count in booked.get(direction, {}).items():
            kinds = counted.get(direction, {}).get(part)
            form = None
            if kinds is not None and kinds.keys() <= BYTES_OF.keys():
                form = closed_form(kinds)
            yield {
                "direction": direction,
                "part": part,
                "bytes": count,
                "numbers": None if kinds is None else json.dumps(kinds, sort_keys=True),
                "closed_form": form,
            }


def parts_table(grid: Grid) -> Table | None:
    """Return bytes by method and part, a client and all its rounds; ``None`` without traffic.

    Of scenarios in which a method's clients send the same tensors, the first stands for all:
    their bytes differ by the digits of a count at most.
    """
    found: dict[RowKey, list[tuple[str, list[tuple[str, tuple[Cell, ...]]]]]] = {}
    seen: set[tuple[RowKey, tuple[tuple[str, str, float], ...]]] = set()
    for scenario in grid.scenarios:
        place = ", ".join(grid.axes.header(scenario))
        for row, cell in grid.column(scenario):
            run = next((one for one in cell.runs if one["shown"] == DONE), None)
            if run is None or (row, _tensors(run)) in seen:
                continue
            seen.add((row, _tensors(run)))
            found.setdefault(row, []).append((place, list(_rows(run))))
    rows = []
    for row, places in found.items():
        for place, lines in places:
            group = f"{row.label}, {place}" if len(places) > 1 else row.label
            rows += [Row(group, label, cells) for label, cells in lines]
    headers = (("bytes / client",), ("share %",), ("closed form",), ("bytes by it",))
    made = Table("parts", "Bytes by part, of one client over all its rounds", headers, tuple(rows))
    return made if rows else None


def _tensors(run: Mapping[str, Any]) -> tuple[tuple[str, str, float], ...]:
    """Return what a mean client sends and gets that is no text."""
    clients = _clients(run)
    sent = [
        (entry["direction"], entry["part"], entry["bytes"] / clients)
        for entry in part_entries(run)
        if entry["part"] not in _CONTAINER
    ]
    warm = [(way, "warm-up", float(run.get(f"warmup_{way}_bytes") or 0)) for way in DIRECTIONS]
    return (*sent, *warm)


def _rows(run: Mapping[str, Any]) -> Iterator[tuple[str, tuple[Cell, ...]]]:
    clients = _clients(run)
    entries = [entry for entry in part_entries(run) if entry["bytes"]]
    whole = sum(entry["bytes"] for entry in entries)
    for entry in entries:
        form, expected = _form(entry, clients), entry["closed_form"]
        yield (
            f"{entry['direction']}: {entry['part']}",
            (
                Cell(_exact(entry["bytes"] / clients)),
                Cell(percent(entry["bytes"] / whole)),
                Cell(form, muted=form == MISSING),
                Cell(muted=True) if expected is None else Cell(_exact(expected / clients)),
            ),
        )
    for direction in DIRECTIONS:
        count = int(run.get(f"warmup_{direction}_bytes") or 0)
        if count:
            cells = (Cell(_exact(count / clients)), *(Cell(muted=True) for _ in range(3)))
            yield f"{direction}: warm-up rounds, shared by all", cells


def _clients(run: Mapping[str, Any]) -> int:
    return len(json.loads(run.get("split_counts") or "[]")) or int(
        str(run.get("partition.clients") or 1)
    )


def _exact(count: float) -> str:
    return f"{count:,.0f} B" if count < 1_000_000 else f"{count:,.0f} B ({size(count)})"


def _form(entry: Mapping[str, Any], clients: int) -> str:
    """Return such as ``60,720 float32 × 4 B``, the numbers of a mean client."""
    if entry["part"] in _CONTAINER:
        return _CONTAINER[entry["part"]]
    if entry["closed_form"] is None:
        return MISSING
    kinds: Mapping[str, int] = json.loads(entry["numbers"])
    return " + ".join(
        f"{count / clients:,.6g} {kind} × {BYTES_OF[kind]} B" for kind, count in kinds.items()
    )


def parts_frame(grid: Grid) -> pd.DataFrame:
    """Return one row for each cell, direction and part, over all clients and rounds."""
    return _first_runs(grid, part_entries)


def parts_by_client(grid: Grid, results: Results) -> pd.DataFrame:
    """Return one row for each cell, client, direction and part, over all rounds.

    Those of the warm-up that the run began with are called such as ``warm-up model``. Records
    that don't tell the parts of clients apart have no rows.
    """

    def entries(run: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        for prefix, account in _accounts(results, run):
            for booked in account.get("per_client") or ():
                yield from _booked({"client": booked["client"]}, booked.get("parts") or {}, prefix)

    return _first_runs(grid, entries)


def parts_by_round(grid: Grid, results: Results) -> pd.DataFrame:
    """Return one row for each cell, round, direction and part, over all clients.

    A warm-up's rounds are counted from 0, too; their parts are called such as ``warm-up model``.
    """

    def entries(run: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        for prefix, account in _accounts(results, run):
            for booked in account.get("per_round") or ():
                yield from _booked({"round": booked["round"]}, booked, prefix)

    return _first_runs(grid, entries)


def _accounts(results: Results, run: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Return what its parts' names begin with, and the account: of the warm-up, of the method."""
    own = results.records[str(run["run_id"])].communication
    yield "warm-up ", own.get("warmup") or {}
    yield "", own


def _booked(
    place: Mapping[str, int], booked: Mapping[str, Mapping[str, int]], prefix: str
) -> Iterator[dict[str, Any]]:
    for direction in DIRECTIONS:
        for part, count in sorted((booked.get(direction) or {}).items()):
            yield {**place, "direction": direction, "part": prefix + part, "bytes": count}


def _first_runs(
    grid: Grid, entries: Callable[[Mapping[str, Any]], Iterator[dict[str, Any]]]
) -> pd.DataFrame:
    """Return one row for each cell and entry of its first finished run; without warm-up."""
    rows = []
    for scenario in grid.scenarios:
        for row, cell in grid.column(scenario):
            run = next((one for one in cell.runs if one["shown"] == DONE), None)
            if run is not None:
                facts = _place(cell_facts(grid, row, scenario), run)
                rows += [facts | entry for entry in entries(run)]
    return pd.DataFrame.from_records(rows)


def _place(facts: Mapping[str, Any], run: Mapping[str, Any]) -> dict[str, Any]:
    left_out = ("planned", "done", "statuses", "differs_in", "run_ids")
    kept = {name: value for name, value in facts.items() if name not in left_out}
    return {**kept, "run_id": run["run_id"], "clients": _clients(run), "rounds": run.get("rounds")}


def unequal_forms(cell: GridCell) -> list[str]:
    """Return the parts of a cell's runs whose measured bytes are not those of the closed form."""
    return [
        f"{entry['direction']} {entry['part']}"
        for run in cell.runs
        for entry in part_entries(run)
        if entry["closed_form"] is not None and entry["closed_form"] != entry["bytes"]
    ]
