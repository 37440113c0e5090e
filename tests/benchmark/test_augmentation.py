"""A dataset's augmentation reaches every training; the digits of other tests have none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from federation_lab import bench

from benchmark.events import Events
from benchmark.federation import client as client_module
from benchmark.federation import federation as federation_module
from benchmark.federation.federation import Federation, FederationOracle
from benchmark.store import Cache
from benchmark.testing import Bench
from datasets import Augmentation

GIVEN = Augmentation(2, flip=True)


def augmented(place: Bench, folder: Path, augmentation: Augmentation = GIVEN) -> Federation:
    dataset = replace(place.data.dataset, augmentation=augmentation)
    data = replace(place.data, dataset=dataset)
    return Federation(place.spec.scenario, place.spec.compute, data, Cache(folder), Events())


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[Augmentation]:
    """Collect what trainings are given, by clients and by the oracle."""
    found: list[Augmentation] = []

    def watched(module: ModuleType) -> Callable[..., Any]:
        original: Callable[..., Any] = module.train

        def train(*given: Any, **settings: Any) -> Any:
            found.append(settings["augmentation"])
            return original(*given, **settings)

        return train

    for module in (client_module, federation_module):
        monkeypatch.setattr(module, "train", watched(module))
    return found


@pytest.mark.parametrize(("augment", "expected"), [(True, GIVEN), (False, Augmentation())])
def test_every_training_has_it_unless_the_recipe_says_no(
    tmp_path: Path, seen: list[Augmentation], augment: bool, expected: Augmentation
) -> None:
    warm = {"rounds_warmup": 1, "warmup_steps": 1, "epochs": 1}
    federation = augmented(bench(tmp_path, augment=augment, **warm), tmp_path)
    assert seen == [expected] * 3, "warm-up"
    client = federation.client(0)
    client.local_model()
    assert seen[3:] == [expected], "local training"
    client.train(client.initial_model(), steps=1)
    assert seen[4:] == [expected], "a method's own training"
    FederationOracle(federation, Events()).train_centrally(client.initial_model())
    assert seen[5:] == [expected], "central training"


def test_other_augmentation_makes_another_model(tmp_path: Path) -> None:
    place, ids = bench(tmp_path), set()
    for augmentation in (GIVEN, Augmentation(1, flip=True), Augmentation()):
        client = augmented(place, tmp_path, augmentation).client(0)
        client.local_model()
        ids |= set(client.ledger.cost.cache_ids)
    assert len(ids) == 3
