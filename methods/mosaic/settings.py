"""Mosaic's hyper-parameters, and its presets as data: every value with its source.

Importing this module costs no torch. The class defaults are the preset ``described``
(the method with all four generator losses, as the paper is described); ``code`` lists
where the published program differs from it, and why.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import ValidationError

from benchmark.contract import MethodConfig, parameter
from benchmark.errors import UserError, unknown

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


class PrototypeSettings(MethodConfig):
    """Class prototypes, the meta model's training data."""

    clusters: int = parameter(10, "Centres k per client and class.", source="code", ge=1)
    rounds: Literal["last", "all"] = parameter(
        "last", "Prototypes of the last round, or of all rounds, stale backbones included."
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


class DistillationSettings(MethodConfig):
    """The student's loss and optimiser."""

    temperature: float = parameter(1.0, "Temperature T.", source="code", gt=0)
    alpha: float = parameter(0.8, "Soft share; the hard term has 1 - alpha.", source="code", ge=0)
    beta: float = parameter(1.0, "Weight of the Bhattacharyya term.", source="code", ge=0)
    steps: int = parameter(
        1500, "Adam steps (2500 published for alpha ≥ 0.1).", source="code", ge=1
    )
    images_per_client: int = parameter(
        32, "Fresh images of each generator in a step.", source="code", ge=1
    )
    shares: Literal["equal", "size"] = parameter(
        "equal", "Images per generator: equal, or in proportion to client sizes.", source="code"
    )
    lr: float = parameter(
        1e-4, "Adam's learning rate (1e-5 published for CIFAR-100).", source="code", gt=0
    )


class MosaicSettings(MethodConfig):
    """All parts' settings."""

    generator: GeneratorSettings = GeneratorSettings()
    prototypes: PrototypeSettings = PrototypeSettings()
    meta: MetaSettings = MetaSettings()
    distillation: DistillationSettings = DistillationSettings()


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
    "prototypes.rounds": Choice("all", "code", "the server's list is never cleared"),
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
        "generator": GeneratorSettings,
        "prototypes": PrototypeSettings,
        "meta": MetaSettings,
        "distillation": DistillationSettings,
    }
    choices = {}
    for section, model in sections.items():
        for name, info in model.model_fields.items():
            extra = info.json_schema_extra if isinstance(info.json_schema_extra, dict) else {}
            source: Any = extra.get("source", "ours")
            choices[f"{section}.{name}"] = Choice(info.default, source, info.description or "")
    return choices
