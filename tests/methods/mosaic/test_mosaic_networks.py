from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from mosaic_golden import GOLDEN, close, load
from torch import Tensor, nn

from benchmark.errors import UserError
from methods.mosaic.networks import GanShape, parameter_count


def stream(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def fill(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Deterministic weights of the full-size golden file."""

    def u(count: int, number: int) -> Tensor:
        i = torch.arange(count, dtype=torch.int64)
        return 2 * ((31 * i * i + 7919 * i + 104729 * (number + 1)) % 10007).double() / 10007 - 1

    filled = {}
    for number, (name, value) in enumerate(state.items()):
        drawn = u(value.numel(), number).view(value.shape)
        if not value.is_floating_point():
            filled[name] = torch.zeros_like(value)
            continue
        if value.ndim > 1:
            drawn = drawn * math.sqrt(6 / (value.numel() / value.shape[0]))
        elif name.endswith("running_var"):
            drawn = 1 + 0.25 * drawn
        elif name.endswith(("running_mean", "bias")):
            drawn = 0.1 * drawn
        else:
            drawn = 1 + 0.1 * drawn
        filled[name] = drawn.float()
    return filled


def formula_input(count: int, number: int, scale: float, *shape: int) -> Tensor:
    i = torch.arange(count, dtype=torch.int64)
    drawn = 2 * ((31 * i * i + 7919 * i + 104729 * (number + 1)) % 10007).double() / 10007 - 1
    return (scale * drawn).float().view(shape)


def test_golden_full_size_forward() -> None:
    golden = load("full_size_forward.npz")
    text = np.load(GOLDEN / "full_size_forward.npz")
    shape = GanShape()
    generator, discriminator = shape.build_generator(stream()), shape.build_discriminator(stream())
    for kind, model in (("generator", generator), ("discriminator", discriminator)):
        state = model.state_dict()
        assert list(state) == text[f"{kind}_keys"].tolist()
        assert [v.numel() for v in state.values()] == golden[f"{kind}_numel"].tolist()
        assert parameter_count(model) == golden[f"{kind}_param_count"].item()
        model.load_state_dict(fill(state))
        model.eval()
    images = formula_input(6144, 1000, 1.5, 2, 3, 32, 32)
    noise = formula_input(200, 2000, 1.5, 2, 100, 1, 1)
    with torch.no_grad():
        made = generator(noise)
        assert close(made, golden["generator_out"])
        assert close(discriminator(images), golden["discriminator_out_on_x"])
        assert close(discriminator(made), golden["discriminator_out_on_generated"])


@pytest.mark.parametrize(("channels", "count"), [(3, 3_573_824), (1, 3_573_696)])
def test_parameter_counts(channels: int, count: int) -> None:
    shape = GanShape(channels=channels)
    generator = shape.build_generator(stream())
    assert parameter_count(generator) == count
    size = sum(v.numel() * v.element_size() for v in generator.state_dict().values())
    if channels == 3:
        assert size == 14_303_008
        assert parameter_count(shape.build_discriminator(stream())) == 2_759_424


@pytest.mark.parametrize(("size", "channels"), [(32, 1), (32, 3), (64, 1), (64, 3)])
def test_shapes_and_ranges(size: int, channels: int) -> None:
    shape = GanShape(channels, size, noise=5, width=2, discriminator_width=3)
    generator, discriminator = shape.build_generator(stream()), shape.build_discriminator(stream())
    images = generator(torch.randn(2, 5, 1, 1, generator=stream()))
    assert images.shape == (2, channels, size, size)
    assert images.abs().max() <= 1
    verdict = discriminator(images)
    assert verdict.shape == (2,)
    assert ((verdict > 0) & (verdict < 1)).all()


def test_initial_weights_come_from_the_stream_alone() -> None:
    before = torch.random.get_rng_state()
    first = GanShape().build_generator(stream(3))
    assert torch.equal(before, torch.random.get_rng_state())
    again = GanShape().build_generator(stream(3)).state_dict()
    assert all(torch.equal(v, again[k]) for k, v in first.state_dict().items())
    weight = first.main[0].weight
    assert isinstance(weight, Tensor)
    assert abs(weight.mean().item()) < 1e-3
    assert weight.std().item() == pytest.approx(0.02, rel=0.01)
    norm = first.main[1]
    assert isinstance(norm, nn.BatchNorm2d)
    assert norm.weight.mean().item() == pytest.approx(1, abs=0.01)
    assert not norm.bias.any()
    assert torch.equal(norm.running_var, torch.ones(512))  # type: ignore[arg-type]


def test_uploaded_generator_is_rebuilt_frozen_and_misfits_are_named() -> None:
    shape = GanShape(1, noise=5, width=2)
    generator = shape.build_generator(stream()).eval()
    rebuilt = shape.load_generator(generator.state_dict())
    noise = torch.randn(3, 5, 1, 1, generator=stream())
    assert torch.equal(rebuilt(noise), generator(noise))
    assert not rebuilt.training
    assert not any(p.requires_grad for p in rebuilt.parameters())
    with pytest.raises(UserError, match="does not fit"):
        GanShape(1, noise=5, width=3).load_generator(generator.state_dict())


@pytest.mark.parametrize("changes", [{"image_size": 28}, {"width": 0}, {"channels": 0}])
def test_impossible_shapes_are_refused(changes: dict[str, int]) -> None:
    with pytest.raises(UserError):
        GanShape(**changes)
