"""Mistakes that can be found before anything is computed, from names and sizes alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from benchmark.errors import UserError, suggestion
from benchmark.models.registry import NATIVE_NORM, TIMM_PREFIX, check_model
from datasets.catalog import spec_of
from datasets.places import obtain

if TYPE_CHECKING:
    from benchmark.experiment import ExperimentSpec, PlannedRun


def check_experiment(experiment: ExperimentSpec) -> None:
    """Check names of datasets and models, and that sizes fit each other.

    Raises
    ------
    UserError
        If a model is unknown or can't have this norm, width or image size, or the data
        are too few for what is asked for.
    datasets.DataError
        If a dataset is unknown.
    """
    for name in experiment.datasets:
        _check_sizes(experiment, name)
    for family in experiment.models:
        native = family.startswith(TIMM_PREFIX)
        for plan in experiment.widths:
            for width in plan:
                check_model(
                    family,
                    norm=NATIVE_NORM if native else experiment.norm,
                    width=width,
                    image_size=experiment.image_size,
                )


def _check_sizes(experiment: ExperimentSpec, name: str) -> None:
    info = spec_of(name).info
    samples = experiment.train_samples or info.train_samples
    if samples > info.train_samples:
        raise UserError(
            f"train_samples {samples} is more than the {info.train_samples} "
            f"training samples of dataset '{name}'"
        )
    samples -= round(experiment.holdout * samples)
    for clients in experiment.clients:
        if clients > samples:
            raise UserError(
                f"clients {clients} is more than the {samples} training samples that "
                f"dataset '{name}' leaves; at most {samples} are right"
            )
    wanted = experiment.classes_per_client
    if experiment.partition == "classes_per_client" and wanted and wanted > info.classes:
        raise UserError(
            f"classes_per_client {wanted} is more than the {info.classes} classes of "
            f"dataset '{name}'"
        )


def check_folder(path: Path, flag: str) -> None:
    """Check that a folder is there, or can be made.

    Raises
    ------
    UserError
        If something else stands in its place.
    """
    for place in (path, *path.parents):
        if place.is_dir():
            return
        if place.exists():
            raise UserError(f"{flag} {path}: {place} is a file, expected a folder")


def check_force(names: Iterable[str], runs: Sequence[PlannedRun]) -> frozenset[str]:
    """Return what ``--force`` names.

    Raises
    ------
    UserError
        If one of the names is no method of the grid.
    """
    chosen = frozenset(names)
    valid = {run.info.name for run in runs} | {run.label for run in runs} | {"all"}
    for name in sorted(chosen - valid):
        raise UserError(f"--force: '{name}' is not in this grid{suggestion(name, valid)}")
    return chosen


def fetch_data(runs: Iterable[PlannedRun], data_root: Path | None) -> None:
    """Find the data of runs, and download what is missing, before the first run begins.

    Raises
    ------
    datasets.DataError
        If some can't be had; names all places tried.
    """
    for name in dict.fromkeys(run.spec.scenario.dataset for run in runs):
        obtain(name, data_root, download=True)
