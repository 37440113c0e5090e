"""``mnist`` and ``fashion_mnist``: four IDX files each, gzipped or not."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from datasets.catalog import DatasetSpec, Search
from datasets.errors import DataError
from datasets.fetching import Remote, fetch_all
from datasets.idx import read_pair
from datasets.image_dataset import Augmentation, DatasetInfo, Split
from datasets.progress import Progress
from datasets.resize import resize_images

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
_ONE_CHANNEL = "one grey channel; published code copies it to three, which adds nothing to learn"


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


def _check_identity(name: str, labels_path: Path, train: Split) -> None:
    sizes = tuple(np.bincount(train.labels, minlength=_CLASSES).tolist())
    for other, published in _TRAIN_CLASS_SIZES.items():
        if other != name and sizes == published:
            raise DataError(
                f"{labels_path}: holds {other}, not {name}; put {name} into a folder of its own "
                f"named '{name}' below the data root"
            )


def _decode(name: str, files: tuple[Path, ...], image_size: int) -> tuple[Split, Split]:
    train = Split(*read_pair(files[0], files[1], size=_SIZE, classes=_CLASSES))
    test = Split(*read_pair(files[2], files[3], size=_SIZE, classes=_CLASSES))
    _check_identity(name, files[1], train)
    return (
        Split(resize_images(train.images, image_size), train.labels),
        Split(resize_images(test.images, image_size), test.labels),
    )


def _remotes(urls: tuple[str, ...], published: tuple[tuple[str, int], ...]) -> tuple[Remote, ...]:
    return tuple(
        Remote(f"{name}.gz", tuple(f"{url}{name}.gz" for url in urls), md5, size, repacked=True)
        for name, (md5, size) in zip(_FILES, published, strict=True)
    )


# The addresses and checksums that torchvision uses, in the order of _FILES.
_MNIST_REMOTES = _remotes(
    ("https://ossci-datasets.s3.amazonaws.com/mnist/", "http://yann.lecun.com/exdb/mnist/"),
    (
        ("f68b3c2dcbeaaa9fbdd348bbdeb94873", 9_912_422),
        ("d53e105ee54ea40749a09fcbcd1e9432", 28_881),
        ("9fb629c4189551a2d022fa330f9573f3", 1_648_877),
        ("ec29112dd5afa0611ce80d1b7f02629c", 4_542),
    ),
)
_FASHION_REMOTES = _remotes(
    ("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",),
    (
        ("8d4fb7e6c68d591d4c3dfef9ec88bf0d", 26_421_880),
        ("25c81989df183df01b3e8a0aad5dffbe", 29_515),
        ("bef4ecab320f06d8554ea6380940ec79", 4_422_102),
        ("bb300cfdad3c16e7a12a480ee83cd310", 5_148),
    ),
)


def _download(remotes: tuple[Remote, ...], folder: str, root: Path, progress: Progress) -> None:
    fetch_all(remotes, root / folder, progress)


def _spec(
    info: DatasetInfo,
    *,
    torchvision_name: str,
    remotes: tuple[Remote, ...],
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
        download=partial(_download, remotes, f"{torchvision_name}/raw"),
        download_bytes=sum(remote.size for remote in remotes),
        published=remotes,
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
            train_samples=60_000,
            test_samples=10_000,
            summary="28×28 handwritten digits",
            source="LeCun, Bottou, Bengio and Haffner, 1998",
            deviations=(_ONE_CHANNEL,),
        ),
        torchvision_name="MNIST",
        remotes=_MNIST_REMOTES,
        class_names=tuple("0123456789"),
        moments=(0.1307, 0.3081),
        advice=(
            "give a data root that holds its four IDX files, or fetch it (python -m benchmark "
            "datasets fetch mnist, from https://ossci-datasets.s3.amazonaws.com/mnist/)"
        ),
    ),
    _spec(
        DatasetInfo(
            name="fashion_mnist",
            title="Fashion-MNIST",
            classes=_CLASSES,
            channels=1,
            native_size=_SIZE,
            train_samples=60_000,
            test_samples=10_000,
            summary="28×28 pictures of garments",
            source="Xiao, Rasul and Vollgraf, 2017, arXiv 1708.07747",
            deviations=(
                _ONE_CHANNEL,
                "normalised with its own moments (0.2860, 0.3530); published code uses MNIST's "
                "(0.1307, 0.3081), which leave garments off centre",
            ),
        ),
        torchvision_name="FashionMNIST",
        remotes=_FASHION_REMOTES,
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
            "that holds its four IDX files, or fetch it (python -m benchmark datasets fetch "
            "fashion_mnist, see https://github.com/zalandoresearch/fashion-mnist)"
        ),
    ),
)
