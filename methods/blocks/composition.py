"""Any combination of images, teacher and student, by name: where a method is put together.

A part is a name, its settings, what it makes them of, and what clients must upload for it.
Modules that bring parts register them here (:func:`register`); a named method is a preset
of three parts, and runs through :func:`compose` like any other combination, so that a
preset by its name and by its parts gives the same bits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any, Generic, Literal, TypeVar

import torch
from pydantic import BaseModel, ValidationError
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from benchmark.contract import Client, GlobalModel, Information, Oracle, Server, Upload
from benchmark.errors import UserError, unknown
from benchmark.specs import BudgetSpec, ScenarioSpec, StudentSpec
from benchmark.specs.base import explain
from methods.blocks.ensemble import ClientEnsemble
from methods.blocks.image_sources import GeneratorImages
from methods.blocks.parts import Counters, Generative, distil
from methods.blocks.runtime import Precision
from methods.blocks.schedule import Budget, EpochPlan, derive_schedule, split_epoch
from methods.blocks.student_start import starting_model

SAMPLES = 64
"""Generated images in a sample grid."""
SYNTHESIS_BATCH = 256
"""New images an epoch of a source that names no such number (that of DENSE)."""
EPOCHS = 10
"""Epochs that a single one is split into for a part that changes between epochs (ours).

A teacher that improves from one to the next, or a student whose learning rate is annealed.
"""

EXACT = Precision(memory_format=torch.channels_last)
"""How accuracy of record is computed, that of teachers too."""

Made = TypeVar("Made")
Setting = Literal["scenario", "native"]
Schedule = Callable[[Budget, Any], tuple[EpochPlan, ...]]
Parts = tuple[str, str, str]
"""Names of images, teacher and student."""


@dataclass(frozen=True, eq=False)
class Materials:
    """What parts are made of: the server, the uploads, and an oracle for those that need one.

    Parameters
    ----------
    server : Server
        Of the method that runs.
    uploads : mapping of int to Upload
        By client index; part ``model`` holds the client's state, other parts are those
        that a composition's parts ask for.
    budget : Budget
        What may be spent.
    oracle : Oracle, optional
        The clients' data, for parts that are marked as oracles.
    """

    server: Server
    uploads: Mapping[int, Upload]
    budget: Budget
    oracle: Oracle | None = None
    _exact: list[bool] = field(default_factory=list, repr=False)

    @property
    def device(self) -> torch.device:
        """Where everything runs."""
        return self.server.device

    @cached_property
    def precision(self) -> Precision:
        """The run's precision, in the channels-last layout."""
        return Precision(self.server.autocast, torch.channels_last)

    @property
    def teaching(self) -> Precision:
        """How teachers compute at this moment: reduced while they teach, then exact."""
        return EXACT if self._exact else self.precision

    def make_exact(self) -> None:
        """Have all teachers compute in exact precision from now on: accuracy of record is fp32.

        Teachers hold these materials: what they share is changed in place, though frozen.
        """
        self._exact.append(True)
        # Models of many clients are not loaded for that.
        if "ensemble" in self.__dict__:
            self.ensemble.precision = EXACT

    def client_model(self, client: int) -> nn.Module:
        """Return one client's model as the ensemble has it, loaded anew."""
        model = self.server.client_model(client, self.uploads[client].parts["model"])
        self.precision.prepare(model)
        return model

    @cached_property
    def ensemble(self) -> ClientEnsemble:
        """All clients' models, frozen; the same object for every part."""
        models = [
            self.server.client_model(index, self.uploads[index].parts["model"])
            for index in sorted(self.uploads)
        ]
        return ClientEnsemble(models, precision=self.teaching)

    @cached_property
    def label_counts(self) -> Tensor:
        """Samples of each class at each client, int64 [clients, classes].

        Only there if a part asked for it, see :func:`upload_label_counts`.
        """
        counts = [self.uploads[i].parts["counts"]["labels"] for i in sorted(self.uploads)]
        return torch.stack(counts).to(self.device)

    def stream(self, purpose: str) -> torch.Generator:
        """Return the method's random stream for a purpose."""
        return self.server.generator(purpose)


def upload_label_counts(client: Client, settings: Any) -> Upload:
    """Upload the label counts, for parts that use them."""
    return Upload({"counts": {"labels": client.label_counts}})


@dataclass(frozen=True)
class Part(Generic[Made]):
    """One way to fill a place of the loop.

    Parameters
    ----------
    name : str
        How a configuration calls it.
    summary : str
        One line.
    settings : BaseModel
        Its settings with their defaults; overrides are validated by its class.
    make : callable
        Makes the part of :class:`Materials` and settings. A student is made with the model
        to train and the rule for its start and batch norm besides.
    uses : frozenset of Information
        What it uses beyond the clients' weights.
    upload : callable, optional
        What a client uploads for it beside its model, ``upload(client, settings)``.
    schedule : callable, optional
        Images only: from the budget and the settings to the epochs.
    oracle : bool
        Whether it sees data that no method may see.
    several_epochs : bool
        Teachers only: whether it gets better from epoch to epoch, and so needs more than one.
    native : StudentSpec
        Students only: start and batch-norm rule of the published method.
    unsupported : callable, optional
        Why it can't run a scenario, or ``None`` if it can: ``unsupported(scenario, settings)``.
    """

    name: str
    summary: str
    settings: BaseModel
    make: Callable[..., Made]
    uses: frozenset[Information] = frozenset()
    upload: Callable[[Client, Any], Upload] | None = None
    schedule: Schedule | None = None
    oracle: bool = False
    several_epochs: bool = False
    native: StudentSpec = field(default_factory=StudentSpec)
    unsupported: Callable[[ScenarioSpec, Any], str | None] | None = None


IMAGES: dict[str, Part[Any]] = {}
TEACHERS: dict[str, Part[Any]] = {}
STUDENTS: dict[str, Part[Any]] = {}
"""Parts by name; they make :class:`~methods.blocks.parts.Images`, teachers and students."""
PRESETS: dict[str, Parts] = {}
"""Named methods by the names of their parts."""


def register(registry: dict[str, Part[Any]], part: Part[Any]) -> None:
    """Add a part to :data:`IMAGES`, :data:`TEACHERS` or :data:`STUDENTS`.

    Raises
    ------
    ValueError
        If another part has the name.
    """
    if registry.setdefault(part.name, part) is not part:
        raise ValueError(f"there are two parts of the name '{part.name}'")


@dataclass(frozen=True)
class Composition:
    """Three parts with their settings.

    Parameters
    ----------
    images, teacher, student : str
        Names of registered parts.
    images_settings, teacher_settings, student_settings : BaseModel
        Complete settings of each, of the class that the part has.
    student_setting : {"scenario", "native"}
        Whether the student starts and normalises as the scenario says (rule: one setting
        for all methods) or as its method was published.
    budget : Budget, optional
        A budget of its own (a published schedule) in place of the profile's.
    """

    images: str
    teacher: str
    student: str
    images_settings: BaseModel
    teacher_settings: BaseModel
    student_settings: BaseModel
    student_setting: Setting = "scenario"
    budget: Budget | None = None

    @property
    def parts(self) -> Parts:
        """Names of the three parts."""
        return self.images, self.teacher, self.student

    @property
    def chosen(self) -> tuple[tuple[Part[Any], BaseModel], ...]:
        """The three parts, each with its settings."""
        return (
            (IMAGES[self.images], self.images_settings),
            (TEACHERS[self.teacher], self.teacher_settings),
            (STUDENTS[self.student], self.student_settings),
        )

    @property
    def uses(self) -> frozenset[Information]:
        """All information that the parts use."""
        return frozenset({Information.WEIGHTS}).union(*(part.uses for part, _ in self.chosen))

    @property
    def oracle(self) -> bool:
        """Whether a part sees data that no method may see."""
        return any(part.oracle for part, _ in self.chosen)

    def unsupported(self, scenario: ScenarioSpec) -> str | None:
        """Return why one of the parts can't run a scenario, or ``None`` if all can."""
        for part, settings in self.chosen:
            reason = part.unsupported(scenario, settings) if part.unsupported else None
            if reason is not None:
                return reason
        return None

    def spendable(self, granted: BudgetSpec) -> Budget:
        """Return the budget to spend where a profile grants ``granted``."""
        return self.budget or Budget(
            granted.generator_steps, granted.generated_images, granted.distilled_images
        )


def resolve_settings(
    kind: str, registry: Mapping[str, Part[Any]], name: str, overrides: Mapping[str, Any]
) -> BaseModel:
    """Return the settings of a part with some of them overridden.

    Raises
    ------
    UserError
        If the part or a setting is unknown, or a value is wrong.
    """
    if name not in registry:
        raise unknown(kind, name, registry)
    default = registry[name].settings
    try:
        return type(default).model_validate({**default.model_dump(), **overrides})
    except ValidationError as error:
        raise UserError(f"{kind} '{name}': {explain(error, type(default))}") from None


def composition_upload(composition: Composition, client: Client) -> Upload:
    """Return the client's model, its sample count, and what the parts ask for besides.

    The count is read only where the scenario starts students from the aggregate.
    """
    parts: dict[str, Mapping[str, Tensor]] = {"model": client.local_model().state_dict()}
    values: dict[str, Any] = {"samples": client.num_samples}
    for part, settings in composition.chosen:
        if part.upload is not None:
            more = part.upload(client, settings)
            parts |= more.parts
            values |= more.values
    return Upload(parts, values)


def compose(
    composition: Composition,
    uploads: Mapping[int, Upload],
    server: Server,
    oracle: Oracle | None = None,
) -> GlobalModel:
    """Make the parts and run the loop.

    Parameters
    ----------
    composition : Composition
        Parts and settings.
    uploads : mapping of int to Upload
        What :func:`composition_upload` made.
    server : Server
        Gives models, streams and the budget.
    oracle : Oracle, optional
        Needed by parts that are marked as oracles.

    Raises
    ------
    UserError
        If the budget can't be kept, or two parts don't fit each other.
    DivergedError
        If a loss was NaN or infinite.
    """
    materials = Materials(server, uploads, composition.spendable(server.budget), oracle)
    images_part, student_part = IMAGES[composition.images], STUDENTS[composition.student]
    rule = server.student if composition.student_setting == "scenario" else student_part.native
    schedule = _schedule(composition, materials.budget)
    images = images_part.make(materials, composition.images_settings)
    teacher = TEACHERS[composition.teacher].make(materials, composition.teacher_settings)
    student = student_part.make(
        materials,
        composition.student_settings,
        starting_model(server, uploads, rule.init),
        rule,
    )

    judged = teacher if isinstance(teacher, nn.Module) else None

    def report(step: int, total: int, scalars: Mapping[str, float], model: nn.Module) -> None:
        losses: dict[str, Any] = dict(scalars)
        server.report(step, total, model, teacher=judged, **losses)

    counters = distil(schedule, images, teacher, student, report=report)
    materials.make_exact()
    details = _details(composition, rule, schedule, counters)
    if isinstance(weights := getattr(teacher, "weights", None), Tensor):
        details["teacher_weights"] = weights.tolist()
    samples = images.samples(SAMPLES) if isinstance(images, GeneratorImages) else None
    grids = {} if samples is None else {"generated": samples}
    made = images.generated() if isinstance(images, Generative) else None
    warnings = _warn_of_batch_norm(composition, server)
    return GlobalModel(student.model, judged, details, grids, warnings, generated=made)


def _schedule(composition: Composition, budget: Budget) -> tuple[EpochPlan, ...]:
    part, settings = IMAGES[composition.images], composition.images_settings
    if part.schedule is None:
        return derive_schedule(budget, getattr(settings, "synthesis_batch", SYNTHESIS_BATCH))
    plans = part.schedule(budget, settings)
    anneals = getattr(composition.student_settings, "cosine", False)
    if len(plans) == 1 and (anneals or TEACHERS[composition.teacher].several_epochs):
        return split_epoch(plans[0], EPOCHS)
    return plans


def _warn_of_batch_norm(composition: Composition, server: Server) -> tuple[str, ...]:
    """Say so if the generator's batch-norm term is asked for but has nothing to work on."""
    wanted = getattr(composition.images_settings, "batch_norm", 0.0) > 0
    if not wanted or any(isinstance(m, _BatchNorm) for m in server.initial_model().modules()):
        return ()
    return ("the generator's batch_norm term is 0: the clients' models have no batch norm",)


def _details(
    composition: Composition,
    rule: StudentSpec,
    schedule: tuple[EpochPlan, ...],
    counters: Counters,
) -> dict[str, Any]:
    return {
        "images": composition.images,
        "teacher": composition.teacher,
        "student": composition.student,
        "oracle": composition.oracle,
        "uses": sorted(str(item) for item in composition.uses),
        "student_start": rule.init,
        "student_batch_norm": rule.batch_norm,
        "budget": "own" if composition.budget else "profile",
        "epochs": len(schedule),
        "counters": asdict(counters),
    }
