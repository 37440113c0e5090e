"""From an experiment's folder to its tables: what the command line calls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from benchmark.store.files import make_folder, write_text
from reports import latex, markdown
from reports.ablations import ablation_frame, ablation_table
from reports.along import along_tables
from reports.attribution import attribution_table
from reports.comparisons import (
    Ranks,
    best_table,
    block_kind,
    comparison_frame,
    rank_methods,
)
from reports.costs import budget_table, cost_frame, cost_table, with_costs
from reports.formats import probability
from reports.generation import generation_frame, generation_table
from reports.generators import class_frame, class_table, client_frame, client_table
from reports.grid import Grid, build_grid
from reports.load import Results, load
from reports.lost import lost_table
from reports.notes import datasets_in_words, footnotes, notes, reasons
from reports.page import PAGE_NAME, page_text
from reports.parts import parts_by_client, parts_by_round, parts_frame, parts_table
from reports.row_marks import round_notes, round_signs
from reports.scores import score_frame, score_table
from reports.table import Table
from reports.tuning import CHOSEN, chosen_text, tuning_table

FOLDER = "report"
"""Name of the report's folder in the experiment's."""

_NOT_IN_CSV = ("confusion", "split_counts", "split_widths", "class_names", "elements")
_NOT_IN_CSV_ENDINGS = (".by_client", ".by_class")
_OPTIONAL = (
    *("ablations", "scaling", "widths", "parts", "traffic", "rounds", "generation", "generators"),
    *("classes", "against_best", "tuning", "attribution", "lost_points", "budget"),
)
_ALWAYS = ("runs", "accuracy", "communication", "comparisons")
"""CSV files that are there even if they hold nothing but their headers."""


@dataclass(frozen=True)
class Report:
    """What is known of an experiment, ready to print.

    Parameters
    ----------
    experiment : str
        Its name.
    folder : Path
        Where the files are.
    tables : mapping of str to pandas.DataFrame
        Raw tables: ``runs`` (a row a run), ``accuracy``, ``communication`` and ``generation``
        (a row a cell), ``comparisons`` (a row a pair of methods), ``ablations`` (a row a
        configuration and scenario), ``parts`` (a row a part of the traffic), ``traffic`` (a row a
        client and part), ``rounds`` (a row a round and part), ``generators`` and
        ``classes`` (a row a run and client, or class, of generated images).
    rendered : mapping of str to Table
        Tables as they are printed: ``accuracy``, ``communication`` and ``parts``; where the
        experiment has them, ``budget``, ``tuning``, ``ablations``, ``attribution``,
        ``lost_points``, ``scaling``, ``widths``, ``against_best``, ``generation``,
        ``generators`` and ``classes``.
    notes : tuple of str
        How the tables were made and what they rest on; what was found damaged.
    reasons : tuple of str
        Runs that did not end well, and why.
    files : tuple of Path
        Everything that belongs to the report now.
    scenarios : int
        Number of scenarios.
    """

    experiment: str
    folder: Path
    tables: Mapping[str, pd.DataFrame]
    rendered: Mapping[str, Table]
    notes: tuple[str, ...]
    reasons: tuple[str, ...]
    files: tuple[Path, ...]
    scenarios: int


def write_report(experiment_dir: Path, *, figures: bool = True) -> Report:
    """Read an experiment's records and write its ``report`` folder.

    Works on finished, unfinished, damaged and empty experiments alike; says what it found.
    Every file is written whole, and only if its content changed.

    Parameters
    ----------
    experiment_dir : Path
        ``results/<experiment>``.
    figures : bool
        Whether figures are drawn too, those whose data changed.

    Raises
    ------
    benchmark.store.StoreError
        If the folder can't be written to.
    """
    results = load(experiment_dir)
    grid = build_grid(results)
    folder = experiment_dir / FOLDER
    said, why = tuple(notes(results, grid)), tuple(reasons(grid))
    tables = _frames(results, grid)
    rendered = _rendered(grid)
    files: list[Path] = []
    if len(results.runs):
        ranks = rank_methods(grid)
        make_folder(folder)
        contents = {**_csv_texts(tables), **_page_texts(results.name, rendered, grid, said, why)}
        contents["comparisons.md"] = _comparison_page(grid, ranks)
        chosen = chosen_text(grid)
        if chosen is not None:
            contents[CHOSEN] = chosen
        for name, text in contents.items():
            files.append(folder / name)
            _write_if_changed(folder / name, text)
        _remove_former(folder, contents)
        pictures: list[tuple[str, Path]] = []
        if figures:
            from reports.figures import draw_all

            drawn = draw_all(results, grid, ranks, folder / "figures")
            for figure in drawn:
                files += figure.files
                png = next(path for path in figure.files if path.suffix == ".png")
                pictures.append((figure.title, png))
        page = page_text(
            results,
            grid,
            rendered,
            notes=said,
            reasons=why,
            figures=pictures,
            frames=[name.removesuffix(".csv") for name in contents if name.endswith(".csv")],
        )
        files.append(folder / PAGE_NAME)
        _write_if_changed(folder / PAGE_NAME, page)
    return Report(
        results.name, folder, tables, rendered, said, why, tuple(files), len(grid.scenarios)
    )


def _frames(results: Results, grid: Grid) -> dict[str, pd.DataFrame]:
    return {
        "runs": results.runs,
        "accuracy": score_frame(grid),
        "communication": cost_frame(grid),
        "comparisons": comparison_frame(grid),
        "ablations": ablation_frame(grid),
        "parts": parts_frame(grid),
        "traffic": parts_by_client(grid, results),
        "rounds": parts_by_round(grid, results),
        "generation": generation_frame(grid),
        "generators": client_frame(grid),
        "classes": class_frame(grid),
    }


def _rendered(grid: Grid) -> dict[str, Table]:
    """Return every table that the experiment has the numbers for, in the order of a paper."""
    tables = [
        with_costs(score_table(grid), grid),
        tuning_table(grid),
        ablation_table(grid),
        attribution_table(grid),
        lost_table(grid),
        *along_tables(grid),
        best_table(grid),
        cost_table(grid),
        budget_table(grid),
        parts_table(grid),
        generation_table(grid),
        client_table(grid),
        class_table(grid),
    ]
    found = {table.name: table for table in tables if table is not None}
    if not grid.validation:
        return found
    own = ("accuracy", "tuning")  # whose titles say so already
    return {
        name: table if name in own else replace(table, title=f"{table.title} (validation)")
        for name, table in found.items()
    }


def _csv_texts(tables: Mapping[str, pd.DataFrame]) -> dict[str, str]:
    return {
        f"{name}.csv": frame[[column for column in frame if not _left_out(str(column))]].to_csv(
            index=False
        )
        for name, frame in tables.items()
        if len(frame) or name in _ALWAYS
    }


def _left_out(column: str) -> bool:
    return column in _NOT_IN_CSV or column.endswith(_NOT_IN_CSV_ENDINGS)


def _page_texts(
    experiment: str,
    rendered: Mapping[str, Table],
    grid: Grid,
    said: Sequence[str],
    why: Sequence[str],
) -> dict[str, str]:
    lists = [("Not done", why), ("Notes", said)]
    pages = {f"{name}.md": markdown.document(table, lists) for name, table in rendered.items()}
    for name, table in rendered.items():
        # Beside the tables of other experiments: it says whose numbers these are.
        title = ", ".join([table.title, *datasets_in_words(grid)])
        noted = replace(table, title=title, notes=(*why, *footnotes(name, grid)))
        label = latex.label_of(experiment, name)
        pages[f"{name}.tex"] = latex.table_text(noted, label, comments=said)
    return pages


def _remove_former(folder: Path, contents: Mapping[str, str]) -> None:
    """Remove tables that an earlier report wrote and that no longer apply."""
    for ending in ("csv", "md", "tex"):
        for path in folder.glob(f"*.{ending}"):
            if path.name not in contents and path.stem in _OPTIONAL:
                path.unlink(missing_ok=True)
    if CHOSEN not in contents:
        (folder / CHOSEN).unlink(missing_ok=True)


def _comparison_page(grid: Grid, ranks: Ranks | str) -> str:
    lines = [
        f"# Methods against each other{' (validation)' if grid.validation else ''}",
        "",
        "Every pair of methods, on every scenario and over all: `comparisons.csv`. Differences "
        "are paired over shared splits; p values are also Holm-corrected over the pairs of a "
        "scenario; over all scenarios the mean difference of each block is one observation (a "
        f"block is a {block_kind(grid)}).",
        "",
    ]
    if isinstance(ranks, str):
        return "\n".join([*lines, ranks, ""])
    signs = round_signs(grid)
    lines += [
        f"Mean ranks over {ranks.blocks} datasets; Friedman: p = {probability(ranks.p)}; mean "
        f"ranks that differ by less than {ranks.critical_difference:.2f} can't be told apart "
        "(Nemenyi, level 0.05).",
        "",
        "| method | mean rank |",
        "| --- | ---: |",
        *(
            f"| {markdown.escape(f'{label}{signs[str(label)]}')} | {rank:.2f} |"
            for label, rank in ranks.mean.items()
        ),
        "",
    ]
    lines += [line for note in round_notes(grid) for line in (markdown.escape(note), "")]
    if ranks.left_out:
        left_out = markdown.escape("; ".join(ranks.left_out))
        lines += [f"Not ranked, not complete: {left_out}.", ""]
    return "\n".join(lines)


def _write_if_changed(path: Path, text: str) -> None:
    try:
        if path.read_text(encoding="utf-8") == text:
            return
    except (OSError, UnicodeDecodeError):
        pass
    write_text(path, text)
