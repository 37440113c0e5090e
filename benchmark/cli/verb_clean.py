"""``clean``: what cache and results take on the disk, and removing what is asked for."""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from benchmark.cli import output
from benchmark.cli.checks import check_folder
from benchmark.cli.parsing import Parser, new_parser
from benchmark.cli.run_flags import add_results_flag
from benchmark.errors import UserError, unknown
from benchmark.store import Cache, Store
from benchmark.store.files import folder_size


@dataclass(frozen=True)
class Removal:
    """Something that was asked to be removed.

    Parameters
    ----------
    what : str
        Its name, for the question.
    size : int
        Bytes on the disk.
    remove : callable
        Removes it.
    """

    what: str
    size: int
    remove: Callable[[], object]


def parser() -> Parser:
    """Return the parser of ``clean``."""
    made = new_parser(
        "clean",
        "Shows what cache and results take on the disk. With a flag below it removes, after a "
        "question; without, it removes nothing.",
    )
    made.add_argument("--cache", action="store_true", help="remove all of the cache")
    made.add_argument(
        "--cache-kind",
        nargs="+",
        default=[],
        metavar="KIND",
        help="remove these kinds of cached artifacts",
    )
    made.add_argument(
        "--attempts",
        action="store_true",
        help="remove failed and superseded attempts; records and runs at work stay",
    )
    made.add_argument(
        "--experiment",
        nargs="+",
        default=[],
        metavar="NAME",
        help="remove these experiments with their records; with --attempts: only their attempts",
    )
    made.add_argument("--yes", action="store_true", help="don't ask")
    add_results_flag(made)
    return made


def execute(values: argparse.Namespace, talk: Console) -> int:
    """Print sizes, remove what is asked for; return the exit status."""
    check_folder(values.results, "--results")
    cache, store = Cache(_cache_folder(values.results)), Store(values.results)
    if values.cache or values.cache_kind:
        _refuse_while_at_work(store, store.experiments())
    removals = [*_from_cache(cache, values), *_from_results(store, values)]
    console = output.stdout()
    if not removals:
        _show(console, cache, store)
        if values.cache or values.attempts:
            output.say(console, "nothing to remove")
        return 0
    for removal in removals:
        output.say(console, f"remove {removal.what}: {output.human_bytes(removal.size)}")
    if not values.yes and not _confirmed():
        output.say(console, "nothing was removed")
        return 0
    for removal in removals:
        removal.remove()
    freed = sum(removal.size for removal in removals)
    output.say(console, f"removed {output.human_bytes(freed)}")
    return 0


def _cache_folder(results: Path) -> Path:
    from benchmark.grid import Options

    return Options(results=results).cache_folder


def _show(console: Console, cache: Cache, store: Store) -> None:
    sizes = [
        (f"cache: {kind}", output.human_bytes(size), str(cache.root / kind))
        for kind, size in cache.sizes().items()
    ]
    for name in store.experiments():
        found = store.experiment(name)
        attempts = folder_size(found.attempts)
        size = output.human_bytes(found.size() - attempts)
        sizes.append((f"experiment: {name}", size, str(found.folder)))
        if attempts:
            place = str(found.attempts)
            sizes.append((f"attempts: {name}", output.human_bytes(attempts), place))
    if sizes:
        console.print(output.table("", ("what", "size", "where"), sizes))
    else:
        output.say(console, f"nothing in the cache {cache.root} and in {store.root}")


def _from_cache(cache: Cache, values: argparse.Namespace) -> list[Removal]:
    sizes = cache.sizes()
    for kind in values.cache_kind:
        if kind not in sizes:
            raise unknown("kind of cached artifact", kind, sizes)
    return [
        Removal(f"cache: {kind}", size, lambda kind=kind: cache.remove(kind))  # type: ignore[misc]
        for kind, size in sizes.items()
        if values.cache or kind in values.cache_kind
    ]


def _from_results(store: Store, values: argparse.Namespace) -> list[Removal]:
    known = store.experiments()
    for name in values.experiment:
        if name not in known:
            raise unknown(f"experiment in {store.root}", name, known)
    if values.attempts:
        return [
            Removal(f"attempts: {name}", sum(map(folder_size, idle)), found.remove_attempts)
            for name in values.experiment or known
            if (idle := (found := store.experiment(name)).idle_attempts())
        ]
    _refuse_while_at_work(store, values.experiment)
    folders = [(f"experiment: {name}", store.experiment(name).folder) for name in values.experiment]
    return [
        Removal(what, folder_size(path), lambda path=path: shutil.rmtree(path))  # type: ignore[misc]
        for what, path in folders
        if path.is_dir()
    ]


def _refuse_while_at_work(store: Store, names: Iterable[str]) -> None:
    """Refuse to remove what runs at work read and write: their records, or the cache of all."""
    for name in names:
        if running := store.experiment(name).running():
            raise UserError(
                f"experiment '{name}' is being worked on (run {running[0]}); end that command first"
            )


def _confirmed() -> bool:
    if not sys.stdin.isatty():
        raise UserError("stdin is no terminal to ask on; add --yes to remove these")
    return input("remove them? [y/N] ").strip().lower() in ("y", "yes")
