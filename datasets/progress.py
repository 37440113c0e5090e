"""How long work tells how far it is: one callable, called now and then."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and the whole (0 if unknown)."""


def silent(what: str, done: int, total: int) -> None:
    """Take no note."""
