"""How far is a method before all others? The claim of most papers, judged from records.

``python -m benchmark.studies.lead results/reference/study_main`` prints, for every scenario of an
experiment, the differences in accuracy of each row of a method (``--method``) to two rivals: the
one that is best in the mean, as papers compare, and the best of each split, whoever that is. The
second is the stricter one: a maximum over several methods gains by chance. Methods of more than
one exchange take part, ``--one-exchange`` leaves them out; references never do.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from reports.grid import Grid, RowKey, build_grid
from reports.load import load
from reports.statistics import Split, shared_differences, summarize

Scores = Mapping[Split, float]


@dataclass(frozen=True)
class Lead:
    """A row's differences to one rival, or to the best of each split.

    Parameters
    ----------
    scenario : str
        Where.
    label : str
        The row.
    rivals : tuple of str
        One rival, or that of each split.
    points : mapping of str to float
        Difference by split seed, percentage points; positive if the row is ahead.
    """

    scenario: str
    label: str
    rivals: tuple[str, ...]
    points: Mapping[str, float]

    def text(self) -> str:
        """Return the differences, their mean and its 95 % Student-t interval in words."""
        values = list(self.points.values())
        found = summarize(values)
        listed = ", ".join(f"{value:.1f}" for value in values)
        if found.low is None or found.high is None:
            return listed
        return f"{listed} (mean {found.mean:.1f}, 95 %: {found.low:.1f} to {found.high:.1f})"


def leads(grid: Grid, method: str, *, one_exchange: bool = False) -> list[tuple[Lead, Lead]]:
    """Return for each row of ``method`` its lead over the best in the mean, and of each split.

    Only complete cells count, and only splits that the row and all its rivals were run on.

    Parameters
    ----------
    grid : Grid
        An experiment's grid.
    method : str
        Name of the plugin whose rows are compared with all rows of other methods.
    one_exchange : bool
        Whether methods of more than one round are left out.
    """
    left_out = grid.many_rounds() if one_exchange else {}
    found = []
    for scenario in grid.scenarios:
        scores = {
            row: cell.values("accuracy")
            for row, cell in grid.column(scenario)
            if not row.reference and row not in left_out and cell.summary("accuracy")
        }
        rivals = {row: values for row, values in scores.items() if row.method != method}
        place = ", ".join(grid.axes.header(scenario)) or "all"
        for row, values in scores.items():
            if row.method == method:
                shared = [
                    split for split in values if all(split in each for each in rivals.values())
                ]
                if rivals and shared:
                    own = {split: values[split] for split in shared}
                    found.append(_leads(place, row, own, rivals))
    return found


def _leads(
    place: str, row: RowKey, values: Scores, rivals: Mapping[RowKey, Scores]
) -> tuple[Lead, Lead]:
    mean_best = max(rivals, key=lambda rival: sum(rivals[rival][split] for split in values))
    best_of = {split: max(rivals, key=lambda rival: rivals[rival][split]) for split in values}
    best = {split: rivals[rival][split] for split, rival in best_of.items()}
    return (
        Lead(place, row.label, (mean_best.label,), _points(values, rivals[mean_best])),
        Lead(
            place,
            row.label,
            tuple(rival.label for rival in best_of.values()),
            _points(values, best),
        ),
    )


def _points(values: Scores, rival: Scores) -> dict[str, float]:
    return {split: 100 * each for split, each in shared_differences(values, rival).items()}


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the leads as a Markdown table; return the exit status, 2 if there is nothing."""
    parser = argparse.ArgumentParser(prog="python -m benchmark.studies.lead", description=__doc__)
    parser.add_argument("experiments", nargs="+", type=Path, help="folders of experiments")
    parser.add_argument("--method", default="mosaic", help="name of the plugin (mosaic)")
    parser.add_argument("--one-exchange", action="store_true", help="rivals of one round alone")
    asked = parser.parse_args(arguments)
    lines = []
    for folder in asked.experiments:
        grid = build_grid(load(folder))
        for over_mean, over_each in leads(grid, asked.method, one_exchange=asked.one_exchange):
            [rival] = over_mean.rivals
            cells = (folder.name, over_mean.scenario, over_mean.label, rival, over_mean.text())
            each = f"{over_each.text()}: {', '.join(over_each.rivals)}"
            lines.append(f"| {' | '.join((*cells, each))} |")
    if not lines:
        sys.stderr.write(f"error: no scenario has finished runs of {asked.method} and of others\n")
        return 2
    header = ("experiment", "scenario", "row", "best other in the mean", "points over it")
    titles = f"| {' | '.join((*header, 'points over the best other of each split'))} |"
    sys.stdout.write("\n".join([titles, "| --- " * 6 + "|", *lines, ""]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
