"""``tiny_imagenet``: the published zip archive as it is, or the folder it unpacks to."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np

from datasets.cache import source_identity
from datasets.catalog import DatasetSpec, Search
from datasets.errors import DataError
from datasets.fetching import Remote, fetch_all
from datasets.image_dataset import Augmentation, DatasetInfo
from datasets.pictures import (
    PictureList,
    PictureSet,
    Reader,
    folder_reader,
    lacking,
    open_zip,
    zip_reader,
)
from datasets.progress import Progress

_CLASSES = 200
_FOLDER = "tiny-imagenet-200"
_WNIDS, _WORDS, _ANNOTATIONS = "wnids.txt", "words.txt", "val/val_annotations.txt"
_REMOTE = Remote(
    f"{_FOLDER}.zip",
    (f"http://cs231n.stanford.edu/{_FOLDER}.zip",),
    "90528d7ca1a48142e341f4ef8d21d0de",
    248_100_043,
)


def _search(place: Path) -> Search:
    archive = place / _REMOTE.name
    if archive.is_file():
        return Search(files=(archive,))
    lists = (place / _WNIDS, place / _ANNOTATIONS)
    missing = [str(file.relative_to(place)) for file in lists if not file.is_file()]
    missing += [name for name in ("train", "val/images") if not (place / name).is_dir()]
    if missing:
        return Search(missing=tuple(missing), partial=len(missing) < 4)
    return Search(files=lists)


def _identity(files: tuple[Path, ...]) -> str:
    """Identify a tree by its lists and the dates of its folders, which a new file changes."""
    if len(files) == 1:
        return source_identity(files)
    root = files[0].parent
    digest = hashlib.sha256(source_identity(files).encode())
    try:
        folders = sorted((root / "train").glob("*/images"))
        for folder in (*folders, root / "val" / "images"):
            digest.update(f"{folder.relative_to(root)};{folder.stat().st_mtime_ns};".encode())
    except OSError as error:
        raise DataError(f"{root}: can't be read ({error.strerror})") from error
    return digest.hexdigest()


def _pictures(files: tuple[Path, ...]) -> PictureSet:
    if files[0].suffix == ".zip":
        with open_zip(files[0]) as archive:
            names = {
                name.removeprefix(f"{_FOLDER}/")
                for name in archive.namelist()
                if name.startswith(f"{_FOLDER}/")
            }
        return _assemble(files[0], zip_reader(files[0], f"{_FOLDER}/"), names)
    root = files[0].parent
    names = {
        path.relative_to(root).as_posix()
        for pattern in ("*.txt", "train/*/images/*", "val/*.txt", "val/images/*")
        for path in root.glob(pattern)
    }
    return _assemble(root, folder_reader(root), names)


def _assemble(
    where: Path, reader: Callable[[], AbstractContextManager[Reader]], names: set[str]
) -> PictureSet:
    lacking((_WNIDS, _ANNOTATIONS), names, where)
    with reader() as read:
        # Sorted, which is the order of a class-per-folder reader.
        wnids = sorted(_lines(read, _WNIDS, where))
        annotations = _lines(read, _ANNOTATIONS, where)
        words = _lines(read, _WORDS, where) if _WORDS in names else []
    if len(set(wnids)) != _CLASSES or len(wnids) != _CLASSES:
        raise DataError(f"{where}: {_WNIDS} lists {len(set(wnids))} classes, expected {_CLASSES}")
    labels = {wnid: label for label, wnid in enumerate(wnids)}
    train = _train(where, names, labels)
    test = _test(where, names, labels, annotations)
    spoken = dict(row.split("\t", 1) for row in words if "\t" in row)
    class_names = tuple(spoken.get(wnid, wnid).split(",")[0].strip() for wnid in wnids)
    return PictureSet(where, reader, train, test, _distinct(class_names, wnids))


def _lines(read: Reader, name: str, where: Path) -> list[str]:
    try:
        text = read(name).decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{where}: {name} is not text ({error.reason})") from error
    return [line for line in text.splitlines() if line.strip()]


def _distinct(class_names: Iterable[str], wnids: list[str]) -> tuple[str, ...]:
    """Add the id where a word names several classes."""
    spoken = list(class_names)
    return tuple(
        f"{name} ({wnid})" if spoken.count(name) > 1 and name != wnid else name
        for name, wnid in zip(spoken, wnids, strict=True)
    )


def _train(where: Path, names: set[str], labels: dict[str, int]) -> PictureList:
    """List the training part, class by class."""
    found: list[tuple[int, str]] = []
    for name in names:
        parts = name.split("/")
        if parts[0] == "train" and len(parts) == 4 and parts[3].endswith(".JPEG"):
            if parts[1] not in labels:
                raise DataError(f"{where}: train/{parts[1]} is not in {_WNIDS}")
            found.append((labels[parts[1]], name))
    found.sort()
    empty = sorted(set(labels.values()) - {label for label, _ in found})
    if empty:
        wnid = next(wnid for wnid, label in labels.items() if label == empty[0])
        raise DataError(
            f"{where}: train/{wnid}/images holds no picture ({len(empty)} of {_CLASSES} "
            "classes are empty); unpack or fetch it again"
        )
    return PictureList(
        tuple(name for _, name in found), np.array([label for label, _ in found], dtype=np.int64)
    )


def _test(
    where: Path, names: set[str], labels: dict[str, int], annotations: list[str]
) -> PictureList:
    """List the validation pictures, which serve as the test part, in the annotations' order."""
    pictures: list[str] = []
    chosen: list[int] = []
    for number, row in enumerate(annotations, start=1):
        columns = row.split("\t")
        if len(columns) < 2:
            raise DataError(
                f"{where}: {_ANNOTATIONS} line {number}: '{row[:40]}', expected a picture and "
                "a class, with a tab between"
            )
        if columns[1] not in labels:
            raise DataError(
                f"{where}: {_ANNOTATIONS} line {number}: class '{columns[1]}' is not in {_WNIDS}"
            )
        pictures.append(f"val/images/{columns[0]}")
        chosen.append(labels[columns[1]])
    lacking(pictures, names, where)
    listed = set(pictures)
    if len(listed) != len(pictures):
        raise DataError(f"{where}: {_ANNOTATIONS} lists a picture twice")
    present = {n for n in names if n.startswith("val/images/") and n.endswith(".JPEG")}
    if present - listed:
        raise DataError(
            f"{where}: {min(present - listed)} is not in {_ANNOTATIONS} "
            f"({len(present)} pictures, {len(pictures)} lines)"
        )
    return PictureList(tuple(pictures), np.array(chosen, dtype=np.int64))


def _download(root: Path, progress: Progress) -> None:
    fetch_all([_REMOTE], root, progress)


SPECS = (
    DatasetSpec(
        info=DatasetInfo(
            name="tiny_imagenet",
            title="Tiny-ImageNet",
            classes=_CLASSES,
            channels=3,
            native_size=64,
            train_samples=100_000,
            test_samples=10_000,
            summary="64×64 colour photographs of 200 things; its validation part is the test part",
            source="Stanford CS231n, 2015, from ImageNet (Deng et al., 2009)",
            deviations=(
                "crops and mirrors are drawn anew for every batch; published code draws them "
                "once and freezes them",
            ),
        ),
        # ImageNet's moments, as in the published Mosaic code.
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
        augmentation=Augmentation(crop_padding=4, flip=True),
        search=_search,
        pictures=_pictures,
        identity=_identity,
        subfolders=(
            "tiny_imagenet", _FOLDER, "tiny-imagenet", f"tiny_imagenet/{_FOLDER}",
            f"tiny-imagenet/{_FOLDER}", "",
        ),
        download=_download,
        download_bytes=_REMOTE.size,
        published=(_REMOTE,),
        advice=(
            f"give a data root that holds {_REMOTE.name} or its folder {_FOLDER}, or fetch it "
            f"(python -m benchmark datasets fetch tiny_imagenet, from {_REMOTE.urls[0]})"
        ),
    ),
)  # fmt: skip
