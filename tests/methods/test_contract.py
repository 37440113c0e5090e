"""The contract test suite over every registered method."""

from __future__ import annotations

import functools
from collections.abc import Callable

import pytest

from benchmark.registry import discover
from benchmark.testing import CHECKS, Bench
from benchmark.testing.checks import Check

REGISTRY = discover()


@pytest.fixture(scope="module")
def bench_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Bench]:
    """One bench a method, and one cache for all: clients are trained once, as in a real grid."""
    folder = tmp_path_factory.mktemp("contract")
    return functools.cache(lambda name: Bench(name, folder=folder, registry=REGISTRY))


def test_every_built_in_plugin_can_be_used() -> None:
    assert REGISTRY.broken == {}
    assert {"fedavg", "centralized", "best_client", "ensemble", "class_share"} <= set(
        REGISTRY.methods
    )


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", sorted(REGISTRY.methods))
def test_contract(name: str, check: Check, bench_of: Callable[[str], Bench]) -> None:
    check(bench_of(name))
