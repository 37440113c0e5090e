"""How good the generated images are: distances and scores, each in a column of its extractor."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd

from reports.formats import figures_of, percent, spread_of
from reports.grid import Grid, GridCell
from reports.load import DONE
from reports.measures import GENERATION, JUDGES
from reports.scores import cell_facts, incomplete_cells, marks, summary_columns
from reports.statistics import Verdict, judge
from reports.table import Cell, Row, Table

FEW = "‡"
"""Sign of a distance that rests on fewer images than the extractor has features."""


RATIO, OLD_RATIO = "fid_over_real", "fid_ratio"
"""A distance over that of as many real images; in older records, over that of all of them."""

_DISTANCES = (RATIO, OLD_RATIO, "fid")

_POOLED: tuple[tuple[str, str, Callable[[float], str]], ...] = (
    (RATIO, "Fréchet ÷ real", figures_of),
    (OLD_RATIO, "Fréchet ÷ all real", figures_of),
    ("fid", "Fréchet", figures_of),
    ("kid", "KID", figures_of),
    ("real_kid", "KID of real", figures_of),
    ("inception_score", "IS", figures_of),
    ("precision", "precision %", percent),
    ("recall", "recall %", percent),
    ("images", "images", lambda value: f"{value:,.0f}"),
)
_USEFUL: tuple[tuple[str, str, Callable[[float], str]], ...] = (
    ("usefulness", "trained on them %", percent),
    ("coverage", "classes covered %", percent),
)


def extractors(grid: Grid) -> tuple[str, ...]:
    """Return the extractors that some run was measured with, in order of appearance."""
    found: dict[str, None] = {}
    for cell in grid.cells.values():
        for run in cell.runs:
            found.update(dict.fromkeys(filter(None, str(run.get("extractors") or "").split(", "))))
    return tuple(found)


def generation_table(grid: Grid) -> Table | None:
    """Return measures of generated images by method, scenario after scenario.

    ``None`` where no method of the grid made any.
    """
    named = extractors(grid)
    if not named:
        return None
    pooled = [one for one in _POOLED if one[0] not in (RATIO, OLD_RATIO) or _has(grid, one[0])]
    columns = [("images", header) for _, header, _ in _USEFUL]
    columns += [(name, header) for name in named for _, header, _ in pooled]
    measured = [(column, form) for column, _, form in _USEFUL]
    measured += [(f"{name}.{column}", form) for name in named for column, _, form in pooled]
    rows = []
    for scenario in grid.scenarios:
        place = ", ".join(grid.axes.header(scenario))
        judged = {column: _verdict(grid, scenario, column) for column, _ in measured}
        for row, cell in grid.column(scenario):
            if not any(run.get("extractors") for run in cell.runs):
                continue
            if not cell.complete:
                cells = list(incomplete_cells(cell, len(columns)))
                rows.append(Row(place or row.group, row.label, tuple(cells), row.reference))
                continue
            cells = [
                _cell(cell, column, form, marks(row, judged[column])) for column, form in measured
            ]
            rows.append(Row(place or row.group, row.label, tuple(cells), row.reference))
    return Table("generation", "Generated images", tuple(columns), tuple(rows))


def ratio_of(grid: Grid) -> str:
    """Return which ratio a grid's figures and tables of one ratio have: the old one if no other."""
    return OLD_RATIO if _has(grid, OLD_RATIO) and not _has(grid, RATIO) else RATIO


def ratio_in_words(grid: Grid) -> str:
    """Return what that ratio is of, for a title."""
    all_of_them = ratio_of(grid) == OLD_RATIO
    return "that of all real test images" if all_of_them else "that of as many real test images"


def _has(grid: Grid, measure: str) -> bool:
    names = [f"{name}.{measure}" for name in extractors(grid)]
    runs = (run for cell in grid.cells.values() for run in cell.runs)
    return any(run.get(name) is not None for run in runs for name in names)


def main_columns(table: Table) -> Table:
    """Return the table with the columns that a terminal has room for."""
    chosen = (
        "trained on them %",
        "classes covered %",
        "Fréchet ÷ real",
        "Fréchet ÷ all real",
        "IS",
    )
    return table.select([at for at, column in enumerate(table.columns) if column[-1] in chosen])


def generation_notes(grid: Grid) -> list[str]:
    """Return how the measures are to be read; nothing where there are none."""
    if not extractors(grid):
        return []
    said = [
        "Generated images: a bare distance in the classifier's features has no scale. 'Trained on "
        "them' is the real-test accuracy of one fixed network trained on the generated images as "
        "the suite's classifier labels them. IS is the mean over splits; ± is over seeds. 'KID of "
        "real' is that of real test images: about 0, of either sign.",
        *(_judge_in_words(grid, name) for name in extractors(grid)),
    ]
    if _has(grid, RATIO):
        said.append(
            "'Fréchet ÷ real' is the distance to the clients' real images over the distance of as "
            "many real test images to them: 1 is as good as real."
        )
    if _has(grid, OLD_RATIO):
        said.append(
            "'Fréchet ÷ all real' is of records from before sample sizes were made equal: over the "
            "distance of all real test images. The fewer images were generated, the larger it is, "
            "for real ones, too; it compares rows of equally many images alone."
        )
    if any(
        run.get(f"{name}.enough") is False
        for cell in grid.cells.values()
        for run in cell.runs
        for name in extractors(grid)
    ):
        said.append(
            f"{FEW} Fewer images, generated or real, than features: the distance is biased."
        )
    return said + [text for name in extractors(grid) for text in _unequal_judges(grid, name)]


def _unequal_judges(grid: Grid, name: str) -> list[str]:
    """Return a sentence for each set of rows that two networks of one name have judged."""
    sides: dict[str, dict[str, dict[str, None]]] = {}
    for (row, _), cell in grid.cells.items():
        for run in cell.runs:
            key = run.get(f"{name}.extractor_key")
            if run["shown"] != DONE or key is None:  # records from before it was kept say nothing
                continue
            # One with an accuracy is trained on a dataset, so each dataset has its own.
            trained = run.get(f"{name}.extractor_accuracy") is not None
            data = str(run.get("dataset_fingerprint")) if trained else ""
            sides.setdefault(data, {}).setdefault(str(key), {})[row.label] = None
    said = []
    for found in sides.values():
        if len(found) > 1:
            text = "; ".join(f"{', '.join(rows)}: {key[:8]}" for key, rows in found.items())
            said.append(
                f"Extractor {name} is not the same network in all rows, don't compare its "
                f"columns ({text})."
            )
    return said


def _judge_in_words(grid: Grid, name: str) -> str:
    """Return who an extractor is and how many real images it saw, each as a range over runs."""
    runs = [run for cell in grid.cells.values() for run in cell.runs]

    def told(column: str, form: str) -> str:
        values = [
            run[f"{name}.{column}"] for run in runs if run.get(f"{name}.{column}") is not None
        ]
        if not values:
            return "?"
        least, most = (format(value, form) for value in (min(values), max(values)))
        return least if least == most else f"{least} to {most}"

    accuracy = told("extractor_accuracy", ".1%")
    right = "" if accuracy == "?" else f", right on {accuracy} of the test images"
    return (
        f"Extractor {name}: {told('feature_size', 'd')} features{right}; distances are to "
        f"{told('real_train', ',')} real training images, the scale is from "
        f"{told('real_test', ',')} real test images."
    )


def _verdict(grid: Grid, scenario: tuple[str, ...], column: str) -> Verdict | None:
    """Return whose images are best by a measure; ``None`` for what is no measure of them."""
    name = column.rpartition(".")[2]
    if name in ("images", "real_kid"):
        return None
    sign = -1 if name in (*_DISTANCES, "kid") else 1
    return judge(
        {
            row.label: {split: sign * value for split, value in cell.values(column).items()}
            for row, cell in grid.column(scenario)
            if not row.reference and cell.summary(column)
        }
    )


def _flag(cell: GridCell, column: str) -> str:
    name, _, measure = column.rpartition(".")
    few = any(run.get(f"{name}.enough") is False for run in cell.runs)
    return FEW if few and measure in _DISTANCES else ""


def _cell(
    cell: GridCell, column: str, form: Callable[[float], str], marked: tuple[bool, bool]
) -> Cell:
    summary = cell.summary(column)
    if summary is None:
        return Cell(muted=True)
    best, second = marked
    spread = spread_of(summary, _two_figures if form is figures_of else form)
    return Cell(form(summary.mean), spread, best, second, flag=_flag(cell, column))


def _two_figures(value: float) -> str:
    return figures_of(value, 2)


def generation_frame(grid: Grid) -> pd.DataFrame:
    """Return one row a cell with raw measures of its images."""
    measured = ["usefulness", "coverage"]
    measured += [
        f"{name}.{column}" for name in extractors(grid) for column in (*GENERATION, *JUDGES)
    ]
    rows = []
    for scenario in grid.scenarios:
        for row, cell in grid.column(scenario):
            if any(run.get("extractors") for run in cell.runs):
                numbers = [summary_columns(cell, column) for column in measured]
                facts = cell_facts(grid, row, scenario)
                rows.append(facts | {k: v for entry in numbers for k, v in entry.items()})
    return pd.DataFrame.from_records(rows)
