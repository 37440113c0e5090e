from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from benchmark.aggregation import NoWeightError, weighted_average

GOLDEN = Path(__file__).parents[1] / "golden"
State = dict[str, Tensor]


def part(golden: np.lib.npyio.NpzFile, prefix: str) -> State:
    names = [key for key in golden.files if key.startswith(f"{prefix}.")]
    return {key.removeprefix(f"{prefix}."): torch.from_numpy(golden[key]) for key in names}


@pytest.fixture(scope="module")
def mosaic() -> np.lib.npyio.NpzFile:
    return np.load(GOLDEN / "mosaic/aggregation.npz")


@pytest.fixture(scope="module")
def clients(mosaic: np.lib.npyio.NpzFile) -> list[State]:
    return [part(mosaic, f"client{k}") for k in range(3)]


def assert_states_close(ours: State, theirs: State) -> None:
    assert list(ours) == list(theirs)
    for name, value in theirs.items():
        assert ours[name].dtype == value.dtype
        torch.testing.assert_close(ours[name], value, rtol=1e-6, atol=1e-7, msg=name)


def test_global_average_meets_golden_mosaic_aggregation(
    mosaic: np.lib.npyio.NpzFile, clients: list[State]
) -> None:
    ours = weighted_average(clients, mosaic["dataset_sizes"].tolist())
    assert_states_close(ours, part(mosaic, "global"))


@pytest.mark.parametrize("label", range(4))
def test_experts_meet_golden_mosaic_aggregation(
    mosaic: np.lib.npyio.NpzFile, clients: list[State], label: int
) -> None:
    weights = mosaic["label_counts"][:, label].tolist()
    if mosaic["expert_is_none"][label]:
        with pytest.raises(NoWeightError):
            weighted_average(clients, weights)
    else:
        assert_states_close(weighted_average(clients, weights), part(mosaic, f"expert{label}"))


def test_batch_norm_is_averaged_unlike_goldens_unused_bn_class(
    mosaic: np.lib.npyio.NpzFile, clients: list[State]
) -> None:
    ours = weighted_average(clients, mosaic["dataset_sizes"].tolist())
    theirs = part(mosaic, "unused_bn_class")
    for name in ("bn.weight", "bn.bias", "bn.running_mean", "bn.running_var"):
        assert torch.equal(theirs[name], clients[0][name])
        assert not torch.allclose(ours[name], theirs[name])
    torch.testing.assert_close(ours["linear.weight"], theirs["linear.weight"])


def test_unweighted_mean_meets_golden_dense_pool_fedavg() -> None:
    golden = np.load(GOLDEN / "dense_coboost/dense_pool_fedavg.npz")
    inputs, counters = torch.from_numpy(golden["fedavg_in"]), golden["fedavg_nbt_in"]
    states = [{"w": w, "n": torch.tensor(int(n))} for w, n in zip(inputs, counters, strict=True)]
    ours = weighted_average(states, [1] * len(states))
    torch.testing.assert_close(ours["w"], torch.from_numpy(golden["fedavg_out"]))
    # The published code's true division gives the float 5.0; the value agrees, our type is kept.
    assert ours["n"].item() == golden["fedavg_nbt_out"]
    assert ours["n"].dtype == torch.int64


def test_counters_truncate_toward_zero_but_survive_rounding() -> None:
    states = [{"n": torch.tensor(10)}, {"n": torch.tensor(10)}, {"n": torch.tensor(10)}]
    assert weighted_average(states, [0.1, 0.2, 0.3])["n"] == 10
    states = [{"n": torch.tensor(38)}, {"n": torch.tensor(39)}]
    assert weighted_average(states, [0.1, 0.2])["n"] == 38


def test_zero_weight_states_are_skipped_entirely() -> None:
    good = {"w": torch.tensor([1.0, 2.0]), "n": torch.tensor(3)}
    diverged = {"w": torch.tensor([float("nan"), float("inf")]), "n": torch.tensor(-1)}
    for order in ([good, diverged], [diverged, good]):
        weights = [5.0 if state is good else 0.0 for state in order]
        ours = weighted_average(order, weights)
        assert torch.equal(ours["w"], good["w"])
        assert ours["n"] == 3


def test_result_is_new_memory_and_inputs_are_untouched() -> None:
    state = {"w": torch.tensor([1.0, 2.0])}
    ours = weighted_average([state], [4])
    ours["w"].fill_(0)
    assert torch.equal(state["w"], torch.tensor([1.0, 2.0]))


def test_states_are_streamed_one_at_a_time() -> None:
    alive: list[weakref.ref[Tensor]] = []
    most = 0

    def stream() -> Iterator[State]:
        nonlocal most
        for value in range(6):
            tensor = torch.full((10,), float(value))
            alive.append(weakref.ref(tensor))
            yield {"w": tensor}
            del tensor
            gc.collect()
            most = max(most, sum(ref() is not None for ref in alive))

    assert torch.equal(weighted_average(stream(), [1] * 6)["w"], torch.full((10,), 2.5))
    assert most <= 1


def test_sums_in_float64_keep_small_contributions() -> None:
    states = [{"w": torch.tensor([1e8])}, *({"w": torch.tensor([1.0])} for _ in range(8))]
    exact = (1e8 + 8) / 9
    assert weighted_average(states, [1] * 9)["w"].item() == torch.tensor(exact).float().item()


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.floats(-9, 9), st.integers(0, 50)), min_size=1, max_size=6))
def test_average_lies_between_the_states_with_weight(pairs: list[tuple[float, int]]) -> None:
    states = [{"w": torch.tensor([value], dtype=torch.float64)} for value, _ in pairs]
    weights = [weight for _, weight in pairs]
    held = [value for value, weight in pairs if weight]
    if not held:
        with pytest.raises(NoWeightError):
            weighted_average(states, weights)
        return
    mean = weighted_average(states, weights)["w"].item()
    assert min(held) - 1e-9 <= mean <= max(held) + 1e-9
    scaled = weighted_average(states, [0.25 * weight for weight in weights])["w"].item()
    assert scaled == pytest.approx(mean, abs=1e-12)


W = {"w": torch.zeros(2)}


@pytest.mark.parametrize(
    ("states", "weights", "message"),
    [
        ([W, W], [1], "more states"),
        ([W], [1, 2], "1 states but 2 weights"),
        ([W], [-1], "not finite and >= 0"),
        ([W], [float("nan")], "not finite and >= 0"),
        ([W, {"v": torch.zeros(2)}], [1, 1], "do not share the entry 'v'"),
        ([W, {"w": torch.zeros(3)}], [1, 1], "shape"),
    ],
)
def test_inconsistent_input_is_refused(
    states: list[State], weights: list[float], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        weighted_average(states, weights)


@pytest.mark.parametrize(("states", "weights"), [([], []), ([W, W], [0, 0])])
def test_nothing_to_average_has_its_own_error(states: list[State], weights: list[float]) -> None:
    with pytest.raises(NoWeightError, match="nothing to average"):
        weighted_average(states, weights)
