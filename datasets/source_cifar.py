"""``cifar10`` and ``cifar100``: the published Python archives, or the folders they unpack to."""

from __future__ import annotations

import tarfile
import zlib
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from datasets.catalog import DatasetSpec, Search
from datasets.errors import DataError
from datasets.fetching import Remote, fetch_all
from datasets.image_dataset import Augmentation, DatasetInfo, Split
from datasets.inert_pickle import byte_array, read_dict
from datasets.progress import Progress
from datasets.resize import resize_images

_SIZE = 32
_SHAPE = (3, _SIZE, _SIZE)


@dataclass(frozen=True)
class _Layout:
    """Names of one of the two sets."""

    name: str
    folder: str
    train: tuple[str, ...]
    test: str
    labels: str
    classes: int
    remote: Remote

    @property
    def files(self) -> tuple[str, ...]:
        """All files that are read, training part first."""
        return (*self.train, self.test)


def _remote(name: str, md5: str, size: int) -> Remote:
    return Remote(name, (f"https://www.cs.toronto.edu/~kriz/{name}",), md5, size)


_CIFAR10 = _Layout(
    name="cifar10",
    folder="cifar-10-batches-py",
    train=tuple(f"data_batch_{number}" for number in range(1, 6)),
    test="test_batch",
    labels="labels",
    classes=10,
    remote=_remote("cifar-10-python.tar.gz", "c58f30108f718f92721af3b95e74349a", 170_498_071),
)
_CIFAR100 = _Layout(
    name="cifar100",
    folder="cifar-100-python",
    train=("train",),
    test="test",
    labels="fine_labels",
    classes=100,
    remote=_remote("cifar-100-python.tar.gz", "eb9058c3a382ffc7106e4002c42a8d85", 169_001_437),
)


def _search(layout: _Layout, place: Path) -> Search:
    files = tuple(place / name for name in layout.files)
    missing = tuple(file.name for file in files if not file.is_file())
    if not missing:
        return Search(files=files)
    archive = place / layout.remote.name
    if archive.is_file():
        return Search(files=(archive,))
    return Search(missing=missing, partial=len(missing) < len(files))


def _contents(layout: _Layout, files: tuple[Path, ...]) -> dict[str, tuple[Path, bytes]]:
    """Return place (for messages) and content of each file, from a folder or the archive."""
    if len(files) > 1:
        return {file.name: (file, _read(file)) for file in files}
    archive, found = files[0], {}
    try:
        with tarfile.open(archive, "r:*") as tar:
            for name in layout.files:
                stream = tar.extractfile(f"{layout.folder}/{name}")
                if stream is None:
                    raise DataError(f"{archive}: {layout.folder}/{name} is not a file")
                found[name] = (archive / layout.folder / name, stream.read())
    except KeyError as error:
        raise DataError(f"{archive}: lacks {layout.folder}/{name}; fetch it again") from error
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        raise DataError(
            f"{archive}: damaged archive ({' '.join(str(error).split())}); "
            "delete it and fetch it again"
        ) from error
    return found


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise DataError(f"{file}: can't be read ({error.strerror})") from error


def _batch(layout: _Layout, path: Path, content: bytes) -> Split:
    """Return the images and labels of one file: rows of 3072 bytes, red, green, blue."""
    values = read_dict(content, path)
    missing = [key for key in ("data", layout.labels) if key not in values]
    if missing:
        raise DataError(f"{path}: lacks '{missing[0]}'; is this a {layout.name} file?")
    rows = byte_array(values["data"], f"{path}: data")
    labels = values[layout.labels]
    if rows.ndim != 2 or rows.shape[1] != np.prod(_SHAPE):
        raise DataError(f"{path}: data of shape {rows.shape}, expected rows of 3072 bytes")
    if not isinstance(labels, list) or len(labels) != len(rows):
        count = len(labels) if isinstance(labels, list) else "no"
        raise DataError(f"{path}: {count} labels, but {len(rows)} images")
    for position, label in enumerate(labels):
        if type(label) is not int or not 0 <= label < layout.classes:
            # Not the value of anything else: a file can nest lists beyond what can be printed.
            shown = label if type(label) is int else f"of type {type(label).__name__}"
            raise DataError(
                f"{path}: label {shown} at position {position}, expected 0 to {layout.classes - 1}"
            )
    images = np.ascontiguousarray(rows.reshape(-1, *_SHAPE))
    return Split(images, np.array(labels, dtype=np.int64))


def _decode(layout: _Layout, files: tuple[Path, ...], image_size: int) -> tuple[Split, Split]:
    contents = _contents(layout, files)
    batches = [_batch(layout, *contents[name]) for name in layout.train]
    test = _batch(layout, *contents[layout.test])
    images = np.concatenate([batch.images for batch in batches])
    labels = np.concatenate([batch.labels for batch in batches])
    return (
        Split(resize_images(images, image_size), labels),
        Split(resize_images(test.images, image_size), test.labels),
    )


def _download(layout: _Layout, root: Path, progress: Progress) -> None:
    fetch_all([layout.remote], root, progress)


def _spec(
    layout: _Layout,
    *,
    title: str,
    summary: str,
    class_names: tuple[str, ...],
    mean: tuple[float, ...],
    std: tuple[float, ...],
) -> DatasetSpec:
    return DatasetSpec(
        info=DatasetInfo(
            name=layout.name,
            title=title,
            classes=layout.classes,
            channels=3,
            native_size=_SIZE,
            train_samples=50_000,
            test_samples=10_000,
            summary=summary,
            source="Krizhevsky, 2009, Learning Multiple Layers of Features from Tiny Images",
        ),
        class_names=class_names,
        mean=mean,
        std=std,
        augmentation=Augmentation(crop_padding=4, flip=True),
        search=partial(_search, layout),
        decode=partial(_decode, layout),
        subfolders=(layout.name, layout.folder, f"{layout.name}/{layout.folder}", ""),
        download=partial(_download, layout),
        download_bytes=layout.remote.size,
        published=(layout.remote,),
        advice=(
            f"give a data root that holds {layout.remote.name} or its folder "
            f"{layout.folder}, or fetch it (python -m benchmark datasets fetch {layout.name}, "
            f"from {layout.remote.urls[0]})"
        ),
    )


SPECS = (
    _spec(
        _CIFAR10,
        title="CIFAR-10",
        summary="32×32 colour photographs of ten things",
        class_names=(
            "airplane", "automobile", "bird", "cat", "deer",
            "dog", "frog", "horse", "ship", "truck",
        ),
        mean=(0.4914, 0.4822, 0.4465),
        std=(0.2023, 0.1994, 0.2010),
    ),
    _spec(
        _CIFAR100,
        title="CIFAR-100",
        summary="32×32 colour photographs, the hundred fine labels",
        class_names=(
            "apple", "aquarium_fish", "baby", "bear", "beaver", "bed", "bee", "beetle",
            "bicycle", "bottle", "bowl", "boy", "bridge", "bus", "butterfly", "camel", "can",
            "castle", "caterpillar", "cattle", "chair", "chimpanzee", "clock", "cloud",
            "cockroach", "couch", "crab", "crocodile", "cup", "dinosaur", "dolphin",
            "elephant", "flatfish", "forest", "fox", "girl", "hamster", "house", "kangaroo",
            "keyboard", "lamp", "lawn_mower", "leopard", "lion", "lizard", "lobster", "man",
            "maple_tree", "motorcycle", "mountain", "mouse", "mushroom", "oak_tree", "orange",
            "orchid", "otter", "palm_tree", "pear", "pickup_truck", "pine_tree", "plain",
            "plate", "poppy", "porcupine", "possum", "rabbit", "raccoon", "ray", "road",
            "rocket", "rose", "sea", "seal", "shark", "shrew", "skunk", "skyscraper", "snail",
            "snake", "spider", "squirrel", "streetcar", "sunflower", "sweet_pepper", "table",
            "tank", "telephone", "television", "tiger", "tractor", "train", "trout", "tulip",
            "turtle", "wardrobe", "whale", "willow_tree", "wolf", "woman", "worm",
        ),
        mean=(0.5070751592371323, 0.48654887331495095, 0.4409178433670343),
        std=(0.2673342858792401, 0.2564384629170883, 0.27615047132568404),
    ),
)  # fmt: skip
