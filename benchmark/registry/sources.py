"""Which source files make a plugin, and the digests that tell its versions apart.

A digest is of code alone: a comment, a docstring or what a plugin says of itself can be put
right without making its finished runs stale. What is said elsewhere is code: texts that several
classes share, meanings of parameters, and what a class says whose bases don't name ``Method``.
"""

from __future__ import annotations

import ast
import hashlib
import io
import tokenize
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

SAID = frozenset({"summary", "source", "uploads", "implemented", "deviations", "scenarios"})
"""Attributes in which a method's class says what it is; they decide nothing."""

_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def plugin_files(path: Path) -> list[Path]:
    """Return the plugin's own files: the file, or all files of its folder that aren't hidden.

    Tables and weights beside the code decide its numbers as code does.
    """
    if path.name == "__init__.py":
        folder = path.parent
        return sorted(file for file in folder.rglob("*") if _counts(file, folder))
    return [path]


def _counts(file: Path, folder: Path) -> bool:
    below = file.relative_to(folder).parts
    return file.is_file() and not any(
        name == "__pycache__" or name.startswith(".") for name in below
    )


def digest_files(files: Iterable[Path], root: Path) -> str:
    """Return the digest of files, by relative name and content (line endings don't count)."""
    return _digest(files, root, lambda file: file.read_bytes().replace(b"\r\n", b"\n"))


def plugin_digest(path: Path) -> str:
    """Return the digest of a plugin's own code, and of whatever else lies in its folder."""
    return _digest(plugin_files(path), _root(path), _decides)


def text_digest(path: Path) -> str:
    """Return the digest of a plugin's own files, words included."""
    return digest_files(plugin_files(path), _root(path))


def _root(path: Path) -> Path:
    return path.parent.parent if path.name == "__init__.py" else path.parent


def _digest(files: Iterable[Path], root: Path, content: Callable[[Path], bytes]) -> str:
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.relative_to(root).as_posix().encode())
        digest.update(content(file))
        digest.update(b"\0")
    return digest.hexdigest()[:16]


def _decides(file: Path) -> bytes:
    """Return what of a file can decide a number."""
    status = file.stat()
    return _read_code(file, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=512)
def _read_code(file: Path, mtime: int, size: int) -> bytes:
    raw = file.read_bytes().replace(b"\r\n", b"\n")
    if file.suffix != ".py":
        return raw
    try:
        return code_of(raw.decode("utf-8")).encode()
    except (SyntaxError, UnicodeDecodeError):  # it can't be imported; whoever tries says why
        return raw


def code_of(source: str) -> str:
    """Return Python source without its words: comments, docstrings, empty lines, :data:`SAID`.

    Lines are cut out, none is written anew, so that every Python gives the same. Words that
    share their line with code stay, less a comment.

    Raises
    ------
    SyntaxError
        If it is no Python.
    """
    lines = source.split("\n")
    words = {
        row
        for node in _words(ast.parse(source))
        if _is_alone(node, lines)
        for row in range(node.lineno, (node.end_lineno or node.lineno) + 1)
    }
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        row, column = token.start
        if token.type == tokenize.COMMENT:
            lines[row - 1] = lines[row - 1][:column].rstrip()
        # Empty lines inside a string are part of it, and no token.
        if token.type in (tokenize.COMMENT, tokenize.NL) and not lines[row - 1].strip():
            words.add(row)
    return "\n".join(line for row, line in enumerate(lines, 1) if row not in words)


def _words(tree: ast.Module) -> Iterator[ast.stmt]:
    """Yield docstrings, and what a class says of itself."""
    for node in ast.walk(tree):
        if isinstance(node, _DOCUMENTED) and ast.get_docstring(node, clean=False) is not None:
            yield node.body[0]
        if isinstance(node, ast.ClassDef) and any("Method" in ast.unparse(b) for b in node.bases):
            yield from (statement for statement in node.body if _says(statement))


def _says(statement: ast.stmt) -> bool:
    """Return whether it assigns what a method says; an annotated one may be a field."""
    return isinstance(statement, ast.Assign) and all(
        isinstance(target, ast.Name) and target.id in SAID for target in statement.targets
    )


def _is_alone(node: ast.stmt, lines: list[str]) -> bool:
    """Return whether no other statement stands on the lines of one (columns count bytes)."""
    before = lines[node.lineno - 1].encode()[: node.col_offset]
    after = lines[(node.end_lineno or node.lineno) - 1].encode()[node.end_col_offset :]
    return not before.strip() and (not after.strip() or after.lstrip().startswith(b"#"))


def part_files(path: Path, roots: Mapping[str, Path]) -> dict[str, Path]:
    """Return the building blocks a plugin imports, directly or not, by module name.

    Parameters
    ----------
    path : Path
        The plugin's file, or the ``__init__.py`` of its folder.
    roots : mapping of str to Path
        Folders of the top packages that blocks may lie in, by name; of a top module, its file.
        A block is a module of theirs outside the plugin, imported absolutely or relatively. An
        ``__init__.py`` that holds a docstring only is none.

    Raises
    ------
    SyntaxError
        If one of the files is no Python.
    """
    own = {file.resolve() for file in plugin_files(path) if file.suffix == ".py"}
    places = {package: root.resolve() for package, root in roots.items()}
    seen: dict[Path, str] = {}
    looked_for: set[str] = set()
    todo = list(own)
    while todo:
        file = todo.pop()
        for module in _imported(file, places):
            if module in looked_for:
                continue
            looked_for.add(module)
            target = _module_file(module, places)
            if target is None or target in seen or target in own:
                continue
            seen[target] = module
            todo.append(target)
    return {
        module: file
        for file, module in sorted(seen.items(), key=lambda item: item[1])
        if file.name != "__init__.py" or _facts(file).has_code
    }


def part_versions(path: Path, roots: Mapping[str, Path]) -> dict[str, str]:
    """Return the building blocks a plugin imports, directly or not, with their versions.

    A block's version is the constant ``VERSION`` that it declares; a block that declares
    none is as new as its code. Parameters are those of :func:`part_files`.
    """
    return versions_of(part_files(path, roots))


def versions_of(parts: Mapping[str, Path]) -> dict[str, str]:
    """Return the versions of building blocks, given by module name as in :func:`part_files`."""
    return {
        module: _facts(file).version or _digest([file], file.parent, _decides)
        for module, file in parts.items()
    }


@dataclass(frozen=True)
class _Facts:
    """What is read from one source file.

    ``imports`` holds the level of a relative import (0: absolute), and the dotted name.
    """

    imports: tuple[tuple[int, str], ...]
    version: str | None
    has_code: bool


def _facts(file: Path) -> _Facts:
    status = file.stat()
    return _read_facts(file, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=512)
def _read_facts(file: Path, mtime: int, size: int) -> _Facts:
    tree = ast.parse(file.read_text(encoding="utf-8"), filename=str(file))
    imports: list[tuple[int, str]] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imports += [(0, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            # What is imported may be a name in the module, or a module below it.
            below = [f"{base}.{alias.name}".lstrip(".") for alias in node.names]
            imports += [(node.level, name) for name in (base, *below) if name or node.level]
    body = tree.body[1:] if ast.get_docstring(tree) is not None else tree.body
    return _Facts(tuple(imports), _declared_version(tree), bool(body))


def _imported(file: Path, roots: Mapping[str, Path]) -> Iterator[str]:
    """Yield the modules below ``roots`` that a file imports, by absolute name."""
    here = _package_of(file, roots)
    for level, name in _facts(file).imports:
        if level and level > len(here):
            continue  # a relative import out of the packages that are looked at
        above = here[: len(here) - level + 1] if level else ()
        full = ".".join((*above, name) if name else above)
        if full.split(".")[0] in roots:
            yield full


def _package_of(file: Path, roots: Mapping[str, Path]) -> tuple[str, ...]:
    for package, root in roots.items():
        if file != root and file.is_relative_to(root):
            return (package, *file.parent.relative_to(root).parts)
    return ()


def _module_file(module: str, roots: Mapping[str, Path]) -> Path | None:
    package, *below = module.split(".")
    root = roots[package]
    if root.suffix == ".py":
        return root if not below and root.is_file() else None
    base = root.joinpath(*below)
    candidates = [base / "__init__.py"]
    if below:
        candidates.append(base.with_name(f"{base.name}.py"))
    for candidate in candidates:
        if candidate.is_file():
            return candidate.resolve()
    return None


def _declared_version(tree: ast.Module) -> str | None:
    for node in tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else ()
        named = any(isinstance(name, ast.Name) and name.id == "VERSION" for name in targets)
        if named and isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant):
            return str(node.value.value)
    return None
