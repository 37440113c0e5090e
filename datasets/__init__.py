"""Image datasets and partitioners: arrays in, arrays out.

This room knows nothing of federations, and importing it imports neither PyTorch nor
scikit-learn. Partitioners are in :mod:`datasets.partition`.
"""

from __future__ import annotations

from datasets.catalog import available
from datasets.errors import DataError, PartitionError
from datasets.image_dataset import Augmentation, DatasetInfo, ImageDataset, Split
from datasets.loading import load
from datasets.places import Location, locate
from datasets.sampling import stratified_split, stratified_subset

__all__ = [
    "Augmentation",
    "DataError",
    "DatasetInfo",
    "ImageDataset",
    "Location",
    "PartitionError",
    "Split",
    "available",
    "load",
    "locate",
    "stratified_split",
    "stratified_subset",
]
