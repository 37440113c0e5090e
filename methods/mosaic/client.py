"""What a Mosaic client makes on the device: its generator, its prototypes, its upload."""

from __future__ import annotations

import copy
import inspect
import math
from collections.abc import Mapping
from functools import lru_cache
from hashlib import sha256
from typing import Any

import torch
from torch import Tensor

from benchmark.contract import Broadcast, Client, Upload
from benchmark.models.base import Classifier
from methods.blocks import bn_statistics
from methods.mosaic import adversarial, gan_trainer, losses, networks
from methods.mosaic.gan_trainer import GanTrainer, steps_of_epochs
from methods.mosaic.prototypes import class_prototypes, collect_features
from methods.mosaic.settings import GeneratorSettings, MosaicSettings, PrototypeSettings

HISTORY_POINTS = 50
"""Looks at the losses of a generator's training, at most."""
FEATURE_BATCH = 500
"""Images whose features are computed together; changes no number."""

_STATE = "generator."
_CODE = (adversarial, gan_trainer, losses, networks, bn_statistics)
_VERSION = 1
"""Raised when what else decides a generator changes: training, guide, or weights by size."""


def trained_generator(
    client: Client, settings: GeneratorSettings, *, published: bool = False
) -> dict[str, Tensor]:
    """Return the state of the client's generator: trained once, then taken from the cache.

    Runs that differ on the server's side only share it.

    Parameters
    ----------
    client : Client
        Gives images, the guiding classifier, the stream and the budget. Losses are reported
        to it, and ``classes``: the effective number of classes among the generated images,
        exp of the entropy of their histogram.
    settings : GeneratorSettings
        Networks, losses and optimiser.
    published : bool
        Whether it is trained for ``settings.epochs``, and not for the steps of the budget.
    """
    mine = settings.of_width(client.info.width)
    granted = client.budget.generator_steps
    steps = steps_of_epochs(client.num_samples, mine) if published else granted
    # Only what training reads: another way of drawing images is no other generator.
    read = mine.model_dump(mode="json", include=set(GeneratorSettings.model_fields))
    description = {"settings": {**read, "epochs": None}, "steps": steps, "code": _code_digest()}
    if _VERSION > 1:  # generators from before versions were counted stay what they are
        description["version"] = _VERSION

    def make() -> tuple[dict[str, Tensor], dict[str, int]]:
        return _train(client, mine, steps), {"steps": steps}

    made, _ = client.cached("generator", description, make)
    _report(client, made["losses"], made["classes"], steps)
    return {k.removeprefix(_STATE): v for k, v in made.items() if k.startswith(_STATE)}


def _train(client: Client, settings: GeneratorSettings, steps: int) -> dict[str, Tensor]:
    task = client.task
    interval = math.ceil(steps / HISTORY_POINTS)
    trainer = GanTrainer(
        client.images,
        _guide(client, settings).to(memory_format=torch.channels_last),
        num_classes=task.num_classes,
        settings=settings,
        normalization=task.normalization,
        random=client.generator("gan"),
        autocast=client.autocast,
        channels_last=True,
        interval=interval,
        report=client.report,
        name=f"generator of client {client.info.index}",
    )
    history = trainer.run(steps)
    means = torch.stack([part.mean(0) for part in torch.split(history.losses, interval)])
    state = {_STATE + name: value for name, value in trainer.generator.state_dict().items()}
    return {**state, "losses": means, "classes": history.class_histograms}


def _guide(client: Client, settings: GeneratorSettings) -> Classifier:
    """Return the classifier that guides the generator: the client's own, trained model."""
    if not settings.guide_epochs:
        return client.local_model()
    model = client.initial_model()
    batches = math.ceil(client.num_samples / client.recipe.batch_size)
    client.train(model, steps=settings.guide_epochs * batches)
    return model.eval()


def _report(client: Client, means: Tensor, histograms: Tensor, steps: int) -> None:
    """Report the intervals' mean losses, also of a generator that was trained in another run."""
    interval = math.ceil(steps / HISTORY_POINTS)
    for index, (row, histogram) in enumerate(zip(means, histograms, strict=True)):
        values = dict(zip(adversarial.LOSS_NAMES, row.tolist(), strict=True))
        done = min((index + 1) * interval, steps)
        client.report(done, steps, **values, classes=effective_classes(histogram))


def effective_classes(counts: Tensor) -> float:
    """Return exp of the entropy of counts [C]: 1 for one class alone, C for equal ones."""
    shares = counts.double() / counts.sum().clamp(min=1)
    return float(torch.special.entr(shares).sum().exp())


@lru_cache(maxsize=1)
def _code_digest() -> str:
    """Return the digest of the code that makes a generator, of its words, too.

    So an edited comment of these modules has all clients train their generators anew.
    """
    source = "".join(inspect.getsource(module) for module in _CODE)
    return sha256(source.encode()).hexdigest()[:16]


def prototype_upload(client: Client, model: Classifier, clusters: int) -> Upload:
    """Return the prototypes of all of the client's images: features, and how many of each class.

    One full pass in evaluation mode, without augmentation, in exact precision. It shares no
    order and no stream with training (the published code takes both from one unshuffled
    iterator).
    """
    normalization = client.task.normalization
    batches = (normalization.from_uint8(part) for part in torch.split(client.images, FEATURE_BATCH))
    features = collect_features(model, batches)
    made = class_prototypes(features, client.labels, clusters)
    per_class = torch.bincount(made.labels, minlength=client.task.num_classes)
    return Upload(
        {"prototypes": {"features": made.features}}, {"prototypes_per_class": per_class.tolist()}
    )


def feature_space(settings: PrototypeSettings, window: int) -> str:
    """Return whose features prototypes are, ``local`` or ``start``.

    Parameters
    ----------
    settings : PrototypeSettings
        What was asked for.
    window : int
        The clients' window, which is the number of warm-up rounds.
    """
    if settings.space != "auto":
        return settings.space
    return "start" if window or settings.rounds > 1 else "local"


def client_upload(client: Client, broadcast: Broadcast, settings: MosaicSettings) -> Upload:
    """Return what a client uploads in a round.

    Before and in the exchange its model and prototypes, in the first round its generator and
    label counts besides; after the exchange its fine-tuned model.
    """
    protocol, prototypes = settings.protocol, settings.prototypes
    start = client.initial_model()
    if broadcast.parts:
        start.load_state_dict(dict(broadcast.parts["model"]))
    if client.round >= prototypes.rounds:
        client.train(start, steps=protocol.round_steps, lr=protocol.finetune_lr)
        return Upload({"model": start.state_dict()}, {"samples": client.num_samples})
    if prototypes.rounds == 1:
        model = client.local_model()
    else:
        model = copy.deepcopy(start)
        client.train(model, steps=protocol.round_steps)
    parts: dict[str, Mapping[str, Tensor]] = {"model": model.state_dict()}
    values: dict[str, Any] = {"samples": client.num_samples}
    if settings.teacher.meta == "prototypes":
        shared = feature_space(prototypes, client.info.window) == "start"
        made = prototype_upload(client, start if shared else model, prototypes.clusters)
        parts |= made.parts
        values |= made.values
    if client.round == 0:
        published = protocol.schedule == "published"
        parts["generator"] = trained_generator(client, settings.generator, published=published)
        parts["counts"] = {"labels": client.label_counts}
    return Upload(parts, values)
