"""What the Mosaic server makes of the uploads: experts, meta model, images, student."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from benchmark.aggregation import weighted_average
from benchmark.contract import Generated, GlobalModel, Server, Upload
from benchmark.flops import counted
from benchmark.models.submodel import SubmodelUpload, aggregate
from benchmark.specs import BudgetSpec, StudentSpec
from methods.blocks.composition import Materials
from methods.blocks.parts import Counters, Pool, distil
from methods.blocks.schedule import Budget, single_epoch
from methods.blocks.student_start import starting_model
from methods.mosaic.client import feature_space
from methods.mosaic.diagnosis import (
    Progress,
    look_at_generators,
    meta_space,
    thinned,
    uploaded_bytes,
    warn_of_experts,
    warn_of_inversion,
    warn_of_meta,
)
from methods.mosaic.experts import MosaicTeacher
from methods.mosaic.images import ClientGenerators, make_images, sizes_of
from methods.mosaic.influence import Influence, expert_influence
from methods.mosaic.parts import make_student
from methods.mosaic.prototypes import Prototypes
from methods.mosaic.settings import MosaicSettings
from methods.mosaic.teaching import ClassExperts, ExpertTeacher, build_teacher

AGREEMENT_IMAGES = 512
INFLUENCE_IMAGES = 128
"""Images on which experts are asked one by one: its seconds count as the server's."""


def budget_of(settings: MosaicSettings, granted: BudgetSpec, clients: int) -> Budget:
    """Return what distillation may spend: the profile's budget, or the published steps."""
    images = settings.distillation.steps * settings.distillation.images_per_client * clients
    if settings.protocol.schedule == "published":
        return Budget(granted.generator_steps, images, images)
    return Budget(granted.generator_steps, granted.generated_images, granted.distilled_images)


def image_settings(settings: MosaicSettings) -> ClientGenerators:
    """Return the settings of the images part."""
    return ClientGenerators(**settings.generator.model_dump(), **settings.images.model_dump())


def teacher_settings(settings: MosaicSettings) -> ClassExperts:
    """Return the settings of the teacher part."""
    return ClassExperts(
        **settings.teacher.model_dump(),
        prototypes=settings.prototypes,
        meta_model=settings.meta,
        pixel_range=settings.generator.pixel_range,
    )


@dataclass
class Distilled:
    """What the exchange made.

    Parameters
    ----------
    model : Module
        The student.
    teacher : ExpertTeacher
        Its teacher.
    counters : Counters
        What was spent.
    progress : Progress
        The student's losses.
    agreement : float
        Share of distilled images on which student and teacher name the same class.
    influence : Influence or None
        Which experts decide on such images, where they are few enough to be asked one by one.
    rule : StudentSpec
        Start and batch norm of the student.
    generated : Generated
        Images that it learned from, to be measured.
    """

    model: nn.Module
    teacher: ExpertTeacher
    counters: Counters
    progress: Progress
    agreement: float
    influence: Influence | None
    rule: StudentSpec
    generated: Generated


def distil_mosaic(
    materials: Materials, settings: MosaicSettings, prototypes: Sequence[Prototypes] | None
) -> Distilled:
    """Make images, teacher and student, and run the loop."""
    server = materials.server
    native = StudentSpec(init="aggregate", batch_norm="freeze")
    rule = native if settings.protocol.student == "native" else server.student
    images = make_images(materials, image_settings(settings))
    teacher = build_teacher(materials, teacher_settings(settings), prototypes)
    student = make_student(
        materials,
        settings.distillation,
        starting_model(server, materials.uploads, rule.init),
        rule,
    )
    progress = Progress()

    def report(step: int, total: int, scalars: Mapping[str, float], model: nn.Module) -> None:
        progress.add(step, scalars)
        losses: dict[str, Any] = dict(scalars)
        server.report(step, total, model, teacher=teacher.teacher, **losses)

    seen: list[Pool] = []

    class Remembering:
        """Keeps the pool, to compare student and teacher on it."""

        def make(self, *given: Any) -> Pool:
            seen.append(images.make(*given))
            return seen[-1]

    schedule = single_epoch(materials.budget.distilled_images)
    # A copy: a fresh source goes on counting what it is asked for after the distillation.
    counters = replace(distil(schedule, Remembering(), teacher.teacher, student, report=report))
    materials.make_exact()
    agreement, influence = _look_back(materials, seen[-1], student.model, teacher.teacher)
    generated = images.generated()
    return Distilled(
        student.model, teacher, counters, progress, agreement, influence, rule, generated
    )


@counted()
@torch.no_grad()
def _look_back(
    materials: Materials, pool: Pool, student: nn.Module, teacher: MosaicTeacher
) -> tuple[float, Influence | None]:
    """Return how often student and teacher agree on the pool, and which experts decide there."""
    random = materials.stream("agreement")
    count = min(AGREEMENT_IMAGES, pool.size or AGREEMENT_IMAGES)
    same, logits = [], []
    student.eval()
    for batch in pool.batches(AGREEMENT_IMAGES, generator=random, images=count):
        logits.append(teacher.experts.logits(batch.images))
        same.append(student(batch.images).argmax(1) == teacher.combine(logits[-1]).argmax(1))
    agreement = float(torch.cat(same).double().mean())
    return agreement, expert_influence(torch.cat(logits)[:INFLUENCE_IMAGES], teacher.combine)


def exchange(
    uploads: Mapping[int, Upload],
    server: Server,
    settings: MosaicSettings,
    prototypes: Sequence[Prototypes] | None = None,
) -> GlobalModel:
    """Make the global model of the exchange's uploads.

    Parameters
    ----------
    uploads : mapping of int to Upload
        With parts ``model``, ``generator``, ``counts`` and, if they are read, ``prototypes``.
    server : Server
        Models, streams, budget.
    settings : MosaicSettings
        All of it.
    prototypes : sequence of Prototypes, optional
        Those of all rounds, where they are kept.
    """
    budget = budget_of(settings, server.budget, len(uploads))
    materials = Materials(server, uploads, budget)
    made = distil_mosaic(materials, settings, prototypes)
    with counted():
        look = look_at_generators(materials, settings)
    meta = made.teacher.meta
    warnings = [
        *look.warnings,
        *warn_of_experts(made.teacher.weights),
        *(warn_of_meta(meta.losses) if meta else []),
        *warn_of_inversion(server, settings, sizes_of(materials)),
        *made.progress.warn(made.agreement),
    ]
    details = _details(settings, materials, made) | {"generators": look.generators}
    return GlobalModel(
        made.model,
        made.teacher.teacher,
        details,
        look.images,
        tuple(warnings),
        made.generated,
    )


def _details(settings: MosaicSettings, materials: Materials, made: Distilled) -> dict[str, Any]:
    server, meta, weights = materials.server, made.teacher.meta, made.teacher.weights
    space = feature_space(settings.prototypes, server.clients[0].window)
    return {
        "label": f"mosaic (meta={settings.teacher.meta})",
        "protocol": _protocol(settings, server),
        "meta": settings.teacher.meta,
        "meta_space": meta_space(settings, space),
        "meta_losses": thinned(meta.losses) if meta else [],
        "meta_initial_share": meta.initial_share if meta else None,
        "experts": settings.teacher.experts,
        "expert_weights": weights.shares.tolist(),
        "unheld_classes": list(weights.unheld),
        "student_start": made.rule.init,
        "student_batch_norm": made.rule.batch_norm,
        "agreement": made.agreement,
        "influence": made.influence.for_record(weights.shares) if made.influence else None,
        "student_losses": [list(point) for point in made.progress.points],
        "budget": settings.protocol.schedule,
        "counters": asdict(made.counters),
        "bytes": {
            part: uploaded_bytes(materials.uploads, part)
            for part in ("model", "generator", "prototypes", "counts")
        },
        "windows": [server.index_sets(i).describe() for i in sorted(materials.uploads)]
        if len({info.width for info in server.clients}) > 1
        else [],
    }


def _protocol(settings: MosaicSettings, server: Server) -> str:
    """Name the reading of "one-shot" that a run follows."""
    if settings.prototypes.rounds > 1 or settings.protocol.finetune_rounds:
        return "P0: averaging rounds around the exchange, as the published program"
    if server.clients[0].window:
        return "P1: shared warm start, then one exchange"
    return "P2: strict one-shot"


def average(uploads: Mapping[int, Upload], server: Server) -> dict[str, Tensor]:
    """Average the uploaded models by sample counts; selectively where widths differ."""
    states = [uploads[index].parts["model"] for index in sorted(uploads)]
    weights = [float(uploads[index].values["samples"]) for index in sorted(uploads)]
    if len({info.width for info in server.clients}) == 1:
        return weighted_average(states, weights)
    parts = [
        SubmodelUpload(state, server.index_sets(index), None)
        for index, state in zip(sorted(uploads), states, strict=True)
    ]
    before = server.global_model.state_dict()
    return aggregate(before, parts, label_head=False, weights=weights)
