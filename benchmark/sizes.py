"""How large a scenario's data is, known without opening the dataset."""

from __future__ import annotations

from functools import cache

from benchmark.specs import ScenarioSpec
from datasets.catalog import spec_of
from datasets.errors import DataError

_USUAL_SAMPLES = 50_000


def training_samples(scenario: ScenarioSpec) -> int:
    """Return about how many training samples all clients hold together."""
    samples = scenario.train_samples or _published(scenario.dataset)
    return samples - round(scenario.holdout * samples)


# A grid asks once a cell, and a user's own tree is listed to be told its size.
@cache
def _published(dataset: str) -> int:
    try:
        return spec_of(dataset).info.train_samples or _USUAL_SAMPLES
    except DataError:
        # To plan is not to open: whoever does says what is wrong with the data.
        return _USUAL_SAMPLES
