from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from benchmark.errors import UserError
from methods.blocks.generator import DenseGenerator, UpsampledConv2d


def _count(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize(
    "shape", [(256, 64, 32, 3), (256, 64, 28, 1), (6, 2, 8, 3)], ids=["32px", "28px", "tiny"]
)
def test_golden_dense_models_generator(golden, kit, shape) -> None:
    nz, ngf, size, nc = shape
    arrays = golden("dense_models.npz")
    tag = f"generator_nz{nz}_ngf{ngf}_img{size}_nc{nc}_TRAIN"
    model = DenseGenerator(
        kit.stream(), image_size=size, channels=nc, noise_size=nz, width=ngf
    ).double()
    assert _count(model) == int(arrays[f"{tag}_nparams"])
    shapes = [entry.split(":")[1] for entry in arrays[f"{tag}_state_shapes"]]
    assert ["x".join(map(str, v.shape)) for v in model.state_dict().values()] == shapes
    kit.filled(model)
    images = model(2 * kit.ramp(3, nz) - 1)
    expected = arrays[f"{tag}_out"]
    tolerance = 1e-9 if expected.dtype == torch.float64 else 1e-6
    torch.testing.assert_close(images.to(expected.dtype), expected, rtol=0, atol=tolerance)


def test_golden_cb_models_generator(golden, kit) -> None:
    arrays = golden("cb_models.npz")
    model = kit.filled(DenseGenerator(kit.stream()).double())
    assert _count(model) == int(arrays["generator_nparams"]) == 2_328_899
    images = model(2 * kit.ramp(3, 256) - 1)
    torch.testing.assert_close(images.float(), arrays["generator_out"], rtol=0, atol=1e-6)


@given(
    inputs=st.integers(1, 4),
    outputs=st.integers(1, 4),
    height=st.integers(1, 6),
    width=st.integers(1, 6),
    seed=st.integers(0, 9),
)
def test_upsampling_and_convolution_in_one_are_the_two_of_them(
    inputs, outputs, height, width, seed
) -> None:
    draws = torch.Generator().manual_seed(seed)
    layer = UpsampledConv2d(inputs, outputs).double()
    maps = torch.randn((2, inputs, height, width), dtype=torch.float64, generator=draws)
    weight = torch.randn(layer.weight.shape, dtype=torch.float64, generator=draws)
    with torch.no_grad():
        layer.weight.copy_(weight)
    mine, plain = maps.clone().requires_grad_(), maps.clone().requires_grad_()
    weight.requires_grad_()
    upsampled = F.interpolate(plain, scale_factor=2, mode="nearest")
    expected = F.conv2d(upsampled, weight, padding=1)
    actual = layer(mine)
    torch.testing.assert_close(actual, expected)
    upstream = torch.randn(expected.shape, dtype=torch.float64, generator=draws)
    torch.autograd.backward([actual, expected], [upstream, upstream])
    torch.testing.assert_close(mine.grad, plain.grad)
    torch.testing.assert_close(layer.weight.grad, weight.grad)


@pytest.mark.parametrize(("size", "channels"), [(28, 1), (32, 3), (64, 3)])
def test_images_have_the_asked_size_in_unit_range(kit, size, channels) -> None:
    model = DenseGenerator(kit.stream(), image_size=size, channels=channels, width=4)
    images = model(torch.randn(5, 256, generator=kit.stream(1))).detach()
    assert images.shape == (5, channels, size, size)
    assert 0 <= float(images.min()) < float(images.max()) <= 1


def test_weights_come_from_the_stream_alone(kit) -> None:
    before = torch.get_rng_state()
    first = DenseGenerator(kit.stream(3), width=4)
    second = DenseGenerator(kit.stream(3), width=4)
    other = DenseGenerator(kit.stream(4), width=4)
    assert torch.equal(torch.get_rng_state(), before)
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(first.project.weight, other.project.weight)


def test_reinitialise_follows_the_published_law(kit) -> None:
    model = DenseGenerator(kit.stream(), width=16)
    with torch.no_grad():
        for value in model.state_dict().values():
            value.fill_(7)
    model.reinitialise(kit.stream(1))
    weights = {name: p.detach() for name, p in model.named_parameters() if p.dim() > 1}
    for weight in weights.values():
        assert abs(float(weight.mean())) < 0.005
        assert float(weight.std()) == pytest.approx(0.02, rel=0.2)
    norms = [m for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    scales = torch.cat([m.weight.detach() for m in norms])
    assert float(scales.mean()) == pytest.approx(1.0, abs=0.02)
    assert 0.01 < float(scales.std()) < 0.03
    for norm in norms:
        assert not norm.bias.any()
        assert not norm.running_mean.any()
    assert not model.project.bias.any()


@pytest.mark.parametrize("size", [0, -4, 30])
def test_image_size_must_be_a_multiple_of_four(kit, size) -> None:
    with pytest.raises(UserError, match="multiple of 4"):
        DenseGenerator(kit.stream(), image_size=size)
