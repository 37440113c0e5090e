"""Which source files make a plugin, and the digests that tell its versions apart."""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator
from pathlib import Path


def plugin_files(path: Path) -> list[Path]:
    """Return the plugin's own files: the file, or all Python files of its folder."""
    if path.name == "__init__.py":
        return sorted(file for file in path.parent.rglob("*.py") if "__pycache__" not in file.parts)
    return [path]


def digest_files(files: list[Path], root: Path) -> str:
    """Return the digest of files, by relative name and content (line endings don't count)."""
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.relative_to(root).as_posix().encode())
        digest.update(file.read_bytes().replace(b"\r\n", b"\n"))
        digest.update(b"\0")
    return digest.hexdigest()[:16]


def plugin_digest(path: Path) -> str:
    """Return the digest of a plugin's own source."""
    root = path.parent.parent if path.name == "__init__.py" else path.parent
    return digest_files(plugin_files(path), root)


def part_versions(path: Path, package_root: Path, package: str) -> dict[str, str]:
    """Return the building blocks a plugin imports, directly or not, with their versions.

    A block is a module of ``package`` outside the plugin. Its version is the constant
    ``VERSION`` that it declares; a block that declares none is as new as its source.
    """
    own = {file.resolve() for file in plugin_files(path)}
    seen: dict[Path, str] = {}
    todo = list(own)
    while todo:
        file = todo.pop()
        tree = ast.parse(file.read_text(encoding="utf-8"), filename=str(file))
        for module in _imported(tree, package):
            target = _module_file(module, package_root)
            if target is None or target in seen or target in own:
                continue
            seen[target] = module
            todo.append(target)
    versions = {}
    for file, module in seen.items():
        if file.name != "__init__.py":
            versions[module] = _declared_version(file) or digest_files([file], file.parent)
    return dict(sorted(versions.items()))


def _imported(tree: ast.Module, package: str) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        else:
            continue
        for name in names:
            if name == package or name.startswith(package + "."):
                yield name


def _module_file(module: str, package_root: Path) -> Path | None:
    base = package_root.joinpath(*module.split(".")[1:])
    for candidate in (base.with_suffix(".py"), base / "__init__.py"):
        if candidate.is_file():
            return candidate.resolve()
    return None


def _declared_version(file: Path) -> str | None:
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if (
            isinstance(node, ast.Assign)
            and any(
                isinstance(target, ast.Name) and target.id == "VERSION" for target in node.targets
            )
            and isinstance(node.value, ast.Constant)
        ):
            return str(node.value.value)
    return None
