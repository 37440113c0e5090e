"""Real images as generated ones are compared to them, and as good real ones: the scale.

A Fréchet distance of n images is biased by roughly 1/n, so a distance of 640 images over one of
10,000 says more of the two numbers than of the images: real ones then stand at 20. All ratios
here are of equally many images on both sides.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmark.federation.data import ScenarioData, even_positions
from benchmark.generation.extractors import Features
from benchmark.generation.scores import (
    Statistics,
    frechet_distance,
    inception_score,
    kernel_distance,
    statistics_of,
)

_SAMPLES = 4
"""Samples of real images that a scale is the mean of, at most."""


@dataclass(frozen=True)
class Comparison:
    """Some of the clients' real images, and real test images that are as good as any.

    Parameters
    ----------
    held : Statistics
        Of the images that distances are taken to.
    others : Tensor
        Features [t, d] of test images of the same classes in the same mix: what a perfect
        generator would draw.
    """

    held: Statistics
    others: Tensor
    _scales: dict[int, float] = field(default_factory=dict, repr=False, compare=False)

    def enough(self, images: int) -> bool:
        """Return whether no covariance that counts is of fewer vectors than features."""
        least = min(images, len(self.others))
        return self.held.enough and least > self.others.shape[1]

    def distance(self, vectors: Tensor) -> float:
        """Return the squared Fréchet distance of features [n, d], n ≥ 1."""
        return frechet_distance(statistics_of(vectors), self.held)

    def measured(self, vectors: Tensor) -> tuple[float, float | None]:
        """Return that distance, and it over the one of as many real test images.

        A ratio of 1 is as good as real. Where there are fewer test images than generated ones,
        it is of as many of these. ``None`` without test images, or if theirs is at no distance.
        """
        distance, count = self.distance(vectors), min(len(vectors), len(self.others))
        if not count:
            return distance, None
        if count not in self._scales:
            self._scales[count] = self._scale(count)
        scale = self._scales[count]
        whole = count == len(vectors)  # a distance of 2,048 features takes seconds
        of_as_many = distance if whole else self.distance(evenly_spaced(vectors, count))
        return distance, of_as_many / scale if scale > 0 else None

    def _scale(self, count: int) -> float:
        """Return the mean distance of samples of test images, which overlap nowhere.

        One sample's own varies by about a quarter (640 to 5,000 garments, 64 features).
        """
        every = len(self.others) // count
        samples = min(every, _SAMPLES)
        starts = torch.from_numpy(even_positions(len(self.others), count))
        found = [
            self.distance(self.others[starts + part * every // samples]) for part in range(samples)
        ]
        return sum(found) / samples


@dataclass(frozen=True)
class RealImages:
    """The real side of all comparisons, in one extractor's features.

    Parameters
    ----------
    train, test : Features
        Of the dataset's whole training set and of its test set.
    data : ScenarioData
        Says who holds which part of the training set.
    """

    train: Features
    test: Features
    data: ScenarioData

    @cached_property
    def pool(self) -> Features:
        """Features of the clients' data together."""
        return self.train[torch.from_numpy(self.data.pool)]

    @cached_property
    def labels(self) -> Tensor:
        """True labels [n] of the clients' data."""
        return torch.from_numpy(
            np.ascontiguousarray(self.data.dataset.train.labels[self.data.pool])
        )

    @cached_property
    def test_labels(self) -> Tensor:
        """True labels [t] of the test images."""
        return torch.from_numpy(np.array(self.data.dataset.test.labels))

    @cached_property
    def everybody(self) -> Comparison:
        """The clients' data together, against all test images."""
        return Comparison(statistics_of(self.pool.vectors), self.test.vectors)

    def client(self, index: int) -> Comparison:
        """Return one client's data, against test images in its mix of classes."""
        mine = torch.from_numpy(self.data.partition.client_indices[index])
        counts = torch.bincount(self.labels[mine], minlength=self.data.task.num_classes)
        alike = in_mix(counts, self.test_labels)
        return Comparison(statistics_of(self.pool[mine].vectors), self.test.vectors[alike])

    def of_class(self, label: int) -> Comparison | None:
        """Return the clients' images of a class against test images of it, if they have any."""
        held = self.pool.vectors[self.labels == label]
        if not len(held):
            return None
        return Comparison(statistics_of(held), self.test.vectors[self.test_labels == label])

    def describe(self) -> dict[str, Any]:
        """Return real test images measured as if they had been generated."""
        score = inception_score(self.test.logits)
        return {
            "fid": self.everybody.distance(self.test.vectors),
            "kid": kernel_distance(self.test.vectors, self.pool.vectors),
            "inception_score": None if score is None else score[0],
            "train": len(self.pool),
            "test": len(self.test),
        }


def in_mix(counts: Tensor, labels: Tensor) -> Tensor:
    """Return positions [k] of images whose classes come in given proportions, as many as can be.

    Parameters
    ----------
    counts : Tensor
        Images of each class that the proportions are those of, int64 [num_classes].
    labels : Tensor
        int64 [t] to choose from: of each class the first ones.
    """
    shares = counts.double() / counts.sum()
    there = torch.bincount(labels, minlength=len(counts))
    most = (there[counts > 0] / shares[counts > 0]).min()
    wanted = (most * shares).round().long().clamp(max=there)
    return torch.cat(
        [
            (labels == label).nonzero().flatten()[:count]
            for label, count in enumerate(wanted.tolist())
        ]
    )


def evenly_spaced(vectors: Tensor, most: int) -> Tensor:
    """Return at most ``most`` of the vectors, evenly spaced, so that no chance is spent on them."""
    return vectors[torch.from_numpy(even_positions(len(vectors), most))]
