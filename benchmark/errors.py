"""Errors that are the user's to mend: one clear line, exit status 2, no traceback."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterable
from pathlib import Path

_ROOMS = frozenset({"benchmark", "methods", "datasets", "reports"})


class UserError(Exception):
    """Something the user asked for can't be done as asked.

    The message is one line that names the thing, what is wrong with it, and what
    would be right. The command line prints it and exits with status 2.
    """


class DivergedError(Exception):
    """Training met a NaN or infinite loss, or what was trained answers so.

    Parameters
    ----------
    where : str
        What was being trained, for instance ``"client 3"``.
    step : int or None
        The optimiser step (0-based) at which it was seen; ``None`` if there are none.
    reason : str
        What was seen, for instance ``"loss is nan"``.
    """

    def __init__(self, where: str, step: int | None, reason: str) -> None:
        at = "" if step is None else f" at step {step}"
        super().__init__(f"{where} diverged{at}: {reason}")
        self.where = where
        self.step = step
        self.reason = reason

    def __reduce__(self) -> tuple[type[DivergedError], tuple[str, int | None, str]]:
        return (DivergedError, (self.where, self.step, self.reason))


def suggestion(name: str, valid: Iterable[str]) -> str:
    """Return what to say after an unknown ``name``: the closest valid one, and all of them."""
    options = sorted(valid)
    close = difflib.get_close_matches(name, options, n=1, cutoff=0.5)
    hint = f"; did you mean '{close[0]}'?" if close else ""
    listed = ", ".join(options) if options else "none"
    return f"{hint} (known: {listed})"


def unknown(kind: str, name: str, valid: Iterable[str]) -> UserError:
    """Return the error for an unknown ``name`` of some ``kind``."""
    return UserError(f"unknown {kind} '{name}'{suggestion(name, valid)}")


def missing_package(error: ModuleNotFoundError) -> str | None:
    """Return one line on a package that this interpreter lacks, and how to install it.

    Parameters
    ----------
    error : ModuleNotFoundError
        A failed import.

    Returns
    -------
    str or None
        ``None`` where what is missing is a part of the suite or of Python itself: no
        installation would mend that.
    """
    package = (error.name or "").partition(".")[0]
    if not package or package in _ROOMS or package in sys.stdlib_module_names:
        return None
    root = Path(__file__).resolve().parent.parent
    return (
        f"package '{package}' is missing: the suite is not (or not wholly) installed for "
        f"{sys.executable}; make a virtual environment, install the suite into it with "
        f"`pip install -e '{root}'`, and use its python"
    )
