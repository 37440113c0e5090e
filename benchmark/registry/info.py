"""What the suite knows of a plugin without importing it: cheap to read, cheap to show."""

from __future__ import annotations

import inspect
import json
import re
from typing import TYPE_CHECKING, Any, get_args

from pydantic import BaseModel, ConfigDict

from benchmark.contract import Information, Method, MethodConfig, Source
from benchmark.errors import UserError

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo


_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")


class PluginError(UserError):
    """A plugin does not keep the contract; the message names it and says how to mend it."""


class ParameterInfo(BaseModel):
    """One hyper-parameter, as ``describe`` shows it."""

    model_config = ConfigDict(frozen=True)

    name: str
    type: str
    default: Any
    unit: str
    source: str
    meaning: str


class MethodInfo(BaseModel):
    """A method's metadata and where its code is."""

    model_config = ConfigDict(frozen=True)

    name: str
    summary: str
    kind: str
    title: str | None
    year: int | None
    link: str | None
    uses: tuple[str, ...]
    uploads: str
    implemented: str
    deviations: tuple[str, ...]
    scenarios: str
    parameters: tuple[ParameterInfo, ...]
    module: str
    attribute: str
    path: str
    plugin: str
    """Digest of the plugin's own source files."""
    parts: dict[str, str]
    """Declared versions of the building blocks that it imports."""

    def for_record(self) -> dict[str, Any]:
        """Return what a run's record says of its method."""
        kept = {"name", "kind", "summary", "title", "year", "link", "uses", "uploads"}
        return self.model_dump(mode="json", include=kept)


class BrokenPlugin(BaseModel):
    """A plugin that can't be used, and why."""

    model_config = ConfigDict(frozen=True)

    name: str
    path: str
    reason: str


def describe_class(cls: type[Method[Any]], where: str) -> dict[str, Any]:
    """Return the metadata of a method class that is checked against the contract.

    Raises
    ------
    PluginError
        If a name or summary is missing, or something has the wrong type.
    """
    name = getattr(cls, "name", None)
    if not isinstance(name, str) or not name:
        raise PluginError(f'plugin {where}: {cls.__name__} has no name; set `name = "..."`')
    if not _NAME.fullmatch(name) or name == "all":
        raise PluginError(
            f"plugin {where}: '{name}' can't be a method's name: use letters, digits, '_' and '-'"
            + (", and not 'all'" if name == "all" else "")
        )
    summary = getattr(cls, "summary", None)
    if not isinstance(summary, str) or not summary:
        raise PluginError(f"method '{name}' ({where}) has no summary; set `summary = \"...\"`")
    _check_config(cls, name, where)
    if isinstance(cls.deviations, str) or isinstance(cls.uses, str):
        raise PluginError(f"method '{name}' ({where}): deviations and uses hold several items")
    for item in cls.uses:
        if item not in {*Information}:
            raise PluginError(
                f"method '{name}' ({where}): 'uses' has {item!r}, which is not among Information: "
                f"{', '.join(Information)}"
            )
    if cls.source is not None and not isinstance(cls.source, Source):
        raise PluginError(f"method '{name}' ({where}): source must be a Source(title, year, link)")
    if inspect.isabstract(cls):
        missing = ", ".join(sorted(cls.__abstractmethods__))
        raise PluginError(f"method '{name}' ({where}) does not define {missing}")
    source = cls.source
    return {
        "name": name,
        "summary": summary,
        "kind": cls.kind,
        "title": source.title if source else None,
        "year": source.year if source else None,
        "link": source.link if source else None,
        "uses": tuple(sorted(str(item) for item in cls.uses)),
        "uploads": cls.uploads,
        "implemented": cls.implemented,
        "deviations": tuple(cls.deviations),
        "scenarios": cls.scenarios,
        "parameters": tuple(
            _describe_field(key, field) for key, field in cls.Config.model_fields.items()
        ),
    }


def _check_config(cls: type[Method[Any]], name: str, where: str) -> None:
    """Refuse a configuration that is none, isn't the class's, or doesn't run as it is."""
    if not (isinstance(cls.Config, type) and issubclass(cls.Config, MethodConfig)):
        raise PluginError(f"method '{name}' ({where}): Config must be a subclass of MethodConfig")
    asked = _config_of(cls)
    if asked is not None and not issubclass(cls.Config, asked):
        raise PluginError(
            f"method '{name}' ({where}) is a Method[{asked.__name__}] and has Config = "
            f"{cls.Config.__name__}; set `Config = {asked.__name__}`"
        )
    for key, field in cls.Config.model_fields.items():
        if field.is_required():
            raise PluginError(
                f"method '{name}' ({where}): parameter '{key}' has no default; a method runs as it "
                "is, too"
            )


def _config_of(cls: type[Method[Any]]) -> type[MethodConfig] | None:
    """Return the configuration that a class names as its base's argument, if it does so itself."""
    for base in getattr(cls, "__orig_bases__", ()):
        for argument in get_args(base):
            if isinstance(argument, type) and issubclass(argument, MethodConfig):
                return argument
    return None


def _describe_field(name: str, field: FieldInfo) -> ParameterInfo:
    extra = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
    default = field.get_default(call_default_factory=True)
    return ParameterInfo(
        name=name,
        type=inspect.formatannotation(field.annotation).replace("typing.", ""),
        default=json.loads(json.dumps(default, default=str)),
        unit=str(extra.get("unit", "")),
        source=str(extra.get("source", "ours")),
        meaning=field.description or "",
    )
