"""What ``client.cached`` is told of what it keeps: a parameter left out is shared by mistake."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from benchmark.contract import Made, Method, MethodConfig

Asked = Callable[[str, Mapping[str, Any], Callable[[], Made]], Any]


def undescribed(method: Method[Any], cached: Asked, note: Callable[[str, str], None]) -> Asked:
    """Return ``client.cached`` that notes parameters which ``make`` reads undescribed.

    Seen is what ``make`` reads of ``method.config`` itself; a value that it was given by another
    way is not. A parameter counts as described by its name or by its value.

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
        told = list(_leaves(description))

        def read(name: str, value: object) -> None:
            if not any(name == key or value == one for key, one in told):
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
        value = getattr(self._config, name)
        if name in type(self._config).model_fields:
            self._read(name, value)
        return value


@contextmanager
def _spying(method: Method[Any], read: Callable[[str, object], None]) -> Iterator[None]:
    own = method.config
    method.config = _Spied(own, read)
    try:
        yield
    finally:
        method.config = own
