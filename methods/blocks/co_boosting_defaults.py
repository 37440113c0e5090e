"""The hyper-parameters that all scripts of Co-Boosting's repository share."""

from __future__ import annotations

from typing import Literal

from benchmark.contract import parameter
from methods.blocks.adversarial_config import AdversarialConfig


class CoBoostingDefaults(AdversarialConfig):
    """Defaults of ``dense.sh`` and ``co_boosting.sh`` alike (arXiv 2402.15070)."""

    synthesis_batch: int = parameter(
        128, "images made together in an epoch, the most", unit="images", source="code", ge=1
    )
    adversarial_temperature: float = parameter(
        3.0, "temperature T of the disagreement, whose factor is T²", source="code", gt=0
    )
    batch_norm: float = parameter(
        0.0,
        "weight of the batch-norm statistics term, averaged over the clients",
        source="code",
        ge=0,
    )
    generator_clip: float | None = parameter(
        10.0, "largest gradient norm of the generator, none if not given", source="code", gt=0
    )
    view: Literal["fixed", "clients", "none"] = parameter(
        "none",
        "augmentation between generator and classifiers: 'fixed' is a crop after padding by "
        "4 of 32 pixels, and a flip; 'clients' what the clients train with",
        source="code",
    )
    reading: Literal["dense", "clients", "none"] = parameter(
        "clients",
        "augmentation of the stored images: 'dense' flips, and crops where there is colour; "
        "'clients' is what the clients train with",
        source="code",
    )
    temperature: float = parameter(4.0, "temperature T of T² · KL", source="code", gt=0)
    lr: float = parameter(0.01, "learning rate of the student's SGD", source="code", gt=0)
    weight_decay: float = parameter(1e-4, "weight decay of the student's SGD", source="code", ge=0)
    cosine: bool = parameter(
        True, "whether the student's learning rate is annealed to 0 over the epochs", source="code"
    )
    clip: float | None = parameter(
        10.0, "largest gradient norm of the student, none if not given", source="code", gt=0
    )
    batch_size: int = parameter(
        128, "images of a distillation step", unit="images", source="code", ge=1
    )
