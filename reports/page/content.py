"""What the page's script needs to know, as JSON values: rows, runs, histories, pictures."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmark.store import Record
from benchmark.store.attempts import read_history
from benchmark.store.files import plain
from reports.axes import plain_text, title
from reports.figures.generation import picture_title
from reports.figures.lines import places
from reports.figures.style import look
from reports.generation import OLD_RATIO, extractors, ratio_of
from reports.grid import Grid, GridCell, RowKey
from reports.load import DONE, Results
from reports.row_marks import row_flags
from reports.scores import marks, verdicts
from reports.steps import RunningSteps

POINTS = 200
"""Points of a history that are kept, at most; evenly thinned, the last one always there."""
POINTS_OF_OTHERS = 20
"""The same for the runs of a cell after its first: a hundred of them are to stay one small file."""

_NUMBERS = (
    *("accuracy", "teacher_accuracy", "up_per_client", "down_per_client", "client_seconds"),
    *("server_seconds", "server_flops", "fedavg_rounds", "usefulness"),
)
_SPEC = ("scenario", "method", "budget", "measure", "compute", "code")


_SYMBOLS = {
    **{"o": "circle", "s": "square", "^": "triangle-up", "D": "diamond", "v": "triangle-down"},
    **{"P": "cross", "X": "x", "<": "triangle-left", ">": "triangle-right", "h": "hexagon"},
}
"""Plotly's names of the figures' markers."""


def page_content(grid: Grid, results: Results) -> dict[str, Any]:
    """Return all that the page shows of an experiment.

    Parameters
    ----------
    grid : Grid
        Its rows and cells.
    results : Results
        Its records, and the folder where histories and sample grids lie. The whole
        history and the pictures of the first finished run of a cell are part of the page; of
        others it has a coarse curve of the accuracy, and links.
    """
    judged, looks, flags = verdicts(grid), places(grid), row_flags(grid)
    rows, chosen = [], []
    for scenario in grid.scenarios:
        for row, cell in grid.column(scenario):
            best, second = marks(row, judged[scenario])
            rows.append(_row(row, cell, scenario, grid) | {"best": best, "second": second})
            rows[-1]["flag"] = flags.get(row, "")
            seen = look(looks[row], row.reference)
            rows[-1] |= {"color": seen.color, "symbol": _SYMBOLS[seen.marker]}
            first = next((run for run in cell.runs if run["shown"] == DONE), None)
            if first is not None:
                chosen.append(str(first["run_id"]))
    runs, first_ones = {}, set(chosen)
    for cell in grid.cells.values():
        for run in cell.runs:
            key = str(run["run_id"])
            runs[key] = _run(run, results.records.get(key), results.folder, whole=key in first_ones)
    named = list(extractors(grid))
    return {
        "rows": rows,
        "runs": runs,
        "filters": _filters(grid),
        "extractors": named,
        "ratio": [ratio_of(grid), "all real" if ratio_of(grid) == OLD_RATIO else "real"],
        "accuracy": "validation" if grid.validation else "test",
    }


def _row(row: RowKey, cell: GridCell, scenario: tuple[str, ...], grid: Grid) -> dict[str, Any]:
    numbers: dict[str, Any] = {}
    # A distance means something in its extractor's features alone: each has its own column.
    for column in (*_NUMBERS, *(f"{name}.{ratio_of(grid)}" for name in extractors(grid))):
        found = cell.summary(column)
        numbers[column] = None if found is None else [found.mean, found.sd]
    place = ", ".join(grid.axes.header(scenario))
    return {
        "label": row.label,
        "group": row.group,
        "reference": row.reference,
        "scenario": place,
        "settings": dict(zip(grid.axes.shown, scenario, strict=True)),
        "planned": len(cell.runs),
        "done": cell.statuses[DONE],
        "status": ", ".join(
            f"{name} {count}" if len(cell.runs) > 1 else name
            for name, count in sorted(cell.statuses.items())
            if name != DONE
        ),
        "runs": [str(run["run_id"]) for run in cell.runs],
        **numbers,
    }


def _filters(grid: Grid) -> list[dict[str, Any]]:
    """Return the settings that a reader can filter by, and that stand in a column: all axes.

    Those of one scenario are ``chosen`` at first: rows of several are no ranking.
    """
    made, first = [], _first_scenario(grid)
    for place, name in enumerate(grid.axes.shown):
        values = dict.fromkeys(scenario[place] for scenario in grid.scenarios)
        found = {"name": name, "title": title(name), "values": sorted(values, key=_sortable)}
        made.append(found | {"chosen": first[place] if len(values) > 1 else ""})
    return made


def _first_scenario(grid: Grid) -> tuple[str, ...]:
    """Return the scenario of most finished runs; of equals the first in the tables' order."""
    done = {
        scenario: sum(cell.statuses[DONE] for _, cell in grid.column(scenario))
        for scenario in grid.scenarios
    }
    return max(done, key=done.__getitem__, default=())


def _sortable(value: str) -> tuple[int, float, str]:
    try:
        return (0, float(value), "")
    except ValueError:
        return (1, 0.0, value)


def _run(
    run: Mapping[str, Any], record: Record | None, folder: Path, *, whole: bool
) -> dict[str, Any]:
    facts = {
        "id": str(run["run_id"]),
        "label": str(run["label"]),
        "seed": plain_text(run.get("seed")),
        "split_seed": plain_text(run.get("split_seed")),
        "status": str(run["shown"]),
        "reason": str(run.get("reason") or ""),
        "accuracy": run.get("accuracy"),
    }
    if record is None:
        return facts
    metrics = {
        key: value
        for key, value in record.metrics.items()
        if key not in ("confusion", "details", "generation", "teacher", "per_class_accuracy")
    }
    return {
        **facts,
        "spec": {key: record.spec.get(key) for key in _SPEC if key in record.spec},
        "metrics": metrics,
        "teacher_accuracy": (record.metrics.get("teacher") or {}).get("accuracy"),
        "generation": record.metrics.get("generation") or [],
        "details": record.metrics.get("details") or {},
        "communication": {
            key: value for key, value in record.communication.items() if key != "per_client"
        },
        "timing": {key: value for key, value in record.timing.items() if key != "client_seconds"},
        "environment": {
            key: value for key, value in record.environment.items() if key != "client_cache_ids"
        },
        "warnings": list(record.warnings),
        "place": f"../{record.run_id}/record.json",
        **(_kept(folder / record.run_id) if whole else _linked(folder / record.run_id)),
    }


def _kept(folder: Path) -> dict[str, Any]:
    history = _thinned(_history(folder / "history.csv"), POINTS)
    return {"history": history, "grids": _grids(folder, whole=True)}


def _linked(folder: Path) -> dict[str, Any]:
    path = folder / "history.csv"
    # The page may be sent alone: without a curve of its own such a run would show a dead link.
    mine = {name: points for name, points in _history(path).items() if name == "accuracy"}
    return {
        "history": _thinned(mine, POINTS_OF_OTHERS),
        "history_place": f"../{folder.name}/history.csv" if path.is_file() else "",
        "grids": _grids(folder, whole=False),
    }


def _grids(folder: Path, *, whole: bool) -> list[dict[str, str]]:
    made = []
    for path in sorted(folder.glob("grid-*.png")):
        title = picture_title(path)
        if title is None:
            continue
        source = f"../{folder.name}/{path.name}"
        if whole:
            source = data_uri(path.read_bytes())
        made.append({"title": title, "source": source, "linked": "" if whole else source})
    return made


def data_uri(png: bytes) -> str:
    """Return a PNG as text that an image element takes."""
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")


def _history(path: Path) -> dict[str, list[list[float]]]:
    """Return the server's and the clients' curves."""
    if not path.is_file():
        return {}
    rows = read_history(path)
    curves: dict[str, list[list[float]]] = {}
    steps: dict[str, RunningSteps] = {}
    for row in rows:
        client, step = row.get("client", ""), row.get("step")
        if not isinstance(step, float):
            continue
        for name, value in row.items():
            if name in ("round", "step", "client") or not isinstance(value, float):
                continue
            curve = f"client {client:g}: {name}" if isinstance(client, float) else name
            at = steps.setdefault(curve, RunningSteps()).at(row.get("round"), step)
            if math.isfinite(at) and math.isfinite(value):  # what JSON can't say, nor a curve show
                curves.setdefault(curve, []).append([at, value])
    return curves


def _thinned(curves: Mapping[str, list[list[float]]], most: int) -> dict[str, list[list[float]]]:
    """Return ``most`` points of each curve, evenly spread, the last one always there."""
    return {name: _thin(points, most) for name, points in curves.items()}


def _thin(points: list[list[float]], most: int) -> list[list[float]]:
    if len(points) <= most:
        return points
    return [points[at * (len(points) - 1) // (most - 1)] for at in range(most)]


def as_script(content: Mapping[str, Any]) -> str:
    """Return JSON that can stand inside a script element whatever its texts say.

    NaN and infinities, which a method may put into its details, become texts.
    """
    strict = plain(json.loads(json.dumps(content, default=str)))
    text = json.dumps(strict, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
