"""Which settings of a grid differ, and how they are called in headers and notes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

SEED_FIELDS = ("split_seed", "seed")
"""The settings that a mean goes over; every other one that differs is an axis."""

_ORDER = (
    "dataset",
    "partition.scheme",
    "partition.alpha",
    "partition.classes_per_client",
    "partition.clients",
    "widths",
    "model.family",
    "warmup.rounds",
)
_NAMES = {
    "dataset": "{}",
    "model.family": "{}",
    "partition.scheme": "{}",
    "partition.alpha": "α = {}",
    "partition.clients": "{} clients",
    "partition.classes_per_client": "{} classes per client",
    "partition.min_samples": "at least {} samples per client",
    "widths": "widths {}",
    "warmup.rounds": "{} warm-up rounds",
    "image_size": "{} pixels",
    "recipe.epochs": "{} local epochs",
    "recipe.batch_size": "batch {}",
    "recipe.lr": "lr {}",
    "recipe.momentum": "momentum {}",
    "recipe.weight_decay": "weight decay {}",
    "recipe.augment": "augmentation: {}",
    "model.norm": "{} norm",
    "train_samples": "{} training samples",
    "student.init": "student starts {}",
    "student.batch_norm": "student's batch norm: {}",
    "budget.generator_steps": "{} generator steps",
    "budget.generated_images": "{} generated images",
    "budget.distilled_images": "{} distilled images",
    "budget.history_points": "{} history points",
    "measure.extractors": "images judged by {}",
    "measure.judged_on": "judged on the {}",
    "compute.threads": "threads: {}",
    "compute.device": "{}",
    "compute.precision": "{}",
    "compute.compile": "compiled: {}",
}
_UNSET_NAMES = {"train_samples": "all training samples", "compute.compile": "not compiled"}
_EMPTY_NAMES = {"measure.extractors": "images not judged"}
_TITLES = {
    "partition.alpha": "α",
    "partition.clients": "clients",
    "partition.scheme": "partition",
    "model.family": "model",
    "warmup.rounds": "warm-up rounds",
}
_LISTED = 3
"""Places at which a sentence says a value to hold before it only says: elsewhere."""

UNSET = "–"
"""How a setting reads that is not set."""


def plain_text(value: object) -> str:
    """Return a setting as text that is the same for equal values."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return UNSET
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.12g}"
    if isinstance(value, list | tuple):
        return ",".join(plain_text(item) for item in value)
    return str(value)


def title(field: str) -> str:
    """Return the name of a setting, for a column header or an axis label."""
    return _TITLES.get(field, field.rpartition(".")[2].replace("_", " "))


def describe(field: str, value: str) -> str:
    """Return a setting with its value, such as ``α = 0.1``."""
    if value == UNSET:
        return _UNSET_NAMES.get(field, f"{title(field)} not set")
    if not value and field in _EMPTY_NAMES:
        return _EMPTY_NAMES[field]
    known = _NAMES.get(field)
    if known and value == "1" and known.startswith("{} "):
        known = known.removesuffix("s")  # 1 warm-up round
    return known.format(value) if known else f"{field.replace('_', ' ')} {value}"


@dataclass(frozen=True)
class Axes:
    """The settings that differ between the runs of a grid.

    Parameters
    ----------
    shown : tuple of str
        Settings that span the columns of tables, the main ones first.
    implied : mapping of str to str
        Settings that differ too but follow from the shown ones, each with a sentence
        that says how.
    fixed : mapping of str to str
        Settings that are the same everywhere.
    """

    shown: tuple[str, ...]
    implied: Mapping[str, str]
    fixed: Mapping[str, str]

    def key(self, settings: Mapping[str, str]) -> tuple[str, ...]:
        """Return the values of the shown settings: the scenario's place in the grid."""
        return tuple(settings[field] for field in self.shown)

    def header(self, key: Sequence[str]) -> tuple[str, ...]:
        """Return a scenario's place in words, one entry a shown setting."""
        return tuple(describe(field, value) for field, value in zip(self.shown, key, strict=True))


def find_axes(settings: Sequence[Mapping[str, str]], fields: Sequence[str]) -> Axes:
    """Find which of ``fields`` differ between the ``settings`` of the runs.

    Parameters
    ----------
    settings : sequence of mapping of str to str
        One mapping a run, with every field, as :func:`plain_text` writes them.
    fields : sequence of str
        The settings to look at; seeds are left out.
    """
    known = [field for field in _ORDER if field in fields]
    rest = [field for field in fields if field not in known and field not in SEED_FIELDS]
    shown: list[str] = []
    implied: dict[str, str] = {}
    fixed: dict[str, str] = {}
    distinct = _unique(settings, [*known, *rest])
    for field in (*known, *rest):
        values = {entry[field] for entry in distinct}
        if len(values) <= 1:
            fixed[field] = min(values, default=UNSET)
        elif (sentence := _implied(distinct, field, shown)) is not None:
            implied[field] = sentence
        else:
            shown.append(field)
    return Axes(tuple(shown), implied, fixed)


def _unique(
    settings: Sequence[Mapping[str, str]], fields: Sequence[str]
) -> list[Mapping[str, str]]:
    found = {tuple(entry[field] for field in fields): entry for entry in settings}
    return list(found.values())


def _implied(settings: Sequence[Mapping[str, str]], field: str, shown: Sequence[str]) -> str | None:
    candidates = [(axis,) for axis in shown] + ([tuple(shown)] if len(shown) > 1 else [])
    for axes in candidates:
        mapping: dict[tuple[str, ...], set[str]] = {}
        for entry in settings:
            mapping.setdefault(tuple(entry[axis] for axis in axes), set()).add(entry[field])
        if all(len(values) == 1 for values in mapping.values()):
            return _sentence(field, axes, {key: min(values) for key, values in mapping.items()})
    return None


def _sentence(field: str, axes: Sequence[str], mapping: Mapping[tuple[str, ...], str]) -> str:
    places: dict[str, list[str]] = {}
    for key in sort_keys(list(mapping)):
        value = mapping[key]
        where = ", ".join(describe(axis, part) for axis, part in zip(axes, key, strict=True))
        places.setdefault(value, []).append(where)
    many = [value for value, where in places.items() if len(where) > _LISTED]
    usual = max(many, key=lambda value: len(places[value]), default=None)
    parts = [f"{value} at {' / '.join(where)}" for value, where in places.items() if value != usual]
    parts += [] if usual is None else [f"{usual} elsewhere"]
    return f"{field.replace('_', ' ')}: {'; '.join(parts)}"


def sort_keys(keys: Sequence[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """Return scenarios in table order: numbers ascending, words as they first appear."""
    if not keys:
        return []
    ranks: list[dict[str, float]] = []
    for column in zip(*keys, strict=True):
        unique = list(dict.fromkeys(column))
        numbers = {value: number for value in unique if (number := _number(value)) is not None}
        ranks.append(
            numbers
            if len(numbers) == len(unique)
            else {value: float(place) for place, value in enumerate(unique)}
        )
    return sorted(
        dict.fromkeys(keys),
        key=lambda key: tuple(rank[value] for rank, value in zip(ranks, key, strict=True)),
    )


def _number(value: str) -> float | None:
    try:
        return float(value)
    except ValueError:
        return None
