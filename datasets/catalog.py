"""The table of datasets: one ``source_*.py`` file for each, found by its name.

Adding a dataset is adding a file: a module ``datasets/source_NAME.py`` with a tuple
``SPECS`` of :class:`DatasetSpec`. Nothing else is edited. Modules of this kind import heavy
libraries inside functions only, so that listing stays quick. Users' own data has no file:
``folder:PATH`` and ``npz:PATH`` are names too (:mod:`datasets.own_data`).
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from datasets.errors import DataError, closest
from datasets.fetching import Remote
from datasets.image_dataset import Augmentation, DatasetInfo, Split
from datasets.pictures import PictureSet
from datasets.progress import Progress

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
    augmentation : Augmentation
        Training augmentation, at 32×32.
    search : callable
        Folder to :class:`Search`.
    advice : str
        How to get the data, for the message that says it is missing.
    decode : callable or None
        (files, image size) to the training and test :class:`Split` at that size, for data
        that is arrays already.
    pictures : callable or None
        Files to the :class:`~datasets.pictures.PictureSet` they hold, for data that is
        pictures to be decoded one by one. Either this or ``decode``.
    class_names : tuple of str
        One per class, in label order; empty if they are read from the files.
    mean, std : tuple of float
        Normalisation per channel, in unit range: the one place where it is stated. Empty if
        it is measured on the training part.
    subfolders : tuple of str
        Where below a data root it may lie, in order; empty for a dataset that comes with a
        library and is never looked for below a data root.
    own_places : callable
        Folders outside all data roots that may hold it (a library's, the system's).
    download : callable or None
        Fetches it below a data root; None when there is nothing to fetch.
    download_bytes : int
        Published size of what it fetches.
    published : tuple of Remote
        Files whose published checksum is known; one that is found and differs is warned of.
    identity : callable or None
        Files to a text that changes when the data does, where the files alone don't tell.
    decode_version : int
        Raised when a change of the decoder changes its output: a part of the cache key.
    """

    info: DatasetInfo
    augmentation: Augmentation
    search: Callable[[Path], Search]
    advice: str
    decode: Callable[[tuple[Path, ...], int], tuple[Split, Split]] | None = None
    pictures: Callable[[tuple[Path, ...]], PictureSet] | None = None
    class_names: tuple[str, ...] = ()
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    subfolders: tuple[str, ...] = ()
    own_places: Callable[[], tuple[Path, ...]] = field(default=tuple)
    download: Callable[[Path, Progress], None] | None = None
    download_bytes: int = 0
    published: tuple[Remote, ...] = ()
    identity: Callable[[tuple[Path, ...]], str] | None = None
    decode_version: int = 1

    def __post_init__(self) -> None:
        name = self.info.name
        if (self.decode is None) == (self.pictures is None):
            raise DataError(f"dataset {name}: either decode or pictures must be given")
        if len(self.class_names) != self.info.classes and (self.class_names or self.decode):
            raise DataError(
                f"dataset {name}: {len(self.class_names)} class names "
                f"for {self.info.classes} classes"
            )
        if len(self.mean) != len(self.std) or len(self.mean) not in (0, self.info.channels):
            raise DataError(f"dataset {name}: mean and std need {self.info.channels} entries")

    def arrays(self, files: tuple[Path, ...], image_size: int) -> tuple[Split, Split]:
        """Return the splits of a dataset that has ``decode``.

        Raises
        ------
        DataError
            If it has none, or its data is damaged.
        """
        if self.decode is None:
            raise DataError(f"dataset {self.info.name} has no decoder of arrays")
        return self.decode(files, image_size)


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
    """Return the table entry of a dataset, or one made for ``folder:PATH`` or ``npz:PATH``.

    Raises
    ------
    DataError
        If there is no dataset of that name; names the closest one. For users' own data: if
        it is missing, or not in the form that is asked for.
    """
    known = specs()
    if name in known:
        return known[name]
    kind, colon, path = name.partition(":")
    if not colon:
        raise DataError(
            f"unknown dataset '{name}': {closest(name, known)}, or your own: folder:PATH, npz:PATH"
        )
    from datasets.own_data import own_spec

    return own_spec(kind, path)


def available() -> list[DatasetInfo]:
    """Return the facts of every dataset that can be asked for, in alphabetical order.

    Opens no data and imports neither PyTorch nor scikit-learn.
    """
    return [spec.info for spec in specs().values()]
