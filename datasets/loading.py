"""From a name to arrays: locate, decode or open from the cache, check."""

from __future__ import annotations

from pathlib import Path

from datasets.cache import entry_path, read_entry, write_entry
from datasets.catalog import spec_of
from datasets.errors import DataError
from datasets.image_dataset import ImageDataset, fingerprint
from datasets.places import obtain

#: Image sizes that can be asked for, in pixels.
IMAGE_SIZES = (32, 64)


def load(
    name: str,
    *,
    data_root: Path | None = None,
    image_size: int = 32,
    cache_dir: Path | None = None,
    download: bool = True,
) -> ImageDataset:
    """Load a dataset as uint8 arrays, in its native channels, resized once.

    Parameters
    ----------
    name : str
        A name of the catalogue (:func:`datasets.available`).
    data_root : Path, optional
        Where the data is looked for first, and where a download goes. For the further places
        see :func:`datasets.locate`.
    image_size : int
        Height and width in pixels: 32, or 64.
    cache_dir : Path, optional
        Where decoded arrays are kept and memory-mapped from; None decodes every time.
    download : bool
        Whether missing data may be downloaded.

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
    files = obtain(name, data_root, download=download).files
    entry = entry_path(cache_dir, spec, files, image_size) if cache_dir is not None else None
    decoded = read_entry(entry) if entry is not None else None
    if decoded is None:
        train, test = spec.decode(files, image_size)
        mark = fingerprint(train, test)
        if entry is not None:
            write_entry(entry, train, test, mark)
    else:
        train, test, mark = decoded
    return ImageDataset(
        name=name,
        train=train,
        test=test,
        class_names=spec.class_names,
        mean=spec.mean,
        std=spec.std,
        augmentation=spec.augmentation,
        fingerprint=mark,
    )
