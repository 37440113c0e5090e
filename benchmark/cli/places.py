"""Folders that several verbs name."""

from __future__ import annotations

import os
from pathlib import Path

CACHE_VARIABLE = "ONESHOT_FL_CACHE"
"""Environment variable that names the cache's folder."""


def cache_root() -> Path:
    """Return the folder of the cache: the variable's, or below the user's cache folder."""
    import platformdirs

    return Path(os.environ.get(CACHE_VARIABLE) or platformdirs.user_cache_dir("oneshot-fl"))
