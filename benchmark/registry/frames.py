"""Which line of a plugin an error comes from."""

from __future__ import annotations

import re
from pathlib import Path

from benchmark.registry.sources import plugin_files

_FRAME = re.compile(r'^\s*File "(?P<file>.+)", line (?P<line>\d+), in (?P<name>.+)$', re.MULTILINE)


def own_frame(text: str, plugin: Path) -> str:
    """Return the last place of a traceback inside a plugin's own files; empty if there is none.

    Parameters
    ----------
    text : str
        The traceback.
    plugin : Path
        The plugin's file, or the ``__init__.py`` of its folder.
    """
    own = {file.resolve() for file in plugin_files(plugin)}
    frames = [found for found in _FRAME.finditer(text) if Path(found["file"]).resolve() in own]
    if not frames:
        return ""
    last = frames[-1]
    return f"{Path(last['file']).name}:{last['line']}, in {last['name']}"
