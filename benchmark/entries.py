"""Which methods an experiment names, each in which configuration: the rows of its grid."""

from __future__ import annotations

import itertools
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from benchmark.contract import Method
from benchmark.errors import UserError, unknown
from benchmark.profiles import profile
from benchmark.registry import MethodInfo, Registry, load
from benchmark.specs.base import explain

if TYPE_CHECKING:
    from benchmark.experiment import ExperimentSpec


def entries(
    experiment: ExperimentSpec, registry: Registry
) -> Iterator[tuple[str, MethodInfo, dict[str, Any]]]:
    """Return label, plugin and settings of every row: methods, then variants, then sweeps.

    Raises
    ------
    UserError
        If a method is unknown, or named beside ``all``, or a setting of one that is not run is
        wrong.
    """
    named: Iterable[str] = experiment.methods
    if "all" in experiment.methods:
        if len(experiment.methods) > 1:
            raise UserError("methods: 'all' stands alone, don't name others beside it")
        named = [name for name in registry.methods if name not in registry.broken]
        named = sorted(named, key=lambda name: (registry.methods[name].kind == "method", name))
    names = list(named)
    _check_strangers(experiment, registry, names)
    for name in names:
        yield name, registry.info(name), dict(experiment.set.get(name, {}))
    for label, values in experiment.variants.items():
        name = str(values["method"])
        own = {key: value for key, value in values.items() if key != "method"}
        yield label, registry.info(name), {**experiment.set.get(name, {}), **own}
    for name, ranges in experiment.sweep.items():
        for label, own in _combinations(name, ranges):
            yield label, registry.info(name), {**experiment.set.get(name, {}), **own}


def _combinations(
    name: str, ranges: Mapping[str, Sequence[Any]]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Return every combination of a sweep, labelled by its values."""
    for values in itertools.product(*ranges.values()):
        own = dict(zip(ranges, values, strict=True))
        said = ", ".join(f"{key}={value}" for key, value in own.items())
        yield (f"{name} ({said})" if own else name), own


def count_entries(experiment: ExperimentSpec) -> int:
    """Return the number of rows of an experiment that names its methods."""
    trials = (
        math.prod(len(values) for values in ranges.values()) for ranges in experiment.sweep.values()
    )
    return len(experiment.methods) + len(experiment.variants) + sum(trials)


def check_trials(methods: Sequence[MethodInfo]) -> None:
    """Refuse to tune methods with unequal numbers of trials (rule 2 of the suite's fairness).

    Parameters
    ----------
    methods : sequence of MethodInfo
        The plugin of every row; references, which nothing is chosen for, don't count.

    Raises
    ------
    UserError
        If the numbers differ.
    """
    trials = Counter(info.name for info in methods if info.kind == "method")
    if len(set(trials.values())) > 1:
        said = ", ".join(f"{name} {count}" for name, count in sorted(trials.items()))
        raise UserError(
            f"a grid that is judged on the holdout tunes, with as many trials for every method: "
            f"{said}"
        )


def _check_strangers(experiment: ExperimentSpec, registry: Registry, names: Sequence[str]) -> None:
    """Refuse what is wrong in the settings of methods that the grid does not run, too."""
    run = {*names, *(str(values["method"]) for values in experiment.variants.values())}
    run |= set(experiment.sweep)
    for name, values in settings_asked_for(experiment).items():
        if name not in run and name not in registry.broken:
            info = registry.info(name)
            configure(name, info, load(info), values)


def settings_asked_for(experiment: ExperimentSpec) -> dict[str, dict[str, Any]]:
    """Return the settings of the methods that flags or a file set.

    A profile's own settings ask for nothing: it names methods that may be missing or broken here,
    whichever ones the grid runs.
    """
    defaults = profile(experiment.profile).settings.get("set", {})
    return {name: values for name, values in experiment.set.items() if values != defaults.get(name)}


def refuse_settings_set_twice(
    flags: Mapping[str, Any], file: Mapping[str, Any], where: str
) -> None:
    """Refuse a setting of all rows of a method that some of its rows have a value of their own for.

    Those rows would keep theirs in silence, and rows whose label names the key would be called by
    a value that they don't have.

    Parameters
    ----------
    flags : mapping of str to value
        What was typed; its ``set`` also must not contradict what a variant's label says.
    file : mapping of str to value
        The experiment file.
    where : str
        The file's name.

    Raises
    ------
    UserError
        If there is one.
    """
    sweep, variants = ({**file, **flags}.get(name) or {} for name in ("sweep", "variants"))
    for layer, asked in (("--set", flags), (f"{where}: set", file)):
        for method, values in (asked.get("set") or {}).items():
            for key in values:
                if key in sweep.get(method, {}):
                    raise UserError(f"{where} sweeps {method}.{key}: it can't be set as well")
                for label, own in variants.items():
                    named = asked is flags and re.search(rf"(?<![\w.]){re.escape(key)}=", label)
                    if own.get("method") == method and (key in own or named):
                        raise UserError(
                            f"{layer} {method}.{key}: variant '{label}' "
                            f"{'sets' if key in own else 'is named after'} it; change it in the "
                            "variants of a copy of the file"
                        )


def refuse_equals(methods: Sequence[tuple[str, MethodInfo, Method[Any]]]) -> None:
    """Refuse two rows of one label, and two labels of one run: tables would mix them up."""
    labels: dict[str, str] = {}
    for label, info, method in methods:
        what = f"{info.name} {method.config.model_dump_json()}"
        if label in labels:
            raise UserError(f"'{label}' is named twice; give the variant another label")
        for other, same in labels.items():
            if same == what:
                raise UserError(
                    f"'{label}' is the same run as '{other}': method '{info.name}' with equal "
                    "parameters; leave one of them out"
                )
        labels[label] = what


def configure(
    label: str, info: MethodInfo, cls: type[Method[Any]], values: dict[str, Any]
) -> Method[Any]:
    """Return a method with its settings.

    Raises
    ------
    UserError
        If a setting is unknown, with the closest one, or its value wrong.
    """
    for key in values:
        if key not in cls.Config.model_fields:
            raise unknown(f"parameter of method '{info.name}'", key, cls.Config.model_fields)
    try:
        config = cls.Config.model_validate(values)
    except ValidationError as error:
        raise UserError(f"method '{label}': {explain(error, cls.Config)}") from None
    if (place := _yes_for_a_number(values, config.model_dump())) is not None:
        raise UserError(f"method '{label}': {place}: expected a number, got true or false")
    return cls(config)


def _yes_for_a_number(given: Any, read: Any, place: str = "") -> str | None:
    """Return where a switch was given for a number, which pydantic reads as 1 or 0."""
    if isinstance(given, bool):
        return None if isinstance(read, bool) else place
    if isinstance(given, dict) and isinstance(read, dict):
        names = {key: f"{place}.{key}" if place else str(key) for key in given}
        inner = [(names[key], value, read.get(key)) for key, value in given.items()]
    elif isinstance(given, list) and isinstance(read, list | tuple):
        inner = [(place, *pair) for pair in zip(given, read, strict=False)]
    else:
        return None
    found = (_yes_for_a_number(value, got, where) for where, value, got in inner)
    return next((where for where in found if where is not None), None)
