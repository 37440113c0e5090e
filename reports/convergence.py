"""Who has not converged: methods that gain over a point at twice the budget (rule 3)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reports.axes import plain_text
from reports.grid import Grid, GridCell, RowKey
from reports.load import DONE

UNCONVERGED = "§"
"""Sign of a cell whose method gains over a point at twice the budget."""

GAIN = 0.01
"""Share of test samples above which a gain says that the budget was too small."""

_BUDGET = ("budget.generator_steps", "budget.generated_images", "budget.distilled_images")
_PASSIVE = ("budget.history_points", "measure.")
"""Settings, or how they begin, that say what is watched and change no accuracy."""

Place = tuple[RowKey, tuple[str, ...]]


def unconverged(grid: Grid) -> Mapping[Place, float]:
    """Return the cells whose method gains over a point at twice the budget, with the gain.

    Compared are cells of one row whose settings are equal but for the budget, all three parts of
    it doubled, over the splits that both were run on.

    Returns
    -------
    mapping of (row, scenario) to float
        Mean gain of each such cell, a share in (:data:`GAIN`, 1].
    """
    alike: dict[tuple[RowKey, tuple[str, ...]], list[tuple[tuple[int, ...], Place]]] = {}
    fields = (*grid.axes.shown, *grid.axes.implied)
    others = [field for field in fields if not field.startswith((*_BUDGET, *_PASSIVE))]
    for place, cell in grid.cells.items():
        row, _ = place
        rest = tuple(plain_text(cell.runs[0].get(field)) for field in others)
        budget = _budget(cell)
        if budget is not None and not row.reference:
            alike.setdefault((row, rest), []).append((budget, place))
    found = {}
    for cells in alike.values():
        by_budget = dict(cells)
        for budget, place in cells:
            doubled = by_budget.get(tuple(2 * part for part in budget))
            gain = None if doubled is None else _gain(grid.cells[place], grid.cells[doubled])
            if gain is not None and gain > GAIN:
                found[place] = gain
    return found


def _budget(cell: GridCell) -> tuple[int, ...] | None:
    parts: list[Any] = [
        run.get(field) for run in cell.runs if run["shown"] == DONE for field in _BUDGET
    ]
    first = tuple(parts[: len(_BUDGET)])
    return first if first and all(isinstance(part, int) for part in first) else None


def _gain(single: GridCell, double: GridCell) -> float | None:
    if not (single.complete and double.complete):
        return None  # no mean over survivors
    before, after = single.values("accuracy"), double.values("accuracy")
    shared = before.keys() & after.keys()
    if not shared:
        return None
    return sum(after[split] - before[split] for split in shared) / len(shared)


def convergence_notes(grid: Grid) -> list[str]:
    """Return what the sign means, and who has it; nothing where nobody has."""
    found = unconverged(grid)
    if not found:
        return []
    said = ", ".join(
        f"{row.label} +{100 * gain:.2f}{_where(grid, scenario)}"
        for (row, scenario), gain in found.items()
    )
    return [
        f"{UNCONVERGED} Not converged: gains over a point at twice the budget (points gained: "
        f"{said})."
    ]


def _where(grid: Grid, scenario: tuple[str, ...]) -> str:
    return f" at {', '.join(grid.axes.header(scenario))}" if scenario else ""
