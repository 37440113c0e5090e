from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from methods.blocks.bn_statistics import (
    BatchNormStatistics,
    _ChannelMoments,
    bn_statistics_loss,
)

GOLDEN = Path(__file__).parents[2] / "golden"


class TinyBN(nn.Module):
    """The small net of the golden files: two conv-BN-ReLU blocks, mean, linear."""

    def __init__(self, classes: int = 5) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 4, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(4)
        self.conv2 = nn.Conv2d(4, 6, 3, 2, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(6)
        self.linear = nn.Linear(6, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn1(self.conv1(x)).relu()
        x = self.bn2(self.conv2(x)).relu()
        out: Tensor = self.linear(x.mean((2, 3)))
        return out


def golden_model(golden: dict[str, np.ndarray], prefix: str, model: nn.Module) -> nn.Module:
    state = {
        name[len(prefix) :]: torch.from_numpy(value)
        for name, value in golden.items()
        if name.startswith(prefix)
    }
    model.load_state_dict(state)
    return model.eval().requires_grad_(False)


def number_of_hooks(model: nn.Module) -> int:
    return sum(len(m._forward_pre_hooks) + len(m._forward_hooks) for m in model.modules())


def test_golden_inversion_loss() -> None:
    golden = dict(np.load(GOLDEN / "mosaic/inversion_loss.npz"))
    model = TinyBN()
    golden_model(golden, "model.", model)
    images = torch.from_numpy(golden["images"]).requires_grad_()
    with BatchNormStatistics(model) as statistics:
        model(images)
        layers = statistics.layer_losses()
        model(images)
        loss = statistics.loss()
    np.testing.assert_allclose(
        [x.item() for x in layers], golden["per_layer_r_feature"], rtol=1e-5, atol=1e-6
    )
    np.testing.assert_allclose(loss.item(), golden["loss_scale1"], rtol=1e-5)
    np.testing.assert_allclose(0.001 * loss.item(), golden["loss_scale0001"], rtol=1e-5)
    (grad,) = torch.autograd.grad(loss, images)
    np.testing.assert_allclose(grad.numpy(), golden["grad_images_scale1"], rtol=1e-4, atol=1e-4)
    # Moments of what the layers see, one by one.
    first = model.conv1(images)
    seen = {"bn1": first, "bn2": model.conv2(model.bn1(first).relu())}
    for name, inputs in seen.items():
        mean, variance = (x.detach().numpy() for x in _ChannelMoments.apply(inputs))
        np.testing.assert_allclose(mean, golden[f"bn_input_mean.{name}"], rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(variance, golden[f"bn_input_var.{name}"], rtol=1e-4, atol=1e-6)
    # The published term carries no gradient; ours must.
    assert not golden["official_loss_requires_grad"]
    assert loss.requires_grad
    assert grad.abs().max() > 0


def test_golden_dense_bn_hook() -> None:
    golden = dict(np.load(GOLDEN / "dense_coboost/dense_bn_hook.npz"))
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3, 1, 1),
        nn.BatchNorm2d(4),
        nn.Tanh(),
        nn.Conv2d(4, 5, 3, 2, 1),
        nn.BatchNorm2d(5),
    ).double()
    golden_model(golden, "net.", net)
    images = torch.from_numpy(golden["x"]).requires_grad_()
    with BatchNormStatistics(net) as statistics:
        net(images)
        layers = [x.item() for x in statistics.layer_losses()]
        output = net(images)
        loss = statistics.loss()
    np.testing.assert_allclose(layers, golden["r_feature"], rtol=1e-9)
    np.testing.assert_allclose(output.detach().numpy(), golden["y"], rtol=1e-9)
    np.testing.assert_allclose(loss.item(), golden["sum_r"], rtol=1e-9)
    (grad,) = torch.autograd.grad(loss, images)
    np.testing.assert_allclose(grad.numpy(), golden["grad_x"], rtol=1e-6, atol=1e-9)
    # The published training loop attaches no hook at all; here two layers are seen.
    assert statistics.num_layers == 2


def test_hooks_are_registered_once_and_removed_even_after_an_error() -> None:
    model = TinyBN().eval()
    statistics = BatchNormStatistics(model)
    with statistics:
        before = number_of_hooks(model)
        for _ in range(3):
            model(torch.ones(2, 3, 8, 8))
            statistics.loss()
        assert number_of_hooks(model) == before == 3
    assert number_of_hooks(model) == 0
    with pytest.raises(KeyError), BatchNormStatistics(model):
        raise KeyError
    assert number_of_hooks(model) == 0


def test_only_the_last_forward_pass_counts() -> None:
    model = TinyBN().eval()
    first, second = torch.zeros(2, 3, 8, 8), torch.ones(2, 3, 8, 8)
    with BatchNormStatistics(model) as statistics:
        model(first)
        model(second)
        loss = statistics.loss()
        with pytest.raises(RuntimeError, match="no forward pass"):
            statistics.loss()
    assert torch.equal(loss, bn_statistics_loss(model, second))


def test_gradient_is_finite_where_the_distance_is_zero() -> None:
    layer = nn.BatchNorm2d(3).eval()
    layer.running_var = torch.zeros(3)
    model = nn.Sequential(layer)
    images = torch.zeros(4, 3, 2, 2, requires_grad=True)
    loss = bn_statistics_loss(model, images)
    (grad,) = torch.autograd.grad(loss, images)
    assert loss.item() == 0
    assert torch.isfinite(grad).all()


def test_running_statistics_stay_untouched_and_no_batch_norm_means_zero() -> None:
    model = TinyBN().eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    bn_statistics_loss(model, torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0)))
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    plain = nn.Sequential(nn.Conv2d(3, 2, 1)).eval()
    assert BatchNormStatistics(plain).num_layers == 0
    assert bn_statistics_loss(plain, torch.ones(1, 3, 2, 2)).item() == 0


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (nn.BatchNorm2d(3).train(), "training mode"),
        (nn.BatchNorm2d(3, track_running_stats=False).eval(), "no running statistics"),
    ],
)
def test_unusable_layers_are_refused(model: nn.Module, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BatchNormStatistics(model)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_moments_and_their_gradient_are_those_of_var_mean(layout: torch.memory_format) -> None:
    random = torch.Generator().manual_seed(0)
    drawn = torch.randn((5, 3, 4, 6), generator=random, dtype=torch.float64) * 2 + 100
    drawn = drawn.contiguous(memory_format=layout)
    pull = torch.randn((2, 3), generator=random, dtype=torch.float64)
    answers = []
    for moments in (
        _ChannelMoments.apply,
        lambda x: torch.var_mean(x, (0, 2, 3), correction=0)[::-1],
    ):
        images = drawn.clone().requires_grad_()
        both = torch.stack(moments(images))
        torch.autograd.backward((both * pull).sum())
        answers.append((both.detach(), images.grad))
    for ours, theirs in zip(*answers, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)
