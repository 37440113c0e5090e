"""Which ``datasets`` is imported: ours, though a popular package has the same name.

Imports the standard library alone: it runs before anything else is known to be installed.
"""

from __future__ import annotations

import sys
from pathlib import Path


def project_root() -> Path:
    """Return the folder that holds the suite's packages."""
    return Path(__file__).resolve().parent.parent


def prepare_path() -> str | None:
    """Put the project root first on the path, so that ``import datasets`` means ours.

    Returns
    -------
    str or None
        One line on what to do where a foreign ``datasets`` package was loaded before;
        ``None`` where all is well.
    """
    root = project_root()
    if sys.path[:1] != [str(root)]:
        sys.path[:] = [str(root), *(entry for entry in sys.path if entry != str(root))]
    loaded = sys.modules.get("datasets")
    if loaded is None:
        return None
    places = [Path(place).resolve() for place in getattr(loaded, "__path__", [])]
    if root / "datasets" in places:
        return None
    where = places[0] if places else "an unknown place"
    return (
        f"package 'datasets' was loaded from {where}, not from {root}; something imported it "
        "first (a .pth file or sitecustomize): use a virtual environment without it"
    )
