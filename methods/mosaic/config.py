"""Mosaic's configuration as the command line writes it: one flat list of parameters.

Every setting of :mod:`methods.mosaic.settings` is a parameter, with the name of its section
in front (``generator_width``), except for the teacher's and the protocol's. A preset fills
in what is not given; the complete values stand in the run's spec.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import create_model, model_validator

from benchmark.contract import MethodConfig, parameter
from methods.mosaic.settings import PRESETS, MosaicSettings

_BARE = ("teacher", "protocol")
"""Sections whose parameters go without the section's name."""


def parameter_name(section: str, field: str) -> str:
    """Return what a setting is called in the flat configuration."""
    return field if section in _BARE else f"{section}_{field}"


def _names() -> dict[str, tuple[str, str]]:
    """Return section and field of each parameter, in order."""
    return {
        parameter_name(section, field): (section, field)
        for section, info in MosaicSettings.model_fields.items()
        for field in getattr(info.annotation, "model_fields", {})
    }


def _flat() -> type[MethodConfig]:
    """Make the class of all settings, from the very declarations of the sections."""
    fields: dict[str, Any] = {}
    for name, (section, field) in _names().items():
        declared = getattr(MosaicSettings.model_fields[section].annotation, "model_fields")[field]  # noqa: B009
        fields[name] = (declared.rebuild_annotation(), declared)
    made: type[MethodConfig] = create_model("AllSettings", __base__=MethodConfig, **fields)
    return made


if TYPE_CHECKING:
    AllSettings = MethodConfig
else:
    AllSettings = _flat()


class MosaicConfig(AllSettings):
    """Mosaic's hyper-parameters."""

    preset: Literal["described", "code"] = parameter(
        "described",
        "What fills in parameters that are not given: 'described', the method as the paper is "
        "described, or 'code', where the published program differs in terms, ranges and start. "
        "Its rounds, steps and guide besides are set by experiment mosaic_published.",
    )

    @model_validator(mode="before")
    @classmethod
    def _fill_in_the_preset(cls, values: Any) -> Any:
        if not isinstance(values, dict) or values.get("preset") not in PRESETS:
            return values  # the field's own check says what is wrong
        chosen = {
            parameter_name(*key.split(".")): choice.value
            for key, choice in PRESETS[values["preset"]].items()
        }
        return {**chosen, **values}

    def settings(self) -> MosaicSettings:
        """Return the settings by section."""
        sections: dict[str, dict[str, Any]] = {}
        for name, (section, field) in _names().items():
            sections.setdefault(section, {})[field] = getattr(self, name)
        return MosaicSettings.model_validate(sections)
