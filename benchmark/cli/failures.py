"""What is said of runs that failed: why, in which line of the plugin, and where the rest stands."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from benchmark.cli import output
from benchmark.registry import own_frame
from benchmark.store import TRACEBACK_NAME

if TYPE_CHECKING:
    from benchmark.cli.progress import Listener
    from benchmark.store import ExperimentStore

SHOWN_PROBLEMS = 10
"""Reasons of failed runs printed at the end; the report has all."""


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


def _traceback_file(store: ExperimentStore, run_id: str) -> Path | None:
    """Return the file in which the run's last attempt left its traceback, if it has one."""
    # A run that diverged is published with its traceback; what failed before has one of its own.
    attempt = store.latest_attempt(run_id)
    places = [store.folder / run_id, *([attempt.path] if attempt else [])]
    return next((file for at in places if (file := at / TRACEBACK_NAME).is_file()), None)
