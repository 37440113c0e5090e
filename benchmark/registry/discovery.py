"""Finding plugins: files in ``methods/``, and the entry-point group ``oneshot_fl.methods``."""

from __future__ import annotations

import hashlib
import importlib
import importlib.metadata
import importlib.util
import json
import logging
import os
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import platformdirs

from benchmark.contract import Method, Reference
from benchmark.errors import UserError, unknown
from benchmark.registry.frames import own_frame
from benchmark.registry.info import BrokenPlugin, MethodInfo, PluginError, describe_class
from benchmark.registry.sources import (
    digest_files,
    part_files,
    part_versions,
    plugin_digest,
    text_digest,
    versions_of,
)

ENTRY_POINTS = "oneshot_fl.methods"
METADATA_VERSION = 4
"""Raised whenever :class:`MethodInfo` or what is refused changes: cached metadata is read anew."""

_SUITE = ("benchmark", "datasets", "reports", "tests")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Candidate:
    """A place where a plugin should be."""

    name: str
    module: str
    attribute: str | None
    path: Path


@dataclass(frozen=True)
class Registry:
    """All plugins that were found.

    Parameters
    ----------
    methods : dict of str to MethodInfo
        Usable plugins by name.
    broken : dict of str to BrokenPlugin
        Plugins that can't be used, by name (or by file, where they have none).
    """

    methods: dict[str, MethodInfo]
    broken: dict[str, BrokenPlugin]

    def info(self, name: str) -> MethodInfo:
        """Return a usable plugin.

        Raises
        ------
        UserError
            If there is none of this name, or it is broken: then with its reason.
        """
        if name in self.broken:
            raise PluginError(f"method '{name}' can't be used: {self.broken[name].reason}")
        if name not in self.methods:
            raise unknown("method", name, [*self.methods, *self.broken])
        return self.methods[name]


def methods_folder() -> Path:
    """Return the folder whose files are plugins."""
    return Path(__file__).resolve().parent.parent.parent / "methods"


def discover() -> Registry:
    """Find all plugins, importing only those whose source changed since the last time."""
    cache_file = _cache_file()
    cache = _read_cache(cache_file)
    methods: dict[str, MethodInfo] = {}
    broken: dict[str, BrokenPlugin] = {}
    fresh: dict[str, Any] = {}
    for item in _candidates():
        found: MethodInfo | BrokenPlugin
        if isinstance(item, BrokenPlugin):
            found = item
        else:
            try:
                found = _read(item, cache, fresh)
            except (Exception, SystemExit) as error:  # noqa: BLE001 - a plugin may raise anything
                reason = _reason(error, item.path)
                found = BrokenPlugin(name=item.name, path=str(item.path), reason=reason)
        if isinstance(found, BrokenPlugin):
            # A name that a sound plugin has stays that one's: what is broken hides nothing.
            name = f"{found.name} ({found.path})" if found.name in methods else found.name
            broken[name] = found.model_copy(update={"name": name})
            continue
        if found.name in methods:
            first = methods[found.name].path
            broken[found.name] = BrokenPlugin(
                name=found.name,
                path=found.path,
                reason=f"{found.path} duplicates the name of {first}; rename one of them",
            )
            continue
        methods[found.name] = found
    _write_cache(cache_file, cache, fresh)
    return Registry(dict(sorted(methods.items())), dict(sorted(broken.items())))


def load(info: MethodInfo) -> type[Method[Any]]:
    """Import a plugin's class.

    Raises
    ------
    PluginError
        If its source, or that of a part, changed since its metadata was read, or it can't be
        imported any more.
    """
    path = _imported_from(info)
    try:
        same = plugin_digest(path) == info.plugin
        same = same and part_versions(path, _roots(info.module, path)) == info.parts
    except (OSError, SyntaxError, UnicodeDecodeError):
        same = False
    if not same and path != Path(info.path):
        raise PluginError(
            f"method '{info.name}': {path} or a part of it is not the code that the run was "
            f"planned with, in {info.path}; install the same version of both on every node"
        )
    if not same:
        raise PluginError(
            f"method '{info.name}': {path} or a part of it changed while it was being used; "
            "give the same command again"
        )
    try:
        module = importlib.import_module(info.module)
    except (Exception, SystemExit) as error:
        reason = _reason(error, path)
        raise PluginError(f"method '{info.name}' can't be used: {reason}") from error
    return _find_class(module, info.attribute, info.path)


def _imported_from(info: MethodInfo) -> Path:
    """Return the file that importing a plugin runs: on another node it may lie elsewhere."""
    try:
        found = importlib.util.find_spec(info.module)
    except (Exception, SystemExit):  # noqa: BLE001 - its package may raise anything; said on import
        found = None
    return Path(info.path if found is None or found.origin is None else found.origin)


@contextmanager
def asking(info: MethodInfo) -> Iterator[None]:
    """Turn whatever a plugin's code raises inside into a :class:`PluginError` that names it.

    A mistake of the user (a :class:`UserError`) stays what it is.
    """
    try:
        yield
    except UserError:
        raise
    except (Exception, SystemExit) as error:  # a plugin may raise anything
        reason = _reason(error, Path(info.path))
        raise PluginError(f"method '{info.name}' can't be used: {reason}") from error


def _candidates() -> Iterator[Candidate | BrokenPlugin]:
    folder = methods_folder()
    for path in sorted(folder.iterdir()):
        if path.name.startswith(("_", ".")) or path.name == "blocks":
            continue
        if path.suffix == ".py":
            yield Candidate(path.stem, f"methods.{path.stem}", None, path)
        elif (path / "__init__.py").is_file():
            yield Candidate(path.name, f"methods.{path.name}", None, path / "__init__.py")
    found = importlib.metadata.entry_points(group=ENTRY_POINTS)
    for point in sorted(found, key=lambda point: (point.name, point.value)):
        try:
            spec = importlib.util.find_spec(point.module)
            if spec is None or spec.origin is None:
                raise ModuleNotFoundError(f"no module named '{point.module}'")
        except (Exception, SystemExit) as error:  # noqa: BLE001 - its package may raise anything
            reason = _reason(error, None)
            yield BrokenPlugin(name=point.name, path=point.value, reason=reason)
            continue
        yield Candidate(point.name, point.module, point.attr or None, Path(spec.origin))


def _read(item: Candidate, cache: dict[str, Any], fresh: dict[str, Any]) -> MethodInfo:
    # What a plugin says of itself may lie in its parts, whatever versions they declare.
    parts = part_files(item.path, _roots(item.module, item.path))
    texts = {module: digest_files([file], file.parent) for module, file in parts.items()}
    text = json.dumps([text_digest(item.path), texts])
    made_of = hashlib.sha256(text.encode()).hexdigest()[:16]
    key = f"{item.module}:{item.attribute or ''}@{item.path}#{made_of}"
    known = cache.get(key)
    if known is None:
        cls = _find_class(importlib.import_module(item.module), item.attribute, str(item.path))
        known = describe_class(cls, str(item.path)) | {"attribute": cls.__qualname__}
        known |= {"plugin": plugin_digest(item.path), "parts": versions_of(parts)}
        known = json.loads(json.dumps(known, default=lambda value: value.model_dump()))
    fresh[key] = known
    return MethodInfo(**known, module=item.module, path=str(item.path))


def _roots(module: str, path: Path) -> dict[str, Path]:
    """Return the packages that a plugin's parts may lie in.

    The suite's blocks; of a plugin from elsewhere also its own package, and what is installed
    with it.
    """
    package = module.split(".", 1)[0]
    if package == "methods":
        return {"methods": methods_folder()}
    depth = module.count(".") + (1 if path.name == "__init__.py" else 0)
    folder = path.parents[depth]
    return {**_beside(package, folder), "methods": methods_folder()}


def _beside(package: str, folder: Path) -> dict[str, Path]:
    """Return the top packages and modules of one distribution, the given one among them."""
    suite = methods_folder().parent
    found = {
        path.stem if path.suffix == ".py" else path.name: path
        for path in sorted(folder.iterdir())
        if path.suffix == ".py" or (path / "__init__.py").is_file() or path.name == package
        # What the engine is has versions of its own.
        if path.parent != suite or path.name not in _SUITE
    }
    installed = sorted(folder.glob("*.dist-info"), key=lambda path: not _called(path, package))
    if not installed:
        return found  # a checkout: all that lies there is its own
    together = next((tops for path in installed if package in (tops := _tops(path))), {package})
    return {name: path for name, path in found.items() if name in together}


def _called(about: Path, package: str) -> bool:
    """Return whether a distribution is called like a package: it is looked at first."""
    return about.name.lower().replace("-", "_").startswith(package.lower())


def _tops(about: Path) -> set[str]:
    """Return the top packages and modules of a distribution, by what its installer wrote."""
    for name in ("top_level.txt", "RECORD"):
        with suppress(OSError):
            lines = (about / name).read_text(encoding="utf-8").splitlines()
            return {line.partition(",")[0].partition("/")[0].removesuffix(".py") for line in lines}
    return set()


def _find_class(module: Any, attribute: str | None, where: str) -> type[Method[Any]]:
    if attribute is not None:
        cls = getattr(module, attribute, None)
        if not (isinstance(cls, type) and issubclass(cls, Method)):
            raise PluginError(f"plugin {where}: '{attribute}' is no subclass of Method")
        return cls
    found = [
        value
        for value in vars(module).values()
        if isinstance(value, type)
        and issubclass(value, Method)
        and value not in (Method, Reference)
        and f"{value.__module__}.".startswith(f"{module.__name__}.")
        and not value.__name__.startswith("_")
    ]
    if len(found) != 1:
        names = ", ".join(sorted(cls.__name__ for cls in found)) or "none"
        raise PluginError(f"plugin {where}: expected one public subclass of Method, found {names}")
    return found[0]


def _reason(error: BaseException, plugin: Path | None) -> str:
    """Return what went wrong, with the line of the plugin that led to it."""
    text = " ".join(str(error).split())
    if isinstance(error, PluginError):
        return text
    place = own_frame("".join(traceback.format_exception(error)), plugin) if plugin else ""
    return f"{type(error).__name__}: {text}" + (f" ({place})" if place else "")


def _cache_file() -> Path:
    folder = os.environ.get("ONESHOT_FL_CACHE") or platformdirs.user_cache_dir("oneshot-fl")
    return Path(folder) / "plugins.json"


def _read_cache(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if values["version"] == METADATA_VERSION and isinstance(values["plugins"], dict):
            return dict(values["plugins"])
    except (OSError, ValueError, KeyError, TypeError):
        pass  # absent, older or damaged: it is only a cache, and is written anew
    return {}


def _write_cache(path: Path, old: dict[str, Any], new: dict[str, Any]) -> None:
    if new == old:
        return
    text = json.dumps({"version": METADATA_VERSION, "plugins": new})
    temporary = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        log.debug("plugin metadata is not cached: %s", error)
