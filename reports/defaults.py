"""What was set otherwise than a method has it by itself: to be read beside its numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reports.ablations import ablations, change_text, differences
from reports.grid import Grid


def default_notes(grid: Grid, defaults: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return one sentence on the methods whose settings are not their defaults, if any.

    Of a method with several rows it tells the one that the others depart from: what they have
    otherwise stands in the table of ablations.

    Parameters
    ----------
    grid : Grid
        The experiment's grid.
    defaults : mapping of str to mapping
        The settings that each method has by itself; nothing is said of methods without any.
    """
    configs = grid.configs()
    bases = {ablation.method: ablation.base for ablation in ablations(grid)}
    said = []
    for row in grid.rows:
        known = defaults.get(row.method)
        if known is None or row not in configs or bases.get(row.method, row) != row:
            continue
        here = configs[row]
        # What only one of them has was a parameter of the method at another time.
        shared = known.keys() & here.keys()
        change = differences(
            *({key: value for key, value in one.items() if key in shared} for one in (known, here))
        )
        if change:
            others = " (what its other rows change: table 'Ablations')" * (row.method in bases)
            said.append(f"{row.label}{others}: {change_text(change)}")
    if not said:
        return []
    return [f"Not as the method has it by itself (default → here): {'; '.join(said)}."]
