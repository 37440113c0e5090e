"""What a command would do: which runs of a grid have a result, and which are to be made."""

from __future__ import annotations

from collections.abc import Sequence

from benchmark.errors import UserError
from benchmark.experiment import ExperimentSpec, PlannedRun
from benchmark.grid_types import Options
from benchmark.store import Elsewhere, ExperimentStore, Status, Store


def preview(
    experiment: ExperimentSpec, runs: Sequence[PlannedRun], options: Options
) -> list[tuple[PlannedRun, str]]:
    """Return what each run's status is, without running anything or writing a file.

    Raises
    ------
    UserError
        If the experiment holds runs that were judged on other images.
    """
    name = experiment.experiment
    root = Store(options.results, read_only=True)
    store = root.experiment(name)
    check_judge(store, experiment)
    elsewhere = Elsewhere(root, name)
    shown = []
    for run in runs:
        record = store.find(run.spec.run_id)
        if run.skip is not None:
            shown.append((run, f"skipped: {run.skip}"))
        elif options.forced(run):
            shown.append((run, "to run"))
        elif record is None:
            source = elsewhere.holder(run.spec.run_id) if options.cache else None
            shown.append((run, f"done: in experiment '{source}'" if source else "to run"))
        else:
            shown.append((run, str(record.status)))
    return shown


def made_by_other_code(runs: Sequence[PlannedRun], options: Options, experiment: str) -> int:
    """Return how many runs answer a question to which other code has given a result before.

    Parameters
    ----------
    runs : sequence of PlannedRun
        Runs without a result of their own.
    options : Options
        Where results lie.
    experiment : str
        Its name.
    """
    store = Store(options.results, read_only=True).experiment(experiment)
    asked = {run.spec.cell_id: run.spec.run_id for run in runs}
    manifest = store.manifest()
    return len(
        {
            cell
            for record in store.records()
            if record.status is Status.DONE
            and (cell := manifest.cell_of(record.cell_id) or record.cell_id) in asked
            and record.run_id != asked[cell]
        }
    )


def check_judge(store: ExperimentStore, experiment: ExperimentSpec) -> None:
    """Refuse to put trials and results into one folder: a report could show only one of both."""
    judges = {cell.judged_on for cell in store.manifest().cells.values()}
    if judges - {experiment.judged_on}:
        raise UserError(
            f"experiment '{experiment.experiment}' holds runs that are judged on the "
            f"{min(judges - {experiment.judged_on})}, these are on the {experiment.judged_on}: "
            "give them another name (--experiment)"
        )
