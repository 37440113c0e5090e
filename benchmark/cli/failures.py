"""What is said of runs that failed: why, in which line of the plugin, and where the rest stands."""

from __future__ import annotations

import logging
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from benchmark.cli import output
from benchmark.registry.sources import plugin_files
from benchmark.store import TRACEBACK_NAME

if TYPE_CHECKING:
    from benchmark.cli.progress import Listener
    from benchmark.store import ExperimentStore

SHOWN_PROBLEMS = 10
"""Reasons of failed runs printed at the end; the report has all."""

_FRAME = re.compile(r'^\s*File "(?P<file>.+)", line (?P<line>\d+), in (?P<name>.+)$', re.MULTILINE)


def say_failures(listener: Listener, store: ExperimentStore) -> None:
    """Print one line for each reason of the first ones, and when debugging the traceback."""
    for reason, names in list(listener.problems.items())[:SHOWN_PROBLEMS]:
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        run = listener.examples[reason]
        file = _traceback_file(store, run.spec.run_id)
        text = file.read_text(encoding="utf-8", errors="replace") if file is not None else ""
        places = [own_frame(text, Path(run.info.path)), f"traceback: {file}" if file else ""]
        said = "; ".join(filter(None, places))
        output.error_line(f"{names[0]}{more}: {reason}{f' ({said})' if said else ''}")
        if text and logging.getLogger().isEnabledFor(logging.DEBUG):
            sys.stderr.write(text if text.endswith("\n") else f"{text}\n")
    hidden = len(listener.problems) - SHOWN_PROBLEMS
    if hidden > 0:
        more = output.counted(hidden, "more reason", "more reasons")
        output.error_line(f"{more}; the report lists all")


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


def _traceback_file(store: ExperimentStore, run_id: str) -> Path | None:
    """Return the file in which the run's last attempt left its traceback, if it has one."""
    attempt = store.latest_attempt(run_id)
    file = None if attempt is None else attempt.path / TRACEBACK_NAME
    return file if file is not None and file.is_file() else None
