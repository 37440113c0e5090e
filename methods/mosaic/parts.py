"""Mosaic as parts of a distillation method: clients' generators, experts, and its student.

They are registered for any combination: ``images=generators``, ``teacher=experts`` or
``experts_meta``, ``student=mosaic``.
"""

from __future__ import annotations

import torch

from benchmark.contract import Client, Information, Upload
from benchmark.specs import ScenarioSpec, StudentSpec
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
from methods.blocks.distill import Distillation, DistilledStudent
from methods.blocks.parts import Student, Teacher
from methods.blocks.schedule import Budget, EpochPlan, single_epoch
from methods.mosaic.client import feature_space, prototype_upload, trained_generator
from methods.mosaic.distillation import distillation_terms
from methods.mosaic.images import ClientGenerators, make_images
from methods.mosaic.settings import (
    DistillationSettings,
)
from methods.mosaic.teaching import ClassExperts, build_teacher

AHEAD = 512
"""Images that the teacher computes together."""


def one_epoch(budget: Budget, settings: ClientGenerators) -> tuple[EpochPlan, ...]:
    """Return the schedule: everything is drawn, and then distilled."""
    return single_epoch(budget.distilled_images)


def make_teacher(materials: Materials, settings: ClassExperts) -> Teacher:
    """Make the teacher part."""
    return build_teacher(materials, settings).teacher


def unsupported_teacher(scenario: ScenarioSpec, settings: ClassExperts) -> str | None:
    """Return why the teacher can't be made in a scenario, or ``None`` if it can."""
    return settings.unsupported(scenario)


def upload_for_teacher(client: Client, settings: ClassExperts) -> Upload:
    """Upload label counts, and prototypes where the meta model learns from them."""
    counts = upload_label_counts(client, settings)
    if settings.meta != "prototypes":
        return counts
    shared = feature_space(settings.prototypes, client.info.window) == "start"
    model = client.initial_model() if shared else client.local_model()
    made = prototype_upload(client, model, settings.prototypes.clusters)
    return Upload({**counts.parts, **made.parts}, made.values)


def upload_generator(client: Client, settings: ClientGenerators) -> Upload:
    """Upload the client's generator, trained for the steps of the budget."""
    return Upload({"generator": trained_generator(client, settings)})


def make_student(
    materials: Materials,
    settings: DistillationSettings,
    model: torch.nn.Module,
    rule: StudentSpec,
) -> Student:
    """Make the student part: Adam on soft, hard and Bhattacharyya terms."""
    task = materials.server.task
    batch = settings.images_per_client * len(materials.uploads)
    return DistilledStudent(
        model,
        Distillation(
            optimizer="adam",
            learning_rate=settings.lr or (1e-4 if rule.init == "aggregate" else 1e-3),
            temperature=settings.temperature,
            batch_size=batch,
            batch_norm=rule.batch_norm,
            ahead=max(batch, AHEAD),
            report_every=max(1, materials.budget.distilled_images // batch // 100),
        ),
        normalization=task.normalization,
        num_classes=task.num_classes,
        generator=materials.stream("student"),
        loss=lambda student, teacher: distillation_terms(student, teacher, settings).total,
        precision=materials.precision,
    )


register(
    IMAGES,
    Part(
        "generators",
        "samples of the clients' own generators (Mosaic)",
        ClientGenerators(),
        make_images,
        frozenset({Information.GENERATORS, Information.SAMPLE_COUNTS}),
        upload_generator,
        one_epoch,
    ),
)
for _name, _meta, _more in (
    ("experts", "none", frozenset[Information]()),
    ("experts_meta", "prototypes", frozenset({Information.PROTOTYPES})),
):
    register(
        TEACHERS,
        Part(
            _name,
            f"experts per class, {'their mean' if _meta == 'none' else 'a meta model'} (Mosaic)",
            ClassExperts(meta=_meta),
            make_teacher,
            frozenset({Information.LABEL_COUNTS, Information.SAMPLE_COUNTS}) | _more,
            upload_for_teacher,
            unsupported=unsupported_teacher,
        ),
    )
register(
    STUDENTS,
    Part(
        "mosaic",
        "soft labels, hard labels and Bhattacharyya distance (Mosaic)",
        DistillationSettings(),
        make_student,
        native=StudentSpec(init="aggregate", batch_norm="freeze"),
    ),
)
PRESETS["mosaic"] = ("generators", "experts_meta", "mosaic")
