"""The parts of DENSE and Co-Boosting, registered by name, and the oracle of real images.

Every number has its source in :mod:`methods.blocks.synthesis`, :mod:`methods.blocks.distill`
and :mod:`methods.blocks.teachers`, or here.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from benchmark.contract import Information
from benchmark.errors import UserError
from benchmark.specs import StudentSpec
from methods.blocks.composition import (
    IMAGES,
    PRESETS,
    STUDENTS,
    TEACHERS,
    Materials,
    Part,
    register,
    upload_label_counts,
)
from methods.blocks.distill import (
    CO_BOOSTING_DISTILLATION,
    DENSE_CB_DISTILLATION,
    DENSE_DISTILLATION,
    Distillation,
    DistilledStudent,
)
from methods.blocks.generator import DenseGenerator
from methods.blocks.image_sources import GeneratorImages, RealImages
from methods.blocks.pool import GrowingPool
from methods.blocks.synthesis import (
    CO_BOOSTING_SYNTHESIS,
    DENSE_CB_SYNTHESIS,
    DENSE_SYNTHESIS,
    Synthesis,
)
from methods.blocks.teachers import (
    Average,
    BoostedTeacher,
    ClassShareTeacher,
    MeanTeacher,
    WeightUpdate,
)

_PADDED_SIZE = 32
_COLOUR = 3


class ServerGenerator(Synthesis):
    """Settings of images made by a generator on the server.

    Parameters
    ----------
    synthesis_batch : int
        Images made together, kept as one batch.
    noise_size, generator_width : int
        Noise entries, and channels of the generator's last hidden layer (published codes:
        256 and 64).
    view : {"fixed", "clients"}
        Augmentation between generator and classifiers: ``crop_padding`` (pixels of a 32×32
        image) and ``flip`` as they are set, or what the clients train with.
    reading : {"dense", "clients", "none"}
        Augmentation of stored images when they are read: DENSE's (flip, and crop as well
        where images have colour; published for CIFAR alone), what the clients train with
        (Co-Boosting, published code), or none.
    """

    synthesis_batch: int = Field(default=256, ge=1)
    noise_size: int = Field(default=256, ge=1)
    generator_width: int = Field(default=64, ge=1)
    view: Literal["fixed", "clients"] = "fixed"
    reading: Literal["dense", "clients", "none"] = "dense"


class RealSettings(BaseModel):
    """Settings of real images.

    Parameters
    ----------
    synthesis_batch : int
        Sets how many epochs there are, as if that many images came with each.
    reading : {"clients", "none"}
        Augmentation when images are read.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    synthesis_batch: int = Field(default=256, ge=1)
    reading: Literal["clients", "none"] = "clients"


class ClassShareSettings(BaseModel):
    """Settings of class shares.

    Parameters
    ----------
    average : {"logits", "probabilities"}
        What of the clients' outputs is averaged.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    average: Average = "logits"


class NoSettings(BaseModel):
    """Nothing to set."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def _server_generator(preset: Synthesis, **values: Any) -> ServerGenerator:
    return ServerGenerator.model_validate({**preset.model_dump(), **values})


#: The published settings of the three image sources (README command, ``dense.sh``,
#: ``co_boosting.sh``).
DENSE_IMAGES = _server_generator(DENSE_SYNTHESIS)
DENSE_CB_IMAGES = _server_generator(DENSE_CB_SYNTHESIS, synthesis_batch=128, reading="clients")
CO_BOOSTING_IMAGES = _server_generator(
    CO_BOOSTING_SYNTHESIS, synthesis_batch=128, reading="clients"
)
CO_BOOSTING_TEACHER = WeightUpdate(missing_labels="ensemble")


def _padding(pixels: int, image_size: int) -> int:
    """Return a padding that is published for 32×32 images at another size."""
    return round(pixels * image_size / _PADDED_SIZE)


def _pool(materials: Materials, reading: str, capacity: int) -> GrowingPool:
    task = materials.server.task
    padding, flip = 0, False
    if reading == "clients":
        padding, flip = task.crop_padding, task.flip
    elif reading == "dense":
        padding = _padding(4, task.image_size) if task.channels == _COLOUR else 0
        flip = True
    return GrowingPool(
        (task.channels, task.image_size, task.image_size),
        task.normalization,
        device=materials.device,
        capacity=capacity,
        crop_padding=padding,
        flip=flip,
    )


def generator_images(materials: Materials, settings: ServerGenerator) -> GeneratorImages:
    """Make the source of images that a server's generator invents."""
    task = materials.server.task
    clients = settings.view == "clients"
    padding = task.crop_padding if clients else _padding(settings.crop_padding, task.image_size)
    flip = task.flip if clients else settings.flip
    synthesis = settings.model_copy(update={"crop_padding": padding, "flip": flip})
    generator = DenseGenerator(
        materials.stream("first generator"),
        image_size=task.image_size,
        channels=task.channels,
        noise_size=settings.noise_size,
        width=settings.generator_width,
    ).to(materials.device)
    return GeneratorImages(
        generator,
        _pool(materials, settings.reading, materials.budget.generated_images),
        num_classes=task.num_classes,
        settings=synthesis,
        normalization=task.normalization,
        stream=materials.stream("images"),
        ensemble=materials.ensemble,
        precision=materials.precision,
    )


def real_images(materials: Materials, settings: RealSettings) -> RealImages:
    """Make the oracle: all clients' training images in place of invented ones."""
    oracle = materials.oracle
    if oracle is None:
        raise UserError("images 'real' are an oracle; only a reference row may use them")
    pool = _pool(materials, settings.reading, len(oracle.labels))
    pool.add(oracle.images, oracle.labels)
    return RealImages(pool)


def distilled_student(
    materials: Materials, settings: Distillation, model: Any, rule: StudentSpec
) -> DistilledStudent:
    """Make a student that learns by T² · KL."""
    task = materials.server.task
    return DistilledStudent(
        model,
        settings.model_copy(update={"batch_norm": rule.batch_norm}),
        normalization=task.normalization,
        num_classes=task.num_classes,
        generator=materials.stream("student"),
        precision=materials.precision,
    )


def _mean(materials: Materials, settings: NoSettings) -> MeanTeacher:
    return MeanTeacher(materials.ensemble)


def _class_share(materials: Materials, settings: ClassShareSettings) -> ClassShareTeacher:
    return ClassShareTeacher(materials.ensemble, materials.label_counts, settings.average)


def _boosted(materials: Materials, settings: WeightUpdate) -> BoostedTeacher:
    return BoostedTeacher(materials.ensemble, settings, materials.stream("teacher"))


for _name, _summary, _settings in (
    ("dense", "generator against the ensemble, disagreements only (DENSE)", DENSE_IMAGES),
    ("dense_cb", "the same as Co-Boosting's code has it", DENSE_CB_IMAGES),
    ("co_boosting", "generator with hardness weights, unmasked", CO_BOOSTING_IMAGES),
):
    register(IMAGES, Part(_name, _summary, _settings, generator_images))

register(
    IMAGES,
    Part(
        "real",
        "all clients' training images (oracle)",
        RealSettings(),
        real_images,
        uses=frozenset({Information.ALL_DATA}),
        oracle=True,
    ),
)

register(TEACHERS, Part("mean", "mean of the clients' logits", NoSettings(), _mean))
register(
    TEACHERS,
    Part(
        "class_share",
        "each logit, or probability, weighted by the client's share of the class",
        ClassShareSettings(),
        _class_share,
        uses=frozenset({Information.LABEL_COUNTS}),
        upload=upload_label_counts,
    ),
)
register(
    TEACHERS,
    Part(
        "boosted",
        "weighted logits, weights improved on the pool",
        CO_BOOSTING_TEACHER,
        _boosted,
        several_epochs=True,
    ),
)

for _name, _summary, _student in (
    ("dense", "T² · KL at T = 20, plain SGD", DENSE_DISTILLATION),
    ("dense_cb", "T² · KL at T = 4, SGD with cosine schedule and clipping", DENSE_CB_DISTILLATION),
    ("co_boosting", "the same on perturbed images", CO_BOOSTING_DISTILLATION),
):
    register(STUDENTS, Part(_name, _summary, _student, distilled_student))

PRESETS["dense"] = ("dense", "mean", "dense")
PRESETS["dense_cb"] = ("dense_cb", "mean", "dense_cb")
PRESETS["co_boosting"] = ("co_boosting", "boosted", "co_boosting")
