"""``folder:PATH``: a tree of pictures with one folder for each class.

It has one channel if every picture in it is grey, by their headers; else three, and the grey
ones become colour.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from datasets.catalog import DatasetSpec, Search
from datasets.errors import DataError, closest
from datasets.image_dataset import Augmentation, own_info
from datasets.pictures import SUFFIXES, PictureList, PictureSet, folder_reader, picture_shape
from datasets.sampling import stratified_split

_LOG = logging.getLogger(__name__)
_TEST_SEED = 1797
_TEST_FRACTION = 0.2


def folder_spec(name: str, root: Path) -> DatasetSpec:
    """Return the table entry for a tree of pictures; see :func:`datasets.own_data.own_spec`.

    Parameters
    ----------
    name : str
        ``folder:PATH``, as it was asked for.
    root : Path
        The tree's folder.

    Raises
    ------
    DataError
        If the tree is missing, or not one folder of pictures for each class.
    """
    pictures = _tree(root)
    first = pictures.train.names[0]
    _, side = picture_shape(root / first, f"{root}: {first}")
    return DatasetSpec(
        info=own_info(
            name,
            root,
            classes=len(pictures.class_names),
            channels=pictures.channels,
            side=side,
            sizes=(len(pictures.train), len(pictures.test)),
        ),
        class_names=pictures.class_names,
        augmentation=Augmentation(),
        search=lambda place: Search(files=(place,)),
        pictures=lambda files: _tree(files[0]),
        identity=_tree_identity,
        own_places=lambda: (root,),
        advice="folder:PATH with one folder of pictures for each class",
    )


def _tree(root: Path) -> PictureSet:
    """List a class-per-folder tree, in an order that depends on names only."""
    if not root.is_dir():
        problem = "is a file" if root.exists() else "does not exist"
        raise DataError(f"folder:{root}: {problem}, expected a folder with one folder a class")
    try:
        parted = [name for name in ("train", "test") if _has_folders(root / name)]
        if parted == ["train", "test"]:
            class_names, train = _classes(root, "train/")
            test_names, test = _classes(root, "test/")
            _check_test_classes(root, class_names, test_names)
            test = PictureList(
                test.names,
                np.array([class_names.index(test_names[label]) for label in test.labels]),
            )
        else:
            if parted:
                other = "test" if parted == ["train"] else "train"
                raise DataError(
                    f"folder:{root}: has {parted[0]}/ but no {other}/; both, or neither and a "
                    "fifth is taken for testing"
                )
            class_names, everything = _classes(root, "")
            train, test = _take_fifth(root, everything, len(class_names))
    except OSError as error:
        raise DataError(f"{error.filename}: can't be read ({error.strerror})") from error
    grey = all(_is_grey(root, name) for name in (*train.names, *test.names))
    channels = 1 if grey else 3
    return PictureSet(root, folder_reader(root), train, test, class_names, channels)


def _is_grey(root: Path, name: str) -> bool:
    """Return whether a picture's header says grey."""
    path = root / name
    try:
        stat = path.stat()
    except OSError as error:
        raise DataError(f"{path}: can't be read ({error.strerror})") from error
    seen = (stat.st_size, stat.st_ino, stat.st_mtime_ns, stat.st_ctime_ns)
    return _grey_header(root, name, seen)


# A command lists a tree several times, and looks into all pictures of one that is grey.
@lru_cache(maxsize=1_000_000)
def _grey_header(root: Path, name: str, seen: tuple[int, ...]) -> bool:
    """Read one header; ``seen``, the file's identity, makes a changed file be read again."""
    return picture_shape(root / name, f"{root}: {name}")[0] == 1


def _classes(root: Path, prefix: str) -> tuple[tuple[str, ...], PictureList]:
    """Return class names, sorted, and pictures, class by class and by name within one."""
    place = root / prefix
    folders = sorted(entry.name for entry in _visible(place) if entry.is_dir())
    if len(folders) < 2:
        found = f"only the folder '{folders[0]}'" if folders else "no folders"
        raise DataError(
            f"folder:{place}: {found}, expected one folder for each of 2 or more classes"
        )
    names: list[str] = []
    labels: list[int] = []
    ignored = 0
    for label, folder in enumerate(folders):
        entries = sorted(entry.name for entry in _visible(place / folder) if entry.is_file())
        pictures = [name for name in entries if name.lower().endswith(SUFFIXES)]
        if not pictures:
            raise DataError(
                f"folder:{place / folder}: holds no pictures "
                f"({', '.join(suffix[1:] for suffix in SUFFIXES)})"
            )
        ignored += len(entries) - len(pictures)
        names += [f"{prefix}{folder}/{name}" for name in pictures]
        labels += [label] * len(pictures)
    if ignored:
        _LOG.warning("folder:%s: %d files that are no pictures are passed over", place, ignored)
    return tuple(folders), PictureList(tuple(names), np.array(labels, dtype=np.int64))


def _has_folders(folder: Path) -> bool:
    # A folder of pictures may be a class of that name: there are data sets with trains.
    return folder.is_dir() and any(entry.is_dir() for entry in _visible(folder))


def _visible(folder: Path) -> Iterator[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        yield from (entry for entry in entries if not entry.name.startswith("."))


def _check_test_classes(root: Path, train: tuple[str, ...], test: tuple[str, ...]) -> None:
    unknown = sorted(set(test) - set(train))
    if unknown:
        raise DataError(
            f"folder:{root}: class '{unknown[0]}' is in test/ but not in train/: "
            f"{closest(unknown[0], train)}"
        )
    absent = sorted(set(train) - set(test))
    if absent:
        raise DataError(f"folder:{root}: class '{absent[0]}' is in train/ but not in test/")


def _take_fifth(root: Path, part: PictureList, classes: int) -> tuple[PictureList, PictureList]:
    """Hold out a fixed stratified fifth; its seed is a constant that no scenario reaches."""
    train, test = stratified_split(part.labels, _TEST_FRACTION, np.random.default_rng(_TEST_SEED))
    for what, chosen in (("training", train), ("testing", test)):
        held = np.bincount(part.labels[chosen], minlength=classes)
        if held.min() == 0:
            label = int(held.argmin())
            name = next(n for n, y in zip(part.names, part.labels, strict=True) if y == label)
            raise DataError(
                f"folder:{root}: class '{name.split('/')[0]}' has too few pictures to take a "
                f"fifth away (none left for {what}); add some, or make train/ and test/"
            )
    return _chosen(part, train), _chosen(part, test)


def _chosen(part: PictureList, index: npt.NDArray[np.int64]) -> PictureList:
    return PictureList(tuple(part.names[i] for i in index), part.labels[index])


def _tree_identity(files: tuple[Path, ...]) -> str:
    """Identify a tree by the names, sizes and dates of all its pictures."""
    root = files[0]
    pictures = _tree(root)
    digest = hashlib.sha256()
    for part in (pictures.train, pictures.test):
        for name in part.names:
            stat = (root / name).stat()
            digest.update(
                f"{name};{stat.st_size};{stat.st_mtime_ns};\n".encode(errors="surrogateescape")
            )
    return digest.hexdigest()
