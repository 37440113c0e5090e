"""Which files of the datasets are opened meanwhile: who asks for data finds the test set there."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

from datasets import available, locate

_LISTENERS: list[Callable[[str], None]] = []


@contextmanager
def noting_opened_data(note: Callable[[str], None], *folders: Path) -> Iterator[None]:
    """Call ``note`` with the path of each file of a dataset that this process opens inside.

    Files of all datasets of the catalogue count, wherever they are found, by whoever they are
    read (scikit-learn's digits, too). What C code opens by itself is not seen.

    Parameters
    ----------
    note : callable
        Takes a path.
    *folders : Path
        Where decoded data is kept.
    """
    files = _files()
    kept = tuple(os.path.realpath(folder) + os.sep for folder in folders)

    def listen(path: str) -> None:
        place = os.path.realpath(path)
        if place in files or place.startswith(kept):
            note(path)

    _attach()
    _LISTENERS.append(listen)
    try:
        yield
    finally:
        _LISTENERS.remove(listen)


@lru_cache(maxsize=1)
def _files() -> frozenset[str]:
    found = (file for info in available() for file in locate(info.name).files)
    return frozenset(map(os.path.realpath, found))


@lru_cache(maxsize=1)
def _attach() -> None:
    """Add the audit hook, once: Python has no way to take one back."""
    sys.addaudithook(_on_event)


def _on_event(event: str, arguments: tuple[object, ...]) -> None:
    if event == "open" and _LISTENERS and isinstance(arguments[0], str | bytes | os.PathLike):
        path = os.fsdecode(arguments[0])
        for listen in _LISTENERS:
            listen(path)
