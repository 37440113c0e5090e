"""Reading arguments: a parser whose errors are one line, durations, ``--set``, ``--config``."""

from __future__ import annotations

import argparse
import difflib
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import yaml

from benchmark.cli.output import LOG_LEVELS
from benchmark.errors import UserError, unknown

BUNDLED = Path(__file__).resolve().parent.parent / "experiments"
"""Folder of the experiment files that come with the suite."""

_NUMBER = r"(\d+(?:\.\d+)?)"
_DURATION = re.compile(rf"(?:{_NUMBER}h)?(?:{_NUMBER}m)?(?:{_NUMBER}s)?")


class Parser(argparse.ArgumentParser):
    """An ``ArgumentParser`` that raises :class:`UserError` and refuses abbreviations."""

    def __init__(self, **settings: Any) -> None:
        settings.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(**settings, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        """Raise the error as one line."""
        raise UserError(re.sub(r"^argument ([^:]+): ", _name_flag, message))

    def read(self, argv: Sequence[str]) -> argparse.Namespace:
        """Parse all of ``argv``.

        Raises
        ------
        UserError
            If something is unknown (with the closest flag) or has a wrong form.
        """
        values, rest = self.parse_known_args(list(argv))
        for item in rest:
            if item.startswith("-") and item != "-":
                flag = item.split("=", 1)[0]
                close = difflib.get_close_matches(flag, self.flags(), n=1, cutoff=0.5)
                hint = f"did you mean '{close[0]}'? " if close else ""
                raise UserError(f"unknown flag '{flag}'; {hint}(all: {self.prog} --help)")
        if rest:
            raise UserError(f"unexpected argument '{rest[0]}'; see {self.prog} --help")
        return values

    def flags(self) -> list[str]:
        """Return all long flags."""
        return [
            flag for action in self._actions for flag in action.option_strings if flag[:2] == "--"
        ]


def new_parser(verb: str, description: str) -> Parser:
    """Return the parser of a verb, with the flags that all verbs share."""
    made = Parser(prog=f"python -m benchmark {verb}", description=description)
    made.add_argument(
        "--log-level",
        default="warning",
        metavar="|".join(LOG_LEVELS),
        type=one_of("log level", LOG_LEVELS),
        help="messages on stderr (default: warning; debug adds tracebacks)",
    )
    return made


def _name_flag(match: re.Match[str]) -> str:
    return f"{match[1].split('/')[-1]}: "


def one_of(kind: str, valid: Iterable[str]) -> Callable[[str], str]:
    """Return an argparse type that admits only ``valid`` values and names the closest."""
    options = tuple(valid)

    def check(text: str) -> str:
        if text not in options:
            raise argparse.ArgumentTypeError(str(unknown(kind, text, options)))
        return text

    return check


def number(text: str) -> int | float | str:
    """Return a number where ``text`` is one; the spec that takes it refuses the rest."""
    for read in (int, float):
        try:
            return read(text)
        except ValueError:
            continue
    return text


def workers(text: str) -> int | str:
    """Read a number of workers, or ``auto``.

    Raises
    ------
    argparse.ArgumentTypeError
        If it is neither.
    """
    if text == "auto":
        return text
    if not (text.isascii() and text.isdigit()) or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is no number of workers: 1 or more, or auto")
    return int(text)


def duration(text: str) -> float:
    """Read a duration such as ``90s``, ``10m``, ``1h30m``; a bare number counts seconds.

    Returns
    -------
    float
        Seconds, more than 0.

    Raises
    ------
    argparse.ArgumentTypeError
        If it has another form.
    """
    plain = text.strip().lower()
    match = _DURATION.fullmatch(f"{plain}s" if plain[-1:].isdigit() and plain.isascii() else plain)
    if match is not None and plain[-1:].isdigit() and (match[1] or match[2]):
        match = None  # 1h30 may mean minutes or seconds
    hours, minutes, seconds = (
        (float(part) if part else 0.0 for part in match.groups()) if match else (0.0, 0.0, 0.0)
    )
    total = 3600 * hours + 60 * minutes + seconds
    if total <= 0:
        raise argparse.ArgumentTypeError(f"'{text}' is no duration such as 90s, 10m or 1h30m")
    return total


def settings(items: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Read ``method.param=value`` items; a value is read as YAML.

    Returns
    -------
    dict
        Values by method and parameter; ``method.group.param`` makes a nested mapping.

    Raises
    ------
    UserError
        If an item has another form, or a parameter is set twice.
    """
    result: dict[str, dict[str, Any]] = {}
    for item in items:
        key, equals, text = item.partition("=")
        path = key.split(".")
        if not equals or len(path) < 2 or not all(path):
            raise UserError(f"--set: '{item}' is not of the form method.param=value")
        try:
            value = yaml.safe_load(text)
        except (yaml.YAMLError, ValueError):  # a date that there is not
            raise UserError(f"--set {key}: value '{text}' is not valid YAML") from None
        place: dict[str, Any] = result
        for part in path[:-1]:
            place = place.setdefault(part, {})
            if not isinstance(place, dict):
                raise UserError(f"--set {key}: '{part}' is set to a value and to a group")
        if path[-1] in place:
            raise UserError(
                f"--set: {key} is set twice; to compare values, give them as `sweep` or `variants` "
                "in a --config file, or the command once for each with one --experiment"
            )
        place[path[-1]] = value
    return result


def bundled_experiments() -> dict[str, Path]:
    """Return the experiment files that come with the suite, by name."""
    return {path.stem: path for path in sorted(BUNDLED.glob("*.yaml"))}


def experiment_file(text: str) -> Path:
    """Return the file that ``--config`` means: a path, or the name of a bundled experiment.

    Raises
    ------
    UserError
        If there is neither.
    """
    path = Path(text).expanduser()
    if path.is_file() or path.suffix in (".yaml", ".yml") or len(path.parts) > 1:
        return path
    bundled = bundled_experiments()
    if text not in bundled:
        raise unknown("experiment file", text, bundled)
    return bundled[text]
