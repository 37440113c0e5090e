"""Training on real images, where Debian's ``dataset-fashion-mnist`` or a download is found."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from grids import run_grid

import datasets
from benchmark.federation.data import load_scenario_data
from benchmark.specs import RunSpec
from benchmark.store import Record, Store
from datasets.catalog import spec_of

pytestmark = pytest.mark.long

SETTINGS: dict[str, Any] = {
    "methods": ["centralized", "fedavg"],
    "datasets": "fashion_mnist",
    "train_samples": 2000,
    "holdout": 0.0,
    "clients": 3,
    "alpha": 0.5,
    "widths": "1/2",
    "epochs": 4,
    "batch_size": 32,
    "lr": 0.05,
    "history_points": 0,
}


def found() -> bool:
    """Return whether the garments are on this machine, without downloading them."""
    try:
        datasets.load("fashion_mnist", download=False)
    except datasets.DataError:
        return False
    return True


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    # Asked here, not on import: reading the whole set would slow down every collection.
    if not found():
        pytest.skip("Fashion-MNIST is not on this machine")
    folder = tmp_path_factory.mktemp("garments")
    result, listener = run_grid(folder, **SETTINGS)
    assert result.done == 2, listener.ended
    return folder


@pytest.fixture(scope="module")
def records(results: Path) -> dict[str, Record]:
    return {record.label: record for record in Store(results).experiment("main").records()}


def test_it_learns(records: dict[str, Record]) -> None:
    accuracies = {label: record.metrics["accuracy"] for label, record in records.items()}
    assert accuracies["centralized"] > 0.7
    assert accuracies["fedavg"] > 0.15, "above chance, after a single average"
    assert accuracies["centralized"] > accuracies["fedavg"]


def test_all_test_garments_are_asked(records: dict[str, Record]) -> None:
    info = spec_of("fashion_mnist").info
    for record in records.values():
        assert record.metrics["test_samples"] == 10_000
        assert sum(map(sum, record.metrics["confusion"])) == 10_000
        assert [sum(row) for row in record.metrics["confusion"]] == [1000] * 10
        assert len(record.metrics["class_names"]) == info.classes == 10


def test_its_record_can_be_traced(records: dict[str, Record], results: Path) -> None:
    record = records["fedavg"]
    spec = RunSpec.parse(record.spec, "record")
    assert spec.run_id == record.run_id
    data = load_scenario_data(spec.scenario, None, results / ".cache" / "data")
    assert data.dataset.fingerprint == record.metrics["dataset_fingerprint"]
    assert data.partition.digest[:16] == record.metrics["split"]["id"]
    assert list(data.partition.sizes) == record.metrics["split"]["sizes"]
    assert sum(data.partition.sizes) == 2000
    for index, (key,) in record.environment["client_cache_ids"].items():
        assert index in {"0", "1", "2"}
        assert (results / ".cache" / "client" / key[:2] / key / "manifest.json").is_file()
    assert record.environment["versions"]["torch"]
    assert record.environment["hardware"]["cpu"]
    assert record.communication["up"] > 0


def test_both_rows_had_the_same_split(records: dict[str, Record]) -> None:
    first, second = (record.metrics["split"] for record in records.values())
    assert first == second
