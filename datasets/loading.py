"""From a name to arrays: locate, decode or open from the cache, check."""

from __future__ import annotations

import logging
from collections.abc import Sized
from pathlib import Path

from datasets.building import build_entry, check_classes, decode_pictures
from datasets.cache import entry_path, read_entry, write_entry
from datasets.catalog import DatasetSpec, spec_of
from datasets.errors import DataError
from datasets.fetching import differing
from datasets.image_dataset import (
    Decoded,
    ImageDataset,
    Split,
    fingerprint,
    measured_moments,
)
from datasets.pictures import PictureSet
from datasets.places import Location, locate, obtain
from datasets.progress import Progress, silent

_LOG = logging.getLogger(__name__)

#: Image sizes that can be asked for, in pixels.
IMAGE_SIZES = (32, 64)


def load(
    name: str,
    *,
    data_root: Path | None = None,
    image_size: int = 32,
    cache_dir: Path | None = None,
    download: bool = True,
    progress: Progress = silent,
) -> ImageDataset:
    """Load a dataset as uint8 arrays, in its native channels, resized once.

    Parameters
    ----------
    name : str
        A name of the catalogue (:func:`datasets.available`), ``folder:PATH`` for a tree of
        pictures, or ``npz:PATH`` for arrays.
    data_root : Path, optional
        Where the data is looked for first, and where a download goes. For the further places
        see :func:`datasets.locate`.
    image_size : int
        Height and width in pixels: 32, or 64.
    cache_dir : Path, optional
        Where decoded arrays are kept and memory-mapped from; None decodes every time.
    download : bool
        Whether missing data may be downloaded.
    progress : callable
        Called while downloading (with bytes) and decoding (with pictures).

    Returns
    -------
    ImageDataset
        Read-only arrays, and the facts that belong to them.

    Raises
    ------
    DataError
        If the name or image size is unknown, or the data is missing or damaged.
    """
    spec = spec_of(name)
    if image_size not in IMAGE_SIZES:
        raise DataError(f"image size {image_size} is not supported, one of: 32, 64")
    found = obtain(name, data_root, download=download, progress=progress)
    files = found.files
    entry = entry_path(cache_dir, spec, files, image_size) if cache_dir is not None else None
    decoded = read_entry(entry) if entry is not None else None
    if decoded is None:
        decoded = _decode(spec, found, image_size, entry, progress)
        _warn_of_others(spec, files)
    return ImageDataset(
        name=name,
        train=decoded.train,
        test=decoded.test,
        class_names=spec.class_names or decoded.class_names,
        mean=spec.mean or decoded.mean,
        std=spec.std or decoded.std,
        augmentation=spec.augmentation.at(image_size),
        fingerprint=decoded.fingerprint,
    )


def check_pictures(
    name: str, *, data_root: Path | None = None, progress: Progress = silent
) -> None:
    """Look for a set of pictures, downloading it if it is missing, and list it; decodes nothing.

    Parameters
    ----------
    name : str
        Of a dataset that is pictures to be decoded one by one.
    data_root : Path, optional
        See :func:`load`.
    progress : callable
        Called while downloading (with bytes).

    Raises
    ------
    DataError
        If it is no such dataset, can't be had, or its lists of pictures are damaged.
    """
    spec = spec_of(name)
    found = obtain(name, data_root, download=True, progress=progress)
    _listed(spec, found)
    _warn_of_others(spec, found.files)


def is_decoded(name: str, data_root: Path | None, image_size: int, cache_dir: Path) -> bool:
    """Return whether the data that lies there can be opened without decoding it.

    Raises
    ------
    DataError
        If the name is unknown.
    """
    location = locate(name, data_root)
    return (
        location.found and entry_path(cache_dir, spec_of(name), location.files, image_size).is_dir()
    )


def _decode(
    spec: DatasetSpec,
    found: Location,
    image_size: int,
    entry: Path | None,
    progress: Progress,
) -> Decoded:
    measure = not spec.mean
    if spec.pictures is None:
        arrays = spec.arrays(found.files, image_size)
        _warn_of_sizes(spec, found, *arrays)
        decoded = _in_memory(arrays, measure)
        if entry is not None:
            write_entry(entry, decoded)
        return decoded
    pictures = _listed(spec, found)
    if entry is not None:
        built = build_entry(entry, pictures, image_size, progress, measure=measure)
        if built is not None:
            return built
    splits = decode_pictures(pictures, image_size, progress)
    return _in_memory(splits, measure, pictures.class_names)


def _listed(spec: DatasetSpec, found: Location) -> PictureSet:
    if spec.pictures is None:
        raise DataError(f"dataset {spec.info.name} is no set of pictures")
    pictures = spec.pictures(found.files)
    check_classes(pictures, spec.info.classes)
    _warn_of_sizes(spec, found, pictures.train, pictures.test)
    return pictures


def _warn_of_sizes(spec: DatasetSpec, found: Location, train: Sized, test: Sized) -> None:
    """Warn of parts of other sizes than the published ones; before pictures are decoded."""
    sizes, published = (len(train), len(test)), (spec.info.train_samples, spec.info.test_samples)
    if sizes != published:
        where = found.files[0] if len(found.files) == 1 else found.place
        _LOG.warning(
            "dataset '%s' in %s has %d training and %d test images; published are %d and %d",
            spec.info.name, where, *sizes, *published,
        )  # fmt: skip


def _warn_of_others(spec: DatasetSpec, files: tuple[Path, ...]) -> None:
    """Warn of files that bear a published name and are not the published ones.

    Looked at when they are decoded, so once for a cache entry; they may be somebody's on purpose.
    """
    try:
        others = differing(spec.published, files)
    except OSError as error:
        raise DataError(f"{error.filename}: can't be read ({error.strerror})") from error
    if others:
        more = f" and {len(others) - 1} more" if len(others) > 1 else ""
        _LOG.warning(
            "dataset '%s': %s%s is NOT the published file (its checksum differs): results on it "
            "are not results on %s", spec.info.name, others[0], more, spec.info.title,
        )  # fmt: skip


def _in_memory(
    splits: tuple[Split, Split], measure: bool, class_names: tuple[str, ...] = ()
) -> Decoded:
    moments = measured_moments(splits[0].images) if measure else ((), ())
    return Decoded(*splits, fingerprint(*splits), class_names, *moments)
