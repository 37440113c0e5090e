"""Generated images against real ones: what a record says of them, extractor by extractor."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmark.contract import Generated
from benchmark.evaluation import evaluate
from benchmark.events import Events
from benchmark.federation.data import Samples, ScenarioData
from benchmark.generation.extractors import CLASSIFIER, Extractor, Features, fit, trained_extractor
from benchmark.generation.inception import INCEPTION, WeightsMissingError, load_inception
from benchmark.generation.scores import (
    Statistics,
    frechet_distance,
    inception_score,
    kernel_distance,
    precision_recall,
    statistics_of,
)
from benchmark.specs import ComputeSpec
from benchmark.store import Cache

MANIFOLD = 5_000
"""Vectors of either side that precision and recall look at, at most."""

COVERED = 0.1
"""A class is covered if it has at least this share of an even part of the images (ours)."""

LARGE_FID = 1000.0
SMALL_IS = 2.0
"""Failure signatures: a larger Fréchet distance (Inception's), a smaller Inception score."""
OF_REAL = 0.75
"""Share of real images' own score below which alone a score is small: two classes can't reach 2."""


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
    def statistics(self) -> Statistics:
        """Of the clients' data together."""
        return statistics_of(self.pool.vectors)

    @cached_property
    def tested(self) -> Statistics:
        """Of real test images."""
        return statistics_of(self.test.vectors)

    @cached_property
    def fid(self) -> float:
        """Distance between the clients' data and real test images: the scale of all others."""
        return frechet_distance(self.tested, self.statistics)

    def ratio(self, fid: float) -> float | None:
        """Return a distance over that of real test images, if there is such a scale."""
        return fid / self.fid if self.fid > 0 else None

    def client(self, index: int) -> Features:
        """Return the features of one client's data."""
        return self.pool[torch.from_numpy(self.data.partition.client_indices[index])]

    def describe(self) -> dict[str, Any]:
        """Return real test images measured as if they had been generated."""
        score = inception_score(self.test.logits)
        return {
            "fid": self.fid,
            "kid": kernel_distance(self.test.vectors, self.pool.vectors),
            "inception_score": None if score is None else score[0],
            "train": len(self.pool),
            "test": len(self.test),
        }


class GenerationMeter:
    """Measures the images that methods made; everything real is computed once and cached.

    Parameters
    ----------
    data : ScenarioData
        Real images. The meter belongs to the harness: no method is given one.
    compute : ComputeSpec
        Device, precision, threads.
    cache : Cache
        Where extractors and real features are kept.
    events : Events
        Where progress goes.
    extractors : sequence of str
        ``classifier``, ``inception``; none switches the measures off.
    inception_weights : Path, optional
        The file of Inception's weights.
    """

    def __init__(
        self,
        data: ScenarioData,
        compute: ComputeSpec,
        cache: Cache,
        events: Events,
        *,
        extractors: Sequence[str],
        inception_weights: Path | None = None,
    ) -> None:
        self._data, self._compute, self._cache, self._events = data, compute, cache, events
        self._names, self._weights = tuple(extractors), inception_weights
        self._device = torch.device(compute.device)

    @cached_property
    def _classifier(self) -> Extractor:
        return trained_extractor(self._data, self._compute, self._cache, self._events)

    def __call__(self, generated: Generated) -> tuple[list[dict[str, Any]], list[str]]:
        """Measure generated images.

        Returns
        -------
        entries : list of dict
            One for each extractor, JSON values; see :func:`measure`.
        warnings : list of str
            What could not be had, and what looks broken.
        """
        if not self._names:
            return [], []
        extractors, warnings = self._extractors()
        entries = []
        labels = self._classifier(generated.images).labels
        for extractor in extractors:
            self._events.progress(f"measuring images ({extractor.name})", 0, 1)
            real = self._real(extractor)
            fake = extractor(generated.images)
            clients = None if generated.clients is None else generated.clients.cpu()
            entry = measure(extractor, fake, clients, real, labels)
            warnings += _signatures(entry)
            entries.append(entry)
        usefulness = self._usefulness(generated.images, labels)
        return [{**entry, "usefulness": usefulness} for entry in entries], warnings

    def _extractors(self) -> tuple[list[Extractor], list[str]]:
        found: list[Extractor] = []
        warnings = []
        if CLASSIFIER in self._names:
            found.append(self._classifier)
        if INCEPTION in self._names:
            try:
                found.append(load_inception(self._weights, self._device))
            except WeightsMissingError as error:
                warnings.append(f"{error}; generated images are judged by the classifier alone")
                if not found:
                    found.append(self._classifier)
        return found, warnings

    def _real(self, extractor: Extractor) -> RealImages:
        task = self._data.task
        description = {
            "dataset": self._data.dataset.fingerprint,
            "image_size": task.image_size,
            "extractor": extractor.name,
            "weights": extractor.key,
            "device": self._compute.device,
            "threads": self._compute.threads,
            "torch": torch.__version__,
        }

        def make() -> tuple[dict[str, Tensor], dict[str, Any]]:
            cpu = torch.device("cpu")
            tensors = {}
            for name, samples in (
                ("train", self._data.training_set(cpu)),
                ("test", self._data.test(cpu)),
            ):
                features = extractor(samples.images)
                tensors[f"{name}.vectors"] = features.vectors
                tensors[f"{name}.logits"] = features.logits
            return tensors, {}

        kept = self._cache.get_or_make("real-features", description, make).load()
        train = Features(kept["train.vectors"], kept["train.logits"])
        test = Features(kept["test.vectors"], kept["test.logits"])
        return RealImages(train, test, self._data)

    def _usefulness(self, images: Tensor, labels: Tensor) -> dict[str, Any]:
        """Train the fixed network on generated images, and test it on real ones."""
        task, device = self._data.task, self._device
        samples = Samples(images.to(device), labels.to(device))
        model = fit(samples, self._data, self._compute, self._events, "training on generated")
        test = self._data.test(device)
        result = evaluate(
            model,
            test.images,
            test.labels,
            normalization=task.normalization,
            num_classes=task.num_classes,
            device=device,
        )
        even = len(labels) / task.num_classes
        counts = torch.bincount(labels, minlength=task.num_classes)
        return {
            "accuracy": result.accuracy,
            "coverage": float((counts >= COVERED * even).double().mean()),
            "class_counts": counts.tolist(),
            "labeller": CLASSIFIER,
            "images": len(images),
        }


def measure(
    extractor: Extractor,
    fake: Features,
    clients: Tensor | None,
    real: RealImages,
    labels: Tensor,
) -> dict[str, Any]:
    """Return what is kept of one extractor's view.

    Parameters
    ----------
    extractor : Extractor
        Names the view.
    fake : Features
        Of the generated images [n].
    clients : Tensor or None
        The client [n] whose generator made each, where there is one.
    real : RealImages
        What they are compared to.
    labels : Tensor
        The class [n] that the suite's classifier names for each, whoever the extractor is.

    Returns
    -------
    dict
        ``pooled`` (all images), ``clients`` (each client's images against its own data and
        against everybody's) and ``classes`` (real images by their true labels, generated ones
        by those that ``labeller`` gave). A distance of too few images for the number of features is
        marked (``enough``) in ``pooled``, and left out (null) elsewhere.
    """
    against_all = _distance(real, real.statistics)
    return {
        "extractor": extractor.name,
        "extractor_accuracy": extractor.accuracy,
        "feature_size": fake.vectors.shape[1],
        "real": real.describe(),
        "pooled": _pooled(fake, real),
        "clients": _by_client(fake, clients, real, against_all),
        "labeller": CLASSIFIER,
        "classes": _by_class(fake, real, labels),
    }


_Distance = Callable[[Tensor], dict[str, float | None]]


def _distance(real: RealImages, reference: Statistics) -> _Distance:
    """Return a function from vectors to their distance, null where either side is too small."""

    def against(vectors: Tensor) -> dict[str, float | None]:
        if len(vectors) <= vectors.shape[1] or not reference.enough:
            return {"fid": None, "fid_ratio": None}
        fid = frechet_distance(statistics_of(vectors), reference)
        return {"fid": fid, "fid_ratio": real.ratio(fid) if real.tested.enough else None}

    return against


def _pooled(fake: Features, real: RealImages) -> dict[str, Any]:
    own = statistics_of(fake.vectors)
    fid = frechet_distance(own, real.statistics)
    score = inception_score(fake.logits)
    shares = precision_recall(_spread(fake.vectors, MANIFOLD), _spread(real.pool.vectors, MANIFOLD))
    return {
        "images": len(fake),
        # A covariance of too few vectors is biased on whichever side, the scale's own too.
        "enough": own.enough and real.statistics.enough and real.tested.enough,
        "fid": fid,
        "fid_ratio": real.ratio(fid),
        "kid": kernel_distance(fake.vectors, real.pool.vectors),
        "inception_score": None if score is None else score[0],
        "inception_score_split_sd": None if score is None else score[1],
        "precision": None if shares is None else shares[0],
        "recall": None if shares is None else shares[1],
    }


def _by_client(
    fake: Features, clients: Tensor | None, real: RealImages, against_all: _Distance
) -> dict[str, Any]:
    if clients is None:
        return {}
    entries = {}
    for index in torch.unique(clients).tolist():
        vectors = fake.vectors[clients == index]
        own = _distance(real, statistics_of(real.client(index).vectors))
        entries[str(index)] = {
            "images": len(vectors),
            "own": own(vectors),
            "pooled": against_all(vectors),
        }
    return entries


def _by_class(fake: Features, real: RealImages, labels: Tensor) -> list[dict[str, Any] | None]:
    entries: list[dict[str, Any] | None] = []
    for label in range(real.data.task.num_classes):
        vectors, held = fake.vectors[labels == label], real.pool.vectors[real.labels == label]
        if not len(held):
            entries.append(None)
            continue
        entries.append({"images": len(vectors), **_distance(real, statistics_of(held))(vectors)})
    return entries


def _spread(vectors: Tensor, count: int) -> Tensor:
    """Return at most ``count`` vectors, spread evenly, so that no chance is spent on them."""
    if len(vectors) <= count:
        return vectors
    return vectors[torch.arange(count) * len(vectors) // count]


def _signatures(entry: dict[str, Any]) -> list[str]:
    """Return warnings for values that the paper calls signs of a generator that failed."""
    pooled, name = entry["pooled"], entry["extractor"]
    warnings = []
    # A bare distance of the classifier has no scale; only Inception's is compared to one.
    if name == INCEPTION and pooled["fid"] > LARGE_FID:
        warnings.append(f"generated images: FID ({name}) is {pooled['fid']:.0f}, over 1000")
    score = pooled["inception_score"]
    own = entry["real"]["inception_score"]
    least = SMALL_IS if own is None else min(SMALL_IS, OF_REAL * own)
    if score is not None and score < least:
        warnings.append(f"generated images: Inception score ({name}) is {score:.2f}, under 2")
    return warnings
