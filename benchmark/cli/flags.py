"""Flags of a grid: one for every key of an experiment file, validated by its spec."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal, get_args, get_origin

from benchmark.cli.parsing import Parser, experiment_file, number, one_of, settings
from benchmark.errors import UserError
from benchmark.experiment import ExperimentSpec, resolve
from benchmark.profiles import DEFAULT_PROFILE, PROFILES
from benchmark.specs.base import read_yaml


@dataclass(frozen=True)
class Flag:
    """One flag of the grid.

    Parameters
    ----------
    field : str
        Field of :class:`ExperimentSpec` that it sets.
    meaning : str
        Its help text.
    metavar : str
        What stands for its value in the help; empty where choices stand there.
    many : bool
        Whether it takes several values, which span the grid.
    names : tuple of str
        Its option strings; made of the field's name if empty.
    """

    field: str
    meaning: str
    metavar: str = "N"
    many: bool = False
    names: tuple[str, ...] = ()


_SCENARIO = (
    Flag(
        "datasets",
        "datasets, see `list datasets`; your own as folder:PATH or npz:PATH",
        "NAME",
        True,
    ),
    Flag("partition", "who holds which sample", ""),
    Flag("alpha", "Dirichlet concentration: small is skewed (Mosaic's omega)", "A", True),
    Flag("classes_per_client", "for partition classes_per_client"),
    Flag("min_samples", "samples that every client holds at least"),
    Flag("clients", "numbers of clients", many=True),
    Flag(
        "widths",
        "width plans, such as 1 or 1,1/2,1/4; a plan is repeated over the clients",
        "PLAN",
        True,
    ),
    Flag("models", "model families, see `list models`", "NAME", True, ("--model", "--models")),
    Flag("norm", "normalisation layers of the models", ""),
    Flag("image_size", "side of the square input: 32 or 64 pixels"),
    Flag("train_samples", "size of the stratified part of the training set that is used"),
    Flag("holdout", "share of the training data taken away before the split", "SHARE"),
    Flag("rounds_warmup", "shared FedAvg rounds before the exchange; 0 is one-shot", "R", True),
    Flag("warmup_steps", "SGD steps per client and warm-up round"),
    Flag("warmup_lr", "learning rate of the warm-up", "LR"),
    Flag(
        "warmup_local",
        "local training after a warm-up: recipe (--epochs), or steps, as one more of its rounds",
        "",
    ),
    Flag("student_init", "what a distilled model starts from, the same for all methods", ""),
    Flag("student_batch_norm", "batch-norm statistics of a distilled model, the same for all", ""),
    Flag("split_seeds", "seeds of the split, where they differ from --seeds", "S", True),
)
_TRAINING = (
    Flag("epochs", "passes over a client's data"),
    Flag("batch_size", "samples in a batch"),
    Flag("lr", "learning rate of SGD", "LR"),
    Flag("schedule", "of the learning rate over one training: constant or cosine", "NAME"),
    Flag("momentum", "momentum of SGD", "M"),
    Flag("weight_decay", "weight decay of SGD", "W"),
    Flag("augment", "the dataset's own augmentation, if any"),
    Flag("seeds", "seeds of split and training", "S", True),
)
_BUDGET = (
    Flag("profile", "sizes and steps; see `list profiles`", ""),
    Flag("generator_steps", "optimiser steps of each generator, for every method alike"),
    Flag("generated_images", "synthetic images made, for every method alike"),
    Flag("distilled_images", "images the student learns from, for every method alike"),
    Flag("budget", "factor on the three above", "F"),
    Flag("history_points", "points of the curves: evaluations on the way, which no method sees"),
    Flag(
        "judged_on",
        "images that accuracy is measured on; holdout (for tuning) measures no other",
        "",
    ),
    Flag(
        "extractors",
        "networks that judge generated images: classifier, inception, or none",
        "NAME",
        True,
    ),
)
_COMPUTE = (
    Flag("device", "where to compute; auto is CUDA where there is one", ""),
    Flag("precision", "auto is bf16 where the hardware gains by it; changes numbers", ""),
    Flag("threads", "CPU threads of one run; a part of the run's id"),
    Flag("compile", "clients train through torch.compile; pays for long trainings, changes bits"),
)
_METHODS = (Flag("methods", "`all`, or names; see `list methods`", "NAME", True),)
_NAMING = (Flag("experiment", "name of the grid, and of its folder below --results", "NAME"),)


def add_scenario_flags(parser: Parser) -> None:
    """Add the flags that say which scenarios there are: what ``split`` needs."""
    _add_group(parser, "scenario", _SCENARIO)
    seeds = next(flag for flag in _TRAINING if flag.field == "seeds")
    _add_group(parser, "seeds and sizes", (seeds, _BUDGET[0]))
    add_config_flag(parser)


def add_grid_flags(parser: Parser, *, defaults: bool = True) -> None:
    """Add the flags for all keys of an experiment file, ``--config`` and ``--set``.

    ``defaults`` says whether their help shows the values of the usual profile, for verbs where
    those hold.
    """
    group = _add_group(parser, "methods", _METHODS, defaults=defaults)
    group.add_argument(
        "--set",
        nargs="+",
        action="extend",
        metavar="METHOD.PARAM=VALUE",
        help="hyper-parameters; see `describe METHOD`",
    )
    _add_group(parser, "scenario", _SCENARIO, defaults=defaults)
    _add_group(parser, "local training", _TRAINING, defaults=defaults)
    _add_group(parser, "budget", _BUDGET, defaults=defaults)
    _add_group(parser, "compute", _COMPUTE, defaults=defaults)
    _add_group(parser, "names and files", _NAMING, defaults=defaults)
    add_config_flag(parser)


def add_config_flag(parser: Parser) -> None:
    """Add ``--config``."""
    parser.add_argument(
        "--config",
        metavar="FILE",
        help="experiment file (YAML), or the name of a bundled one; see `list experiments`",
    )


def experiment_of(values: argparse.Namespace) -> ExperimentSpec:
    """Return the experiment that flags, file and profile make together.

    Only flags that were given count; then the file, the profile and the defaults.

    Raises
    ------
    UserError
        If the file, a key or a value is wrong.
    """
    file: dict[str, Any] = {}
    where = "default"
    if values.config is not None:
        path = experiment_file(values.config)
        file = read_yaml(path)
        where = str(path)
        # A file that names no experiment must not mix its runs into the default one's.
        file.setdefault("experiment", path.stem)
    flags = {
        field: given
        for field in ExperimentSpec.model_fields
        if (given := getattr(values, field, None)) is not None
    }
    if "set" in flags:
        flags["set"] = settings(flags["set"])
    try:
        return resolve(flags, file, where)
    except TypeError as error:  # `set: 3` in a file, for instance
        raise UserError(f"{where}: {error}") from None


def _add_group(
    parser: Parser, title: str, flags: tuple[Flag, ...], *, defaults: bool = True
) -> argparse._ArgumentGroup:
    group = parser.add_argument_group(title)
    for flag in flags:
        names = flag.names or (f"--{flag.field.replace('_', '-')}",)
        said = _help(flag) if defaults else flag.meaning.replace("%", "%%")
        group.add_argument(*names, dest=flag.field, help=said, **_form(flag))
    return group


def _form(flag: Flag) -> dict[str, Any]:
    annotation = ExperimentSpec.model_fields[flag.field].annotation
    if annotation is bool:
        return {"action": argparse.BooleanOptionalAction, "default": None}
    # A flag that is given again adds to its values: none is dropped unsaid.
    form: dict[str, Any] = {"nargs": "+", "action": "extend"} if flag.many else {}
    if flag.metavar:
        text = flag.many or annotation is str  # a name stays one, even 007 or 1e5
        return {**form, "metavar": flag.metavar, "type": str if text else number}
    choices = tuple(PROFILES) if flag.field == "profile" else _choices(annotation)
    kind = flag.field.replace("_", " ")
    check: Callable[[str], str] = one_of(kind, choices)
    return {**form, "metavar": "|".join(choices), "type": check}


def _choices(annotation: object) -> tuple[str, ...]:
    """Return the texts that a ``Literal``, or a union of some, admits."""
    if get_origin(annotation) is Literal:
        return tuple(str(item) for item in get_args(annotation))
    return tuple(choice for part in get_args(annotation) for choice in _choices(part))


def _help(flag: Flag) -> str:
    usual = ExperimentSpec.model_fields[flag.field].default
    # A profile always counts: what a flag left out means is what the usual one says.
    default = PROFILES[DEFAULT_PROFILE].settings.get(flag.field, usual)
    shown = " ".join(map(_shown, default)) if isinstance(default, tuple) else _shown(default)
    text = flag.meaning.replace("%", "%%")
    return f"{text} (default: {shown})" if shown else text


def _shown(value: object) -> str:
    if isinstance(value, tuple):
        return ",".join(_shown(item) for item in value)
    if isinstance(value, Fraction | float):
        return f"{float(value):g}"
    return "" if value is None else str(value)
