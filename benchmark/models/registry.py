"""Names of model families, and the checks that need no model. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass

from benchmark.errors import UserError, unknown
from benchmark.models.widths import as_width

TIMM_PREFIX = "timm:"
NATIVE_NORM = "native"


@dataclass(frozen=True)
class FamilyInfo:
    """What is known of a family without building it.

    Parameters
    ----------
    name : str
        The name used in flags and files.
    summary : str
        One line on the architecture.
    scalable : bool
        Whether widths below 1 can be built.
    norms : tuple of str
        Supported normalisation layers; the first is the family's default.
    min_image_size : int
        Smallest image side in pixels that the layers admit.
    """

    name: str
    summary: str
    scalable: bool
    norms: tuple[str, ...]
    min_image_size: int

    @property
    def default_norm(self) -> str:
        """The normalisation used when none is asked for."""
        return self.norms[0]


_FAMILIES = (
    FamilyInfo(
        "resnet18",
        "CIFAR-style ResNet-18: 3x3 stem without pooling, stages of 64-128-256-512 channels",
        scalable=True,
        norms=("batch", "group"),
        min_image_size=8,
    ),
    FamilyInfo(
        "cnn",
        "three 3x3 convolutions of 32-64-128 channels, each pooled; global average pooling",
        scalable=True,
        norms=("batch", "group", "none"),
        min_image_size=8,
    ),
    FamilyInfo(
        "lenet",
        "LeNet-5: 5x5 convolutions of 6-16-120 channels and a hidden layer of 84",
        scalable=True,
        norms=("batch", "group", "none"),
        min_image_size=32,
    ),
    FamilyInfo(
        "cnn_cifar",
        "DENSE's CIFAR network: three unpadded 3x3 convolutions of 128 channels, flattened",
        scalable=True,
        norms=("none", "batch", "group"),
        min_image_size=22,
    ),
    FamilyInfo(
        "cnn_mnist",
        "DENSE's MNIST network: two padded 5x5 convolutions of 16-32 channels, flattened",
        scalable=True,
        norms=("batch", "group", "none"),
        min_image_size=4,
    ),
)
_TIMM = FamilyInfo(
    "timm:NAME",
    "any timm classifier by name, randomly initialised, at width 1 with its own normalisation",
    scalable=False,
    norms=(NATIVE_NORM,),
    min_image_size=1,
)


def families() -> list[FamilyInfo]:
    """Return all families in the order they are listed; ``timm:NAME`` stands for all of timm."""
    return [*_FAMILIES, _TIMM]


def family_info(name: str) -> FamilyInfo:
    """Return the description of a family.

    Parameters
    ----------
    name : str
        A listed name, or ``timm:`` and a timm model name. Whether timm knows the name is not
        checked here, because that needs torch
        (:func:`benchmark.models.timm_models.check_timm_name`).

    Raises
    ------
    UserError
        If the family is unknown.
    """
    if name.startswith(TIMM_PREFIX) and len(name) > len(TIMM_PREFIX):
        return FamilyInfo(name, _TIMM.summary, _TIMM.scalable, _TIMM.norms, _TIMM.min_image_size)
    for info in _FAMILIES:
        if info.name == name:
            return info
    raise unknown("model", name, [info.name for info in families()])


def check_model(
    name: str, *, norm: str | None = None, width: object = 1, image_size: int = 32
) -> FamilyInfo:
    """Check a model request as far as that is possible without building it.

    Parameters
    ----------
    name : str
        Family name.
    norm : str or None
        Normalisation; None is the family's default.
    width : Fraction, int, float or str
        In (0, 1].
    image_size : int
        Image side in pixels.

    Returns
    -------
    FamilyInfo
        The family asked for.

    Raises
    ------
    UserError
        Naming the value that is wrong and what would be right.
    """
    info = family_info(name)
    if norm is not None and norm not in info.norms:
        raise unknown(f"norm of model '{name}'", norm, info.norms)
    if as_width(width) != 1 and not info.scalable:
        raise UserError(f"model {name!r} exists at width 1 only (--widths 1), got width {width}")
    if image_size < info.min_image_size:
        raise UserError(
            f"model {name!r} needs images of at least {info.min_image_size} pixels a side, "
            f"got {image_size}"
        )
    return info
