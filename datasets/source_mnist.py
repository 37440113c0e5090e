"""``mnist`` and ``fashion_mnist``: four IDX files each, gzipped or not."""

from __future__ import annotations

import logging
import tempfile
from functools import partial
from pathlib import Path

import numpy as np

from datasets.catalog import DatasetSpec, Search
from datasets.errors import DataError
from datasets.idx import read_pair
from datasets.image_dataset import Augmentation, DatasetInfo, Split
from datasets.resize import resize_images

_LOG = logging.getLogger(__name__)
_SIZE = 28
_CLASSES = 10
_FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
# Both datasets use the same four file names, and a data root may hold the files directly: the
# published class sizes of the training part tell the two apart.
_TRAIN_CLASS_SIZES = {
    "mnist": (5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949),
    "fashion_mnist": (6000,) * _CLASSES,
}
_PUBLISHED_SIZES = (60_000, 10_000)


def _search(place: Path) -> Search:
    files: list[Path] = []
    missing: list[str] = []
    for name in _FILES:
        dotted = name.replace("-idx", ".idx")  # the spelling of some mirrors
        spellings = (name, f"{name}.gz", dotted, f"{dotted}.gz")
        found = next((place / s for s in spellings if (place / s).is_file()), None)
        if found is None:
            missing.append(name)
        else:
            files.append(found)
    if missing:
        return Search(missing=tuple(missing), partial=bool(files))
    return Search(files=tuple(files))


def _check_identity(name: str, labels_path: Path, train: Split, test: Split) -> None:
    sizes = tuple(np.bincount(train.labels, minlength=_CLASSES).tolist())
    for other, published in _TRAIN_CLASS_SIZES.items():
        if other != name and sizes == published:
            raise DataError(
                f"{labels_path}: holds {other}, not {name}; put {name} into a folder of its own "
                f"named '{name}' below the data root"
            )
    if (len(train), len(test)) != _PUBLISHED_SIZES:
        _LOG.warning(
            "%s in %s has %d training and %d test images; published are %d and %d",
            name, labels_path.parent, len(train), len(test), *_PUBLISHED_SIZES,
        )  # fmt: skip


def _decode(name: str, files: tuple[Path, ...], image_size: int) -> tuple[Split, Split]:
    train = Split(*read_pair(files[0], files[1], size=_SIZE, classes=_CLASSES))
    test = Split(*read_pair(files[2], files[3], size=_SIZE, classes=_CLASSES))
    _check_identity(name, files[1], train, test)
    return (
        Split(resize_images(train.images, image_size), train.labels),
        Split(resize_images(test.images, image_size), test.labels),
    )


def _download(torchvision_name: str, root: Path) -> None:
    import torchvision.datasets

    target = root / torchvision_name / "raw"
    # torchvision unpacks in place and takes whatever file exists for a whole one, so it works
    # in a folder of its own and only finished files are moved to where they are looked for.
    with tempfile.TemporaryDirectory(dir=root, prefix=".download-") as scratch:
        getattr(torchvision.datasets, torchvision_name)(scratch, download=True)
        target.mkdir(parents=True, exist_ok=True)
        for name in _FILES:
            Path(scratch, torchvision_name, "raw", f"{name}.gz").replace(target / f"{name}.gz")


def _spec(
    info: DatasetInfo,
    *,
    torchvision_name: str,
    class_names: tuple[str, ...],
    moments: tuple[float, float],
    own_places: tuple[Path, ...] = (),
    advice: str,
) -> DatasetSpec:
    return DatasetSpec(
        info=info,
        class_names=class_names,
        mean=moments[:1],
        std=moments[1:],
        # No augmentation, as in the published codes of Mosaic, DENSE and Co-Boosting for both
        # sets: mirrored digits are other shapes, and garments stand centred in a tight frame.
        augmentation=Augmentation(),
        search=_search,
        decode=partial(_decode, info.name),
        subfolders=(info.name, info.name.replace("_", "-"), f"{torchvision_name}/raw", ""),
        own_places=lambda: own_places,
        download=partial(_download, torchvision_name),
        advice=advice,
    )


SPECS = (
    _spec(
        DatasetInfo(
            name="mnist",
            title="MNIST",
            classes=_CLASSES,
            channels=1,
            native_size=_SIZE,
            train_samples=_PUBLISHED_SIZES[0],
            test_samples=_PUBLISHED_SIZES[1],
            summary="28×28 handwritten digits",
            source="LeCun, Bottou, Bengio and Haffner, 1998",
        ),
        torchvision_name="MNIST",
        class_names=tuple("0123456789"),
        moments=(0.1307, 0.3081),
        advice=(
            "give a data root that holds its four IDX files, or allow the download "
            "(https://ossci-datasets.s3.amazonaws.com/mnist/)"
        ),
    ),
    _spec(
        DatasetInfo(
            name="fashion_mnist",
            title="Fashion-MNIST",
            classes=_CLASSES,
            channels=1,
            native_size=_SIZE,
            train_samples=_PUBLISHED_SIZES[0],
            test_samples=_PUBLISHED_SIZES[1],
            summary="28×28 pictures of garments",
            source="Xiao, Rasul and Vollgraf, 2017, arXiv 1708.07747",
        ),
        torchvision_name="FashionMNIST",
        class_names=(
            "T-shirt/top",
            "Trouser",
            "Pullover",
            "Dress",
            "Coat",
            "Sandal",
            "Shirt",
            "Sneaker",
            "Bag",
            "Ankle boot",
        ),
        # Its own moments; the published Mosaic code normalises garments with those of MNIST.
        moments=(0.2860, 0.3530),
        own_places=(Path("/usr/share/datasets/fashion-mnist"),),
        advice=(
            "install Debian's package (apt-get install dataset-fashion-mnist), give a data root "
            "that holds its four IDX files, or allow the download "
            "(https://github.com/zalandoresearch/fashion-mnist)"
        ),
    ),
)
