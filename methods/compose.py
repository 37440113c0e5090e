"""Any images, any teacher, any student: swap one part at a time, on the same clients.

Registered parts are named by ``python -m benchmark describe compose``. Mosaic's join when
Mosaic's plugin can be imported.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import JsonValue, model_validator

from benchmark.contract import (
    Broadcast,
    Client,
    GlobalModel,
    Information,
    MethodConfig,
    Oracle,
    Reference,
    Server,
    Upload,
    parameter,
)
from benchmark.errors import UserError, unknown
from benchmark.specs import BudgetSpec, ScenarioSpec
from methods.blocks import standard_parts  # noqa: F401 - registers the parts
from methods.blocks.composition import (
    IMAGES,
    PRESETS,
    STUDENTS,
    TEACHERS,
    Composition,
    compose,
    composition_upload,
    resolve_settings,
)

log = logging.getLogger(__name__)


def _load_optional_parts() -> bool:
    """Register the parts that come with Mosaic; without them the others can still be used."""
    try:
        from methods.mosaic import parts  # noqa: F401 - registers its parts
    except ImportError as error:
        log.debug("Mosaic's parts can't be used: %s", error)
        return False
    return True


_COMPLETE = _load_optional_parts()

Settings = dict[str, JsonValue]


class ComposeConfig(MethodConfig):
    """Three parts by name, each with its settings; what is not set is the part's own default."""

    images: str = parameter(
        "real",
        "who invents the images: dense, dense_cb, co_boosting, generators (of the clients, "
        "Mosaic), or real (an oracle: all clients' training images)",
    )
    teacher: str = parameter(
        "mean",
        "whom to believe: mean, class_share, boosted, or Mosaic's experts, experts_meta",
    )
    student: str = parameter(
        "dense", "how the global model learns: dense, dense_cb, co_boosting, mosaic"
    )
    images_settings: Settings = parameter({}, "settings of the images, by name")
    teacher_settings: Settings = parameter({}, "settings of the teacher, by name")
    student_settings: Settings = parameter({}, "settings of the student, by name")
    defaults: dict[str, dict[str, Settings]] = parameter(
        {},
        "settings by kind and part, such as images.dense, where images_settings and the others "
        "say nothing; a profile's, which narrow all parts as they narrow the named methods",
    )
    student_setting: Literal["scenario", "native"] = parameter(
        "scenario", "start and batch norm of the student: the scenario's, or the part's own"
    )

    @model_validator(mode="before")
    @classmethod
    def _complete(cls, values: Any) -> Any:
        """Write out all settings, so that a record says what was run."""
        if not isinstance(values, dict):
            return values
        completed = dict(values)
        defaults = completed.get("defaults") or {}
        if not _is_nested(defaults, 2):
            return values  # pydantic says what is wrong with it
        _refuse_strangers(defaults)
        for kind, registry in _REGISTRIES.items():
            name = completed.get(kind, cls.model_fields[kind].default)
            given = completed.get(f"{kind}_settings", {})
            if not isinstance(name, str) or not isinstance(given, Mapping):
                return values
            given = _merged(defaults.get(kind, {}).get(name, {}), given)
            try:
                settings = resolve_settings(kind, registry, name, given)
            except UserError as error:
                raise ValueError(str(error)) from None
            completed[f"{kind}_settings"] = settings.model_dump(mode="json")
        # What they say stands in the settings by now: equal settings are one run.
        return completed | {"defaults": {}}

    def composition(self) -> Composition:
        """Return the parts."""
        names = {"images": self.images, "teacher": self.teacher, "student": self.student}
        given = {
            "images": self.images_settings,
            "teacher": self.teacher_settings,
            "student": self.student_settings,
        }
        made = {
            kind: resolve_settings(kind, registry, names[kind], given[kind])
            for kind, registry in _REGISTRIES.items()
        }
        return Composition(
            self.images,
            self.teacher,
            self.student,
            made["images"],
            made["teacher"],
            made["student"],
            self.student_setting,
        )


def _is_nested(values: Any, depth: int) -> bool:
    """Return whether there are mappings in mappings, so many times."""
    if not isinstance(values, Mapping):
        return False
    return depth == 0 or all(_is_nested(value, depth - 1) for value in values.values())


def _refuse_strangers(defaults: Mapping[str, Mapping[str, Any]]) -> None:
    """Refuse defaults of parts that don't exist: they would have no effect, in silence.

    Where Mosaic can't be imported, a profile has settings for its parts all the same.
    """
    for kind, parts in defaults.items():
        if kind not in _REGISTRIES:
            raise ValueError(str(unknown("kind of parts", kind, _REGISTRIES)))
        for name in parts:
            if name not in _REGISTRIES[kind] and _COMPLETE:
                raise ValueError(str(unknown(kind, name, _REGISTRIES[kind])))


def _merged(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings with others laid over them, groups of settings key by key."""
    merged = {**under, **over}
    for key, value in over.items():
        if isinstance(value, Mapping) and isinstance(under.get(key), Mapping):
            merged[key] = _merged(under[key], value)
    return merged


_REGISTRIES: dict[str, Mapping[str, Any]] = {
    "images": IMAGES,
    "teacher": TEACHERS,
    "student": STUDENTS,
}


class Compose(Reference[ComposeConfig]):
    """Always a reference row, because one of its parts may see what no method may.

    The record says which parts ran, what they use, and whether one was an oracle.
    """

    name = "compose"
    summary = "reference: any parts put together; by default DENSE's student on real images"
    uses = frozenset({Information.WEIGHTS, Information.ALL_DATA})
    uploads = "the model's state dict, the sample count, and what the parts ask for"
    implemented = (
        "The loop of DENSE, Co-Boosting and Mosaic with parts by configuration. The parts of a "
        "named method give the same bits as that method."
    )
    Config = ComposeConfig

    @property
    def stream(self) -> str:
        """Name of the method that has these parts, for the same bits; else its own."""
        parts = self.config.composition().parts
        named = [name for name, preset in PRESETS.items() if preset == parts]
        return named[0] if named else self.name

    def unsupported(self, scenario: ScenarioSpec) -> str | None:
        """Refuse what one of the parts can't do."""
        return self.config.composition().unsupported(scenario)

    def workload(self, scenario: ScenarioSpec, samples: int, budget: BudgetSpec) -> int:
        """Return the student's images, each seen by all clients; without the generator's."""
        return round(budget.distilled_images * (1 + scenario.partition.clients / 3))

    def client_update(self, client: Client, broadcast: Broadcast) -> Upload:
        """Upload the local model, and what the parts ask for."""
        return composition_upload(self.config.composition(), client)

    def reference_update(
        self, uploads: Mapping[int, Upload], server: Server, oracle: Oracle
    ) -> GlobalModel:
        """Run the loop; only parts that are marked as oracles are given one."""
        composition = self.config.composition()
        return compose(composition, uploads, server, oracle if composition.oracle else None)
