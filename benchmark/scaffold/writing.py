"""Writes a working plugin and its test: into this project, or as a package of its own."""

from __future__ import annotations

import keyword
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from string import Template

from benchmark.errors import UserError
from benchmark.import_path import project_root

_TEMPLATES = Path(__file__).resolve().parent
_KINDS = ("method", "distil")
"""What a plugin can begin as: an average of models, or a student of their ensemble."""
_NAME = re.compile(r"[a-z][a-z0-9_]*")
_RESERVED = frozenset({"all", "blocks", "benchmark", "methods", "datasets", "reports"})


@dataclass(frozen=True)
class Written:
    """What was written.

    Parameters
    ----------
    plugin, test : Path
        The two files.
    project : Path or None
        The package's ``pyproject.toml``; ``None`` inside this project, where dropping
        the file in is the whole installation.
    """

    plugin: Path
    test: Path
    project: Path | None


def write_method(name: str, output: Path | None = None, *, kind: str = "method") -> Written:
    """Write a plugin that works, with its test.

    Parameters
    ----------
    name : str
        The method's name: a Python identifier in lower case.
    output : Path, optional
        Folder for an installable package: ``NAME.py``, ``test_NAME.py`` and
        ``pyproject.toml``. If not given, or if it is this project's folder,
        ``methods/NAME.py`` and ``tests/methods/test_NAME.py`` are written there.
    kind : {"method", "distil"}
        What it begins as: an average of models, or a student of their ensemble.

    Raises
    ------
    UserError
        If the name is no identifier or taken, or a file is there already.
    """
    _check_name(name)
    root = project_root()
    inside = output is None or output.resolve() == root
    folder = root if output is None else output
    module = f"methods.{name}" if inside else name
    if inside:
        written = Written(
            folder / "methods" / f"{name}.py",
            folder / "tests" / "methods" / f"test_{name}.py",
            None,
        )
    else:
        if name in sys.stdlib_module_names:
            raise UserError(f"'{name}' is a module of Python; choose another name")
        written = Written(
            folder / f"{name}.py", folder / f"test_{name}.py", folder / "pyproject.toml"
        )
    _check_free(name, written, inside=inside)
    values = {
        "name": name,
        "dashed": name.replace("_", "-"),
        "module": module,
        "class_name": _class_name(name),
    }
    for path, template in (
        (written.plugin, f"{kind}.py.txt"),
        (written.test, f"test_{kind}.py.txt"),
        (written.project, "pyproject.toml.txt"),
    ):
        if path is not None:
            _write(path, template, values)
    return written


def _class_name(name: str) -> str:
    """Return a class's name that hides none of those that the templates import."""
    made = "".join(part.capitalize() for part in name.split("_"))
    files = [f"{test}{kind}.py.txt" for kind in _KINDS for test in ("", "test_")]
    texts = [(_TEMPLATES / file).read_text(encoding="utf-8") for file in files]
    imported = {word for text in texts for word in re.findall(r"\b[A-Z]\w+", text)}
    return f"{made}Method" if {made, f"{made}Config"} & imported else made


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name) or name.endswith("_") or keyword.iskeyword(name):
        raise UserError(
            f"'{name}' can't be a method's name; a name such as my_method is right: lower-case "
            "letters, digits and underscores, beginning with a letter, no Python keyword"
        )
    if name in _RESERVED:
        raise UserError(f"'{name}' is reserved; choose another name")


def _check_free(name: str, written: Written, *, inside: bool) -> None:
    for path in (written.plugin, written.test, written.project):
        if path is not None and path.exists():
            raise UserError(f"{path} exists already; choose another name or folder")
    package = written.plugin.with_suffix("")
    if inside and package.exists():
        raise UserError(f"{package} exists already; choose another name")
    from benchmark.registry import discover

    registry = discover()
    if name in registry.methods or name in registry.broken:
        raise UserError(f"a method named '{name}' is there already; choose another name")


def _write(path: Path, template: str, values: dict[str, str]) -> None:
    text = Template((_TEMPLATES / template).read_text(encoding="utf-8")).substitute(values)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("x", encoding="utf-8") as file:  # never over a file that came meanwhile
        file.write(text)
