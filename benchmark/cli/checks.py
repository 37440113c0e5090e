"""Mistakes that can be found before anything is computed, from names and sizes alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

from benchmark.environment import hardware
from benchmark.errors import UserError, suggestion
from benchmark.models.registry import TIMM_PREFIX, check_model, family_info
from datasets.catalog import spec_of
from datasets.loading import check_pictures, is_decoded, load
from datasets.own_data import is_own
from datasets.places import locate
from datasets.progress import Progress

if TYPE_CHECKING:
    from benchmark.experiment import ExperimentSpec, PlannedRun
    from benchmark.grid import Options


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
        _check_name(family)
        for plan in experiment.widths:
            for width in plan:
                check_model(
                    family, norm=experiment.norm, width=width, image_size=experiment.image_size
                )


def _check_name(family: str) -> None:
    family_info(family)
    if family.startswith(TIMM_PREFIX):
        # Loads torch, which no other name needs.
        from benchmark.models.timm_models import check_timm_name

        check_timm_name(family.removeprefix(TIMM_PREFIX))


def _check_sizes(experiment: ExperimentSpec, name: str) -> None:
    info = spec_of(name).info
    if info.train_samples > 0:  # of users' own data it is known only when they are opened
        _check_samples(experiment, name, info.train_samples)
    if experiment.partition != "classes_per_client":
        return
    wanted = experiment.classes_per_client
    if wanted is None:
        raise UserError("partition 'classes_per_client' needs --classes-per-client")
    if wanted > info.classes > 0:
        raise UserError(
            f"classes_per_client {wanted} is more than the {info.classes} classes of "
            f"dataset '{name}'"
        )


def _check_samples(experiment: ExperimentSpec, name: str, published: int) -> None:
    samples = experiment.train_samples or published
    if samples > published:
        raise UserError(
            f"train_samples {samples} is more than the {published} "
            f"training samples of dataset '{name}'"
        )
    samples -= round(experiment.holdout * samples)
    for clients in experiment.clients:
        if clients > samples:
            raise UserError(
                f"clients {clients} is more than the {samples} training samples that "
                f"dataset '{name}' leaves; at most {samples} are right"
            )


def check_threads(threads: int) -> None:
    """Check that this machine has the threads of a run.

    Raises
    ------
    UserError
        If it has fewer cores.
    """
    cores = hardware()["cores"] or 1
    if threads > cores:
        raise UserError(f"--threads {threads}: this machine has {cores} cores")


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


def check_file(path: Path, flag: str) -> None:
    """Check that a file is there.

    Raises
    ------
    UserError
        If it is not.
    """
    if not path.is_file():
        raise UserError(f"{flag} {path}: there is no such file")


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


def outdated(runs: Iterable[PlannedRun], options: Options, experiment: str) -> frozenset[str]:
    """Return the ids of runs whose record was made from other data than lies there now.

    A run's id names its data, and other images may come to lie under that name: a user's own
    change, and a data root may hold what it likes under a name of the catalogue. Not compared
    is what can't be had cheaply, and is compared once it is there: data of the catalogue that
    is not on this machine, and sets of pictures that are not decoded here.

    Parameters
    ----------
    runs : iterable of PlannedRun
        The grid's.
    options : Options
        Where data, cache and records are.
    experiment : str
        Its name.

    Raises
    ------
    datasets.DataError
        If data can't be read.
    """
    from benchmark.store import Elsewhere, Store

    store = Store(options.results, read_only=True)
    here, elsewhere = store.experiment(experiment), Elsewhere(store, experiment)
    lying_there = cache(partial(_fingerprint, options=options))
    found = set()
    for run in runs:
        run_id, scenario = run.spec.run_id, run.spec.scenario
        record = here.find(run_id) or elsewhere.find(run_id)
        known = None if record is None else record.metrics.get("dataset_fingerprint")
        if known is None:
            continue
        now = lying_there(scenario.dataset, scenario.image_size)
        if now is not None and now != known:
            found.add(run_id)
    return frozenset(found)


def not_at_hand(runs: Iterable[PlannedRun], options: Options) -> list[PlannedRun]:
    """Return the runs whose data can't be compared with records now without long work."""
    there = cache(partial(_is_at_hand, options=options))
    return [
        run for run in runs if not there(run.spec.scenario.dataset, run.spec.scenario.image_size)
    ]


def _is_at_hand(name: str, size: int, options: Options) -> bool:
    if is_own(name):
        return True
    if not locate(name, options.data_root).found:
        return False
    # Pictures take up to an hour to decode, arrays a second.
    folder = options.data_cache
    return spec_of(name).pictures is None or (
        folder is not None and is_decoded(name, options.data_root, size, folder)
    )


def _fingerprint(name: str, size: int, options: Options) -> str | None:
    """Return the fingerprint of the data that lies there; ``None`` if it is not at hand."""
    if not _is_at_hand(name, size, options):
        return None
    return load(
        name,
        data_root=options.data_root,
        image_size=size,
        cache_dir=options.data_cache,
        download=False,
    ).fingerprint


def check_weights(runs: Iterable[PlannedRun], options: Options) -> None:
    """Look for Inception's weights before the first run begins, downloading what is missing.

    Parameters
    ----------
    runs : iterable of PlannedRun
        What will be run.
    options : Options
        Where they are said to be.

    Raises
    ------
    UserError
        If a run wants them and they can't be had, or are no weights of that network.
    """
    from benchmark.generation.inception import INCEPTION, load_inception

    if any(INCEPTION in run.spec.measure.extractors for run in runs):
        import torch

        load_inception(options.inception_weights, torch.device("cpu"))


def load_data(runs: Iterable[PlannedRun], options: Options, progress: Progress) -> None:
    """Open the data of runs before the first one begins, downloading what is missing.

    Damaged or missing data are then one message, not one a run; decoded arrays land in
    the cache, from which the runs map them. Without a cache, pictures are listed only.

    Parameters
    ----------
    runs : iterable of PlannedRun
        What will be run.
    options : Options
        Where data and cache are.
    progress : callable
        Called while downloading and decoding.

    Raises
    ------
    datasets.DataError
        If some can't be had or are damaged; names the file, or all places tried.
    """
    wanted = {(run.spec.scenario.dataset, run.spec.scenario.image_size) for run in runs}
    folder = options.data_cache
    for name, size in sorted(wanted):
        if folder is None and spec_of(name).pictures is not None:
            # Each run decodes its own; what was decoded here would be thrown away.
            check_pictures(name, data_root=options.data_root, progress=progress)
            continue
        load(
            name,
            data_root=options.data_root,
            image_size=size,
            cache_dir=folder,
            progress=progress,
        )
