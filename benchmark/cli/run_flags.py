"""Flags of ``run`` beside the grid's: who computes, where things are, and what is said."""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmark.cli.flags import add_grid_flags
from benchmark.cli.parsing import Parser, duration, one_of, workers


def add_run_flags(made: Parser, *, defaults: bool = True) -> None:
    """Add all flags of a grid and of how it is run; see :func:`add_grid_flags`."""
    add_grid_flags(made, defaults=defaults)
    add_place_flags(made)
    group = made.add_argument_group("execution")
    _add_engine_flags(group)
    _add_run_flags(group)


def _add_engine_flags(group: argparse._ArgumentGroup) -> None:
    """Add who computes, and for how long."""
    group.add_argument(
        "--workers",
        type=workers,
        default="auto",
        metavar="N",
        help="runs at a time; changes no result (default: cores over --threads, or GPUs)",
    )
    group.add_argument(
        "--engine",
        type=one_of("engine", ("local", "ray")),
        default="local",
        metavar="local|ray",
        help="processes of this machine, or tasks on a Ray cluster (default: local)",
    )
    group.add_argument(
        "--address",
        metavar="HOST:PORT",
        help="head of the Ray cluster (default: the one that this machine belongs to)",
    )
    group.add_argument(
        "--ship",
        action="store_true",
        help="Ray nodes that share no folder: they send finished runs back",
    )
    group.add_argument(
        "--timeout", type=duration, metavar="TIME", help="time limit of one run: 90s, 10m, 1h30m"
    )


def _add_run_flags(group: argparse._ArgumentGroup) -> None:
    """Add what is run again, what is read and kept, and what is said."""
    group.add_argument(
        "--force",
        action="append",
        default=[],
        metavar="METHOD",
        help="run a method's finished runs again; `all` for all methods; repeatable",
    )
    add_weights_flag(group)
    group.add_argument(
        "--tracker",
        metavar="NAME",
        help="also send scalars, images and specs to tensorboard, wandb or mlflow",
    )
    group.add_argument(
        "--no-cache", action="store_true", help="neither read nor write trained models"
    )
    group.add_argument(
        "--dry-run", action="store_true", help="print what would run, and what it would cost"
    )
    group.add_argument(
        "--no-report",
        action="store_true",
        help="write no tables, figures and page; `report` makes them at any time",
    )
    group.add_argument("--quiet", action="store_true", help="no progress, only tables and errors")


def add_place_flags(made: Parser) -> None:
    """Add ``--results`` and ``--data-root``."""
    group = made.add_argument_group("places")
    add_results_flag(group)
    add_data_flag(group)


def add_data_flag(made: Parser | argparse._ArgumentGroup) -> None:
    """Add ``--data-root``."""
    made.add_argument(
        "--data-root",
        type=Path,
        metavar="DIR",
        help="where data is looked for first (else: $ONESHOT_FL_DATA, system, user's folder)",
    )


def add_weights_flag(made: Parser | argparse._ArgumentGroup) -> None:
    """Add ``--inception-weights``."""
    made.add_argument(
        "--inception-weights",
        type=Path,
        metavar="FILE",
        help="weights for --extractors inception (else: $ONESHOT_FL_INCEPTION, torch's cache, "
        "or a download)",
    )


def add_results_flag(made: Parser | argparse._ArgumentGroup) -> None:
    """Add ``--results``."""
    made.add_argument(
        "--results",
        type=Path,
        default=Path("results"),
        metavar="DIR",
        help="where records are kept (default: results)",
    )
