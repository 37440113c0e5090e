"""From the store to one tidy table: a row for every run, whatever became of it.

Reads what is on the disk and nothing else: neither the methods' code nor the specs'
classes are needed, so that old grids stay readable. Settings are columns named as in
the spec (``dataset``, ``partition.alpha``, ``budget.generator_steps``, …); a setting
that a later version adds becomes a column by itself.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from benchmark.store import SECTIONS, Cell, ExperimentStore, Manifest, Record
from reports.axes import SEED_FIELDS
from reports.measures import measures

DONE = "done"
"""The status of a run whose numbers count."""
STALE = "stale"
"""What a run shows as whose only record was made by other code."""
NOT_RUN = "not run yet"
NOT_INSTALLED = "not installed"
UNKNOWN = "unknown"
"""A setting of a run without a record that nothing says."""

JUDGED_ON = "measure.judged_on"
"""The setting that says whether a run tunes; it is not there where the test set judges."""

_NOT_SETTINGS = ("config", "code")


@dataclass(frozen=True)
class Results:
    """An experiment's runs.

    Parameters
    ----------
    name : str
        The experiment's name.
    folder : Path
        Its folder.
    runs : pandas.DataFrame
        One row a run, in the order of the grid. Column ``status`` is the record's,
        ``stale`` says whether other code made it, ``shown`` is what tables count it as
        (empty for records that a newer run of the same cell replaces).
    setting_columns : tuple of str
        Columns that hold the scenario, budget and compute settings, seeds included.
    not_installed : mapping of str to str
        Methods that could not be loaded, with the reason.
    problems : tuple of str
        What was found damaged or missing, one sentence each.
    defaults : mapping of str to mapping
        The settings that each method has by itself, by its name, as far as the store knows.
    records : mapping of str to Record
        Whole records by run id.
    """

    name: str
    folder: Path
    runs: pd.DataFrame
    setting_columns: tuple[str, ...]
    not_installed: Mapping[str, str]
    problems: tuple[str, ...]
    defaults: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    records: Mapping[str, Record] = field(default_factory=dict, repr=False, compare=False)


def load(folder: Path) -> Results:
    """Read an experiment's folder; an empty, partial or damaged one gives fewer rows.

    Parameters
    ----------
    folder : Path
        ``results/<experiment>``.
    """
    store = ExperimentStore(folder, read_only=True)
    with _heard("benchmark.store") as problems:
        manifest = store.manifest()
        records = store.records()
        rows = _rows(store, manifest, records)
    problems += _damaged_files(folder, records)
    if not folder.is_dir():
        problems.append(f"there is no folder {folder}")
    elif not rows and not manifest.not_installed:
        problems.append(f"no runs found in {folder}")
    settings = _setting_columns(rows)
    _fill(rows, settings)
    rows += [_not_installed(name, why) for name, why in manifest.not_installed.items()]
    columns = list(dict.fromkeys([*_COLUMNS, *settings, *(key for row in rows for key in row)]))
    runs = pd.DataFrame.from_records(rows, columns=columns).convert_dtypes()
    return Results(
        folder.name,
        folder,
        runs,
        tuple(settings),
        dict(manifest.not_installed),
        tuple(problems),
        dict(manifest.defaults),
        {record.run_id: record for record in records},
    )


_COLUMNS = (
    *("run_id", "cell_id", "label", "method", "kind", "uses", "status", "stale", "shown"),
    *("reason", "attempt"),
)


def shown_runs(results: Results) -> list[Mapping[str, Any]]:
    """Return the runs that stand for a cell of the grid, as mappings, in order."""
    counted = (results.runs["shown"] != "") & (results.runs["status"] != NOT_INSTALLED)
    chosen = results.runs[counted]
    columns = [str(column) for column in chosen.columns]
    values = chosen.astype(object).where(chosen.notna(), None).to_numpy()
    return [dict(zip(columns, row, strict=True)) for row in values]


def _rows(
    store: ExperimentStore, manifest: Manifest, records: Sequence[Record]
) -> list[dict[str, Any]]:
    by_id = {record.run_id: record for record in records}
    older: dict[str, Record] = {}
    current = {cell.run_id for cell in manifest.cells.values()}
    for record in records:
        cell_now = manifest.cell_of(record.cell_id)
        if record.run_id not in current and cell_now is not None:
            older[cell_now] = record
    rows = []
    for cell_id, cell in manifest.in_order():
        found = by_id.get(cell.run_id)
        if found is not None:
            rows.append(_of_record(found, cell, shown=str(found.status)))
            continue
        row = _of_attempt(store, cell_id, cell)
        if row["status"] == NOT_RUN and cell_id in older:
            row = _of_record(older[cell_id], cell, stale=True, shown=STALE)
        rows.append(row)
    placed = {row["run_id"] for row in rows}
    for record in records:
        if record.run_id not in placed:
            stale = manifest.cell_of(record.cell_id) is not None
            shown = "" if stale else str(record.status)
            rows.append(_of_record(record, None, stale=stale, shown=shown))
    return rows


_PNG_END = b"IEND\xaeB`\x82"


def _damaged_files(folder: Path, records: Sequence[Record]) -> list[str]:
    """Name the files beside the records that are gone or not what was written.

    Histories are compared by their checksums; of pictures, which are many and large, the
    last bytes alone are looked at.
    """
    found = []
    for record in records:
        for name, checksum in record.files.items():
            path = folder / record.run_id / name
            try:
                whole = _is_whole(path, checksum)
            except OSError:
                found.append(f"{record.run_id}/{name} is missing")
                continue
            if not whole:
                found.append(
                    f"{record.run_id}/{name} is damaged: it is shown in part, or not at all"
                )
    return found


def _is_whole(path: Path, checksum: str) -> bool:
    if path.suffix != ".png":
        return hashlib.sha256(path.read_bytes()).hexdigest() == checksum
    with path.open("rb") as opened:
        opened.seek(0, os.SEEK_END)
        opened.seek(max(opened.tell() - len(_PNG_END), 0))
        return opened.read() == _PNG_END


def _of_attempt(store: ExperimentStore, cell_id: str, cell: Cell) -> dict[str, Any]:
    try:
        attempt = store.latest_attempt(cell.run_id)
    except ValueError:
        attempt = None
    if attempt is None:
        return _without_record(cell_id, cell, NOT_RUN, "")
    status, reason = str(attempt.status), attempt.reason
    if attempt.record is None or status == NOT_RUN:
        return _without_record(cell_id, cell, status, reason)
    return {**_of_record(attempt.record, cell, shown=status), "status": status, "reason": reason}


def _of_record(
    record: Record, cell: Cell | None, *, shown: str, stale: bool = False
) -> dict[str, Any]:
    spec = record.spec
    # A stale record stands where its question stands by now, under the parameters of today.
    asked = cell.config if stale and cell is not None else None
    config = asked or spec.get("method", {}).get("config", {})
    return {
        "run_id": record.run_id,
        "cell_id": record.cell_id,
        "label": cell.label if cell else record.label,
        "method": str(spec.get("method", {}).get("name", record.label)),
        "kind": str(record.method.get("kind", "method")),
        "uses": ", ".join(str(item) for item in record.method.get("uses", ())),
        "status": str(record.status),
        "stale": stale,
        "shown": shown,
        "reason": _reason(record, stale and shown == STALE),
        "attempt": record.attempt,
        **flatten(spec.get("scenario", {})),
        **{key: value for name in SECTIONS for key, value in flatten(spec, name).items()},
        "config": _text(config),
        **_code(spec.get("code", {})),
        **measures(record),
    }


def _reason(record: Record, stale: bool) -> str:
    if stale:
        return "made by other code than the present; run it again to renew it"
    return record.reason or ""


def _code(code: Mapping[str, Any]) -> dict[str, Any]:
    flat = {f"code.{key}": value for key, value in code.items() if key != "parts"}
    return {**flat, "code.parts": json.dumps(code.get("parts", {}), sort_keys=True)}


def flatten(values: Mapping[str, Any], only: str | None = None) -> dict[str, Any]:
    """Return nested settings as one mapping with dotted keys; lists become text.

    Parameters
    ----------
    values : mapping
        A spec in its canonical form.
    only : str, optional
        Take this section alone, and put its name before the keys.
    """
    if only is not None:
        return {f"{only}.{key}": item for key, item in flatten(values.get(only, {})).items()}
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat.update({f"{key}.{name}": item for name, item in flatten(value).items()})
        else:
            flat[key] = ",".join(map(str, value)) if isinstance(value, list | tuple) else value
    return flat


def _without_record(cell_id: str, cell: Cell, status: str, reason: str) -> dict[str, Any]:
    return {
        "run_id": cell.run_id,
        "cell_id": cell_id,
        "label": cell.label,
        "method": cell.method,
        "kind": cell.kind,
        "uses": ", ".join(cell.uses) or None,
        "status": status,
        "stale": False,
        "shown": status,
        "reason": reason,
        "attempt": 0,
        **flatten(cell.scenario),
        **flatten(cell.settings),
        **({} if cell.judged_on == "test" else {JUDGED_ON: cell.judged_on}),
        "config": None if cell.config is None else _text(cell.config),
    }


def _text(config: Mapping[str, Any]) -> str:
    return json.dumps(config, sort_keys=True, ensure_ascii=False)


def _not_installed(name: str, reason: str) -> dict[str, Any]:
    return {
        **dict.fromkeys(("run_id", "cell_id", "kind", "uses"), None),
        "label": name,
        "method": name,
        "status": NOT_INSTALLED,
        "stale": False,
        "shown": NOT_INSTALLED,
        "reason": reason,
    }


def _setting_columns(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    first = set(_COLUMNS) | set(_NOT_SETTINGS)
    found: dict[str, None] = {}
    for row in rows:
        for key in row:
            if key == "config":  # settings end here; code and measures follow
                break
            if key not in first:
                found[key] = None
    return sorted(found, key=lambda key: key in SEED_FIELDS)


def _fill(rows: Sequence[dict[str, Any]], settings: Sequence[str]) -> None:
    """Give runs without a record what their neighbours say of method, budget and compute.

    Only where the manifest is older than its own word on all of these.
    """
    bare = [row for row in rows if row["config"] is None]
    if not bare:
        return
    known = [row for row in rows if row["config"] is not None]
    fields = [key for key in settings if key.split(".")[0] in SECTIONS and key != JUDGED_ON]
    for row in bare:
        same_method = [other for other in known if other["method"] == row["method"]]
        same_label = [other for other in same_method if other["label"] == row["label"]]
        row["kind"] = row["kind"] or _agreed(same_method, "kind")
        row["uses"] = row["uses"] or _agreed(same_method, "uses")
        row["config"] = _agreed(same_label, "config")
        for key in fields:
            found = _agreed(same_label, key) if same_label else None
            row[key] = next(
                (value for value in (found, _agreed(known, key)) if value is not None), UNKNOWN
            )


def _agreed(rows: Sequence[Mapping[str, Any]], key: str) -> Any:
    values = [row.get(key) for row in rows]
    return values[0] if values and all(value == values[0] for value in values) else None


class _Listener(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.heard: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.heard.append(record.getMessage())


@contextmanager
def _heard(name: str) -> Iterator[list[str]]:
    """Collect the warnings of a logger, in place of passing them on."""
    logger, listener = logging.getLogger(name), _Listener()
    before = logger.propagate
    logger.addHandler(listener)
    logger.propagate = False
    try:
        yield listener.heard
    finally:
        logger.removeHandler(listener)
        logger.propagate = before
