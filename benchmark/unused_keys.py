"""Keys of an experiment that were given and can have no effect: refused, not ignored in silence."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from benchmark.errors import UserError

if TYPE_CHECKING:
    from benchmark.experiment import ExperimentSpec


@dataclass(frozen=True)
class _Need:
    """What a key has an effect with.

    Parameters
    ----------
    field : str
        The other key that decides.
    value : str
        What that one must be, in words.
    met : callable
        Whether one scenario of an experiment has it so.
    """

    field: str
    value: str
    met: Callable[[ExperimentSpec], bool]


_DIRICHLET = _Need("partition", "dirichlet, or a relative", lambda it: "dirichlet" in it.partition)
_CLASSES = _Need("partition", "classes_per_client", lambda it: it.partition == "classes_per_client")
_WARM_UP = _Need("rounds_warmup", "above 0", lambda it: any(it.rounds_warmup))
_TEST = _Need("judged_on", "test", lambda it: it.judged_on == "test" or not it.extractors)
_NEEDS = {
    "alpha": _DIRICHLET,
    "classes_per_client": _CLASSES,
    "warmup_steps": _WARM_UP,
    "warmup_lr": _WARM_UP,
    "warmup_local": _WARM_UP,
    "extractors": _TEST,
}


def refuse_unused(
    experiment: ExperimentSpec, flags: Mapping[str, Any], file: Mapping[str, Any], where: str
) -> None:
    """Refuse keys that somebody gave and that change nothing; a profile's don't count.

    A file's key may lie idle where a flag has changed what it needs: ``--partition iid`` on a file
    with alphas means just that.

    Parameters
    ----------
    experiment : ExperimentSpec
        What flags, file and profile make together.
    flags, file : mapping of str to value
        What was typed, and what the file says.
    where : str
        The file's name.

    Raises
    ------
    UserError
        If there is one; names what it needs.
    """
    for key, need in _NEEDS.items():
        if need.met(experiment):
            continue
        if flags.get(key) is not None:
            raise UserError(
                f"--{_flag(key)} has no effect: it needs --{_flag(need.field)} {need.value}"
            )
        if file.get(key) is not None and need.field not in flags:
            raise UserError(f"{where}: {key} has no effect: it needs {need.field} {need.value}")


def _flag(key: str) -> str:
    return key.replace("_", "-")
