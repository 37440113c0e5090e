"""The table of datasets: one ``source_*.py`` file for each, found by its name.

Adding a dataset is adding a file: a module ``datasets/source_NAME.py`` with a tuple
``SPECS`` of :class:`DatasetSpec`. Nothing else is edited. Modules of this kind import heavy
libraries inside functions only, so that listing stays quick.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from datasets.errors import DataError, closest
from datasets.image_dataset import Augmentation, DatasetInfo, Split

_PREFIX = "source_"


@dataclass(frozen=True)
class Search:
    """What a look into one folder found.

    Parameters
    ----------
    files : tuple of Path
        All files of the dataset, in the order its decoder wants them; empty if any is missing.
    missing : tuple of str
        Names of the files that are missing.
    partial : bool
        Whether some of the files, but not all, are there.
    """

    files: tuple[Path, ...] = ()
    missing: tuple[str, ...] = ()
    partial: bool = False


@dataclass(frozen=True)
class DatasetSpec:
    """How one dataset is found, fetched and decoded, and the facts of it.

    Parameters
    ----------
    info : DatasetInfo
        Name, sizes and source.
    class_names : tuple of str
        One per class, in label order.
    mean, std : tuple of float
        Normalisation per channel, in unit range: the one place where it is stated.
    augmentation : Augmentation
        Training augmentation.
    search : callable
        Folder to :class:`Search`.
    decode : callable
        (files, image size) to the training and test :class:`Split` at that size.
    advice : str
        How to get the data, for the message that says it is missing.
    subfolders : tuple of str
        Where below a data root it may lie, in order; empty for a dataset that comes with a
        library and is never looked for below a data root.
    own_places : callable
        Folders outside all data roots that may hold it (a library's, the system's).
    download : callable or None
        Fetches it below a data root; None when there is nothing to fetch.
    decode_version : int
        Raised when a change of the decoder changes its output: a part of the cache key.
    """

    info: DatasetInfo
    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    augmentation: Augmentation
    search: Callable[[Path], Search]
    decode: Callable[[tuple[Path, ...], int], tuple[Split, Split]]
    advice: str
    subfolders: tuple[str, ...] = ()
    own_places: Callable[[], tuple[Path, ...]] = field(default=tuple)
    download: Callable[[Path], None] | None = None
    decode_version: int = 1

    def __post_init__(self) -> None:
        if len(self.class_names) != self.info.classes:
            raise DataError(
                f"dataset {self.info.name}: {len(self.class_names)} class names "
                f"for {self.info.classes} classes"
            )
        if not len(self.mean) == len(self.std) == self.info.channels:
            raise DataError(
                f"dataset {self.info.name}: mean and std need {self.info.channels} entries"
            )


@cache
def specs() -> dict[str, DatasetSpec]:
    """Return all datasets by name, in alphabetical order.

    Raises
    ------
    DataError
        If two source files claim one name.
    """
    import datasets

    found: dict[str, DatasetSpec] = {}
    for module_info in pkgutil.iter_modules(datasets.__path__):
        if not module_info.name.startswith(_PREFIX):
            continue
        module = importlib.import_module(f"datasets.{module_info.name}")
        for spec in module.SPECS:
            if spec.info.name in found:
                raise DataError(f"two source files define the dataset '{spec.info.name}'")
            found[spec.info.name] = spec
    return dict(sorted(found.items()))


def spec_of(name: str) -> DatasetSpec:
    """Return the table entry of a dataset.

    Raises
    ------
    DataError
        If there is no dataset of that name; names the closest one.
    """
    known = specs()
    if name not in known:
        raise DataError(f"unknown dataset '{name}': {closest(name, known)}")
    return known[name]


def available() -> list[DatasetInfo]:
    """Return the facts of every dataset that can be asked for, in alphabetical order.

    Opens no data and imports neither PyTorch nor scikit-learn.
    """
    return [spec.info for spec in specs().values()]
