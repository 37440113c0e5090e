"""A scenario's data: loaded, cut to size, held out and dealt to clients, all from named streams."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

import datasets
from benchmark.contract import Task
from benchmark.errors import UserError
from benchmark.images import Normalization
from benchmark.seeds import Streams
from benchmark.specs import ScenarioSpec
from benchmark.training.precision import moved
from datasets.partition import Partition, partition

Indices = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Samples:
    """Images and labels on a device.

    Parameters
    ----------
    images : Tensor
        uint8 [n, C, H, W].
    labels : Tensor
        int64 [n].
    """

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, eq=False)
class ScenarioData:
    """Everything a scenario's data determines.

    Parameters
    ----------
    task : Task
        Shapes and ranges.
    partition : Partition
        Who holds what; positions refer to ``pool``.
    pool : ndarray of int64
        Positions in the training set that the clients share among them.
    held_out : ndarray of int64
        Positions in the training set taken away before the split.
    dataset : ImageDataset
        The arrays.
    """

    task: Task
    partition: Partition
    pool: Indices
    held_out: Indices
    dataset: datasets.ImageDataset

    def client(self, index: int, device: torch.device) -> Samples:
        """Return one client's samples."""
        return self.at(self.client_positions(index), device)

    def client_positions(self, index: int) -> Indices:
        """Return where in the training set one client's samples stand."""
        return self.pool[self.partition.client_indices[index]]

    def everybody(self, device: torch.device) -> Samples:
        """Return the samples of all clients together."""
        return self.at(self.pool, device)

    def validation(self, device: torch.device) -> Samples:
        """Return the held-out samples; none if nothing is held out."""
        return self.at(self.held_out, device)

    def training_set(self, device: torch.device) -> Samples:
        """Return the dataset's whole training set, whatever part of it the scenario uses."""
        everything = np.arange(len(self.dataset.train.labels))
        return self.at(everything, device)

    def test(self, device: torch.device) -> Samples:
        """Return the test set."""
        split = self.dataset.test
        everything = np.arange(len(split.labels))
        return _samples(split, everything, device)

    def at(self, positions: Indices, device: torch.device) -> Samples:
        """Return the samples at these positions of the training set."""
        return _samples(self.dataset.train, positions, device)

    def client_digest(self, index: int) -> dict[str, Any]:
        """Return what determines a client's data, for cache keys."""
        positions = self.client_positions(index)
        return {"dataset": self.dataset.fingerprint, "samples": _digest(positions)}

    def pool_digest(self) -> dict[str, Any]:
        """Return what determines the data of all clients together."""
        return {"dataset": self.dataset.fingerprint, "samples": _digest(self.pool)}


def load_scenario_data(
    scenario: ScenarioSpec,
    data_root: Path | None,
    cache_dir: Path | None,
    *,
    download: bool = True,
) -> ScenarioData:
    """Load a scenario's dataset and draw its split.

    The stratified part, the holdout and the partition each have a stream of the split
    seed, so that a change of one leaves the others' chance alone.

    Raises
    ------
    UserError
        If the data is missing or damaged, or the split can't be drawn as asked for.
    """
    try:
        dataset = datasets.load(
            scenario.dataset,
            data_root=data_root,
            image_size=scenario.image_size,
            cache_dir=cache_dir,
            download=download,
        )
        return deal(scenario, dataset)
    except (datasets.DataError, datasets.PartitionError) as error:
        raise UserError(str(error)) from error


def deal(scenario: ScenarioSpec, dataset: datasets.ImageDataset) -> ScenarioData:
    """Draw a scenario's split of a dataset that is loaded already.

    Raises
    ------
    datasets.PartitionError
        If it can't be drawn as asked for.
    """
    streams = Streams(scenario.split_seed)
    labels = np.asarray(dataset.train.labels)
    chosen: Indices = np.arange(len(labels), dtype=np.int64)
    if scenario.train_samples is not None:
        chosen = datasets.stratified_subset(
            labels, scenario.train_samples, streams.numpy("train subset")
        )
    held_out = chosen[:0]
    if scenario.holdout:
        kept, away = datasets.stratified_split(
            labels[chosen], scenario.holdout, streams.numpy("holdout")
        )
        chosen, held_out = chosen[kept], chosen[away]
    num_classes = len(dataset.class_names)
    spec = scenario.partition
    split = partition(
        spec.scheme,
        labels[chosen],
        spec.clients,
        rng=streams.numpy("partition"),
        num_classes=num_classes,
        alpha=spec.alpha,
        classes_per_client=spec.classes_per_client,
        min_samples=spec.min_samples,
    )
    augmentation = dataset.augmentation if scenario.recipe.augment else datasets.Augmentation()
    task = Task(
        num_classes=num_classes,
        channels=dataset.train.images.shape[1],
        image_size=scenario.image_size,
        normalization=Normalization(tuple(dataset.mean), tuple(dataset.std)),
        model=scenario.model,
        crop_padding=augmentation.crop_padding,
        flip=augmentation.flip,
    )
    return ScenarioData(task, split, chosen, held_out, dataset)


def even_positions(total: int, most: int) -> Indices:
    """Return at most ``most`` positions below ``total``, evenly spaced, the first one included."""
    count = min(total, most)
    return np.arange(count) * total // max(count, 1)


def _samples(split: datasets.Split, positions: Indices, device: torch.device) -> Samples:
    # Indexing has copied already, also out of a memory map.
    images = torch.from_numpy(np.ascontiguousarray(split.images[positions]))
    labels = torch.from_numpy(np.ascontiguousarray(split.labels[positions]))
    return Samples(moved(images, device), moved(labels, device))


def _digest(positions: Indices) -> str:
    return hashlib.sha256(positions.astype("<i8").tobytes()).hexdigest()
