"""Where words go: results to stdout, talk to stderr, errors as one line each."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.table import Table
from rich.text import Text

PIPED_WIDTH = 160
"""Columns of tables where stdout is no terminal and ``COLUMNS`` says nothing."""

LOG_LEVELS = ("debug", "info", "warning", "error")
_CHATTY = ("matplotlib", "filelock", "PIL", "asyncio")


def stdout() -> Console:
    """Return the console for results."""
    return _console(stderr=False)


def stderr() -> Console:
    """Return the console for talk."""
    return _console(stderr=True)


class _Console(Console):
    """A console that leaves a broken pipe to the caller; rich would end the process."""

    def on_broken_pipe(self) -> None:
        """Pass the error on."""
        raise BrokenPipeError


def _console(*, stderr: bool) -> Console:
    stream = sys.stderr if stderr else sys.stdout
    piped = not stream.isatty() and "COLUMNS" not in os.environ
    return _Console(
        stderr=stderr, width=PIPED_WIDTH if piped else None, highlight=False, emoji=False
    )


def one_line(text: object) -> str:
    """Return ``text`` with all line breaks and runs of blanks made single blanks."""
    return " ".join(str(text).split())


def error_line(message: object) -> None:
    """Print one ``error:`` line on stderr, never wrapped."""
    sys.stderr.write(f"error: {one_line(message)}\n")
    sys.stderr.flush()


def say(console: Console, text: str) -> None:
    """Print plain text that is neither wrapped nor read as markup."""
    console.print(Text(text), soft_wrap=True)


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> Table:
    """Return a table of plain cells; a column of numbers is aligned to the right."""
    made = Table(
        title=title or None, title_justify="left", box=None, pad_edge=False, padding=(0, 2)
    )
    for index, column in enumerate(columns):
        numeric = bool(rows) and all(_is_number(row[index]) for row in rows)
        made.add_column(column, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        made.add_row(*(Text("" if cell is None else str(cell)) for cell in row))
    return made


def _is_number(cell: object) -> bool:
    return isinstance(cell, int | float) and not isinstance(cell, bool)


class _StderrHandler(logging.Handler):
    """Writes one line per message through the console that also draws progress bars."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self.console = console

    def emit(self, record: logging.LogRecord) -> None:
        """Print one message."""
        try:
            line = f"{record.levelname.lower()}: {one_line(record.getMessage())}"
            if record.exc_info and logging.getLogger().level <= logging.DEBUG:
                line = f"{line}\n{logging.Formatter().formatException(record.exc_info)}"
            say(self.console, line)
        except Exception:  # noqa: BLE001 - a message must never end a run
            self.handleError(record)


@contextmanager
def logging_to(level: str, console: Console) -> Iterator[None]:
    """Send messages of ``level`` and above to ``console`` while the context lasts."""
    root = logging.getLogger()
    handler, before = _StderrHandler(console), root.level
    handler.setLevel(level.upper())
    root.addHandler(handler)
    root.setLevel(level.upper())
    for name in _CHATTY:  # their debugging is not about this suite
        logging.getLogger(name).setLevel(max(root.level, logging.INFO))
    try:
        yield
    finally:
        root.removeHandler(handler)
        root.setLevel(before)


def counted(number: int, one: str, many: str) -> str:
    """Return a number with the words that fit it, such as ``1 run is``, ``2 runs are``."""
    return f"{number} {one if number == 1 else many}"


def human_bytes(count: float) -> str:
    """Return a number of bytes as people write it (powers of 1000)."""
    for unit in ("B", "kB", "MB", "GB"):
        if abs(count) < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def human_seconds(seconds: float) -> str:
    """Return a duration as people write it, such as ``45 s``, ``3 min 20 s``, ``2 h 5 min``."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
