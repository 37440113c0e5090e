"""What is kept under a version: a parameter that is not described is shared by mistake."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from benchmark.contract import Made, Method, MethodConfig

Asked = Callable[[str, Mapping[str, Any], Callable[[], Made]], Any]


def undescribed(method: Method[Any], cached: Asked, note: Callable[[str, str], None]) -> Asked:
    """Return ``client.cached`` that notes parameters which ``make`` reads undescribed.

    Only where a version stands for configuration and code: otherwise both are described anyway.
    Seen is what ``make`` reads of ``method.config`` itself; a value that it was given by another
    way is not. A parameter counts as described by its name, or by its value if that is no switch,
    0 or 1, which many things are.

    Parameters
    ----------
    method : Method
        Whose configuration is looked at while something is made.
    cached : callable
        The client's own function.
    note : callable
        Called with kind and parameter, once each time it is read.
    """

    def watched(kind: str, description: Mapping[str, Any], make: Callable[[], Made]) -> Any:
        if not {"code", "version"} & description.keys():
            return cached(kind, description, make)
        told = list(_leaves(description))

        def read(name: str, value: object) -> None:
            telling = value not in (0, 1)
            if not any(name == key or (telling and value == one) for key, one in told):
                note(kind, name)

        def spied() -> Made:
            with _spying(method, read):
                return make()

        return cached(kind, description, spied)

    return watched


def _leaves(value: object, key: str = "") -> Iterator[tuple[str, object]]:
    """Yield everything that a description has, whole and in parts, with the nearest key."""
    yield key, value
    if isinstance(value, Mapping):
        for name, part in value.items():
            yield from _leaves(part, str(name))
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _leaves(part, key)


class _Spied:
    """A method's configuration, by which every field that is read is noted."""

    def __init__(self, config: MethodConfig, read: Callable[[str, object], None]) -> None:
        self._config, self._read = config, read

    def __getattr__(self, name: str) -> Any:
        fields = type(self._config).model_fields
        for one in fields if name.startswith("model_dump") else fields.keys() & {name}:
            self._read(one, getattr(self._config, one))
        return getattr(self._config, name)


@contextmanager
def _spying(method: Method[Any], read: Callable[[str, object], None]) -> Iterator[None]:
    own = method.config
    method.config = _Spied(own, read)
    try:
        yield
    finally:
        method.config = own
