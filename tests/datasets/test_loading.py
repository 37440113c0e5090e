"""Loading: places in their order, real digits and garments, one message when all fails."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import datasets
from datasets import (
    DataError,
    available,
    catalog,
    load,
    locate,
    places,
    source_cifar,
    source_food101,
    source_mnist,
    source_svhn,
)
from datasets.fetching import Remote
from datasets.image_dataset import Augmentation, Split
from datasets.progress import Progress
from datasets.resize import resize_images

ROOT = Path(datasets.__file__).parents[1]
GARMENTS = Path("/usr/share/datasets/fashion-mnist")


def test_listing_imports_no_heavy_library() -> None:
    code = (
        "import sys, datasets; names = [i.name for i in datasets.available()]; "
        "datasets.locate('digits'); "
        "heavy = {'torch', 'torchvision', 'sklearn', 'PIL', 'scipy'} & set(sys.modules); "
        "assert not heavy, heavy; print(*names)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [
        "cifar10", "cifar100", "digits", "fashion_mnist",
        "food101", "mnist", "svhn", "tiny_imagenet",
    ]  # fmt: skip


def test_digits() -> None:
    data = load("digits")
    info = next(info for info in available() if info.name == "digits")
    assert data.train.images.shape == (1438, 1, 32, 32)
    assert data.test.images.shape == (359, 1, 32, 32)
    assert (len(data.train), len(data.test)) == (info.train_samples, info.test_samples)
    assert len(data.class_names) == 10
    assert data.augmentation == Augmentation(0, False)
    unit = data.train.images / 255.0
    assert unit.mean() == pytest.approx(data.mean[0], abs=5e-5)
    assert unit.std() == pytest.approx(data.std[0], abs=5e-5)
    assert data.train.images.max() > 250
    # A fixed fifth: the same samples for everyone, each class by its share.
    everything = np.bincount(np.concatenate([data.train.labels, data.test.labels]))
    assert np.all(np.abs(np.bincount(data.test.labels) - everything * 359 / 1797) < 1)
    assert load("digits").fingerprint == data.fingerprint
    assert load("digits", image_size=64).fingerprint != data.fingerprint


def test_other_sizes_than_the_published_ones_are_warned_of(
    tmp_path: Path,
    nothing_else: Path,
    write_set: Callable[..., None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    write_set(tmp_path / "mnist", zipped=True)
    for _ in range(2):  # the second time from the cache
        load("mnist", data_root=tmp_path, cache_dir=tmp_path / "cache", download=False)
    (said,) = [text for text in caplog.messages if "published are" in text]
    assert said == (
        f"dataset 'mnist' in {tmp_path / 'mnist'} has 30 training and 20 test images; "
        "published are 60000 and 10000"
    )
    caplog.clear()
    load("digits")
    assert not caplog.messages


def test_arrays_are_read_only() -> None:
    data = load("digits")
    with pytest.raises(ValueError, match="read-only"):
        data.train.images[0] = 0


@pytest.mark.skipif(not GARMENTS.is_dir(), reason="Debian's dataset-fashion-mnist not installed")
def test_real_garments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(places.DATA_VARIABLE, raising=False)
    monkeypatch.setattr(places, "user_data_root", lambda: tmp_path)
    data = load("fashion_mnist", download=False)
    assert data.train.images.shape == (60_000, 1, 32, 32)
    assert data.test.images.shape == (10_000, 1, 32, 32)
    assert np.bincount(data.train.labels).tolist() == [6000] * 10
    assert np.bincount(data.test.labels).tolist() == [1000] * 10
    assert data.train.images.mean() / 255 == pytest.approx(0.2860, abs=1e-3)
    assert data.class_names[9] == "Ankle boot"
    assert data.train.labels[0] == 9  # the first training image is a boot
    with pytest.raises(DataError, match="holds fashion_mnist, not mnist"):
        load("mnist", data_root=GARMENTS, download=False)


@pytest.mark.parametrize("folder", ["", "fashion_mnist", "fashion-mnist", "FashionMNIST/raw"])
@pytest.mark.parametrize("zipped", [False, True])
def test_layouts_below_a_data_root(
    tmp_path: Path, nothing_else: Path, write_set: Callable[..., None], folder: str, zipped: bool
) -> None:
    write_set(tmp_path / folder, zipped=zipped)
    data = load("fashion_mnist", data_root=tmp_path, download=False)
    assert data.train.images.shape == (30, 1, 32, 32)
    assert data.test.labels.tolist() == [label % 10 for label in range(20)]


def test_fingerprint_is_of_content_alone(
    tmp_path: Path, nothing_else: Path, write_set: Callable[..., None]
) -> None:
    marks = {}
    variants: dict[str, dict[str, int]] = {
        "plain": {},
        "zipped": {"zipped": True},
        "other pixels": {"seed": 1},
        "fewer": {"train": 29},
    }
    for name, options in variants.items():
        write_set(tmp_path / name, **options)
        marks[name] = load("mnist", data_root=tmp_path / name).fingerprint
    assert marks["plain"] == marks["zipped"]
    assert len(set(marks.values())) == 3
    at_64 = load("mnist", data_root=tmp_path / "plain", image_size=64)
    assert at_64.train.images.shape == (30, 1, 64, 64)


def test_order_of_places(
    tmp_path: Path,
    nothing_else: Path,
    write_set: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    flag, variable = tmp_path / "flag", tmp_path / "variable"
    assert not locate("mnist", flag).found
    write_set(nothing_else / "mnist")
    assert locate("mnist", flag).place == nothing_else / "mnist"
    write_set(variable)
    monkeypatch.setenv(places.DATA_VARIABLE, str(variable))
    assert locate("mnist", flag).place == variable
    write_set(flag / "MNIST" / "raw")
    found = locate("mnist", flag)
    assert found.place == flag / "MNIST" / "raw"
    assert len(found.files) == 4
    assert found.tried == (str(flag / "mnist"),)


def test_debians_place_is_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "user_data_root", lambda: tmp_path)
    assert catalog.specs()["fashion_mnist"].own_places() == (GARMENTS,)
    assert catalog.specs()["mnist"].own_places() == ()


def test_nothing_found_names_every_place_and_the_way(
    tmp_path: Path,
    nothing_else: Path,
    write_set: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(places.DATA_VARIABLE, str(tmp_path / "variable"))
    write_set(tmp_path / "flag")
    (tmp_path / "flag" / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(DataError) as caught:
        load("fashion_mnist", data_root=tmp_path / "flag")
    message = str(caught.value)
    for part in (
        str(tmp_path / "flag" / "FashionMNIST" / "raw"),
        f"{tmp_path / 'flag'} (lacks t10k-labels-idx1-ubyte)",
        str(tmp_path / "variable" / "fashion_mnist"),
        str(nothing_else),
        "no network in this test",
        "apt-get install dataset-fashion-mnist",
    ):
        assert part in message
    assert "\n" not in message
    with pytest.raises(DataError, match="download not allowed"):
        load("fashion_mnist", data_root=tmp_path / "flag", download=False)


def test_download_is_used_once(
    tmp_path: Path,
    nothing_else: Path,
    write_set: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls = []

    def fetch_all(remotes: tuple[Remote, ...], folder: Path, progress: Progress) -> None:
        calls.append(folder)
        assert remotes[0].name == "train-images-idx3-ubyte.gz"
        write_set(folder, zipped=True)

    monkeypatch.setitem(catalog.specs(), "mnist", source_mnist.SPECS[0])
    monkeypatch.setattr(source_mnist, "fetch_all", fetch_all)
    for root, where in ((tmp_path / "root", tmp_path / "root"), (None, nothing_else)):
        for _ in range(2):
            assert len(load("mnist", data_root=root).train) == 30
        assert locate("mnist", root).place == where / "MNIST" / "raw"
    assert len(calls) == 2


def test_addresses_and_checksums_are_torchvisions() -> None:
    from torchvision import datasets as published

    ours = {
        remote.urls[0]: remote.md5
        for remotes in (
            source_mnist._MNIST_REMOTES,
            source_mnist._FASHION_REMOTES,
            source_svhn._REMOTES,
            (source_cifar._CIFAR10.remote, source_cifar._CIFAR100.remote, source_food101._REMOTE),
        )
        for remote in remotes
    }
    theirs = {
        f"{kind.mirrors[0]}{name}": md5
        for kind in (published.MNIST, published.FashionMNIST)
        for name, md5 in kind.resources
    }
    for split in ("train", "test"):
        url, _, md5 = published.SVHN.split_list[split]
        theirs[url] = md5
    for kind in (published.CIFAR10, published.CIFAR100):
        theirs[kind.url] = kind.tgz_md5
    theirs[published.Food101._URL] = published.Food101._MD5
    assert ours == theirs


@pytest.mark.parametrize(
    ("name", "mean", "padding", "flip"),
    [
        ("mnist", 0.1307, 0, False),
        ("fashion_mnist", 0.2860, 0, False),  # its own, not MNIST's
        ("svhn", 0.5, 4, False),  # digits are not mirrored
        ("cifar10", 0.4914, 4, True),
        ("cifar100", 0.5070751592371323, 4, True),
        ("tiny_imagenet", 0.485, 4, True),
        ("food101", 0.5070751592371323, 0, False),
    ],
)
def test_the_seven_of_the_paper(name: str, mean: float, padding: int, flip: bool) -> None:
    spec = catalog.spec_of(name)
    assert spec.mean[0] == mean
    assert spec.augmentation == Augmentation(padding, flip)
    assert spec.augmentation.at(64) == Augmentation(2 * padding, flip)
    assert spec.download is not None
    assert spec.download_bytes > 10**7
    assert len(set(spec.class_names)) in (0, spec.info.classes)
    if name in ("fashion_mnist", "svhn", "tiny_imagenet"):
        assert "published code" in spec.info.deviations[-1]


def test_a_damaged_file_is_an_error_and_not_passed_over(
    tmp_path: Path, nothing_else: Path, write_set: Callable[..., None]
) -> None:
    write_set(tmp_path / "a")
    write_set(nothing_else)
    broken = tmp_path / "a" / "t10k-images-idx3-ubyte"
    broken.write_bytes(broken.read_bytes()[:-7])
    with pytest.raises(DataError, match="truncated") as caught:
        load("mnist", data_root=tmp_path / "a")
    assert str(broken) in str(caught.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [("fashion-mnist", "did you mean 'fashion_mnist'"), ("digit", "'digits'"), ("?", "one of:")],
)
def test_unknown_name(name: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        load(name)
    with pytest.raises(DataError, match=message):
        locate(name)


@pytest.mark.parametrize("size", [0, 28, -32, 128])
def test_unknown_size(size: int) -> None:
    with pytest.raises(DataError, match="one of: 32, 64"):
        load("digits", image_size=size)


def test_resize_rule() -> None:
    images = np.zeros((2, 3, 4, 4), dtype=np.uint8)
    images[:, 0], images[:, 1, :, :2] = 200, 100
    resized = resize_images(images, 8)
    assert resized.shape == (2, 3, 8, 8)
    assert np.all(resized[:, 0] == 200)
    assert np.all(resized[:, 2] == 0)
    # Bilinear between the second pixel's centre (100) and the third's (0).
    assert resized[0, 1, 0].tolist() == [100, 100, 100, 75, 25, 0, 0, 0]
    assert resize_images(images, 4) is images


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (np.zeros((2, 1, 4, 4)), np.zeros(2, dtype=np.int64), "must be uint8"),
        (np.zeros((2, 4, 4), dtype=np.uint8), np.zeros(2, dtype=np.int64), "must be uint8"),
        (np.zeros((2, 1, 4, 4), dtype=np.uint8), np.zeros(2), "labels must be int64"),
        (np.zeros((2, 1, 4, 4), dtype=np.uint8), np.zeros(3, dtype=np.int64), "but 3 labels"),
        (np.zeros((0, 1, 4, 4), dtype=np.uint8), np.zeros(0, dtype=np.int64), "at least one"),
    ],
)
def test_wrong_splits(
    images: np.ndarray[tuple[int, ...], np.dtype[np.uint8]],
    labels: np.ndarray[tuple[int, ...], np.dtype[np.int64]],
    message: str,
) -> None:
    with pytest.raises(DataError, match=message):
        Split(images, labels)
    with pytest.raises(DataError, match="crop_padding"):
        Augmentation(crop_padding=-1)
