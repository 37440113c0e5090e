"""``food101``: the published tree, its class and picture lists, and its JPEG files."""

from __future__ import annotations

import hashlib
import shutil
import tarfile
import zlib
from pathlib import Path

import numpy as np

from datasets.cache import source_identity
from datasets.catalog import DatasetSpec, Search
from datasets.errors import DataError
from datasets.fetching import Remote, fetch
from datasets.image_dataset import Augmentation, DatasetInfo
from datasets.pictures import PictureList, PictureSet, folder_reader, lacking
from datasets.progress import Progress

_CLASSES = 101
_FOLDER = "food-101"
_LISTS = ("classes.txt", "train.txt", "test.txt")
_REMOTE = Remote(
    f"{_FOLDER}.tar.gz",
    (f"http://data.vision.ee.ethz.ch/cvl/{_FOLDER}.tar.gz",),
    "85eeb15f3717b99a5da872d97d918f87",
    4_996_278_331,
)


def _search(place: Path) -> Search:
    files = tuple(place / "meta" / name for name in _LISTS)
    missing = [f"meta/{file.name}" for file in files if not file.is_file()]
    if not (place / "images").is_dir():
        missing.append("images")
    if missing:
        return Search(missing=tuple(missing), partial=len(missing) <= len(_LISTS))
    return Search(files=files)


def _identity(files: tuple[Path, ...]) -> str:
    """Identify the tree by its lists and the dates of its folders, which a new file changes.

    A hundred thousand pictures are not looked at on each load: one that is rewritten in place
    goes unnoticed until the cache entry is removed.
    """
    images = files[0].parent.parent / "images"
    digest = hashlib.sha256(source_identity(files).encode())
    try:
        for folder in sorted(images.iterdir()):
            digest.update(f"{folder.name};{folder.stat().st_mtime_ns};".encode())
    except OSError as error:
        raise DataError(f"{images}: can't be read ({error.strerror})") from error
    return digest.hexdigest()


def _pictures(files: tuple[Path, ...]) -> PictureSet:
    root = files[0].parent.parent
    images = root / "images"
    class_names = _lines(files[0])
    if len(set(class_names)) != _CLASSES or len(class_names) != _CLASSES:
        raise DataError(f"{files[0]}: {len(set(class_names))} classes, expected {_CLASSES}")
    class_names.sort()
    present = {
        f"{folder}/{path.name}"
        for folder in class_names
        for path in (images / folder).glob("*.jpg")
    }
    labels = {name: label for label, name in enumerate(class_names)}
    train = _list(files[1], images, labels, present)
    test = _list(files[2], images, labels, present)
    both = set(train.names) & set(test.names)
    if both:
        raise DataError(f"{files[2]}: {min(both)} is in train.txt, too")
    spoken = tuple(name.replace("_", " ") for name in class_names)
    return PictureSet(images, folder_reader(images), train, test, spoken)


def _lines(path: Path) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise DataError(f"{path}: can't be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: is not text ({error.reason})") from error
    return [line.strip() for line in text.splitlines() if line.strip()]


def _list(path: Path, images: Path, labels: dict[str, int], present: set[str]) -> PictureList:
    """Read a list of ``class/number`` lines."""
    rows = _lines(path)
    if not rows:
        raise DataError(f"{path}: lists no pictures")
    for number, row in enumerate(rows, start=1):
        folder, slash, picture = row.partition("/")
        if not slash or not picture or folder not in labels:
            raise DataError(
                f"{path} line {number}: '{row[:40]}', expected class/number with a class "
                "of classes.txt"
            )
    names = tuple(f"{row}.jpg" for row in rows)
    if len(set(names)) != len(names):
        raise DataError(f"{path}: lists a picture twice")
    lacking(names, present, images)
    chosen = [labels[row.partition("/")[0]] for row in rows]
    return PictureList(names, np.array(chosen, dtype=np.int64))


def _download(root: Path, progress: Progress) -> None:
    archive, folder = root / _REMOTE.name, root / _FOLDER
    if folder.is_dir() and any(folder.iterdir()):  # before five gigabytes are fetched
        raise DataError(f"{folder}: is there, but not whole; remove it, and it is made anew")
    theirs = archive.exists()
    fetch(_REMOTE, archive, progress)
    unpack(archive, root, progress)
    if not theirs:
        archive.unlink()


def unpack(archive: Path, root: Path, progress: Progress) -> None:
    """Unpack the published archive; its folder appears whole or not at all.

    Parameters
    ----------
    archive : Path
        The gzipped tar archive.
    root : Path
        Where its folder ``food-101`` is put.
    progress : callable
        Called with the bytes of the archive that are done.

    Raises
    ------
    DataError
        If the archive is damaged, holds something else, or the folder can't be written.
    """
    scratch = root / f".unpacking-{_FOLDER}"
    try:
        shutil.rmtree(scratch, ignore_errors=True)
        size = archive.stat().st_size
        with archive.open("rb") as stream, tarfile.open(fileobj=stream, mode="r:gz") as tar:
            for count, member in enumerate(tar):
                tar.extract(member, scratch, filter="data")
                if count % 256 == 0:
                    progress(f"unpacking {archive.name}", stream.tell(), size)
        if not _search(scratch / _FOLDER).files:
            raise DataError(f"{archive}: does not hold the folder {_FOLDER} as published")
        (scratch / _FOLDER).replace(root / _FOLDER)
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{archive}: can't be unpacked ({reason})") from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


SPECS = (
    DatasetSpec(
        info=DatasetInfo(
            name="food101",
            title="Food-101",
            classes=_CLASSES,
            channels=3,
            native_size=512,
            train_samples=75_750,
            test_samples=25_250,
            summary="colour photographs of dishes, up to 512 pixels, resized to a square",
            source="Bossard, Guillaumin and Van Gool, 2014, ECCV",
        ),
        # CIFAR-100's moments, no augmentation, and squeezed to a square: the published Mosaic
        # code. Moments of its own would move them by less than 0.1.
        mean=(0.5070751592371323, 0.48654887331495095, 0.4409178433670343),
        std=(0.2673342858792401, 0.2564384629170883, 0.27615047132568404),
        augmentation=Augmentation(),
        search=_search,
        pictures=_pictures,
        identity=_identity,
        subfolders=("food101", _FOLDER, "Food101", f"food101/{_FOLDER}", ""),
        download=_download,
        download_bytes=_REMOTE.size,
        advice=(
            f"give a data root that holds its folder {_FOLDER}, or fetch it (python -m benchmark "
            f"datasets fetch food101, {_REMOTE.size / 1e9:.0f} GB from {_REMOTE.urls[0]})"
        ),
    ),
)
