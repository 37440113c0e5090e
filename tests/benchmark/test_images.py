"""Pixel ranges: every way there has its way back, and all meet in classifier range."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmark.images import Normalization

GREY = Normalization((0.25,), (0.5,))
COLOUR = Normalization((0.1, 0.2, 0.3), (0.5, 0.25, 1.0))

channels = st.integers(1, 4)
moments = channels.flatmap(
    lambda n: st.tuples(
        st.tuples(*[st.floats(0, 1) for _ in range(n)]),
        st.tuples(*[st.floats(0.05, 1) for _ in range(n)]),
    )
)


def test_by_hand() -> None:
    pixels = torch.tensor([0, 255, 51], dtype=torch.uint8).view(3, 1, 1, 1)
    values = GREY.from_uint8(pixels).flatten()
    assert torch.allclose(values, torch.tensor([-0.5, 1.5, -0.1]))
    assert torch.allclose(GREY.from_tanh(torch.full((1, 1, 1, 1), -1.0)), torch.tensor(-0.5))
    assert torch.allclose(GREY.from_tanh(torch.full((1, 1, 1, 1), 1.0)), torch.tensor(1.5))


def test_channels_have_their_own_moments() -> None:
    values = COLOUR.from_unit(torch.ones(2, 3, 4, 4))
    assert COLOUR.channels == 3
    for channel, expected in enumerate([1.8, 3.2, 0.7]):
        assert torch.allclose(values[:, channel], torch.tensor(expected))


@settings(max_examples=40, deadline=None)
@given(moments, st.integers(0, 2**31))
def test_there_and_back(pair: tuple[tuple[float, ...], tuple[float, ...]], seed: int) -> None:
    normalization = Normalization(*pair)
    random = torch.Generator().manual_seed(seed)
    unit = torch.rand(2, normalization.channels, 3, 5, generator=random, dtype=torch.float64)
    inputs = normalization.from_unit(unit)
    assert torch.allclose(normalization.to_unit(inputs), unit)
    assert torch.allclose(normalization.from_tanh(unit * 2 - 1), inputs)
    stored = (unit * 255).round().to(torch.uint8)
    again = normalization.to_unit(normalization.from_uint8(stored, torch.float64)) * 255
    assert torch.equal(again.round().to(torch.uint8), stored)


def test_a_step_in_unit_pixels_is_one_in_classifier_range() -> None:
    unit = torch.full((1, 3, 2, 2), 0.5)
    moved = COLOUR.from_unit(unit + 8 / 255)
    step = COLOUR.unit_step(8 / 255, unit)
    assert step.shape == (1, 3, 1, 1)
    assert torch.allclose(COLOUR.from_unit(unit) + step, moved)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_types_are_kept(dtype: torch.dtype) -> None:
    assert GREY.from_unit(torch.zeros(1, 1, 2, 2, dtype=dtype)).dtype == dtype
    assert GREY.from_uint8(torch.zeros(1, 1, 2, 2, dtype=torch.uint8), dtype).dtype == dtype


def test_gradients_pass() -> None:
    images = torch.zeros(1, 1, 2, 2, requires_grad=True)
    GREY.from_tanh(images).sum().backward()
    assert images.grad is not None
    assert torch.allclose(images.grad, torch.ones(1, 1, 2, 2))  # 1 / 2 (tanh) / 0.5 (std)


def test_wrong_moments_are_refused() -> None:
    with pytest.raises(ValueError, match="2 means but 1"):
        Normalization((0.0, 0.0), (1.0,))
    with pytest.raises(ValueError, match="positive"):
        Normalization((0.0,), (0.0,))


def test_it_is_a_value() -> None:
    assert Normalization((0.25,), (0.5,)) == GREY
    assert hash(Normalization((0.25,), (0.5,))) == hash(GREY)
    with pytest.raises(AttributeError):
        GREY.mean = (0.0,)  # type: ignore[misc]
