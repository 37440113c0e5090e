"""The two errors of this room, both with messages meant to be shown as they are."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class DataError(ValueError):
    """Data that is missing, damaged or asked for wrongly.

    The message is one line that names the thing (a file, a dataset), what is wrong with it
    and what would be right.
    """


class PartitionError(ValueError):
    """A partition that can't be made from the arguments given.

    The message is one line that names the argument, its value and what would be right.
    """


def closest(name: str, known: Iterable[str]) -> str:
    """Return a hint that names the closest valid name and all valid ones.

    Parameters
    ----------
    name : str
        What was asked for.
    known : iterable of str
        The valid names.

    Returns
    -------
    str
        ``"did you mean 'x'? (one of: x, y)"``, or only the list when nothing is close.
    """
    names = sorted(known)
    match = difflib.get_close_matches(name.lower(), names, n=1)
    listing = f"one of: {', '.join(names)}"
    return f"did you mean '{match[0]}'? ({listing})" if match else listing
