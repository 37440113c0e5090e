"""The contract test suite over every registered method."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmark.registry import discover
from benchmark.testing import CHECKS, Bench
from benchmark.testing.checks import Check

REGISTRY = discover()


@pytest.fixture(scope="module")
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache for all methods: clients are trained once, as in a real grid."""
    return tmp_path_factory.mktemp("contract")


def test_every_built_in_plugin_can_be_used() -> None:
    assert REGISTRY.broken == {}
    assert {"fedavg", "centralized", "best_client", "ensemble", "class_share"} <= set(
        REGISTRY.methods
    )


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", sorted(REGISTRY.methods))
def test_contract(name: str, check: Check, shared_folder: Path) -> None:
    check(Bench(name, folder=shared_folder, registry=REGISTRY))
