"""Generated images against real ones: what a record says of them, extractor by extractor."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmark.contract import Generated
from benchmark.evaluation import evaluate
from benchmark.events import Events
from benchmark.federation.data import Samples, ScenarioData
from benchmark.generation.extractors import CLASSIFIER, Extractor, Features, fit, trained_extractor
from benchmark.generation.inception import INCEPTION, load_inception
from benchmark.generation.real import Comparison, RealImages, evenly_spaced
from benchmark.generation.scores import inception_score, kernel_distance, precision_recall
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
            What does not compare, and what looks broken.

        Raises
        ------
        WeightsMissingError
            If Inception is asked for and its weights can't be had.
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
            inception = load_inception(self._weights, self._device)
            found.append(inception)
            if inception.warning:
                warnings.append(inception.warning)
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
        by those that ``labeller`` gave). Beside each distance, that over the one of as many real
        test images. A distance of too few images for the number of features is marked
        (``enough``) in ``pooled``, and left out (null) elsewhere.
    """
    return {
        "extractor": extractor.name,
        "extractor_key": extractor.key,
        "extractor_accuracy": extractor.accuracy,
        "feature_size": fake.vectors.shape[1],
        "real": real.describe(),
        "pooled": _pooled(fake, real),
        "clients": _by_client(fake, clients, real),
        "labeller": CLASSIFIER,
        "classes": _by_class(fake, real, labels),
    }


def _distances(vectors: Tensor, compared: Comparison) -> dict[str, float | None]:
    """Return a distance and its ratio, null where either side is too small."""
    if not (len(vectors) > vectors.shape[1] and compared.held.enough):
        return {"fid": None, "fid_over_real": None}
    fid, over_real = compared.measured(vectors)
    return {"fid": fid, "fid_over_real": over_real if compared.enough(len(vectors)) else None}


def _pooled(fake: Features, real: RealImages) -> dict[str, Any]:
    score = inception_score(fake.logits)
    fid, over_real = real.everybody.measured(fake.vectors)
    shares = precision_recall(
        evenly_spaced(fake.vectors, MANIFOLD), evenly_spaced(real.pool.vectors, MANIFOLD)
    )
    return {
        "images": len(fake),
        # A covariance of too few vectors is biased on whichever side, the scale's own too.
        "enough": real.everybody.enough(len(fake)),
        "fid": fid,
        "fid_over_real": over_real,
        "kid": kernel_distance(fake.vectors, real.pool.vectors),
        "inception_score": None if score is None else score[0],
        "inception_score_split_sd": None if score is None else score[1],
        "precision": None if shares is None else shares[0],
        "recall": None if shares is None else shares[1],
    }


def _by_client(fake: Features, clients: Tensor | None, real: RealImages) -> dict[str, Any]:
    if clients is None:
        return {}
    entries = {}
    for index in torch.unique(clients).tolist():
        vectors = fake.vectors[clients == index]
        entries[str(index)] = {
            "images": len(vectors),
            "own": _distances(vectors, real.client(index)),
            "pooled": _distances(vectors, real.everybody),
        }
    return entries


def _by_class(fake: Features, real: RealImages, labels: Tensor) -> list[dict[str, Any] | None]:
    entries: list[dict[str, Any] | None] = []
    for label in range(real.data.task.num_classes):
        compared = real.of_class(label)
        vectors = fake.vectors[labels == label]
        entries.append(
            None if compared is None else {"images": len(vectors), **_distances(vectors, compared)}
        )
    return entries


def _signatures(entry: dict[str, Any]) -> list[str]:
    """Return warnings for values that the paper calls signs of a generator that failed."""
    pooled, name = entry["pooled"], entry["extractor"]
    warnings = []
    # A bare distance of the classifier has no scale; only Inception's is compared to one.
    if name == INCEPTION and pooled["fid"] > LARGE_FID:
        warnings.append(
            f"generated images: FID ({name}) is {pooled['fid']:.0f}, over {LARGE_FID:g}"
        )
    score = pooled["inception_score"]
    own = entry["real"]["inception_score"]
    least = SMALL_IS if own is None else min(SMALL_IS, OF_REAL * own)
    if score is not None and score < least:
        warnings.append(
            f"generated images: Inception score ({name}) is {score:.2f}, under {least:.3g}"
        )
    return warnings
