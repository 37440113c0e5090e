"""The Mosaic teacher, made of uploads: experts of any widths, and the meta model over them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch

from benchmark.contract import Server, Upload, parameter
from benchmark.models.submodel import scatter
from methods.blocks.composition import (
    Materials,
)
from methods.blocks.runtime import Precision
from methods.mosaic.experts import Experts, LogitExperts, MosaicTeacher, ParameterExperts
from methods.mosaic.images import mixture_of, sizes_of
from methods.mosaic.meta import OwnClass, make_meta
from methods.mosaic.meta_training import (
    ImageBatches,
    PrototypeBatches,
    TrainedMeta,
    mean_expert_label,
    train_meta,
)
from methods.mosaic.mixing import ExpertMixer, ExpertWeights, expert_weights
from methods.mosaic.prototypes import Prototypes, join_prototypes, scatter_features
from methods.mosaic.settings import (
    MetaSettings,
    PixelRange,
    PrototypeSettings,
    TeacherSettings,
)


class ClassExperts(TeacherSettings):
    """Settings of the experts, and of what combines them."""

    prototypes: PrototypeSettings = parameter(PrototypeSettings(), "The clients' prototypes.")
    meta_model: MetaSettings = parameter(MetaSettings(), "The meta model and its training.")
    pixel_range: PixelRange = parameter(
        "unified", "What generated images are shown to the meta model in, see the generator's."
    )


def read_prototypes(server: Server, uploads: Mapping[int, Upload]) -> list[Prototypes]:
    """Return the clients' prototypes; a narrower client's stand at the positions it owns."""
    unequal = len({info.width for info in server.clients}) > 1
    found = []
    for index in sorted(uploads):
        counts = torch.tensor(uploads[index].values["prototypes_per_class"])
        features = uploads[index].parts["prototypes"]["features"]
        if unequal:
            sets = server.index_sets(index)
            length = server.initial_model().num_features
            features = scatter_features(features, sets.features, length)
        found.append(Prototypes(features, torch.repeat_interleave(counts)))
    return found


def make_experts(materials: Materials, settings: TeacherSettings) -> tuple[Experts, ExpertWeights]:
    """Make one expert per class from the clients' models."""
    server, uploads = materials.server, materials.uploads
    weights = expert_weights(materials.label_counts, torch.tensor(sizes_of(materials)))
    if settings.experts == "logit":
        models = [server.client_model(i, uploads[i].parts["model"]) for i in sorted(uploads)]
        for model in models:
            materials.precision.prepare(model)
        return LogitExperts(models, weights), weights
    frame = server.initial_model()
    states = [uploads[index].parts["model"] for index in sorted(uploads)]
    masks = None
    like = frame.state_dict()
    if len({info.width for info in server.clients}) > 1:
        pairs = [
            scatter(state, server.index_sets(index), like)
            for index, state in zip(sorted(uploads), states, strict=True)
        ]
        states, masks = [full for full, _ in pairs], [mask for _, mask in pairs]
    mixer = ExpertMixer(states, weights, masks=masks, fill=settings.unheld_channels, previous=like)
    materials.precision.prepare(frame)
    return ParameterExperts(frame, mixer, settings.experts_in_memory), weights


@dataclass(frozen=True)
class ExpertTeacher:
    """A teacher, with what is worth knowing of it.

    Parameters
    ----------
    teacher : MosaicTeacher
        The part.
    weights : ExpertWeights
        Who counts for which expert.
    meta : TrainedMeta or None
        The meta model and its losses.
    """

    teacher: MosaicTeacher
    weights: ExpertWeights
    meta: TrainedMeta | None


def build_teacher(
    materials: Materials, settings: ClassExperts, prototypes: Sequence[Prototypes] | None = None
) -> ExpertTeacher:
    """Make experts and train the meta model over them.

    Parameters
    ----------
    materials : Materials
        Uploads with label counts, and prototypes or generators if the meta model learns
        from them.
    settings : ClassExperts
        Everything about experts and meta model.
    prototypes : sequence of Prototypes, optional
        In place of those in the uploads, such as those of many rounds.

    Raises
    ------
    UserError
        If what the meta model learns from was not uploaded.
    DivergedError
        If the meta model's loss was NaN or infinite.
    """
    server, meta = materials.server, settings.meta_model
    experts, weights = make_experts(materials, settings)
    # Becomes exact when the record is made.
    precision = partial(_precision_of, materials)
    if settings.meta in ("none", "own_class"):
        untrained = OwnClass() if settings.meta == "own_class" else None
        return ExpertTeacher(MosaicTeacher(experts, untrained, precision), weights, None)
    batches: PrototypeBatches | ImageBatches
    if settings.meta == "prototypes":
        found = read_prototypes(server, materials.uploads) if prototypes is None else prototypes
        joined = join_prototypes(found).to(server.device)
        batches = PrototypeBatches(experts, joined, meta.batch_size)
    else:
        mixture = mixture_of(materials, pixel_range=settings.pixel_range)
        batches = ImageBatches(experts, mixture.draw, mean_expert_label, meta.batch_size)
    fresh = make_meta(
        server.task.num_classes, experts.num_experts, meta, materials.stream("meta weights")
    )
    trained = train_meta(fresh, batches, meta, materials.stream("meta training"))
    return ExpertTeacher(MosaicTeacher(experts, trained.model, precision), weights, trained)


def _precision_of(materials: Materials) -> Precision:
    return materials.teaching
