"""Mosaic's hyper-parameters, and its presets as data: every value with its source.

The class defaults are the preset ``described`` (the method with all four generator
losses, as the paper is described); ``code`` lists where the published program differs from
it, and why.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal

from pydantic import ValidationError

from benchmark.contract import MethodConfig, parameter
from benchmark.errors import UserError, unknown
from benchmark.specs import ScenarioSpec

PixelRange = Literal["unified", "raw"]


class GeneratorSettings(MethodConfig):
    """A client's generator: networks, optimiser and loss weights."""

    noise: int = parameter(100, "Length of the noise vector.", source="code", ge=1)
    width: int = parameter(
        64, "Channels of the generator's last hidden layer (ngf).", source="code", ge=1
    )
    discriminator_width: int = parameter(
        64, "Channels of the discriminator's first layer (ndf).", source="code", ge=1
    )
    follows_width: bool = parameter(
        False, "Whether both networks are as narrow as the client's own model."
    )
    guide_epochs: int = parameter(
        0,
        "Epochs for which a classifier of its own is trained to guide the generator (published: "
        "50); 0 takes the client's local model, which is there already.",
        unit="epochs",
        ge=0,
    )
    batch_size: int = parameter(64, "Real and generated images of a step.", source="code", ge=1)
    epochs: int = parameter(
        200, "Passes over the client's images, where no budget says otherwise.", source="code", ge=1
    )
    lr: float = parameter(2e-4, "Adam's learning rate, both networks.", source="code", gt=0)
    beta1: float = parameter(0.5, "Adam's first decay.", source="code", ge=0, lt=1)
    beta2: float = parameter(0.999, "Adam's second decay.", source="code", ge=0, lt=1)
    entropy: float = parameter(1.0, "Weight λe of the entropy of each image's label.", ge=0)
    diversity: float = parameter(
        5.0, "Weight λd of the batch's negative label entropy.", source="code", ge=0
    )
    inversion: float = parameter(
        10.0, "Weight λi of the batch-norm inversion term.", source="code", ge=0
    )
    inversion_scale: float = parameter(
        1e-3, "Scale s inside the inversion term; the paper states none.", source="code", ge=0
    )
    threshold: int = parameter(
        2500,
        "Threshold τ: clients with fewer samples get the inversion term. The paper states no "
        "value; half the mean client of CIFAR-10 over ten.",
        unit="samples",
        ge=0,
    )
    pixel_range: PixelRange = parameter(
        "unified",
        "'unified': discriminator in tanh range, classifier in its own. 'raw': generated images "
        "reach the classifier as they leave tanh, real ones the discriminator as normalised.",
    )

    def of_width(self, width: Fraction) -> GeneratorSettings:
        """Return the settings of a client whose model keeps ``width`` of its channels."""
        if not self.follows_width:
            return self
        widths = {
            "width": math.ceil(self.width * width),
            "discriminator_width": math.ceil(self.discriminator_width * width),
        }
        return self.model_copy(update=widths)

    def loss_weights(self, num_samples: int) -> LossWeights:
        """Return the loss weights of a client with ``num_samples`` samples."""
        low_data = num_samples < self.threshold
        inversion = self.inversion * self.inversion_scale if low_data else 0.0
        return LossWeights(self.entropy, self.diversity, inversion)


@dataclass(frozen=True)
class LossWeights:
    """Weights of the generator's loss beside the adversarial term, whose weight is 1.

    Parameters
    ----------
    entropy, diversity : float
        λe and λd.
    inversion : float
        λi times the scale s; 0 switches the term off.
    """

    entropy: float = 0.0
    diversity: float = 0.0
    inversion: float = 0.0


class ImageSettings(MethodConfig):
    """How the server draws images from the clients' generators."""

    pool: Literal["stored", "fresh"] = parameter(
        "stored",
        "'stored': the images that the budget grants are drawn once and passed over again and "
        "again, as every method does. 'fresh': new images at every step (published).",
    )
    shares: Literal["equal", "size"] = parameter(
        "equal", "Images per generator: equal, or in proportion to client sizes.", source="code"
    )


class PrototypeSettings(MethodConfig):
    """Class prototypes, the meta model's training data."""

    clusters: int = parameter(10, "Centres k per client and class.", source="code", ge=1)
    space: Literal["auto", "local", "start"] = parameter(
        "auto",
        "Whose features: 'local' the client's own trained model's, 'start' those of the model "
        "that its training starts from, which all clients share (published). 'auto': start "
        "after a warm-up, local without one, where the start is random.",
    )
    rounds: int = parameter(
        1, "Rounds that end in the exchange, prototypes sent in each (published: 41).", ge=1
    )
    kept: Literal["last", "all"] = parameter(
        "last", "Prototypes of the last of these rounds, or of all, stale backbones included."
    )


class MetaSettings(MethodConfig):
    """The meta model over the experts' outputs, and its training."""

    variant: Literal["auto", "sum", "mean"] = parameter(
        "auto",
        "'sum': tokens of C·C entries, sum over experts; 'mean': 10·C entries, mean over experts; "
        "'auto': sum up to ten classes, mean above (published: CIFAR-10 sum, CIFAR-100 mean).",
    )
    dropout: float = parameter(0.2, "Dropout in the transformer.", source="code", ge=0, lt=1)
    feedforward: int = parameter(2048, "Hidden units of a transformer layer.", source="code", ge=1)
    expert_embedding: bool = parameter(
        False, "Whether each expert has a learned vector, so that order matters.", source="code"
    )
    steps: int = parameter(
        150, "Adam steps (published: 30 times 5; 250 for alpha ≥ 0.1).", source="code", ge=1
    )
    batch_size: int = parameter(128, "Prototypes or images of a step.", source="code", ge=1)
    lr: float = parameter(1e-3, "Adam's learning rate.", source="code", gt=0)
    ema_decay: float = parameter(0.99, "Decay of the weight average.", source="code", ge=0, lt=1)
    bias_correction: bool = parameter(
        True, "Whether the weight average forgets the random initial weights at once."
    )

    def pooling(self, num_classes: int) -> Literal["sum", "mean"]:
        """Return how experts are pooled for ``num_classes`` classes."""
        if self.variant == "auto":
            return "sum" if num_classes <= 10 else "mean"
        return self.variant


class TeacherSettings(MethodConfig):
    """Which experts there are, and what combines them."""

    experts: Literal["parameter", "logit"] = parameter(
        "parameter",
        "'parameter': an expert is an average of the clients' weights. 'logit': of their "
        "outputs, for any architectures (ours).",
        source="paper",
    )
    meta: Literal["prototypes", "synthetic", "none", "own_class"] = parameter(
        "prototypes",
        "What the meta model learns from: the clients' prototypes, or generated images (the "
        "paper's negative result); 'none' takes the experts' plain mean. 'own_class' (ours) "
        "asks each expert for the probability of its own class alone, and learns nothing.",
        source="paper",
    )
    unheld_channels: Literal["zero", "global"] = parameter(
        "zero",
        "With unequal widths, what an expert has where no holder of its class has a channel: "
        "nothing, or the average of all clients.",
    )
    experts_in_memory: int = parameter(
        16, "Experts held as models at once; others are built when they are asked.", ge=0
    )

    def unsupported(self, scenario: ScenarioSpec) -> str | None:
        """Refuse logit experts on prototypes of different lengths."""
        foreign = self.experts == "logit" and self.meta == "prototypes"
        if foreign and not scenario.homogeneous:
            return (
                "the heads of unequal models can't read each other's prototypes; "
                "use meta=synthetic, none or own_class with experts=logit"
            )
        return None


class DistillationSettings(MethodConfig):
    """The student's loss and optimiser."""

    temperature: float = parameter(1.0, "Temperature T.", source="code", gt=0)
    alpha: float = parameter(
        0.8, "Soft share; the hard term has 1 - alpha.", source="code", ge=0, le=1
    )
    beta: float = parameter(1.0, "Weight of the Bhattacharyya term.", source="code", ge=0)
    steps: int = parameter(
        1500,
        "Adam steps where no budget says otherwise (2500 published for alpha ≥ 0.1).",
        source="code",
        ge=1,
    )
    images_per_client: int = parameter(
        32, "Images of a step, times the number of clients.", source="code", ge=1
    )
    lr: float | None = parameter(
        None,
        "Adam's learning rate. By default 1e-4 for a student that starts from the aggregate "
        "(published; CIFAR-100: 1e-5), and 1e-3 for one that starts from random weights (ours).",
        gt=0,
    )


class ProtocolSettings(MethodConfig):
    """What surrounds the exchange."""

    student: Literal["scenario", "native"] = parameter(
        "scenario",
        "How the student starts and treats batch norm: as the scenario says for all methods, or "
        "as published: from the aggregate, statistics frozen.",
    )
    schedule: Literal["profile", "published"] = parameter(
        "profile",
        "Whose steps: the profile's budget, the same for all methods, or the generator's epochs "
        "and the distillation's steps below.",
    )
    round_steps: int = parameter(
        10, "SGD steps of a client in a round beside the exchange.", source="code", ge=1
    )
    finetune_rounds: int = parameter(
        0, "Rounds of federated averaging from the distilled model (published: 39).", ge=0
    )
    finetune_lr: float = parameter(1e-4, "Learning rate of these rounds.", source="code", gt=0)


class MosaicSettings(MethodConfig):
    """All parts' settings."""

    generator: GeneratorSettings = GeneratorSettings()
    images: ImageSettings = ImageSettings()
    teacher: TeacherSettings = TeacherSettings()
    prototypes: PrototypeSettings = PrototypeSettings()
    meta: MetaSettings = MetaSettings()
    distillation: DistillationSettings = DistillationSettings()
    protocol: ProtocolSettings = ProtocolSettings()


@dataclass(frozen=True)
class Choice:
    """A value with its source and the reason for it."""

    value: Any
    source: Literal["paper", "code", "ours"]
    reason: str


_CODE: dict[str, Choice] = {
    "generator.entropy": Choice(0.0, "code", "the published call passes weight 0"),
    "generator.inversion": Choice(0.0, "code", "disabled in every published call"),
    "generator.pixel_range": Choice("raw", "code", "no conversion between tanh and normalised"),
    "images.pool": Choice("fresh", "code", "320 fresh images at every step"),
    "prototypes.space": Choice("start", "code", "features of the incoming global model"),
    "prototypes.kept": Choice("all", "code", "the server's list is never cleared"),
    "protocol.student": Choice("native", "code", "from the aggregate, in evaluation mode"),
    "meta.bias_correction": Choice(False, "code", "plain moving average from the initial weights"),
}
PRESETS: Mapping[str, Mapping[str, Choice]] = {"described": {}, "code": _CODE}
"""Presets by name: what differs from the class defaults, keyed ``section.field``."""


def preset_settings(
    preset: str = "described", overrides: Mapping[str, Any] | None = None
) -> MosaicSettings:
    """Return the settings of a preset.

    Parameters
    ----------
    preset : str
        ``"described"`` or ``"code"``.
    overrides : mapping of str to object, optional
        Values that win over the preset, keyed ``section.field``.

    Raises
    ------
    UserError
        If the preset or a key is unknown, or a value is out of its limits.
    """
    if preset not in PRESETS:
        raise unknown("Mosaic preset", preset, PRESETS)
    chosen = {key: choice.value for key, choice in PRESETS[preset].items()} | dict(overrides or {})
    sections: dict[str, dict[str, Any]] = {}
    for key, value in chosen.items():
        if key not in _fields():
            raise unknown("Mosaic setting", key, _fields())
        section, field = key.split(".")
        sections.setdefault(section, {})[field] = value
    try:
        return MosaicSettings.model_validate(sections)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise UserError(f"{place}: {first['msg']}, got {first['input']!r}") from None


def preset_choices(preset: str) -> dict[str, Choice]:
    """Return every value of a preset with its source and meaning, keyed ``section.field``."""
    if preset not in PRESETS:
        raise unknown("Mosaic preset", preset, PRESETS)
    return {**_fields(), **PRESETS[preset]}


def _fields() -> dict[str, Choice]:
    sections: dict[str, type[MethodConfig]] = {
        name: info.annotation  # type: ignore[misc]
        for name, info in MosaicSettings.model_fields.items()
        if info.annotation is not None
    }
    choices = {}
    for section, model in sections.items():
        for name, info in model.model_fields.items():
            extra = info.json_schema_extra if isinstance(info.json_schema_extra, dict) else {}
            source: Any = extra.get("source", "ours")
            choices[f"{section}.{name}"] = Choice(info.default, source, info.description or "")
    return choices
