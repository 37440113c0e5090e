"""What a client's work is said to cost does not hang on who did it, or when."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from protocol_lab import Toy, run

from benchmark.contract import Broadcast, Made, Upload
from benchmark.engine import _warnings
from benchmark.environment import processor
from benchmark.events import Events
from benchmark.federation import client as client_module
from benchmark.federation import federation as federation_module
from benchmark.federation import ledger as ledger_module
from benchmark.federation.federation import Federation, FederationOracle
from benchmark.protocol import ProtocolResult, run_protocol
from benchmark.specs import BudgetSpec
from benchmark.store import Entry
from benchmark.testing import Bench

Federations = Callable[..., Federation]


def product(size: int) -> None:
    """Multiply two matrices of that size."""
    matrix = torch.ones(size, size, dtype=torch.float64)
    assert float((matrix @ matrix)[0, 0]) == size


@pytest.fixture
def federations(tmp_path: Path) -> Federations:
    """Make federations of the same clients, that share a cache unless they have none."""
    bench = Bench("ensemble", {"train_samples": 150, "epochs": 1}, folder=tmp_path)

    def make(*, cached: bool = True) -> Federation:
        made = bench.federation()
        made._cache.disabled = not cached
        return made

    return make


class Guided(Toy):
    """Makes a thing of another thing and the client's model, which it may ask for before."""

    def __init__(self, *before: str) -> None:
        super().__init__()
        self.before = before

    def client_update(self, client: Any, broadcast: Broadcast) -> Upload:
        asked = {"model": client.local_model, "inner": lambda: self.inner(client)}
        for name in self.before:
            asked[name]()

        def make() -> Made:
            product(32)
            self.inner(client)
            product(16)
            return {}, {}

        client.cached("outer", {"version": 1}, make)
        product(64)
        return Upload()

    @staticmethod
    def inner(client: Any) -> None:
        def make() -> Made:
            product(48)
            client.local_model()
            return {}, {}

        client.cached("inner", {"version": 1}, make)


ORDERS = [(), ("model",), ("inner",), ("model", "inner")]


@pytest.mark.parametrize(("first", "second"), [*itertools.product(ORDERS, ORDERS)])
def test_operations_and_entries_are_those_of_the_method_whoever_made_them(
    federations: Federations, first: tuple[str, ...], second: tuple[str, ...]
) -> None:
    alone = run(Guided(*second), federations(cached=False))
    run(Guided(*first), federations())
    after = run(Guided(*second), federations())
    assert alone.client_flops
    assert after.client_flops == alone.client_flops
    assert {i: set(ids) for i, ids in after.cache_ids.items()} == {
        i: set(ids) for i, ids in alone.cache_ids.items()
    }
    assert all(len(ids) == 3 for ids in after.cache_ids.values())


def test_a_pass_after_the_training_is_counted_where_that_was_done_too(
    federations: Federations,
) -> None:
    class Passing(Toy):
        size = 0

        def client_update(self, client: Any, broadcast: Broadcast) -> Upload:
            client.local_model()
            if self.size:
                product(self.size)
            return Upload()

    def flops(size: int, *, cached: bool) -> int:
        method = Passing()
        method.size = size
        found = run(method, federations(cached=cached)).client_flops
        assert found is not None
        return found

    fresh = [flops(size, cached=False) for size in (0, 64)]
    assert fresh[1] - fresh[0] == 3 * 2 * 64**3
    assert [flops(size, cached=True) for size in (0, 64)] == fresh


def test_what_nobody_counted_is_not_free(federations: Federations) -> None:
    federations().client(0).cached("inner", {"version": 1}, lambda: ({}, {}))  # in no section
    assert run(Guided(), federations()).client_flops is None


class Slow(Guided):
    """Takes its time over what it makes."""

    @staticmethod
    def inner(client: Any) -> None:
        def make() -> Made:
            time.sleep(0.2)
            return {}, {}

        client.cached("inner", {"version": 1}, make)


def test_seconds_of_what_a_thing_is_made_of_are_booked_once(federations: Federations) -> None:
    run(Slow(), federations())
    for before in ORDERS:
        again = run(Slow(*before), federations())
        assert 0.2 <= again.client_seconds[0] < 0.4
        assert again.client_seconds[0] >= again.cached_client_seconds / 3 * 0.5


def test_waiting_for_another_run_is_no_work_of_a_client(
    federations: Federations, monkeypatch: pytest.MonkeyPatch
) -> None:
    def busy(result: ProtocolResult) -> float:
        return max(result.client_seconds.values())

    run(Guided(), federations())
    federation = federations()
    take = federation._cache.get_or_make

    def late(*args: Any, **kwargs: Any) -> Entry:
        time.sleep(1.0)
        return take(*args, **kwargs)

    monkeypatch.setattr(federation._cache, "get_or_make", late)
    began = time.perf_counter()
    result = run(Guided(), federation)
    assert time.perf_counter() - began > 3
    assert busy(result) < 1


def test_what_was_reported_while_a_thing_was_made_is_history_from_the_cache_too(
    federations: Federations,
) -> None:
    class Talking(Toy):
        def client_update(self, client: Any, broadcast: Broadcast) -> Upload:
            def inner() -> Made:
                client.report(np.int64(1), 2, loss=torch.tensor(0.5))
                return {}, {}

            def make() -> Made:
                client.cached("inner", {"version": 1}, inner)
                client.report(2, 2, loss=float("nan"))
                return {}, {}

            client.cached("outer", {"version": 1}, make)
            return Upload()

    def told(*, points: int = 2, cached: bool = True) -> str:
        federation = federations(cached=cached)
        oracle = FederationOracle(federation, Events())
        budget = BudgetSpec(history_points=points)
        result = run_protocol(Talking(), federation, budget, lambda: oracle)
        return str(result.client_reports[0])

    fresh = told(cached=False)
    assert fresh == "{(0, 1): {'loss': 0.5}, (0, 2): {'loss': nan}}"
    assert told(points=0) == "{}", "who makes it need not want a history"
    assert [told(), told()] == [fresh, fresh]


def test_work_of_another_processor_is_named(
    federations: Federations, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(Guided(), federations()).other_processors == set()
    assert run(Guided(), federations()).other_processors == set()
    for module in (client_module, federation_module):
        monkeypatch.setattr(module, "processor", lambda device: f"Abacus ({device})")
    here = processor("cpu")
    assert run(Guided(), federations()).other_processors == {here}
    assert run(Guided(), federations(cached=False)).other_processors == set()
    warm = _warnings(federations(), [here])
    assert f"made on {here}: on this processor" in warm[-1]
    assert len(_warnings(federations(), [])) == len(warm) - 1


def test_what_is_made_of_another_processors_work_names_it_too(
    federations: Federations, monkeypatch: pytest.MonkeyPatch
) -> None:
    federations().client(0).local_model()
    here = processor("cpu")
    monkeypatch.setattr(client_module, "processor", lambda device: "Abacus")
    client = federations().client(0)

    def make() -> Made:
        client.local_model()
        return {}, {}

    client.cached("outer", {"version": 1}, make)
    monkeypatch.setattr(client_module, "processor", processor)
    again = federations().client(0)
    again.cached("outer", {"version": 1}, make)
    assert again.ledger.cost.other_processors == {"Abacus"}
    monkeypatch.setattr(client_module, "processor", lambda device: "Cray")
    third = federations().client(0)
    third.cached("outer", {"version": 1}, make)
    assert third.ledger.cost.other_processors == {"Abacus", here}


def test_entries_of_earlier_versions_do_not_say_where_they_were_made(
    federations: Federations, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger_module, "MADE_ON", "of_this_version_alone")
    federations().client(0).local_model()
    monkeypatch.undo()
    client = federations().client(0)
    client.local_model()
    assert client.ledger.cost.other_processors == set()
    assert client.ledger.cost.cached_seconds > 0


def test_a_warm_up_of_another_processor_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    overrides = {"train_samples": 150, "rounds_warmup": [2], "warmup_steps": 1}
    bench = Bench("ensemble", overrides, folder=tmp_path)
    assert bench.federation().other_processors == set()
    assert bench.federation().other_processors == set()
    monkeypatch.setattr(federation_module, "processor", lambda device: "Abacus")
    assert bench.federation().other_processors == {processor("cpu")}
    # Continued there, it is of both.
    longer = Bench("ensemble", {**overrides, "rounds_warmup": [3]}, folder=tmp_path)
    assert longer.federation().other_processors == {processor("cpu")}
    assert longer.federation().other_processors == {processor("cpu")}
