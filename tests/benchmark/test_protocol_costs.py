"""What a run costs: seconds and operations of clients and server, cached work included."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import torch
from protocol_lab import Local, Toy, run

from benchmark.contract import (
    Broadcast,
    ClientInfo,
    GlobalModel,
    Made,
    MethodConfig,
    Upload,
    parameter,
)
from benchmark.events import Events
from benchmark.federation.federation import Federation
from benchmark.protocol import run_protocol
from benchmark.specs import BudgetSpec, CodeSpec
from benchmark.store import BusyError, Cache
from benchmark.testing import Bench


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory) -> Federation:
    folder = tmp_path_factory.mktemp("protocol")
    settings = {"train_samples": 150, "epochs": 1}
    return Bench("ensemble", settings, folder=folder).federation()


def test_seconds_go_to_whom_they_belong(federation: Federation) -> None:
    class Slow(Toy):
        def broadcast(self, client: Any, server: Any) -> Broadcast:
            time.sleep(0.02)
            return Broadcast()

        def client_update(self, client: Any, broadcast: Broadcast) -> Upload:
            time.sleep(0.05 * (client.info.index + 1))
            return super().client_update(client, broadcast)

        def server_update(self, uploads: Any, server: Any) -> GlobalModel:
            time.sleep(0.1)
            return super().server_update(uploads, server)

    began = time.perf_counter()
    result = run(Slow(), federation)
    wall = time.perf_counter() - began
    for index in range(3):
        assert result.client_seconds[index] >= 0.05 * (index + 1)
    assert result.server_seconds >= 0.1 + 3 * 0.02
    assert sum(result.client_seconds.values()) + result.server_seconds <= wall
    assert result.cached_client_seconds == 0


def test_cached_training_counts_at_the_price_it_had(federation: Federation) -> None:
    first, second = run(Local(), federation), run(Local(), federation)
    assert first.cached_client_seconds == 0
    assert second.cached_client_seconds > 0
    for index in range(3):
        price = second.client_seconds[index]
        assert price >= second.cached_client_seconds / 3 * 0.01
        assert len(second.cache_ids[index]) == 1
    assert second.cache_ids == first.cache_ids
    # What it cost then, and little more.
    assert second.cached_client_seconds <= sum(first.client_seconds.values())
    assert sum(second.client_seconds.values()) >= second.cached_client_seconds


def test_an_artifact_is_made_anew_in_every_round(federation: Federation) -> None:
    class Rounds(Toy):
        turns = 2

        def client_update(self, client: Any, broadcast: Broadcast) -> Upload:
            def make() -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
                return {"t": torch.zeros(1)}, {"round": client.round}

            return Upload(values=client.cached("round", {}, make)[1])

    for _ in range(2):  # the second time from the cache
        seen = run(Rounds(), federation).server.state["seen"]
        rounds = [{values["round"] for _, values in uploads.values()} for uploads in seen]
        assert rounds == [{0}, {1}]


def test_an_artifact_made_of_a_cached_one_costs_both(federation: Federation) -> None:
    class Maker(Toy):
        def client_update(self, client: Any, broadcast: Broadcast) -> Upload:
            def make() -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
                client.local_model()
                time.sleep(0.05)
                return {"t": torch.ones(1)}, {"n": 1}

            tensors, values = client.cached("thing", {"version": 1}, make)
            assert torch.equal(tensors["t"], torch.ones(1))
            assert values == {"n": 1}
            return Upload()

    run(Local(), federation)
    first, second = run(Maker(), federation), run(Maker(), federation)
    local = run(Local(), federation).cached_client_seconds
    assert first.cached_client_seconds == pytest.approx(local)
    assert second.cached_client_seconds >= local + 3 * 0.05
    assert all(len(ids) == 2 for ids in first.cache_ids.values())
    assert second.cache_ids == first.cache_ids


@pytest.mark.parametrize(("description", "shared"), [({}, False), ({"version": 1}, True)])
def test_other_code_makes_an_artefact_anew_unless_a_version_stands_for_it(
    tmp_path: Path, description: dict[str, Any], shared: bool
) -> None:
    bench = Bench("ensemble", {"train_samples": 150, "epochs": 1}, folder=tmp_path)
    scenario, compute = bench.spec.scenario, bench.spec.compute

    def made_by(plugin: str) -> str:
        code = CodeSpec(plugin=plugin)
        federation = Federation(scenario, compute, bench.data, Cache(tmp_path), Events(), code=code)
        made: Made = {}, {"number": plugin}
        return str(federation.client(0).cached("thing", description, lambda: made)[1]["number"])

    assert [made_by("old"), made_by("old")] == ["old", "old"]
    assert made_by("new") == ("old" if shared else "new")


class OtherConfig(MethodConfig):
    """One parameter more."""

    width: int = parameter(3, "anything", source="ours")


class Keeper(Toy):
    """Keeps one number a run, and hears which it is given."""

    def __init__(self, number: int, description: dict[str, Any], told: Any = None) -> None:
        super().__init__()
        self.number, self.description, self.told = number, description, told
        self.given: list[int] = []

    def __deepcopy__(self, memo: object) -> Keeper:
        return self  # clients write where the test reads

    def broadcast(self, client: ClientInfo, server: Any) -> Broadcast:
        return Broadcast({"told": {"t": torch.tensor([len(self.told or "")])}}, {"told": self.told})

    def client_update(self, client: Any, broadcast: Broadcast) -> Upload:
        made: Made = {}, {"number": self.number}
        self.given.append(client.cached("kept", self.description, lambda: made)[1]["number"])
        return Upload()


def _no_oracle() -> Any:
    raise AssertionError("for references alone")


@pytest.mark.parametrize(("description", "shared"), [({}, False), ({"version": 1}, True)])
@pytest.mark.parametrize("differs", ["budget", "broadcast", "configuration"])
def test_another_budget_broadcast_or_configuration_makes_an_artefact_anew(
    federation: Federation, differs: str, description: dict[str, Any], shared: bool
) -> None:
    def given(number: int, *, other: bool) -> set[int]:
        method = Keeper(number, description, "other" if other and differs == "broadcast" else None)
        if other and differs == "configuration":
            method.config = OtherConfig()
        steps = 77 if other and differs == "budget" else 5
        run_protocol(method, federation, BudgetSpec(generator_steps=steps), _no_oracle)
        return set(method.given)

    assert given(1, other=False) == {1}
    assert given(2, other=False) == {1}, "the same is made once"
    assert given(3, other=True) == ({1} if shared else {3})


@pytest.mark.parametrize("made", [{"t": torch.ones(1)}, ({}, {}, {}), ([], {})])
def test_what_make_has_to_return_is_said(federation: Federation, made: Any) -> None:
    said = r"client.cached\('thing'\): make must return \(tensors by name, JSON values\)"
    with pytest.raises(TypeError, match=said):
        federation.client(0).cached("thing", {}, lambda: made)


def test_a_try_that_is_broken_off_leaves_its_cache_entries_and_nothing_else(
    federation: Federation,
) -> None:
    met: list[int] = []

    class Interrupted(Toy):
        updates = 0

        def client_update(self, client: Any, broadcast: Broadcast) -> Upload:
            self.updates += 1
            matrix = torch.ones(64, 64, dtype=torch.float64)
            assert float((matrix @ matrix)[0, 0]) == 64
            client.local_model()
            if client.info.index == 0 and not met:
                met.append(0)
                time.sleep(0.3)
                raise BusyError("a generator")
            return Upload(values={"updates": self.updates})

    class Plain(Interrupted):
        def client_update(self, client: Any, broadcast: Broadcast) -> Upload:
            met.append(0)
            return super().client_update(client, broadcast)

    fresh = run(Plain(), federation)
    met.clear()
    broken = run(Interrupted(), federation)
    assert met
    assert broken.client_flops == fresh.client_flops, "the first try is not counted"
    assert broken.cache_ids == fresh.cache_ids
    assert broken.traffic == fresh.traffic, "the first try has left something in self"


def test_what_is_asked_for_twice_is_made_once_without_a_cache_too(tmp_path: Path) -> None:
    made: list[int] = []

    class Twice(Toy):
        def client_update(self, client: Any, broadcast: Broadcast) -> Upload:
            def make() -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
                made.append(client.info.index)
                return {"t": torch.ones(1)}, {}

            for _ in range(2):
                client.local_model()
                client.cached("thing", {"version": 1}, make)
            return Upload()

    def without_a_cache(method: Toy) -> int | None:
        bench = Bench("ensemble", {"train_samples": 150, "epochs": 1}, folder=tmp_path)
        uncached = bench.federation()
        uncached._cache.disabled = True
        return run(method, uncached).client_flops

    assert without_a_cache(Twice()) == without_a_cache(Local())
    assert made == [0, 1, 2]


def test_what_came_from_the_cache_is_a_cost_of_its_own_round_alone(federation: Federation) -> None:
    class Taking(Toy):
        turns = 2

        def client_update(self, client: Any, broadcast: Broadcast) -> Upload:
            if client.round == 0:
                client.ledger.cost.cached_seconds += 1000.0
            return super().client_update(client, broadcast)

    result = run(Taking(), federation)
    assert all(1000 <= seconds < 2000 for seconds in result.client_seconds.values())
