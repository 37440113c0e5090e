"""``datasets``: what data is there, what is missing and how to get it; fetch and prepare it."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from benchmark.cli import output
from benchmark.cli.checks import check_folder
from benchmark.cli.parsing import Parser, new_parser, one_of
from benchmark.cli.progress import loading
from benchmark.cli.run_flags import add_place_flags
from benchmark.errors import UserError

if TYPE_CHECKING:
    from datasets.catalog import DatasetSpec

ACTIONS = ("show", "fetch", "prepare")
IMAGE_SIZES = ("32", "64")
_DESCRIPTION = """\
Without a verb of its own: what data is there, and how to get what is missing.
  show NAME…     facts of a dataset: source, normalisation, augmentation, deviations
  fetch NAME…    download with resume, checked against the published checksums
  prepare NAME…  fetch, and decode into the cache of --results now instead of in the first run
NAME is a dataset of the list; for show and prepare also folder:PATH or npz:PATH."""


def parser() -> Parser:
    """Return the parser of ``datasets``."""
    made = new_parser("datasets", _DESCRIPTION)
    made.add_argument(
        "action",
        nargs="?",
        default="show",
        metavar="|".join(ACTIONS),
        type=one_of("action", ACTIONS),
        help="what to do (default: show)",
    )
    made.add_argument("names", nargs="*", metavar="NAME", help="datasets")
    made.add_argument(
        "--image-size",
        nargs="+",
        default=["32"],
        metavar="|".join(IMAGE_SIZES),
        type=one_of("image size", IMAGE_SIZES),
        help="sides in pixels to prepare (default: 32)",
    )
    made.add_argument("--quiet", action="store_true", help="no progress, only errors")
    add_place_flags(made)
    return made


def execute(values: argparse.Namespace, talk: Console) -> int:
    """Show, fetch or prepare; return the exit status."""
    from datasets.catalog import spec_of, specs

    if values.data_root is not None:
        check_folder(values.data_root, "--data-root")
    chosen = [spec_of(name) for name in dict.fromkeys(values.names)]
    if values.action == "show":
        if chosen:
            for spec in chosen:
                _describe(spec, values.data_root)
        else:
            _overview(list(specs().values()), values.data_root)
        return 0
    if not chosen:
        raise UserError(f"datasets {values.action}: no name given; known: {', '.join(specs())}")
    with loading(talk, quiet=values.quiet) as progress:
        if values.action == "fetch":
            return _for_each(chosen, lambda spec: _fetch(spec, values.data_root, progress))
        check_folder(values.results, "--results")
        return _for_each(chosen, lambda spec: _prepare(spec, values, progress))


def _overview(specs: Sequence[DatasetSpec], data_root: Path | None) -> None:
    from datasets.places import locate

    console = output.stdout()
    rows, missing = [], []
    for spec in specs:
        info = spec.info
        location = locate(info.name, data_root)
        if location.place is not None:
            state = f"found in {location.place}"
        else:
            missing.append(spec)
            state = "missing"
        shape = f"{info.channels}x{info.native_size}x{info.native_size}"
        sizes = f"{info.train_samples} + {info.test_samples}"
        size = output.human_bytes(spec.download_bytes) if spec.download_bytes else "none"
        rows.append((info.name, info.classes, sizes, shape, size, state))
    columns = ("name", "classes", "train + test", "native", "download", "state")
    console.print(output.table("datasets", columns, rows))
    if not missing:
        return
    output.say(console, "")
    for spec in missing:
        output.say(console, f"{spec.info.name}: {spec.advice}")
    names = " ".join(spec.info.name for spec in missing if spec.download is not None)
    total = output.human_bytes(sum(spec.download_bytes for spec in missing))
    root = f" --data-root {data_root}" if data_root is not None else ""
    output.say(console, f"all of it: python -m benchmark datasets fetch {names}{root} ({total})")


def _describe(spec: DatasetSpec, data_root: Path | None) -> None:
    from datasets.places import locate

    info = spec.info
    location = locate(info.name, data_root)
    moments = f"mean {_numbers(spec.mean)}, std {_numbers(spec.std)}"
    crop = spec.augmentation.crop_padding
    parts = [f"random crop, padding {crop}"] if crop else []
    parts += ["mirrored half of the time"] if spec.augmentation.flip else []
    rows = [
        ("about", info.summary),
        ("source", info.source),
        ("samples", f"{info.train_samples} training, {info.test_samples} test"),
        ("classes", str(info.classes)),
        ("native", f"{info.channels}x{info.native_size}x{info.native_size}"),
        ("normalisation", moments if spec.mean else "measured on the training part"),
        ("augmentation", f"{', '.join(parts)}, at 32 pixels" if parts else "none"),
        *(("deviation", text) for text in info.deviations),
        ("found", str(location.place) if location.place else f"no; {spec.advice}"),
    ]
    console = output.stdout()
    output.say(console, f"{info.title} ({info.name})")
    for name, text in rows:
        output.say(console, f"  {name:<13}  {output.one_line(text)}")


def _numbers(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.4f}" for value in values)


def _for_each(specs: Sequence[DatasetSpec], work: Callable[[DatasetSpec], str]) -> int:
    """Do the work for every dataset, whatever becomes of the others; return the exit status."""
    from benchmark.cli.main import OK, USER_ERROR
    from datasets.errors import DataError

    console, status = output.stdout(), OK
    for spec in specs:
        try:
            output.say(console, f"{spec.info.name}: {work(spec)}")
        except DataError as error:
            output.error_line(error)
            status = USER_ERROR
    return status


def _fetch(
    spec: DatasetSpec, data_root: Path | None, progress: Callable[[str, int, int], None]
) -> str:
    from datasets.places import locate, obtain

    before = locate(spec.info.name, data_root)
    if before.found:
        return f"is there already, in {before.place}"
    return (
        f"fetched into {obtain(spec.info.name, data_root, download=True, progress=progress).place}"
    )


def _prepare(
    spec: DatasetSpec,
    values: argparse.Namespace,
    progress: Callable[[str, int, int], None],
) -> str:
    from benchmark.grid import Options
    from datasets.loading import load

    cache = Options(results=values.results).data_cache
    began, done = time.monotonic(), []
    for size in dict.fromkeys(values.image_size):
        data = load(
            spec.info.name,
            data_root=values.data_root,
            image_size=int(size),
            cache_dir=cache,
            progress=progress,
        )
        total = data.train.images.nbytes + data.test.images.nbytes
        done.append(f"{size}x{size}: {output.human_bytes(total)}, {data.fingerprint[:12]}")
    seconds = output.human_seconds(time.monotonic() - began)
    return f"ready in {cache} ({'; '.join(done)}) after {seconds}"
