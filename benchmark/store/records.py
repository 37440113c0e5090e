"""Run records: one JSON document a run, which says all that a report needs."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from benchmark.store.files import (
    DamagedError,
    plain,
    read_json,
    restore_non_finite,
    write_json,
)
from benchmark.store.status import Status

SCHEMA_VERSION = 1
"""Raised whenever a key of the record changes its meaning."""

FLOPS_ESTIMATE = 2
"""Kind of the estimate in ``timing.flops``: the first took preparations for usual steps."""

RECORD_NAME = "record.json"
"""Name of the record's file in a run's folder."""

_NUMERIC = ("metrics", "communication", "timing", "environment")


class UnknownSchemaError(Exception):
    """A sound record, but written in a way that this version can't read."""


class Record(BaseModel):
    """What became of one attempt at a run: raw values, never rounded.

    In the file, NaN and infinities of ``metrics``, ``communication``, ``timing`` and
    ``environment`` stand as the strings ``"NaN"``, ``"Infinity"`` and ``"-Infinity"``;
    here they are floats.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    schema_version: int = Field(SCHEMA_VERSION, description="version of this layout")
    run_id: str = Field(description="hash of everything that determines the metrics")
    cell_id: str = Field(description="the same without the code that made them")
    status: Status
    reason: str | None = Field(None, description="why it is not done, one line")
    label: str = Field(description="name shown in tables")
    attempt: int = Field(0, ge=0, description="number of the attempt that made it")
    spec: dict[str, Any] = Field(default_factory=dict, description="the run's complete spec")
    method: dict[str, Any] = Field(
        default_factory=dict, description="the method's metadata: kind, uses, summary, source"
    )
    metrics: dict[str, Any] = Field(
        default_factory=dict, description="only what is the same on every repetition"
    )
    communication: dict[str, Any] = Field(
        default_factory=dict, description="bytes by client, direction, round and part"
    )
    timing: dict[str, Any] = Field(
        default_factory=dict, description="seconds; in `flops`, operations of clients and server"
    )
    environment: dict[str, Any] = Field(
        default_factory=dict, description="versions, hardware, threads, git state"
    )
    warnings: list[str] = Field(default_factory=list)
    files: dict[str, str] = Field(
        default_factory=dict, description="SHA-256 of the files beside the record, by name"
    )

    @field_validator("spec", "method", *_NUMERIC, mode="after")
    @classmethod
    def _only_json(cls, values: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        try:
            document: dict[str, Any] = plain(values, str(info.field_name))
        except TypeError as error:
            raise ValueError(str(error)) from None
        if info.field_name in _NUMERIC:
            document = restore_non_finite(document)
        return document

    def document(self) -> dict[str, Any]:
        """Return the record as plain JSON values."""
        values = self.model_dump(mode="python")
        document: dict[str, Any] = plain({**values, "status": str(self.status)}, "record")
        return document

    def changed(self, **values: Any) -> Self:
        """Return a copy with some values changed, validated anew."""
        return type(self).model_validate({**self.model_dump(), **values})


def write_record(folder: Path, record: Record) -> None:
    """Write ``record.json`` into ``folder``, whole or not at all.

    Raises
    ------
    StoreError
        If it can't be written.
    """
    write_json(folder / RECORD_NAME, record.document())


def read_record(folder: Path) -> Record:
    """Read the record in ``folder``.

    Raises
    ------
    FileNotFoundError
        If there is none.
    DamagedError
        If it differs from what was written.
    UnknownSchemaError
        If it is sound, but of a layout that this version can't read.
    """
    document = read_json(folder / RECORD_NAME)
    version = document.get("schema_version")
    try:
        record = Record.model_validate(document)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise UnknownSchemaError(f"layout {version!r}: {place}: {first['msg']}") from None
    if record.schema_version > SCHEMA_VERSION:
        raise UnknownSchemaError(
            f"layout {version} is newer than this version's {SCHEMA_VERSION}; update the suite"
        )
    return record


def read_record_of(folder: Path, run_id: str) -> Record:
    """Read the record in ``folder`` and check that it is the one of ``run_id``.

    Raises
    ------
    DamagedError
        If it is another run's.
    """
    record = read_record(folder)
    if record.run_id != run_id:
        raise DamagedError(f"its record is run {record.run_id}'s")
    return record
