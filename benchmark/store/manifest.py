"""The manifest of an experiment: which run answers each cell of its grid now."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from benchmark.store.files import DamagedError, read_json, write_json
from benchmark.store.records import Record

MANIFEST_NAME = "experiment.json"
"""Name of the manifest's file in an experiment's folder."""


SECTIONS = ("budget", "measure", "compute")
"""Sections of a run spec whose fields may tell a grid's columns apart, beside the scenario's."""


class Cell(BaseModel):
    """One question of a grid (a method on a scenario), and the run that answers it now.

    Parameters
    ----------
    run_id : str
        The run made by the present code.
    label : str
        The name shown in tables.
    method : str
        The method's name.
    scenario : dict
        Flat summary of the scenario; see :func:`scenario_summary`.
    order : int
        Place in the grid; the manifest renumbers it, so that grids add up.
    kind : {"method", "reference"}, optional
        Of the plugin; manifests from before it was kept have none.
    judged_on : {"test", "holdout"}
        Images that accuracy is measured on.
    settings : dict
        Flat summary of budget, measures and computing, such as ``budget.generator_steps``:
        where an unfinished run stands in tables. Manifests from before it was kept have none.
    config : dict, optional
        The method's configuration; what tells the rows of one label apart. As settings.
    uses : tuple of str
        What the method says that it uses, by which tables group it. As settings.
    earlier : tuple of str
        Ids that the same question had when the method had fewer parameters, or others.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    run_id: str
    label: str
    method: str
    scenario: dict[str, Any] = Field(default_factory=dict)
    order: int = 0
    kind: str | None = None
    judged_on: str = "test"
    settings: dict[str, Any] = Field(default_factory=dict)
    config: dict[str, Any] | None = None
    uses: tuple[str, ...] = ()
    earlier: tuple[str, ...] = ()

    def succeeds(self, other: Cell) -> bool:
        """Return whether this is the question that ``other`` was before its method changed.

        A configuration is complete, so one that lacks a parameter of the method as it is now,
        or has one that is gone, can't be asked for any more. What both have must be equal.
        """
        mine, its = self.config, other.config
        if mine is None or its is None or mine.keys() == its.keys():
            return False
        same = all(
            getattr(self, name) == getattr(other, name)
            for name in ("label", "method", "scenario", "settings", "judged_on")
        )
        return same and all(mine[key] == its[key] for key in mine.keys() & its.keys())

    @classmethod
    def of(
        cls,
        run_id: str,
        label: str,
        spec: Mapping[str, Any],
        order: int = 0,
        kind: str | None = None,
        *,
        uses: Sequence[str] = (),
    ) -> Self:
        """Return the cell of a run spec in its canonical (JSON) form."""
        return cls(
            run_id=run_id,
            label=label,
            method=str(spec.get("method", {}).get("name", label)),
            scenario=scenario_summary(spec.get("scenario", {})),
            order=order,
            kind=kind,
            judged_on=str(spec.get("measure", {}).get("judged_on", "test")),
            settings=scenario_summary({name: spec.get(name, {}) for name in SECTIONS}),
            config=spec.get("method", {}).get("config"),
            uses=tuple(uses),
        )


class Manifest(BaseModel):
    """What an experiment consists of.

    Parameters
    ----------
    cells : dict of str to Cell
        The grid, by cell id.
    not_installed : dict of str to str
        Methods that could not be loaded, with the reason.
    settings : dict
        What the command asked for: profile, budget and the like.
    defaults : dict of str to dict
        The settings that each method has by itself, by its name: what was set otherwise shows
        against them. Manifests from before it was kept have none.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    cells: dict[str, Cell] = Field(default_factory=dict)
    not_installed: dict[str, str] = Field(default_factory=dict)
    settings: dict[str, Any] = Field(default_factory=dict)
    defaults: dict[str, dict[str, Any]] = Field(default_factory=dict)

    def in_order(self) -> list[tuple[str, Cell]]:
        """Return the cells with their ids, in the order of the grid."""
        return sorted(self.cells.items(), key=lambda item: (item[1].order, item[0]))

    @cached_property
    def _now(self) -> dict[str, str]:
        earlier = {name: now for now, cell in self.cells.items() for name in cell.earlier}
        return {**earlier, **{cell_id: cell_id for cell_id in self.cells}}

    def cell_of(self, cell_id: str) -> str | None:
        """Return the id by which a cell is asked for now; ``None`` if none asks for it."""
        return self._now.get(cell_id)

    def merged(
        self,
        cells: Mapping[str, Cell],
        not_installed: Mapping[str, str] | None = None,
        settings: Mapping[str, Any] | None = None,
        defaults: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> Manifest:
        """Return this manifest with the cells of another command added.

        A known cell keeps its place and takes the new run id; new cells follow the known
        ones, and replace those that they succeed. A method that has a cell now is installed.
        """
        ordered = _Ordered(self.in_order())
        for cell_id, cell in sorted(cells.items(), key=lambda item: item[1].order):
            ordered.put(cell_id, cell)
        renumbered = {
            cell_id: cell.model_copy(update={"order": order})
            for order, (cell_id, cell) in enumerate(ordered.cells.items())
        }
        present = {cell.method for cell in cells.values()}
        missing = {**self.not_installed, **(not_installed or {})}
        return Manifest(
            cells=renumbered,
            not_installed={name: why for name, why in missing.items() if name not in present},
            settings={**self.settings, **(settings or {})},
            defaults={
                **self.defaults,
                **{name: dict(values) for name, values in (defaults or {}).items()},
            },
        )


class _Ordered:
    """Cells in order, by id; what takes the place of a cell that it succeeds.

    Parameters
    ----------
    known : iterable of (str, Cell)
        The cells so far.
    """

    def __init__(self, known: Iterable[tuple[str, Cell]]) -> None:
        self.cells = dict(known)
        # Cells of one method nearly always have the same parameters, so few are ever compared.
        self._by_parameters: dict[tuple[str, frozenset[str]], set[str]] = {}
        for cell_id, cell in self.cells.items():
            self._alike(cell).add(cell_id)

    def put(self, cell_id: str, cell: Cell) -> None:
        """Add a cell, or renew it."""
        replaced = {
            known
            for (method, parameters), ids in self._by_parameters.items()
            if method == cell.method and parameters != frozenset(cell.config or ())
            for known in ids
            if cell.succeeds(self.cells[known])
        }
        gone = [self.cells[known] for known in (*replaced, cell_id) if known in self.cells]
        earlier = replaced.union(*(other.earlier for other in gone))
        renewed = cell.model_copy(update={"earlier": tuple(sorted(earlier))})
        if replaced:
            for known in replaced:
                self._alike(self.cells[known]).discard(known)
            self.cells = {
                cell_id if known in replaced else known: other
                for known, other in self.cells.items()
            }
        self.cells[cell_id] = renewed
        self._alike(cell).add(cell_id)

    def _alike(self, cell: Cell) -> set[str]:
        key = (cell.method, frozenset(cell.config or ()))
        return self._by_parameters.setdefault(key, set())


def scenario_summary(scenario: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a spec (in canonical form) that name it in tables, flat.

    Nested specs become ``partition.alpha`` and the like; fields that are unset are left out.
    """
    summary: dict[str, Any] = {}
    for key, value in scenario.items():
        if isinstance(value, Mapping):
            nested = scenario_summary(value)
            summary.update({f"{key}.{name}": item for name, item in nested.items()})
        elif value is not None:
            summary[key] = value
    return summary


def read_manifest(folder: Path) -> Manifest:
    """Read an experiment's manifest.

    Raises
    ------
    FileNotFoundError
        If there is none.
    DamagedError
        If it differs from what was written.
    """
    try:
        return Manifest.model_validate(read_json(folder / MANIFEST_NAME))
    except ValidationError as error:
        raise DamagedError(f"{MANIFEST_NAME}: {error.errors()[0]['msg']}") from None


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write an experiment's manifest, whole or not at all."""
    write_json(folder / MANIFEST_NAME, manifest.model_dump(mode="json"))


def rebuilt(records: Iterable[Record]) -> Manifest:
    """Return the manifest that the finished runs speak for; later ones win a cell."""
    cells: dict[str, Cell] = {}
    for order, record in enumerate(records):
        kind = record.method.get("kind")
        cells[record.cell_id] = Cell.of(record.run_id, record.label, record.spec, order, kind)
    return Manifest().merged(cells)
