"""The protocol of a run: who is called with what, what it costs, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from protocol_lab import BUDGET, Local, Toy, run
from torch import nn

from benchmark.contract import (
    Broadcast,
    Generated,
    GlobalModel,
    MethodConfig,
    Reference,
    Upload,
)
from benchmark.events import Events
from benchmark.federation.federation import Federation, FederationOracle
from benchmark.protocol import run_protocol
from benchmark.registry import PluginError
from benchmark.specs import BudgetSpec
from benchmark.testing import Bench
from benchmark.wire import WireError, encode


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory) -> Federation:
    folder = tmp_path_factory.mktemp("protocol")
    settings = {"train_samples": 150, "epochs": 1}
    return Bench("ensemble", settings, folder=folder).federation()


def test_uploads_arrive_keyed_by_client_and_are_counted(federation: Federation) -> None:
    result = run(Toy(), federation)
    (seen,) = result.server.state["seen"]
    assert list(seen) == [0, 1, 2]
    for index, (parts, values) in seen.items():
        assert torch.equal(parts["vector"]["v"], torch.arange(5) + float(index))
        assert values == {"round": 0}
        booked = result.traffic.uploads[0, index]
        text = '{"values":{"round":0}}'
        assert booked["vector"] == 5 * 4
        assert booked["values"] == len(text)
        message = Upload({"vector": {"v": torch.zeros(5)}}, {"round": 0})
        assert sum(booked.values()) == len(encode(message))
    assert result.traffic.broadcasts == {}
    up, down = result.traffic.totals()
    assert (up, down) == (3 * len(encode(message)), 0)
    summary = result.traffic.summary(3)
    assert summary["up"] == sum(item["up"] for item in summary["per_client"]) == up
    assert summary["per_round"][0]["up"]["vector"] == 3 * 5 * 4


def test_what_arrives_is_a_copy(federation: Federation) -> None:
    kept: list[torch.Tensor] = []

    class Sneaky(Toy):
        def client_update(self, client: Any, broadcast: Broadcast) -> Upload:
            kept.append(torch.zeros(2))
            return Upload({"p": {"t": kept[-1]}})

        def server_update(self, uploads: Any, server: Any) -> GlobalModel:
            for upload in uploads.values():
                upload.parts["p"]["t"].add_(1)
            return GlobalModel(server.initial_model())

    run(Sneaky(), federation)
    assert all(torch.equal(tensor, torch.zeros(2)) for tensor in kept)


def test_what_a_client_keeps_in_self_stays_with_it(federation: Federation) -> None:
    class Keeping(Toy):
        turns = 2

        def client_update(self, client: Any, broadcast: Broadcast) -> Upload:
            before = getattr(self, "kept", None)
            self.kept = client.info.index
            return Upload(values={"before": before})

        def server_update(self, uploads: Any, server: Any) -> GlobalModel:
            assert not hasattr(self, "kept")
            return super().server_update(uploads, server)

    first, second = run(Keeping(), federation).server.state["seen"]
    assert [values["before"] for _, values in first.values()] == [None, None, None]
    assert [values["before"] for _, values in second.values()] == [0, 1, 2]


class Rounds(Toy):
    """Three rounds; each client is sent the round's number and the model of the last one."""

    name = "rounds"
    turns = 3

    def broadcast(self, client: Any, server: Any) -> Broadcast:
        if server.round == 0:
            return Broadcast()
        return Broadcast({"model": {"t": torch.zeros(server.round)}}, {"to": client.index})

    def client_update(self, client: Any, broadcast: Broadcast) -> Upload:
        return Upload(
            {},
            {"got": dict(broadcast.values), "size": sum(len(t) for p in broadcast.parts.values()
                                                        for t in p.values())},
        )  # fmt: skip

    def server_update(self, uploads: Any, server: Any) -> GlobalModel:
        server.state[server.round] = [upload.values for upload in uploads.values()]
        assert server.rounds == 3
        before = server.global_model
        model = server.initial_model()
        model.mark = getattr(before, "mark", 0) + 1
        server.report(server.round + 1, 3, model, loss=0.5)
        return GlobalModel(model)


def test_rounds_broadcasts_state_and_the_previous_model(federation: Federation) -> None:
    result = run(Rounds(), federation)
    assert result.output.model.mark == 3
    assert result.server.state[0] == [{"got": {}, "size": 0}] * 3
    assert result.server.state[2] == [{"got": {"to": index}, "size": 2} for index in range(3)]
    assert {key[0] for key in result.traffic.broadcasts} == {1, 2}
    assert {key[0] for key in result.traffic.uploads} == {0, 1, 2}
    assert [(s.round, s.step) for s in result.server.snapshots] == [(0, 1), (1, 2), (2, 3)]
    assert result.traffic.broadcasts[2, 1]["model"] == 2 * 4


def test_reports_of_clients_are_kept_by_round_and_step(federation: Federation) -> None:
    class Talker(Toy):
        def client_update(self, client: Any, broadcast: Broadcast) -> Upload:
            client.report(1, 2, loss=3.0)
            client.report(1, 2, loss=4.0)
            client.report(2, 2)
            return Upload()

    result = run(Talker(), federation)
    assert result.client_reports == {index: {(0, 1): {"loss": 4.0}} for index in range(3)}
    silent = run_protocol(
        Talker(), federation, BudgetSpec(history_points=0), lambda: FederationOracle(
            federation, Events()
        ),
    )  # fmt: skip
    assert silent.client_reports == {0: {}, 1: {}, 2: {}}


def test_the_servers_chance_carries_the_methods_name(federation: Federation) -> None:
    class Named(Toy):
        def server_update(self, uploads: Any, server: Any) -> GlobalModel:
            server.state["seed"] = server.generator("noise").initial_seed()
            return GlobalModel(server.new_model())

    class Other(Named):
        name = "other"

    class Disguised(Named):
        name = "third"

        @property
        def stream(self) -> str:
            return "toy"

    seeds = [run(method(), federation).server.state["seed"] for method in (Named, Other, Disguised)]
    assert seeds[0] != seeds[1]
    assert seeds[0] == seeds[2]


def test_reports_beyond_any_measure_are_harmless(federation: Federation) -> None:
    server = federation.server("toy", 1, BUDGET)
    server.report(0, 0)
    server.report(0, 10, loss=float("nan"))
    for step in range(1, 1001):
        server.report(step, 1000, server.global_model, loss=1.0)
    models = [shot.step for shot in server.snapshots if shot.model is not None]
    assert models[-4:] == [250, 500, 750, 1000]
    assert len(server.snapshots) <= 103
    assert all(shot.model is not server.global_model for shot in server.snapshots)


def test_steps_that_run_on_over_rounds_are_looked_at_as_often_as_asked(
    federation: Federation,
) -> None:
    server = federation.server("toy", 200, BUDGET)
    for round_index in range(200):
        server.round = round_index
        server.report(round_index + 1, 200, server.global_model)
    models = [shot.step for shot in server.snapshots if shot.model is not None]
    assert models == [50, 100, 150, 200]


def test_only_references_meet_the_oracle(federation: Federation) -> None:
    class Peeking(Reference[MethodConfig]):
        name = "peeking"
        summary = "for tests"

        def client_update(self, client: Any, broadcast: Broadcast) -> Upload:
            return Upload()

        def reference_update(self, uploads: Any, server: Any, oracle: Any) -> GlobalModel:
            return GlobalModel(server.initial_model(), details={"seen": len(oracle.labels)})

    def refuse() -> Any:
        raise AssertionError("a method got an oracle")

    run_protocol(Toy(), federation, BUDGET, refuse)
    result = run(Peeking(MethodConfig()), federation)
    assert result.output.details == {"seen": sum(federation.data.partition.sizes)}
    with pytest.raises(TypeError, match="peeking is a reference"):
        Peeking(MethodConfig()).server_update({}, result.server)


def broken(**functions: Callable[..., Any]) -> Toy:
    return type("Broken", (Toy,), functions)()


def hands_over(**fields: Any) -> Toy:
    def server_update(self: Any, uploads: Any, server: Any) -> GlobalModel:
        return GlobalModel(**{"model": server.global_model, **fields})

    return broken(server_update=server_update)


def images(count: int, channels: int = 1, side: int = 32) -> torch.Tensor:
    return torch.zeros(count, channels, side, side, dtype=torch.uint8)


@pytest.mark.parametrize(
    ("method", "says"),
    [
        (broken(client_update=lambda *_: {}), "client_update returned a dict, expected Upload"),
        (broken(client_update=lambda *_: Broadcast()), "returned a Broadcast, expected Upload"),
        (broken(broadcast=lambda *_: None), "broadcast returned a NoneType, expected Broadcast"),
        (
            broken(server_update=lambda *_: nn.Linear(1, 1)),
            "server_update returned a Linear, expected GlobalModel",
        ),
        (hands_over(model="m"), "GlobalModel.model is a str, expected an nn.Module"),
        (hands_over(teacher=3), "GlobalModel.teacher is a int, expected an nn.Module"),
        (hands_over(details=[1]), "GlobalModel.details is a list, expected a mapping"),
        (hands_over(details={"a": torch.ones(1)}), "details"),
        (hands_over(images={"g": torch.ones(1, 1, 2, 2)}), "images 'g' is no uint8 tensor"),
        (hands_over(warnings="one line"), "use a tuple of str"),
        (hands_over(generated=images(4)), "generated is a Tensor, expected a Generated"),
        (hands_over(generated=Generated(images(0))), "generated.images is no uint8 tensor"),
        (hands_over(generated=Generated([1])), "generated.images is no uint8 tensor"),  # type: ignore[arg-type]
        (
            hands_over(generated=Generated(images(4, 3))),
            "generated.images are (3, 32, 32), the task's are (1, 32, 32) (C, H, W)",
        ),
        (
            hands_over(generated=Generated(images(4, side=28))),
            "generated.images are (1, 28, 28), the task's are (1, 32, 32)",
        ),
        (
            hands_over(generated=Generated(images(4), torch.zeros(3, dtype=torch.int64))),
            "generated.clients names no client for every image",
        ),
        (
            hands_over(generated=Generated(images(4), torch.zeros(4))),
            "generated.clients is torch.float32, expected torch.int64",
        ),
        (
            hands_over(generated=Generated(images(4), torch.tensor([0, 1, 2, 3]))),
            "generated.clients names client 3, the clients are 0 to 2",
        ),
        (
            hands_over(generated=Generated(images(4), torch.tensor([0, -1, 2, 2]))),
            "generated.clients names client -1, the clients are 0 to 2",
        ),
        (broken(turns=0), "rounds must be at least 1"),
        (broken(turns=2.0), "rounds must be at least 1"),
    ],
)
def test_wrong_types_are_one_line_that_names_the_method(
    method: Toy, says: str, federation: Federation
) -> None:
    with pytest.raises(PluginError) as caught:
        run(method, federation)
    text = str(caught.value)
    assert text.startswith("method 'toy': ")
    assert says in text
    assert "\n" not in text


def test_what_cant_cross_the_wire_is_named_with_its_sender(federation: Federation) -> None:
    def client_update(self: Any, client: Any, broadcast: Any) -> Upload:
        if client.info.index == 1:
            return Upload({"model": {"w": [1.0]}})  # type: ignore[dict-item]
        return Upload()

    with pytest.raises(WireError, match=r"^upload of client 1 in round 0: 'model/w' must be a"):
        run(broken(client_update=client_update), federation)


def test_an_error_of_the_method_passes_through(federation: Federation) -> None:
    def client_update(self: Any, client: Any, broadcast: Any) -> Upload:
        raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match="mine"):
        run(broken(client_update=client_update), federation)


def test_models_are_cached_in_the_folder(federation: Federation, tmp_path: Path) -> None:
    other = Bench("ensemble", {"train_samples": 150, "epochs": 1}, folder=tmp_path).federation()
    run(Local(), other)
    assert len(list((tmp_path / "client").rglob("data.safetensors"))) == 3


def test_a_broadcast_of_values_alone_is_booked(federation: Federation) -> None:
    class Telling(Toy):
        def broadcast(self, client: Any, server: Any) -> Broadcast:
            return Broadcast({}, {"to": client.index})

    booked = run(Telling(), federation).traffic.broadcasts
    assert set(booked) == {(0, index) for index in range(3)}
    assert all(parts["values"] == len('{"values":{"to":0}}') for parts in booked.values())
