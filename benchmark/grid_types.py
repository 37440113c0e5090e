"""What a grid is given, and what it says: options, listener, result."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from benchmark.experiment import PlannedRun
from benchmark.store import Cache, Record


@dataclass(frozen=True)
class Options:
    """How a grid is run; nothing here changes a result.

    Parameters
    ----------
    results : Path
        The results folder; the cache lies in its ``.cache``.
    data_root : Path or None
        Where datasets are looked for first.
    inception_weights : Path or None
        The file of Inception's weights, where they are not in torch's cache.
    cache : bool
        Whether the cache is read and written.
    timeout : float or None
        Seconds after which a run is ended.
    workers : int
        Runs at a time.
    gpus : tuple of str
        GPUs that they are dealt out to; empty without CUDA.
    retries : int
        Times that a run is tried again whose worker died without a word.
    share_clients : bool
        Whether idle workers train clients of the runs at work; all must see one cache.
    force : frozenset of str
        Methods (or labels) whose finished runs are run again; ``all`` means every one.
    outdated : frozenset of str
        Ids of runs whose records were made from other data than lies in their place now.
    """

    results: Path
    data_root: Path | None = None
    inception_weights: Path | None = None
    cache: bool = True
    timeout: float | None = None
    workers: int = 1
    gpus: tuple[str, ...] = ()
    retries: int = 1
    share_clients: bool = True
    force: frozenset[str] = frozenset()
    outdated: frozenset[str] = frozenset()

    @property
    def cache_folder(self) -> Path:
        """Where artifacts are cached."""
        return self.results / ".cache"

    @property
    def data_cache(self) -> Path | None:
        """Where decoded data is kept; ``None`` where nothing is."""
        return Cache(self.cache_folder, disabled=not self.cache).datasets

    def forced(self, run: PlannedRun) -> bool:
        """Return whether a run is to be run again."""
        named = self.force & {"all", run.info.name, run.label}
        return bool(named) or run.spec.run_id in self.outdated


class Listener(Protocol):
    """Who watches a grid."""

    def started(self, index: int, total: int, run: PlannedRun) -> None:
        """Take note that run ``index`` (1-based) of ``total`` starts."""

    def progress(
        self, run: PlannedRun, phase: str, step: int, total: int, scalars: dict[str, float]
    ) -> None:
        """Take note of a run's progress."""

    def finished(self, run: PlannedRun, record: Record, seconds: float) -> None:
        """Take note of how a run ended."""

    def note(self, text: str) -> None:
        """Take note of anything else worth a line."""


@dataclass(frozen=True)
class GridResult:
    """What became of a grid.

    Parameters
    ----------
    done, already, skipped, failed : int
        Runs finished now, finished before, not supported, and without a result.
    user_error : bool
        Whether a run failed for something that the user can mend.
    experiment : str
        Name of the experiment.
    """

    done: int
    already: int
    skipped: int
    failed: int
    user_error: bool
    experiment: str
