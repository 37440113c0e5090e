"""Networks whose features generated images are judged by; this one is trained by the suite.

Inception is known to be a poor judge of small and grey images, hence a classifier trained
on the dataset's own training images. It depends on the dataset and its image size, not on split,
seed or budget, so that values compare between scenarios; and, in its last bits, on what trained
it: device, precision, threads and torch's version. All of these are in its key, which records
keep, so that a report can tell two networks of one name apart.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Protocol

import torch
from torch import Tensor

from benchmark.evaluation import evaluate
from benchmark.events import Events
from benchmark.federation.data import Samples, ScenarioData
from benchmark.images import Normalization
from benchmark.models.base import Classifier
from benchmark.models.build import build
from benchmark.seeds import Streams
from benchmark.specs import ComputeSpec, RecipeSpec
from benchmark.store import Cache
from benchmark.training.trainer import train
from datasets import Augmentation

CLASSIFIER = "classifier"

BATCH = 250
"""Images at a time; features do not depend on it but for the last bits, so it is fixed."""

VERSION = "1"
"""Raised whenever the classifier extractor's features change."""

_FAMILY, _WIDTH = "cnn", Fraction(1, 2)
_SEED = 0
_MAX_STEPS, _MAX_EPOCHS = 2_000, 40
_RECIPE = RecipeSpec(epochs=1, batch_size=128, lr=0.05, schedule="cosine", weight_decay=5e-4)


@dataclass(frozen=True)
class Features:
    """What a network says of images.

    Parameters
    ----------
    vectors : Tensor
        float32 [n, d] on the CPU, penultimate features.
    logits : Tensor
        float32 [n, classes] on the CPU.
    """

    vectors: Tensor
    logits: Tensor

    def __len__(self) -> int:
        return len(self.vectors)

    @property
    def labels(self) -> Tensor:
        """The class [n] that the network names."""
        return self.logits.argmax(1)

    def __getitem__(self, index: Tensor) -> Features:
        return Features(self.vectors[index], self.logits[index])


class Extractor(Protocol):
    """A network with features."""

    @property
    def name(self) -> str:
        """How columns call it."""

    @property
    def key(self) -> str:
        """What identifies its weights, for cache keys and records."""

    @property
    def accuracy(self) -> float | None:
        """Its test accuracy, where its classes are the dataset's."""

    def __call__(self, images: Tensor) -> Features:
        """Return the features of images uint8 [n, C, H, W], n ≥ 1."""


class ClassifierExtractor:
    """Penultimate features of a classifier, in fp32 and eval mode.

    Parameters
    ----------
    model : Classifier
        The trained network, on its device.
    normalization : Normalization
        To the range it was trained in.
    accuracy : float
        On the test set.
    key : str
        What identifies its weights.
    """

    name = CLASSIFIER

    def __init__(
        self, model: Classifier, normalization: Normalization, accuracy: float, key: str
    ) -> None:
        self.model = model.eval()
        self.accuracy: float | None = accuracy
        self.key = key
        self._normalization = normalization

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Features:
        """Return the features of images uint8 [n, C, H, W]."""
        device = self.model.head.weight.device
        vectors, logits = [], []
        for part in torch.split(images, BATCH):
            with torch.autocast(device.type, enabled=False):
                inputs = self._normalization.from_uint8(part.to(device))
                features = self.model.features(inputs)
                logits.append(self.model.head(features).cpu())
                vectors.append(features.cpu())
        return Features(torch.cat(vectors), torch.cat(logits))


def trained_extractor(
    data: ScenarioData, compute: ComputeSpec, cache: Cache, events: Events
) -> ClassifierExtractor:
    """Return the dataset's classifier extractor, trained once and cached.

    A ``cnn`` at half width, batch 128, at most 2,000 steps or 40 epochs of SGD with a cosine
    schedule (ours); its streams depend on nothing but the dataset.
    """
    device = torch.device(compute.device)
    description = {
        "dataset": data.dataset.fingerprint,
        "image_size": data.task.image_size,
        "normalization": repr(data.task.normalization),
        "family": _FAMILY,
        "width": str(_WIDTH),
        "recipe": _RECIPE.canonical(),
        "limits": [_MAX_STEPS, _MAX_EPOCHS],
        "compute": compute.canonical(),
        "torch": torch.__version__,
        "version": VERSION,
    }

    def make() -> tuple[dict[str, Tensor], dict[str, float]]:
        samples = data.training_set(device)
        model = fit(samples, data, compute, events, "feature extractor")
        test = data.test(device)
        accuracy = evaluate(
            model,
            test.images,
            test.labels,
            normalization=data.task.normalization,
            num_classes=data.task.num_classes,
            device=device,
        ).accuracy
        return dict(model.state_dict()), {"accuracy": accuracy}

    entry = cache.get_or_make("extractor", description, make)
    model = _new(data, device)
    model.load_state_dict(entry.load())
    return ClassifierExtractor(
        model, data.task.normalization, float(entry.info["accuracy"]), entry.key
    )


def fit(
    samples: Samples, data: ScenarioData, compute: ComputeSpec, events: Events, what: str
) -> Classifier:
    """Train the fixed network on labelled images by the fixed recipe.

    Parameters
    ----------
    samples : Samples
        Images and labels, on the device.
    data : ScenarioData
        Says shapes and augmentation.
    compute : ComputeSpec
        Device, precision, threads.
    events : Events
        Where progress goes.
    what : str
        What is trained; names the random stream too.
    """
    device = torch.device(compute.device)
    model = _new(data, device)
    batches = -(-len(samples) // _RECIPE.batch_size)
    train(
        model,
        samples.images,
        samples.labels,
        recipe=_RECIPE,
        normalization=data.task.normalization,
        augmentation=data.dataset.augmentation if _RECIPE.augment else Augmentation(),
        generator=Streams(_SEED).torch(what, device=device),
        compute=compute,
        steps=min(_MAX_STEPS, _MAX_EPOCHS * batches),
        on_step=events.on_step(what),
        where=what,
    )
    return model


def _new(data: ScenarioData, device: torch.device) -> Classifier:
    task = data.task
    return build(
        _FAMILY,
        num_classes=task.num_classes,
        channels=task.channels,
        image_size=task.image_size,
        width=_WIDTH,
        norm="batch",
        generator=Streams(_SEED).torch("extractor weights"),
    ).to(device)
