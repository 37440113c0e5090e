"""What all specs share: frozen, typed, validated, hashed by content, written as YAML."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from benchmark.errors import UserError, suggestion

ID_LENGTH = 16
"""Hexadecimal digits of an id (64 bits: no collision in any grid that can be run)."""


class Spec(BaseModel):
    """A frozen value that determines a result, or a part of one.

    Two specs are the same exactly if their :meth:`digest` is: it depends on field
    names and values alone, not on field order, paths, display options or Python's
    hash seed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def canonical(self) -> dict[str, Any]:
        """Return the spec as plain JSON values."""
        return self.model_dump(mode="json")

    def digest(self) -> str:
        """Return the stable id of this spec."""
        return digest_of(self.canonical())

    def __eq__(self, other: object) -> bool:
        # pydantic also compares which fields were given: no difference to a result.
        return type(self) is type(other) and self.canonical() == other.canonical()

    def __hash__(self) -> int:
        return hash(self.digest())

    def to_yaml(self) -> str:
        """Return the spec as YAML that :meth:`from_yaml` reads back."""
        return yaml.safe_dump(self.canonical(), sort_keys=False, allow_unicode=True)

    @classmethod
    def from_yaml(cls, text: str) -> Self:
        """Read a spec from YAML.

        Raises
        ------
        UserError
            If the text is no YAML mapping, or a key or value is not this spec's.
        """
        return cls.parse(parse_yaml(text, cls.__name__), cls.__name__)

    @classmethod
    def parse(cls, values: Mapping[str, Any], where: str) -> Self:
        """Validate ``values``, turning what is wrong into one :class:`UserError` line."""
        try:
            return cls.model_validate(dict(values))
        except ValidationError as error:
            raise UserError(f"{where}: {explain(error, cls)}") from None


def digest_of(value: object) -> str:
    """Return the id of a JSON value: SHA-256 of its canonical form, shortened."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:ID_LENGTH]


class _NoDuplicates(yaml.SafeLoader):
    """The safe loader, which refuses a key that is written twice instead of dropping the first."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """Look at the keys as written: one may override what `<<` merges in later."""
        node: yaml.MappingNode = super().compose_mapping_node(anchor)
        written = [key for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
        found: list[object] = []
        for key in written:
            value = self.construct_object(key, deep=True)
            if value in found:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key '{key.value}' is written twice", node.start_mark
                )
            found.append(value)
        return node


def parse_yaml(text: str, where: str) -> dict[str, Any]:
    """Read a YAML mapping.

    Raises
    ------
    UserError
        If the text is malformed, has a key twice, or is not a mapping with text keys.
    """
    try:
        values = yaml.load(text, Loader=_NoDuplicates)
    except (yaml.YAMLError, ValueError) as error:  # a date that there is not
        line = " ".join(str(error).split())
        raise UserError(f"{where}: not valid YAML: {line}") from None
    if values is None:
        return {}
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise UserError(f"{where}: expected a mapping of 'key: value' lines")
    return values


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML mapping from a file.

    Raises
    ------
    UserError
        If the file can't be read, or is no YAML mapping.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"can't read {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UserError(f"can't read {path}: not a text file") from None
    return parse_yaml(text, str(path))


def explain(error: ValidationError, model: type[BaseModel]) -> str:
    """Return the first problem of a validation error as one line."""
    first = error.errors()[0]
    # The place within a list is no help: flags and files write its values side by side.
    place = ".".join(part for part in first["loc"] if isinstance(part, str))
    if first["type"] == "extra_forbidden":
        name = str(first["loc"][-1])
        return f"unknown key '{place}'{suggestion(name, _fields_at(model, first['loc'][:-1]))}"
    message = str(first["msg"]).removeprefix("Value error, ")
    given = first.get("input")
    shown = "" if isinstance(given, dict | BaseModel) else f", got {given!r}"
    if first["type"] in ("int_parsing", "float_parsing") and "," in str(given):
        shown += "; several values are written with spaces between them"
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    return f"{place + ': ' if place else ''}{message}{shown}{more}"


def _fields_at(model: type[BaseModel], path: tuple[int | str, ...]) -> list[str]:
    for part in path:
        field = model.model_fields.get(str(part))
        if field is None or not (
            isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
        ):
            return []
        model = field.annotation
    return list(model.model_fields)
