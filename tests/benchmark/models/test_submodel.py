from __future__ import annotations

from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from benchmark.aggregation import weighted_average
from benchmark.errors import UserError
from benchmark.models.base import Classifier
from benchmark.models.build import build, skeleton
from benchmark.models.structure import Structure, find_structure
from benchmark.models.submodel import (
    IndexSets,
    OrderCounters,
    SubmodelUpload,
    aggregate,
    extract,
    index_sets,
    misaligned_index_sets,
    rolling_window,
    scatter,
    staggered_phases,
    staggered_window,
)

FAMILIES = ["resnet18", "cnn", "lenet", "cnn_cifar", "cnn_mnist"]
SCHEMES = ["rolling", "static", "staggered", "random"]
GLOBAL_WIDTH = Fraction(1, 4)
State = dict[str, Tensor]


def stream(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def randomise(model: nn.Module, seed: int) -> None:
    """Give norms scales, shifts and statistics that differ between channels."""
    generator = stream(seed)
    for name, tensor in model.state_dict().items():
        if tensor.dim() == 1:
            low = 0.5 if name.endswith(("var", "weight")) else -0.5
            tensor.copy_(low + torch.rand(tensor.shape, generator=generator))
        elif tensor.dim() == 0:
            tensor.fill_(7)


def make(family: str, norm: str | None = None, seed: int = 0) -> tuple[Classifier, Structure]:
    model = build(
        family, num_classes=5, channels=1, width=GLOBAL_WIDTH, norm=norm, generator=stream(seed)
    )
    randomise(model, seed)
    return model.eval(), find_structure(model)


def narrow(family: str, width: Fraction, norm: str | None = None) -> Classifier:
    return build(
        family, num_classes=5, channels=1, width=GLOBAL_WIDTH * width, norm=norm, generator=stream()
    ).eval()


def choose(structure: Structure, width: Fraction, scheme: str, seed: int) -> IndexSets:
    return index_sets(
        structure, width, scheme, round_index=seed, phase=Fraction(seed, 7) % 1,
        generator=stream(seed),
    )  # fmt: skip


def images(size: int = 32) -> Tensor:
    return torch.randn(3, 1, size, size, generator=stream(99))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_an_extracted_model_is_a_narrower_build_that_runs(family: str, scheme: str) -> None:
    model, structure = make(family)
    for width in (Fraction(1, 2), Fraction(1, 4)):
        target = narrow(family, width)
        cut = extract(model.state_dict(), choose(structure, width, scheme, 3))
        assert list(cut) == list(target.state_dict())
        target.load_state_dict(cut, strict=True)
        assert target(images()).isfinite().all()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("scheme", ["rolling", "random", "staggered"])
def test_full_width_windows_are_the_same_function(family: str, scheme: str) -> None:
    model, structure = make(family)
    sets = choose(structure, Fraction(1), scheme, 5)
    permuted = narrow(family, Fraction(1))
    cut = extract(model.state_dict(), sets)
    permuted.load_state_dict(cut)
    assert any(not torch.equal(cut[n], t) for n, t in model.state_dict().items())
    with torch.no_grad():
        torch.testing.assert_close(permuted(images()), model(images()), rtol=1e-5, atol=1e-6)
        features = model.features(images())[:, sets.features]
        torch.testing.assert_close(permuted.features(images()), features, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_one_owner_scattered_with_neutral_fill_is_the_submodel(family: str, scheme: str) -> None:
    model, structure = make(family)
    width = Fraction(1, 2)
    sets = choose(structure, width, scheme, 4)
    client = narrow(family, width)
    client.load_state_dict(extract(model.state_dict(), sets))
    randomise(client, 8)
    full, masks = scatter(client.state_dict(), sets, model.state_dict())
    expert = narrow(family, Fraction(1))
    expert.load_state_dict(full)
    with torch.no_grad():
        torch.testing.assert_close(expert(images()), client(images()), rtol=1e-5, atol=1e-6)
    back = extract(full, sets)
    for name, value in client.state_dict().items():
        assert torch.equal(back[name], value)
        assert masks[name].dtype == torch.bool
        assert masks[name].shape == full[name].shape
        assert masks[name].sum() == value.numel()
        outside = full[name][~masks[name]]
        assert (outside == (1 if name.endswith("running_var") else 0)).all()


def test_group_norm_models_are_cut_too() -> None:
    model, structure = make("cnn", norm="group")
    for scheme in SCHEMES:
        target = narrow("cnn", Fraction(1, 2), norm="group")
        target.load_state_dict(
            extract(model.state_dict(), choose(structure, Fraction(1, 2), scheme, 1))
        )
        assert target(images()).isfinite().all()


@settings(max_examples=20, deadline=None)
@given(
    st.sampled_from(FAMILIES),
    st.sampled_from(SCHEMES),
    st.fractions(Fraction(1, 40), 1, max_denominator=40),
    st.integers(0, 600),
)
def test_windows_hold_distinct_channels_and_stay_aligned(
    family: str, scheme: str, width: Fraction, seed: int
) -> None:
    structure = find_structure(skeleton(family, num_classes=5, channels=3, width=GLOBAL_WIDTH))
    sets = choose(structure, width, scheme, seed)
    by_space: dict[int, list[int]] = {}
    for layer, kept in zip(structure.layers, sets.channels, strict=True):
        found = kept.tolist()
        assert len(set(found)) == len(found)
        assert all(0 <= channel < layer.size for channel in found)
        share = Fraction(1) if layer.fixed else width
        assert len(found) == -(-layer.size * share.numerator // share.denominator)
        assert by_space.setdefault(layer.space, found) == found


def test_misaligned_random_windows_do_not_keep_residuals_aligned() -> None:
    _, structure = make("resnet18")
    (sets,) = misaligned_index_sets(structure, [Fraction(1, 2)], stream())
    stem, branch = (sets.indices(f"{n}.weight")[0] for n in ("conv1", "layer1.0.conv2"))
    shortcut, main = (
        sets.indices(f"layer2.0.{n}.weight")[0] for n in ("shortcut.0", "conv2")
    )  # fmt: skip
    assert stem is not None
    assert branch is not None
    assert stem.tolist() != branch.tolist()
    assert shortcut is main


@pytest.mark.parametrize("family", FAMILIES)
def test_rolling_at_round_zero_is_static(family: str) -> None:
    _, structure = make(family)
    for width in (1, Fraction(1, 2), Fraction(1, 16)):
        rolling, static = (index_sets(structure, width, w) for w in ("rolling", "static"))
        assert rolling.digest == static.digest
        assert rolling.digest != index_sets(structure, width, "rolling", round_index=1).digest


def test_rolling_moves_backwards_and_keeps_its_order() -> None:
    assert rolling_window(10, 3, 1).tolist() == [9, 0, 1]
    assert rolling_window(10, 3, 10).tolist() == [0, 1, 2]


def test_staggered_phases_tile_the_width() -> None:
    widths = [Fraction(1, 2), Fraction(1, 4), Fraction(1, 4), Fraction(1, 2)]
    phases = staggered_phases(widths)
    assert phases == [0, Fraction(1, 2), Fraction(3, 4), 0]
    held = [staggered_window(8, int(8 * w), p) for w, p in zip(widths, phases, strict=True)]
    assert sorted(torch.cat(held[:3]).tolist()) == list(range(8))


def test_random_windows_follow_their_generator() -> None:
    _, structure = make("cnn")
    digests = [choose(structure, Fraction(1, 2), "random", s).digest for s in (1, 1, 2)]
    assert digests[0] == digests[1] != digests[2]


def test_description_is_compact_json() -> None:
    _, structure = make("cnn")
    sets = index_sets(structure, Fraction(1, 2), "rolling", round_index=1)
    described = sets.describe()
    assert described["spaces"] == [[7, 4, 8], [15, 8, 16], [31, 16, 32]]
    assert (described["window"], described["width"]) == ("rolling", "1/2")
    assert described["digest"] == sets.digest


def drift(state: State, seed: int) -> State:
    generator = stream(seed)
    return {
        n: t + torch.rand(t.shape, generator=generator) if t.is_floating_point() else t + seed
        for n, t in state.items()
    }


def test_full_width_clients_reduce_to_fedavg_but_for_unheld_rows() -> None:
    model, structure = make("resnet18")
    before = model.state_dict()
    sets = index_sets(structure, 1, "static")
    states = [drift(before, seed) for seed in (1, 2, 6)]
    plain = aggregate(before, [SubmodelUpload(s, sets) for s in states])
    fedavg = weighted_average(states, [1, 1, 1])
    for name, value in fedavg.items():
        assert torch.equal(plain[name], value), name
    labelled = aggregate(before, [SubmodelUpload(s, sets, [0, 3]) for s in states])
    for name, value in fedavg.items():
        if structure.is_head(name):
            assert torch.equal(labelled[name][[0, 3]], value[[0, 3]])
            assert torch.equal(labelled[name][[1, 2, 4]], before[name][[1, 2, 4]])
        else:
            assert torch.equal(labelled[name], value)


@settings(max_examples=15, deadline=None)
@given(
    st.sampled_from(["cnn", "lenet", "cnn_cifar"]),
    st.lists(
        st.tuples(st.sampled_from([1, 2, 3, 5]), st.sampled_from(SCHEMES), st.integers(0, 30)),
        min_size=1,
        max_size=3,
    ),
    st.booleans(),
)
def test_aggregate_is_the_mean_over_owners(
    family: str, clients: list[tuple[int, str, int]], labelled: bool
) -> None:
    model, structure = make(family)
    before = model.state_dict()
    uploads = []
    for part, scheme, seed in clients:
        sets = choose(structure, Fraction(1, part), scheme, seed)
        labels = [seed % 5, (seed + 2) % 5] if labelled else None
        uploads.append(SubmodelUpload(drift(extract(before, sets), seed), sets, labels))
    after = aggregate(before, uploads)
    for name, old in before.items():
        if not old.is_floating_point():
            continue
        sums, owners = torch.zeros_like(old, dtype=torch.float64), torch.zeros_like(old)
        for upload in uploads:
            full, masks = scatter(upload.state, upload.index_sets, before)
            mask = masks[name].clone()
            if structure.is_head(name) and upload.labels is not None:
                rows = torch.zeros(5, dtype=torch.bool)
                rows[list(upload.labels)] = True
                mask &= rows.view(-1, *[1] * (old.dim() - 1))
            sums += torch.where(mask, full[name], 0).double()
            owners += mask
        held = owners > 0
        assert torch.equal(after[name][~held], old[~held])
        torch.testing.assert_close(after[name][held], (sums / owners)[held].float())


def test_running_statistics_are_averaged_over_the_owners_of_a_channel() -> None:
    model, structure = make("cnn")
    before = model.state_dict()
    wide, half = (index_sets(structure, w, "static") for w in (1, Fraction(1, 2)))
    first, second = drift(before, 1), drift(extract(before, half), 2)
    after = aggregate(before, [SubmodelUpload(first, wide), SubmodelUpload(second, half)])
    for name in ("norm1.running_mean", "norm1.running_var"):
        keep = second[name].numel()
        mean = (first[name][:keep] + second[name]) / 2
        torch.testing.assert_close(after[name][:keep], mean)
        assert torch.equal(after[name][keep:], first[name][keep:])
    assert after["norm1.num_batches_tracked"] == 8  # (7 + 1 + 7 + 2) / 2, truncated
    assert after["norm1.num_batches_tracked"].dtype == torch.int64


def test_weights_count_and_zero_weight_is_skipped() -> None:
    model, structure = make("cnn")
    before = model.state_dict()
    sets = index_sets(structure, Fraction(1, 2), "static")
    states = [drift(extract(before, sets), seed) for seed in (1, 2)]
    broken = {n: torch.full_like(t, float("nan")) if t.is_floating_point() else t
              for n, t in states[0].items()}  # fmt: skip
    uploads = [SubmodelUpload(s, sets) for s in (*states, broken)]
    after = extract(aggregate(before, iter(uploads), weights=[1, 3, 0]), sets)
    for name, value in weighted_average(states, [1, 3]).items():
        assert torch.equal(after[name], value)
    untouched = aggregate(before, uploads, weights=[0, 0, 0])
    assert all(torch.equal(untouched[n], t) for n, t in before.items())
    untouched["conv1.weight"].zero_()
    assert before["conv1.weight"].abs().sum() > 0


def test_order_counters_grow_across_rounds() -> None:
    model, structure = make("cnn")
    before = model.state_dict()
    sets = index_sets(structure, 1, "static")
    states = [drift(before, seed) for seed in (1, 2)]
    uploads = [SubmodelUpload(s, sets) for s in states]
    counters = OrderCounters()
    first = aggregate(before, uploads, order_counters=counters)
    again = aggregate(before, uploads, order_counters=counters)
    a, b = (s["norm1.weight"].double() for s in states)
    torch.testing.assert_close(first["norm1.weight"].double(), (a + 2 * b) / 3, rtol=1e-6, atol=0)
    torch.testing.assert_close(
        again["norm1.weight"].double(), (3 * a + 4 * b) / 7, rtol=1e-6, atol=0
    )
    uniform = weighted_average(states, [1, 1])
    for name in ("conv1.weight", "norm1.running_mean"):
        assert torch.equal(first[name], uniform[name])


def test_bad_requests_are_refused() -> None:
    model, structure = make("cnn")
    with pytest.raises(UserError, match="did you mean 'rolling'"):
        index_sets(structure, 1, "roling")
    with pytest.raises(UserError, match="above 0 and at most at 1, not 2"):
        index_sets(structure, 2)
    with pytest.raises(ValueError, match="needs a generator"):
        index_sets(structure, 1, "random")
    sets, other = (index_sets(structure, w) for w in (Fraction(1, 2), Fraction(1, 4)))
    before = model.state_dict()
    cut = extract(before, sets)
    with pytest.raises(ValueError, match="index sets name"):
        scatter(cut, other, before)
    with pytest.raises(ValueError, match="not in both"):
        extract({"odd": torch.zeros(1)}, sets)
    for wrong, message in [
        ({"uploads": [SubmodelUpload(cut, other)]}, "index sets name"),
        ({"uploads": [SubmodelUpload(cut, sets, [5])]}, "label 5"),
        ({"uploads": [SubmodelUpload(cut, sets)], "weights": [1, 1]}, "1 uploads but 2"),
        ({"uploads": [SubmodelUpload(cut, sets)], "weights": []}, "more uploads"),
        ({"uploads": [SubmodelUpload(cut, sets)], "weights": [-1]}, "finite"),
        ({"uploads": [], "weights": [], "order_counters": OrderCounters()}, "one of the two"),
    ]:
        with pytest.raises(ValueError, match=message):
            aggregate(before, **wrong)  # type: ignore[arg-type]
