"""``digits``: the optical digits that ship with scikit-learn, nothing to download."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np

from datasets.catalog import DatasetSpec, Search
from datasets.errors import DataError
from datasets.image_dataset import Augmentation, DatasetInfo, Split
from datasets.resize import resize_images
from datasets.sampling import stratified_split

# The test fifth is part of what "digits" means here, so its seed is a constant of its own
# and no scenario seed reaches it.
_TEST_SEED = 1797
_TEST_FRACTION = 0.2
_LARGEST_VALUE = 16.0


def _places() -> tuple[Path, ...]:
    # find_spec looks the package up without importing it, which would take a second.
    package = importlib.util.find_spec("sklearn")
    locations = package.submodule_search_locations if package else None
    return tuple(Path(location) for location in locations or ())


def _search(place: Path) -> Search:
    # The file's place inside scikit-learn is not public; where it moved, the package's own
    # version file identifies the data as well.
    for candidate in (place / "datasets" / "data" / "digits.csv.gz", place / "__init__.py"):
        if candidate.is_file():
            return Search(files=(candidate,))
    return Search(missing=("scikit-learn",))


def _decode(files: tuple[Path, ...], image_size: int) -> tuple[Split, Split]:
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise DataError(f"digits: scikit-learn can't be imported ({error})") from error
    bunch = load_digits()
    images = np.rint(bunch.images * (255.0 / _LARGEST_VALUE)).astype(np.uint8)[:, None]
    images = resize_images(images, image_size)
    labels = bunch.target.astype(np.int64)
    train, test = stratified_split(labels, _TEST_FRACTION, np.random.default_rng(_TEST_SEED))
    return Split(images[train], labels[train]), Split(images[test], labels[test])


SPECS = (
    DatasetSpec(
        info=DatasetInfo(
            name="digits",
            title="Digits",
            classes=10,
            channels=1,
            native_size=8,
            train_samples=1438,
            test_samples=359,
            summary="8×8 handwritten digits of scikit-learn, enlarged; a fixed fifth for testing",
            source="UCI optical recognition of handwritten digits (Alpaydin and Kaynak, 1998)",
        ),
        class_names=tuple("0123456789"),
        # Measured on the training part at 32×32.
        mean=(0.3051,),
        std=(0.3232,),
        # No augmentation: a mirrored digit is another shape, or another digit, and eight
        # pixels leave no margin to crop into.
        augmentation=Augmentation(),
        search=_search,
        decode=_decode,
        own_places=_places,
        advice="install scikit-learn (pip install scikit-learn)",
    ),
)
