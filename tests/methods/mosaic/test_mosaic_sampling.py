from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmark.images import Normalization
from methods.mosaic.networks import GanShape, Generator
from methods.mosaic.sampling import GeneratorMixture, allocate, sample_tanh, sample_unit

GREY = Normalization((0.5,), (0.25,))


def stream(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def generators(count: int) -> list[Generator]:
    shape = GanShape(1, noise=3, width=2)
    return [shape.build_generator(stream(i)) for i in range(count)]


def test_drawing_leaves_no_gradient_and_no_trace_in_the_generator() -> None:
    """The published loop draws with gradients on, which pile up in the generators."""
    (generator,) = generators(1)
    generator.train()
    before = {k: v.clone() for k, v in generator.state_dict().items()}
    images = sample_tanh(generator, 5, stream(), batch_size=2)
    assert not images.requires_grad
    assert generator.training
    assert all(torch.equal(before[k], v) for k, v in generator.state_dict().items())
    assert torch.allclose(images, sample_tanh(generator, 5, stream()), atol=1e-6)
    unit = sample_unit(generator, 5, stream())
    assert torch.allclose(unit, (images + 1) / 2, atol=1e-6)


def test_equal_shares_are_exact_and_in_client_order() -> None:
    mixture = GeneratorMixture(generators(3), [1, 10, 100], GREY)
    images, owners = mixture.draw(12, stream())
    assert images.shape == (12, 1, 32, 32)
    assert owners.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert images.min() >= (0 - 0.5) / 0.25
    raw, _ = GeneratorMixture(generators(3), [1, 10, 100], GREY, pixel_range="raw").draw(
        12, stream()
    )
    assert torch.allclose(images, GREY.from_tanh(raw))


def test_shares_by_size() -> None:
    mixture = GeneratorMixture(generators(2), [1, 3], GREY, shares="size")
    _, owners = mixture.draw(8, stream())
    assert torch.bincount(owners).tolist() == [2, 6]
    random = stream()
    rare = [allocate(10, [1, 999], random)[0] for _ in range(2000)]
    assert max(rare) == 1
    assert 5 <= sum(rare) <= 40  # 20 expected


@given(
    st.integers(1, 400), st.lists(st.integers(0, 50), min_size=1, max_size=12), st.integers(0, 9)
)
@settings(max_examples=50, deadline=None)
def test_allocation_sums_and_rounds_to_a_neighbour(
    total: int, weights: list[int], seed: int
) -> None:
    if not sum(weights):
        with pytest.raises(ValueError, match="positive sum"):
            allocate(total, weights, stream(seed))
        return
    counts = allocate(total, weights, stream(seed))
    assert sum(counts) == total
    for count, weight in zip(counts, weights, strict=True):
        assert abs(count - total * weight / sum(weights)) < 1 + 1e-9


@pytest.mark.parametrize("sizes", [[], [1, 2]])
def test_generators_and_sizes_must_match(sizes: list[int]) -> None:
    with pytest.raises(ValueError, match="client sizes"):
        GeneratorMixture(generators(len(sizes) and 1), sizes, GREY)
