"""``list``: the methods, datasets, models, profiles and experiments there are."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from benchmark.cli import output
from benchmark.cli.parsing import Parser, bundled_experiments, new_parser, one_of
from benchmark.cli.run_flags import add_place_flags


def parser() -> Parser:
    """Return the parser of ``list``."""
    made = new_parser("list", "Lists what can be named in flags and files.")
    made.add_argument(
        "kind",
        nargs="?",
        metavar="|".join(_LISTS),
        type=one_of("list", _LISTS),
        help="what to list; all if not given",
    )
    add_place_flags(made)
    return made


def execute(values: argparse.Namespace, talk: Console) -> int:
    """Print the lists; return the exit status."""
    console = output.stdout()
    kinds = [values.kind] if values.kind else list(_LISTS)
    for index, kind in enumerate(kinds):
        if index:
            console.print()
        _LISTS[kind](console, values)
    return 0


def _methods(console: Console, values: argparse.Namespace) -> None:
    from benchmark.registry import discover

    registry = discover()
    rows = [
        (
            info.name,
            info.kind,
            info.summary,
            info.year,
            ", ".join(info.uses),
        )
        for info in registry.methods.values()
        if info.name not in registry.broken
    ]
    console.print(output.table("methods", ("name", "kind", "summary", "year", "uses"), rows))
    for plugin in registry.broken.values():
        output.say(console, f"not installed: {plugin.name}: {output.one_line(plugin.reason)}")


def _datasets(console: Console, values: argparse.Namespace) -> None:
    from datasets.catalog import available
    from datasets.places import locate

    rows = []
    for info in available():
        found = locate(info.name, values.data_root)
        where = str(found.place) if found.place else "not here; downloaded when first used"
        sizes = f"{info.train_samples} + {info.test_samples}"
        shape = f"{info.channels}x{info.native_size}x{info.native_size}"
        rows.append((info.name, info.summary, sizes, info.classes, shape, where))
    columns = ("name", "summary", "train + test", "classes", "native", "found")
    console.print(output.table("datasets", columns, rows))
    output.say(console, "your own: folder:PATH (pictures, a folder a class) or npz:PATH (arrays)")


def _models(console: Console, values: argparse.Namespace) -> None:
    from benchmark.models.registry import families

    rows = [
        (
            info.name,
            info.summary,
            "any" if info.scalable else "1",
            ", ".join(info.norms),
        )
        for info in families()
    ]
    console.print(output.table("models", ("name", "summary", "widths", "norms"), rows))


def _profiles(console: Console, values: argparse.Namespace) -> None:
    from benchmark.profiles import DEFAULT_PROFILE, PROFILES

    for profile in PROFILES.values():
        default = " (default)" if profile.name == DEFAULT_PROFILE else ""
        output.say(console, f"profile {profile.name}{default}: {profile.summary}")
        settings = ", ".join(
            f"{key}={_plain(value)}" for key, value in sorted(profile.settings.items())
        )
        output.say(console, f"  {settings}")


def _plain(value: object) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _experiments(console: Console, values: argparse.Namespace) -> None:
    from benchmark.specs import read_yaml
    from benchmark.store import Store

    rows = [
        (name, "bundled; run with --config", read_yaml(path).get("description", ""))
        for name, path in bundled_experiments().items()
    ]
    store = Store(values.results, read_only=True)
    for name in store.experiments():
        states = store.experiment(name).states()
        done = sum(str(state.status) == "done" for state in states)
        rows.append((name, f"in {values.results}", f"{done} of {len(states)} runs done"))
    if rows:
        console.print(output.table("experiments", ("name", "where", "about"), rows))
    else:
        output.say(console, f"experiments: none in {_absolute(values.results)}")


def _absolute(path: Path) -> Path:
    return path.expanduser().absolute()


_LISTS: dict[str, Callable[[Console, argparse.Namespace], None]] = {
    "methods": _methods,
    "datasets": _datasets,
    "models": _models,
    "profiles": _profiles,
    "experiments": _experiments,
}
