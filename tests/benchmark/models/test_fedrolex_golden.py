from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from preactivation import PreActivationResNet
from torch import Tensor

from benchmark.models.structure import Structure, find_structure
from benchmark.models.submodel import (
    IndexSets,
    OrderCounters,
    SubmodelUpload,
    aggregate,
    extract,
    index_sets,
    misaligned_index_sets,
)

GOLDEN = Path(__file__).parents[2] / "golden/baselines"
Golden = np.lib.npyio.NpzFile


def model_of(golden: Golden) -> PreActivationResNet:
    return PreActivationResNet(
        golden["hidden"].tolist(), golden["blocks"].tolist(), int(golden["classes"])
    )


@pytest.fixture(scope="module")
def index_golden() -> Golden:
    return np.load(GOLDEN / "fedrolex_index_sets.npz")


@pytest.fixture(scope="module")
def structure(index_golden: Golden) -> Structure:
    model = model_of(index_golden)
    shapes = [(name, str(tuple(t.shape))) for name, t in model.state_dict().items()]
    assert [name for name, _ in shapes] == index_golden["param_names"].tolist()
    assert [shape for _, shape in shapes] == index_golden["param_shapes"].tolist()
    return find_structure(model)


def assert_matches(sets: IndexSets, golden: Golden, scheme: str, width: str) -> None:
    flat, offsets = golden[f"{scheme}|w{width}|flat"], golden[f"w{width}|offsets"]
    for j, entry in enumerate(golden["entries"].tolist()):
        name, axis = entry.split(":")
        ours = sets.indices(name)[0 if axis == "out" else 1]
        assert ours is not None
        assert ours.tolist() == flat[offsets[j] : offsets[j + 1]].tolist(), (scheme, width, entry)


@pytest.mark.parametrize("width", ["1", "0.5", "0.25"])
@pytest.mark.parametrize("round_index", [0, 1, 5, 13])
def test_rolling_and_static_meet_golden_fedrolex_index_sets(
    structure: Structure, index_golden: Golden, round_index: int, width: str
) -> None:
    rolling = index_sets(structure, width, "rolling", round_index=round_index)
    assert_matches(rolling, index_golden, f"roll|r{round_index}", width)
    static = index_sets(structure, width, "static", round_index=round_index)
    assert_matches(static, index_golden, f"static|r{round_index}", width)


def test_random_misaligned_meets_golden_fedrolex_index_sets(
    structure: Structure, index_golden: Golden
) -> None:
    widths = ["1", "0.5", "0.25"]
    generator = torch.Generator().manual_seed(1234)
    clients = misaligned_index_sets(structure, widths, generator)
    for width, sets in zip(widths, clients, strict=True):
        assert_matches(sets, index_golden, "random|seed1234", width)


class Combined:
    def __init__(self, golden: Golden, case: str) -> None:
        self.golden, self.case = golden, case
        self.structure = find_structure(model_of(golden))
        self.window = "rolling" if case == "A_roll" else "static"
        self.labels = [golden[f"label_split{m}"].tolist() for m in range(3)]

    def state(self, step: int, kind: str) -> dict[str, Tensor]:
        keys = {name: f"{self.case}|t{step}|{name}|{kind}" for name in self.structure.entries}
        return {n: torch.from_numpy(self.golden[k]) for n, k in keys.items() if k in self.golden}

    def uploads(self, step: int) -> list[SubmodelUpload]:
        t = int(self.golden[f"{self.case}|rounds"][step])
        rates = self.golden[f"{self.case}|rates"].tolist()
        return [
            SubmodelUpload(
                self.state(step, f"local{m}"),
                index_sets(self.structure, rate, self.window, round_index=t),
                self.labels[m],
            )
            for m, rate in enumerate(rates)
        ]


def assert_close(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    assert theirs
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name], value, rtol=0, atol=1e-5, msg=name)


@pytest.mark.parametrize("case", ["A_roll", "B_static"])
def test_aggregate_meets_golden_fedrolex_combine(case: str) -> None:
    combined = Combined(np.load(GOLDEN / "fedrolex_combine.npz"), case)
    counters = OrderCounters()
    before = combined.state(0, "before")
    for step in range(len(combined.golden[f"{case}|rounds"])):
        uploads = combined.uploads(step)
        official = combined.state(step, "after_official")
        ordered = aggregate(before, uploads, order_counters=counters)
        assert_close(ordered, official)
        plain = aggregate(before, uploads)
        one_way = combined.state(step, "after_plain")
        assert_close(plain, one_way)
        assert_close(plain, {n: v for n, v in official.items() if n not in one_way})
        before = official


def test_untouched_entries_of_golden_fedrolex_combine_keep_their_bits() -> None:
    combined = Combined(np.load(GOLDEN / "fedrolex_combine.npz"), "B_static")
    before = combined.state(0, "before")
    after = aggregate(before, combined.uploads(0))
    same = sum(int((after[n] == before[n]).sum()) for n in before)
    total = sum(v.numel() for v in before.values())
    assert total == 3891
    assert same == 2853
    assert torch.equal(after["linear.weight"][4], before["linear.weight"][4])
    assert torch.equal(after["linear.bias"][4], before["linear.bias"][4])
    assert not torch.equal(after["linear.weight"][3], before["linear.weight"][3])


def test_extract_gives_the_shapes_of_goldens_local_states() -> None:
    combined = Combined(np.load(GOLDEN / "fedrolex_combine.npz"), "A_roll")
    before = combined.state(0, "before")
    for m, upload in enumerate(combined.uploads(0)):
        cut = extract(before, upload.index_sets)
        local = combined.state(0, f"local{m}")
        assert {n: t.shape for n, t in cut.items()} == {n: t.shape for n, t in local.items()}
