"""The sentences beneath a table: how it was made, what it rests on, and what went wrong."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from reports.axes import SEED_FIELDS, UNSET, describe, title
from reports.convergence import convergence_notes
from reports.costs import AVERAGING_ROUNDS
from reports.defaults import default_notes
from reports.formats import count, probability
from reports.generation import generation_notes
from reports.generators import class_notes
from reports.grid import Grid, for_tables
from reports.load import DONE, NOT_RUN, Results, shown_runs
from reports.lost import lost_notes
from reports.measures import GRANTED
from reports.parts import unequal_forms
from reports.provenance import mixed_cells, provenance_notes
from reports.row_marks import round_notes, row_notes
from reports.scores import verdicts
from reports.statistics import LEAST_PAIRS, LEVEL, Split, least_signed_rank_p

SELECTION_RULES: Mapping[str, str] = {
    "last": "that of the final model, never the best one on the way",
}
"""The rules by which an accuracy is chosen, in words."""

_LEFT_OUT = {
    "parity": "whose predictions depend on the test batch",
    "validation": "judged on held-out training images, for tuning",
}
_VALIDATION = (
    "Accuracies are of held-out training images: this grid chooses settings, and its numbers are "
    "no results. The test set stayed closed; figures of accuracy are not drawn."
)
_NUMBER = re.compile(r"\d[\d.,]*")
_LISTED = 3
"""Places named in a reason, and datasets in a caption, before they are only counted."""


def notes(results: Results, grid: Grid) -> list[str]:
    """Return everything that is to be said beneath the tables of an experiment."""
    runs = shown_runs(results)
    found = list(results.problems)
    if not runs and not results.not_installed:
        return found
    done = [run for run in runs if run["shown"] == DONE]
    if grid.validation:
        found.append(_VALIDATION)
    found += [*_setting(grid), *default_notes(grid, results.defaults)]
    if done:
        found += [*_selection(done), _spread(grid), *_marks(grid), *_cost_rules(done)]
        found += _spent(done)
        found += [*lost_notes(grid), *generation_notes(grid), *class_notes(grid)]
    found += provenance_notes(grid)
    found += convergence_notes(grid)
    found += _left_out(results)
    found += _bytes_differ(grid)
    found += _warnings(runs)
    return found


def _warnings(runs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the runs' warnings, those that differ in their numbers alone as one."""
    kinds: dict[str, list[str]] = {}
    for run in runs:
        for text in filter(None, str(run.get("warnings") or "").split(" | ")):
            kinds.setdefault(_NUMBER.sub("#", text), []).append(text)
    said = []
    for texts in kinds.values():
        times = "once" if len(texts) == 1 else f"{len(texts)} times"
        such = "" if len(set(texts)) == 1 else "such as: "
        said.append(f"Warned {times}: {such}{texts[0]}")
    return said


def footnotes(name: str, grid: Grid) -> list[str]:
    """Return what a printed table can't be read without; :func:`notes` says all the rest.

    Parameters
    ----------
    name : str
        The table's name: only those with accuracies have a best.
    grid : Grid
        The experiment's grid.
    """
    if not any(cell.complete for cell in grid.cells.values()):
        return []
    said = [*([] if name == "parts" else [_spread(grid)]), *_differing(grid)]
    if name in ("accuracy", "scaling", "widths", "ablations", "generation"):
        said += _marks(grid)
    if name in ("scaling", "widths", "ablations"):
        said += [*mixed_cells(grid), *row_notes(grid)]
    if name == "attribution":
        said += mixed_cells(grid)
    if name == "lost_points":
        said += lost_notes(grid)
    if name == "generation":
        said += generation_notes(grid)
    if name in ("against_best", "tuning"):
        said += round_notes(grid)
    if name == "communication":
        said += _averaging_rounds([run for cell in grid.cells.values() for run in cell.runs])
    if name == "accuracy":
        said += [*provenance_notes(grid), *convergence_notes(grid)]
    return said


def _setting(grid: Grid) -> list[str]:
    fixed = {
        field: value
        for field, value in grid.axes.fixed.items()
        if value != UNSET and field not in SEED_FIELDS
    }
    if fixed.get("warmup.rounds") == "0":  # what no warm-up round uses says nothing
        fixed = {
            field: value
            for field, value in fixed.items()
            if field == "warmup.rounds" or not field.startswith("warmup.")
        }
    said, floors = [], _floors(grid)
    if fixed:
        words = {field: describe(field, value) for field, value in fixed.items()}
        if floors and _FLOOR in fixed:
            words[_FLOOR] = _floor_in_words(grid, fixed[_FLOOR], floors)
        said.append(f"The same for all: {', '.join(words.values())}.")
    if floors and _FLOOR not in fixed:
        said.append(f"Fewer samples per client than asked: {_listed(floors)}.")
    return said + _differing(grid)


def _differing(grid: Grid) -> list[str]:
    return [f"Differs too: {sentence}." for sentence in grid.axes.implied.values()]


def datasets_in_words(grid: Grid) -> list[str]:
    """Return the datasets' names, for a caption; their number where they are many."""
    if "dataset" not in grid.axes.shown:
        name = grid.axes.fixed.get("dataset", UNSET)
        return [] if name == UNSET else [name]
    at = grid.axes.shown.index("dataset")
    names = list(dict.fromkeys(scenario[at] for scenario in grid.scenarios))
    return names if len(names) <= _LISTED else [f"{len(names)} datasets"]


_FLOOR = "partition.min_samples"


def _floors(grid: Grid) -> dict[str, list[str]]:
    """Return the floors that splits had to lower, with their scenarios; of records that say so."""
    places: dict[str, list[str]] = {}
    for scenario in grid.scenarios:
        runs = [run for _, cell in grid.column(scenario) for run in cell.runs]
        found = {
            str(run["split_min_samples"])
            for run in runs
            if (run.get("split_min_samples") or math.inf) < (run.get(_FLOOR) or 0)
        }
        for floor in found:
            places.setdefault(floor, []).append(", ".join(grid.axes.header(scenario)))
    return places


def _floor_in_words(grid: Grid, asked: str, floors: Mapping[str, Sequence[str]]) -> str:
    [floor] = floors if len(floors) == 1 else [asked]
    if len(floors.get(floor, ())) == len(grid.scenarios):
        return f"{describe(_FLOOR, floor)} (not {asked}: that is over half of an equal share)"
    said = f"{_listed(floors)}, where {asked} is over half of an equal share"
    return f"{describe(_FLOOR, asked)} ({said})"


def _listed(places: Mapping[str, Sequence[str]]) -> str:
    return "; ".join(
        f"{what} with {' / '.join(found) if len(found) <= _LISTED else f'{len(found)} scenarios'}"
        for what, found in places.items()
    )


def _selection(done: Sequence[Mapping[str, Any]]) -> list[str]:
    rules = sorted({str(run["selection"]) for run in done if run.get("selection")})
    if len(rules) > 1:
        return [f"Accuracies were chosen by different rules ({', '.join(rules)}): don't compare."]
    return [
        f"The accuracy of record is {SELECTION_RULES.get(rule, 'chosen so')} (rule '{rule}')."
        for rule in rules
    ]


def _spread(grid: Grid) -> str:
    counts = sorted({len(cell.runs) for cell in grid.cells.values() if cell.complete})
    if not counts:
        return "No cell is complete: no mean is given."
    if counts == [1]:
        return "One seed: no spread can be given."
    shown = " or ".join(map(str, counts))
    said = f"Mean ± standard deviation (ddof 1) over n = {shown} seeds; no mean over survivors."
    return f"{said} {_SHARED_SPLITS}" if _splits_shared(grid) else said


_SHARED_SPLITS = (
    "Some seeds have one split: in tests and intervals of differences they count once, by their "
    "mean; the spread beside a mean is over seeds."
)


def _splits_shared(grid: Grid) -> bool:
    found = [cell.values("accuracy").keys() for cell in grid.cells.values() if cell.complete]
    return any(len({split for split, _ in keys}) < len(keys) for keys in found)


def _marks(grid: Grid) -> list[str]:
    judged = [verdict for verdict in verdicts(grid).values() if verdict.best is not None]
    if not judged:
        return []
    tested = [verdict for verdict in judged if verdict.tied]
    said = []
    if tested:
        said.append(
            "Bold (* on a terminal): every method that can't be told from the best (paired t tests "
            f"over shared splits, Holm-corrected over all pairs, level {LEVEL:g}); underlined: the "
            "next."
            + (
                ""
                if all(verdict.tells for verdict in tested)
                else " Where that is every method, none is."
            )
        )
    if len(tested) < len(judged):
        said.append(
            f"With fewer than {LEAST_PAIRS} shared splits no method can be told from another: "
            "nothing is bold there."
        )
    fewest = min((verdict.pairs for verdict in tested), default=0)
    if tested and least_signed_rank_p(fewest) > LEVEL:
        said.append(
            f"{fewest} shared splits can't reach significance without assuming normal "
            f"differences (Wilcoxon: p is at least {probability(least_signed_rank_p(fewest))})."
        )
    return said


def _cost_rules(done: Sequence[Mapping[str, Any]]) -> list[str]:
    warm = any(int(run.get("warmup_up_bytes") or 0) for run in done)
    shared = apart = ""
    if warm:
        shared = "; the shared warm-up's traffic is part of every method's"
        apart = (
            "; the shared warm-up's seconds, summed over clients, stand beside them, its "
            "operations are not counted"
        )
    return [
        "The common first initialisation is a seed and costs nothing. Bytes are what crossed the "
        f"wire, mean over clients{shared}. Client seconds are summed over clients, cached "
        f"training at its first price{apart}.",
        *_averaging_rounds(done),
    ]


def _averaging_rounds(done: Sequence[Mapping[str, Any]]) -> list[str]:
    if all(run.get("fedavg_rounds") is None for run in done):
        return []
    return [
        f"'{AVERAGING_ROUNDS}': the run's traffic in rounds of federated averaging, each of which "
        "sends a model down and up. FedAvg in one shot sends its model up alone: about 0.5."
    ]


def _spent(done: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return what the counts of the budget mean, and which rows spent more than was granted."""
    if all(run.get("student_steps") is None for run in done):
        return []
    said = [
        "Generator steps, generated and distilled images are what was granted; table 'Budget "
        "spent' has each method's own count. Generators that clients train spend their steps "
        "there, among the clients' operations."
    ]
    more = {
        f"{run['label']} {count(run[column])} {title(field)} for {count(run[field])}": None
        for column, field in GRANTED.items()
        for run in done
        if (run.get(column) or 0) > (run.get(field) or math.inf)
    }
    return said + [f"More than was granted: {'; '.join(more)}."] * bool(more)


def _left_out(results: Results) -> list[str]:
    _, left = for_tables(results)
    return [
        f"Left out of the tables: {label}, {_LEFT_OUT[why]}."
        for why, runs in left.items()
        for label in dict.fromkeys(str(run["label"]) for run in runs)
    ]


def _bytes_differ(grid: Grid) -> list[str]:
    found = {
        f"{row.label}: {part}"
        for (row, _), cell in grid.cells.items()
        for part in unequal_forms(cell)
    }
    if not found:
        return []
    return [f"Bytes on the wire that are not those of the closed form: {', '.join(sorted(found))}."]


def reasons(grid: Grid) -> list[str]:
    """Return one sentence for each way in which runs did not end well, with the places."""
    places: dict[tuple[str, str, str], list[str]] = {}
    waiting = 0
    for (row, scenario), cell in grid.cells.items():
        where = ", ".join(grid.axes.header(scenario))
        for run in cell.runs:
            status, reason = str(run["shown"]), str(run["reason"] or "")
            if status == NOT_RUN and not reason:
                waiting += 1
            elif status != DONE:
                place = ", ".join(part for part in (where, f"seed {_seed(run)}") if part)
                places.setdefault((row.label, status, reason), []).append(place)
    said = []
    for (label, status, reason), found in places.items():
        listed = "; ".join(found) if len(found) <= _LISTED else f"{len(found)} runs"
        said.append(f"{label}: {status} ({listed})" + (f": {reason}" if reason else ""))
    said += [f"{name}: not installed: {why}" for name, why in grid.not_installed.items()]
    if waiting:
        said.append(f"not run yet: {waiting} {'run' if waiting == 1 else 'runs'}")
    return said


def _seed(run: Mapping[str, Any]) -> str:
    split, seed = _split(run)
    return seed if split == seed else f"{seed} (split seed {split})"


def _split(run: Mapping[str, Any]) -> Split:
    return str(run["split_seed"]), str(run["seed"])
