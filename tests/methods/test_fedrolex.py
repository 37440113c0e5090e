"""FedRolex, HeteroFL and federated dropout as plugins, on a small federation of digits."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmark.contract import Method, Upload
from benchmark.errors import UserError
from benchmark.federation.client import LocalClient
from benchmark.federation.federation import Federation
from benchmark.models.submodel import OrderCounters, SubmodelUpload, aggregate, extract
from benchmark.protocol import ProtocolResult
from benchmark.registry import discover
from benchmark.testing import Bench
from benchmark.testing.checks import ignores_batch_mates
from methods.blocks.submodels import Window

SMALL = {"train_samples": 150, "epochs": 2, "history_points": 0}
UNEQUAL = ("1/4,1/8,1/16",)
NONE_WHOLE = ("1/16,1/16,1/16,1/8",)
"""Three clients take the first three: the global model is twice as wide as any of them.

No scenario may have more widths than clients; here it stands for clients that stay away.
"""
FAMILY = ("fedrolex", "heterofl", "federated_dropout")

MakeBench = Callable[..., Bench]


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> MakeBench:
    folder, registry = tmp_path_factory.mktemp("fedrolex"), discover()

    def make(name: str, config: Mapping[str, Any] | None = None, **overrides: Any) -> Bench:
        settings = {**SMALL, **overrides, "set": {name: dict(config or {})}}
        if overrides.get("widths") != NONE_WHOLE:
            return Bench(name, settings, folder=Path(folder), registry=registry)
        made = Bench(name, {**settings, "widths": UNEQUAL}, folder=Path(folder), registry=registry)
        dealt = tuple(Fraction(width) for width in NONE_WHOLE[0].split(","))
        scenario = made.spec.scenario.model_copy(update={"widths": dealt})
        made.__dict__["spec"] = made.spec.model_copy(update={"scenario": scenario})
        return made

    return make


def state_of(result: ProtocolResult) -> dict[str, Tensor]:
    return dict(result.output.model.state_dict())


def equal(one: ProtocolResult, other: ProtocolResult) -> bool:
    first, second = state_of(one), state_of(other)
    return first.keys() == second.keys() and all(torch.equal(first[n], second[n]) for n in first)


class Uploads:
    """Keeps what every client uploaded, by round and client."""

    def __init__(self) -> None:
        self.by_round: dict[int, dict[int, Upload]] = {}
        self.before: dict[int, dict[str, Tensor]] = {}

    def __call__(self, method: Method[Any], federation: Federation) -> None:
        original = method.server_update

        def server_update(uploads: Mapping[int, Upload], server: Any) -> Any:
            self.by_round[server.round] = dict(uploads)
            state = server.global_model.state_dict()
            self.before[server.round] = {name: value.clone() for name, value in state.items()}
            return original(uploads, server)

        method.server_update = server_update  # type: ignore[method-assign]


@pytest.mark.parametrize("warmup", [0, 2])
def test_one_round_of_fedrolex_is_heterofl_bit_for_bit(
    bench: MakeBench, tmp_path: Path, warmup: int
) -> None:
    scenario = {"widths": UNEQUAL, "rounds_warmup": warmup}
    rolex, dropout = (bench(name, **scenario).run() for name in ("fedrolex", "federated_dropout"))
    # A cache of its own: the slices are trained again, not handed over.
    hetero = replace(bench("heterofl", **scenario), folder=tmp_path).run()
    assert equal(rolex, hetero)
    assert not equal(rolex, dropout)
    assert rolex.traffic == hetero.traffic
    assert rolex.output.details["equals"] == "heterofl"
    assert rolex.traffic.totals()[1] == 0
    narrow = [info.index for info in bench("heterofl", **scenario).federation().infos]
    narrow.remove(_whole_client(bench("heterofl", **scenario)))
    # The seed of its channels is all that a client is sent, unless a warm-up changed the weights.
    sent = {
        client: parts.get("model", 0) for (_, client), parts in dropout.traffic.broadcasts.items()
    }
    assert sorted(sent) == narrow
    assert all((size > 0) == bool(warmup) for size in sent.values())


def _whole_client(bench: Bench) -> int:
    infos = bench.federation().infos
    return max(infos, key=lambda info: info.width).index


def test_more_rounds_roll_on(bench: MakeBench) -> None:
    config = {"rounds": 2}
    results = [bench(name, config, widths=NONE_WHOLE).run() for name in ("fedrolex", "heterofl")]
    assert not equal(*results)
    first = [sets["spaces"][0][0] for sets in results[0].output.details["index_sets"]]
    # Four channels, moved backwards by one: the published code's direction.
    assert first == [3, 3, 3]
    assert [s["spaces"][0][0] for s in results[1].output.details["index_sets"]] == [0, 0, 0]


@pytest.mark.parametrize(("rounds", "warmup"), [(1, 0), (2, 0), (1, 1)])
def test_at_full_width_the_parts_tell_fedrolex_from_fedavg(
    bench: MakeBench, rounds: int, warmup: int
) -> None:
    off = {"label_masked": False, "label_head": False, "rounds": rounds}
    on = {"label_masked": True, "label_head": True, "rounds": rounds}
    uniform = {"weights": "uniform"}

    def run(name: str, config: Mapping[str, Any]) -> ProtocolResult:
        return bench(name, config, rounds_warmup=warmup).run()

    plain, full = run("fedrolex", off), run("fedrolex", on)
    assert equal(plain, run("fedavg", {**uniform, "rounds": rounds}))
    assert equal(full, run("fedavg", {**uniform, **on}))
    assert not equal(plain, full)


def cnn_bytes(width: Fraction, classes: int = 10) -> int:
    """Return the bytes of CNN's state dict: fp32 entries and three int64 batch counters."""
    n1, n2, n3 = (-(-n * width.numerator // width.denominator) for n in (32, 64, 128))
    convs = 9 * (1 * n1 + n1 * n2 + n2 * n3)
    norms = 4 * (n1 + n2 + n3)  # scale, shift, running mean and variance
    return 4 * (convs + norms + classes * n3 + classes) + 3 * 8


@pytest.mark.parametrize("name", FAMILY)
def test_traffic_has_its_closed_form(bench: MakeBench, name: str) -> None:
    small = bench(name, {"rounds": 2}, widths=UNEQUAL)
    result = small.run()
    for info in small.federation().infos:
        slice_bytes = cnn_bytes(info.width)
        for round_index in (0, 1):
            assert result.traffic.uploads[round_index, info.index]["model"] == slice_bytes
        assert result.traffic.broadcasts[1, info.index]["model"] == slice_bytes
        assert "model" not in result.traffic.broadcasts.get((0, info.index), {})


def test_local_steps_are_shared_out_over_the_rounds(
    bench: MakeBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: dict[int, list[int]] = {}
    original = LocalClient.train

    def train(self: LocalClient, model: Any, **options: Any) -> None:
        taken.setdefault(self.info.index, []).append(options["steps"])
        original(self, model, **options)

    monkeypatch.setattr(LocalClient, "train", train)
    small = bench("heterofl", {"rounds": 3}, widths=UNEQUAL, batch_size=16)
    small.run()
    federation = small.federation()
    assert sorted(taken) == [0, 1, 2]
    for index, steps in taken.items():
        assert sum(steps) == federation.client(index).local_steps()
        assert max(steps) - min(steps) <= 1


def test_entries_that_nobody_trained_keep_their_bits(bench: MakeBench) -> None:
    small = bench("heterofl", widths=NONE_WHOLE)
    kept = Uploads()
    after = state_of(small.run(kept))
    before = kept.before[0]
    half = {name: size // 2 for name, size in (("conv1", 4), ("conv2", 8), ("conv3", 16))}
    for name, outer in half.items():
        weight, old = after[f"{name}.weight"], before[f"{name}.weight"]
        assert torch.equal(weight[outer:], old[outer:])
        assert not torch.equal(weight[:outer], old[:outer])
    assert torch.equal(after["head.weight"][:, 8:], before["head.weight"][:, 8:])
    held = {label for upload in kept.by_round[0].values() for label in upload.values["classes"]}
    for label in range(10):
        same = torch.equal(after["head.weight"][label], before["head.weight"][label])
        assert same == (label not in held)


def test_windows_that_roll_or_are_staggered_reach_more_of_the_model(bench: MakeBench) -> None:
    def trained(name: str, **config: Any) -> float:
        result = bench(name, {"label_head": False, **config}, widths=NONE_WHOLE).run()
        return float(result.output.details["trained_share"])

    static = trained("heterofl")
    # Half of the channels of every layer; image channels and classes are whole.
    conv, norm, head = 9 * (2 + 2 * 4 + 4 * 8), 2 * (2 + 4 + 8), 10 * 8 + 10
    whole = 9 * (4 + 4 * 8 + 8 * 16) + 2 * (4 + 8 + 16) + 10 * 16 + 10
    assert static == pytest.approx((conv + norm + head) / whole)
    assert trained("heterofl", rounds=3) == static
    assert trained("fedrolex", rounds=3) > static
    assert trained("fedrolex", offsets="staggered") > static


@pytest.mark.parametrize("warmup", [0, 1])
def test_staggered_windows_tile_the_width_and_roll(bench: MakeBench, warmup: int) -> None:
    config = {"offsets": "staggered", "rounds": 2}
    result = bench("fedrolex", config, widths=NONE_WHOLE, rounds_warmup=warmup).run()
    first = [sets["spaces"][0][0] for sets in result.output.details["index_sets"]]
    # Phases 0, 1/2 and 0 of four channels, rolled back by one channel a round.
    assert first == [(start - 1 - warmup) % 4 for start in (0, 2, 0)]
    assert bool(result.traffic.broadcasts[0, 0].get("model")) == bool(warmup)
    assert "equals" not in result.output.details


def test_masked_training_leaves_rows_of_absent_classes_alone(bench: MakeBench) -> None:
    for masked in (True, False):
        kept = Uploads()
        small = bench("heterofl", {"label_masked": masked}, widths=UNEQUAL, alpha=(0.05,))
        small.run(kept)
        whole = _whole_client(small)
        upload = kept.by_round[0][whole]
        absent = [c for c in range(10) if c not in upload.values["classes"]]
        assert absent
        rows = upload.parts["model"]["head.weight"][absent]
        assert torch.equal(rows, kept.before[0]["head.weight"][absent]) == masked


def test_order_weighting_is_the_published_one_and_goes_on_over_rounds(bench: MakeBench) -> None:
    kept = Uploads()
    small = bench("fedrolex", {"order_weighted": True, "rounds": 2}, widths=UNEQUAL)
    result = small.run(kept)
    server = small.federation().server("fedrolex", 2, small.spec.budget)
    counters, after = OrderCounters(), kept.before[0]
    for round_index in (0, 1):
        uploads = [
            SubmodelUpload(
                upload.parts["model"],
                server.index_sets(index, round_index),
                upload.values["classes"],
            )
            for index, upload in kept.by_round[round_index].items()
        ]
        uniform = aggregate(after, uploads)
        after = aggregate(after, uploads, order_counters=counters)
    assert all(torch.equal(after[name], value) for name, value in state_of(result).items())
    assert not torch.equal(after["norm1.weight"], uniform["norm1.weight"])
    assert torch.equal(after["conv1.weight"], uniform["conv1.weight"])


def test_random_windows_differ_by_client_and_round_and_repeat(bench: MakeBench) -> None:
    small = bench("federated_dropout", widths=NONE_WHOLE)
    method = small.method()
    server = small.federation().server(method.name, 2, small.spec.budget)

    def digests(round_index: int) -> list[str]:
        server.round = round_index
        return [method.sets(info, server).digest for info in server.clients]  # type: ignore[attr-defined]

    assert len({*digests(0), *digests(1)}) == 6
    assert digests(0) == digests(0)
    result = small.run()
    assert [s["digest"] for s in result.output.details["index_sets"]] == digests(0)


def test_a_client_finds_its_random_channels_from_the_seed_unless_it_was_warmed_up(
    bench: MakeBench,
) -> None:
    small = bench("federated_dropout", widths=NONE_WHOLE)
    method, federation = small.method(), small.federation()
    server, client = federation.server(method.name, 1, small.spec.budget), federation.client(1)
    window = Window.read(method.broadcast(client.info, server).values, client.info)
    sets = method.sets(client.info, server)  # type: ignore[attr-defined]
    expected = extract(server.global_model.state_dict(), sets)
    found = window.initial_model(client).state_dict()
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    own = client.initial_model().state_dict()
    assert not torch.equal(own["conv1.weight"], expected["conv1.weight"])
    warm = bench("federated_dropout", widths=NONE_WHOLE, rounds_warmup=1).federation().client(1)
    with pytest.raises(ValueError, match="its own window only"):
        window.initial_model(warm)


def test_misaligned_windows_are_a_parity_mode(bench: MakeBench) -> None:
    config = {"misaligned": True, "parity": True}
    result = bench("federated_dropout", config, widths=NONE_WHOLE).run()
    kinds = {sets["window"] for sets in result.output.details["index_sets"]}
    assert kinds == {"random_misaligned"}
    assert result.traffic.broadcasts[0, 0]["model"] == cnn_bytes(Fraction(1, 16))
    with pytest.raises(UserError, match="parity=true"):
        _ = bench("federated_dropout", {"misaligned": True}).spec


def test_reestimated_statistics_cost_one_more_exchange(bench: MakeBench) -> None:
    small = bench("fedrolex", {"batch_norm": "reestimated"}, widths=("1/16,1/16,1/8",))
    result = small.run()
    plain = state_of(bench("fedrolex", widths=("1/16,1/16,1/8",)).run())
    assert result.server.rounds == 2
    for index in range(3):
        # Narrow clients too measure the statistics of the whole model.
        assert result.traffic.broadcasts[1, index]["model"] == cnn_bytes(Fraction(1, 8))
        assert result.traffic.uploads[1, index]["statistics"] == 4 * 2 * (4 + 8 + 16)
    for name, value in state_of(result).items():
        assert torch.equal(value, plain[name]) == ("running" not in name), name
    # They are those of the images as the model sees them in training and evaluation.
    everybody, model = small.data.everybody(torch.device("cpu")), result.output.model
    with torch.no_grad():
        images = small.data.task.normalization.from_uint8(everybody.images)
        seen = model.get_submodule("conv1")(images)
    mean = model.get_buffer("norm1.running_mean")
    # A client's batches are even up to one image.
    torch.testing.assert_close(mean, seen.mean((0, 2, 3)), rtol=0.02, atol=2e-3)
    ignores_batch_mates(small)


def test_published_batch_norm_needs_parity_and_is_marked(bench: MakeBench) -> None:
    small = bench("fedrolex", {"batch_norm": "published", "parity": True}, widths=UNEQUAL)
    output = small.run().output
    assert output.details["not_for_tables"] is True
    assert any("not for tables" in warning for warning in output.warnings)
    with pytest.raises(AssertionError, match="moves by"):
        ignores_batch_mates(small)
    with pytest.raises(UserError, match="batch mates"):
        _ = bench("fedrolex", {"batch_norm": "published"}).spec


@pytest.mark.parametrize("name", FAMILY)
def test_group_norm_is_taken_and_has_no_statistics_to_reestimate(
    bench: MakeBench, name: str
) -> None:
    small = bench(name, widths=UNEQUAL, norm="group")
    assert small.skip is None
    assert 0 <= small.evaluate(small.run()).accuracy <= 1
    refused = bench(name, {"batch_norm": "reestimated"}, widths=UNEQUAL, norm="group").skip
    assert refused is not None
    assert "needs batch norm" in refused


@pytest.mark.parametrize("name", FAMILY)
def test_models_that_cannot_be_cut_run_at_width_one_only(bench: MakeBench, name: str) -> None:
    timm: dict[str, Any] = {"models": ("timm:test_resnet",)}
    assert bench(name, widths=("1",), **timm).skip is None
    narrow = bench(name, widths=("1,1/2",), **timm).skip
    assert narrow is not None
    assert "can't be cut" in narrow
    ordered = bench(name, {"order_weighted": True}, widths=("1",), **timm).skip
    assert ordered is not None


def test_a_timm_model_is_averaged_whole(bench: MakeBench) -> None:
    scenario: dict[str, Any] = {"models": ("timm:test_resnet",), "widths": ("1",), "epochs": 1}
    off = {"label_masked": False, "label_head": False}
    rolex = bench("fedrolex", off, **scenario).run()
    assert equal(rolex, bench("fedavg", {"weights": "uniform"}, **scenario).run())
