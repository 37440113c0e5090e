from __future__ import annotations

import copy
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmark.errors import UserError
from benchmark.models.base import Classifier, group_count, initialize
from benchmark.models.build import build, skeleton, state_bytes
from benchmark.models.registry import check_model, families, family_info
from benchmark.models.resnet import BasicBlock

GOLDEN = Path(__file__).parents[2] / "golden"
WIDTHS = (1, Fraction(1, 2), Fraction(1, 4), Fraction(1, 8), Fraction(1, 16))
SCALABLE = [info.name for info in families() if info.scalable]


def stream(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def count(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def mosaic_fill(n: int, t: int) -> np.ndarray:
    i = np.arange(n, dtype=np.int64)
    return 2 * ((31 * i * i + 7919 * i + 104729 * (t + 1)) % 10007) / 10007 - 1


def fill_as_mosaic_golden(model: nn.Module) -> None:
    for t, (name, tensor) in enumerate(model.state_dict().items()):
        if not tensor.is_floating_point():
            continue
        u = torch.from_numpy(mosaic_fill(tensor.numel(), t)).view(tensor.shape)
        if tensor.dim() > 1:
            value = u * (6 / (tensor.numel() / tensor.shape[0])) ** 0.5
        elif name.endswith("running_var"):
            value = 1 + 0.25 * u
        elif name.endswith(("running_mean", "bias")):
            value = 0.1 * u
        else:
            value = 1 + 0.1 * u
        tensor.copy_(value)


def fill_as_dense_golden(model: nn.Module) -> None:
    floating = [(n, t) for n, t in model.state_dict().items() if t.is_floating_point()]
    for k, (name, tensor) in enumerate(floating):
        a = np.arange(tensor.numel(), dtype=np.uint64) * 2654435761 + k * 374761393 + 1
        a &= 0xFFFFFFFF
        a ^= a >> 15
        a = (a * 2246822519) & 0xFFFFFFFF
        a ^= a >> 13
        s = torch.from_numpy(a.astype(np.float64) / 2**31 - 1).view(tensor.shape)
        if tensor.dim() >= 2:
            value = (6 / (tensor.numel() / tensor.shape[0])) ** 0.5 * s
        elif name.endswith("weight"):
            value = 1 + 0.1 * s
        elif name.endswith("running_var"):
            value = 1 + 0.25 * s**2
        else:
            value = 0.1 * s
        tensor.copy_(value)


def dense_input(*shape: int) -> Tensor:
    i = np.arange(np.prod(shape), dtype=np.float64)
    return torch.from_numpy(0.5 + 0.5 * np.sin(0.11 * i + 0.5 * np.sin(0.013 * i))).view(shape)


def shapes(model: nn.Module) -> list[str]:
    return ["x".join(map(str, t.shape)) for t in model.state_dict().values()]


def test_resnet18_meets_golden_mosaic_full_size_forward() -> None:
    golden = np.load(GOLDEN / "mosaic/full_size_forward.npz")
    model = build("resnet18", num_classes=10, channels=3, generator=stream()).eval()
    state = model.state_dict()
    published = {"norm": "bn", "head": "linear", "shortcut.1": "shortcut.1"}
    names = list(state)
    for ours, theirs in published.items():
        names = [name.replace(ours, theirs) for name in names]
    assert names == golden["resnet18_keys"].tolist()
    assert [t.numel() for t in state.values()] == golden["resnet18_numel"].tolist()
    assert count(model) == int(golden["resnet18_param_count"])
    fill_as_mosaic_golden(model)
    x = torch.from_numpy(1.5 * mosaic_fill(6144, 1000)).float().view(2, 3, 32, 32)
    with torch.no_grad():
        features, logits = model.features(x).numpy(), model(x).numpy()
    np.testing.assert_allclose(features, golden["resnet18_features"], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(logits, golden["resnet18_logits"], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("file", "tag", "model", "image"),
    [
        ("dense_models", "cnn_mnist", ("cnn_mnist", "batch"), (28, 1)),
        ("dense_models", "cnn_cifar", ("cnn_cifar", "none"), (32, 3)),
        ("dense_models", "resnet18", ("resnet18", "batch"), (32, 3)),
        ("cb_models", "cnn", ("cnn_cifar", "none"), (32, 3)),
        ("cb_models", "resnet18", ("resnet18", "batch"), (32, 3)),
        ("cb_models", "lenet", ("lenet", "none"), (32, 1)),
    ],
)
def test_meets_golden_dense_and_cb_models(
    file: str,
    tag: str,
    model: tuple[str, str],
    image: tuple[int, int],
) -> None:
    (family, norm), (size, channels) = model, image
    golden = np.load(GOLDEN / f"dense_coboost/{file}.npz")
    net = build(
        family, num_classes=10, channels=channels, image_size=size, norm=norm, generator=stream()
    )
    assert count(net) == int(golden[f"{tag}_nparams"])
    if file == "cb_models":
        # The published LeNet's features are taken before its last hidden layer, ours after it.
        last = net.get_submodule("fc").in_features if family == "lenet" else net.num_features
        assert last == int(golden[f"{tag}_feature_dim"])
    assert shapes(net) == [s.split(":")[1] for s in golden[f"{tag}_state_shapes"]]
    net = net.double().eval()
    fill_as_dense_golden(net)
    x = (
        dense_input(2, 3, size, size)
        if file == "cb_models"
        else dense_input(2, channels, size, size)
    )
    x = (2 * x - 1)[:, :channels] if file == "cb_models" else x
    with torch.no_grad():
        out = net(x).numpy()
    np.testing.assert_allclose(out, golden[f"{tag}_out"], rtol=1e-9, atol=1e-9)


def test_a_strided_shortcut_picks_every_second_pixel() -> None:
    block = BasicBlock(4, 8, 2, "batch", project=True).double().eval()
    images = torch.randn(3, 4, 8, 8, dtype=torch.double)
    weight = block.get_parameter("shortcut.0.weight")
    strided = block.shortcut[1](F.conv2d(images, weight, stride=2))
    main = block.norm2(block.conv2(F.relu(block.norm1(block.conv1(images)))))
    assert torch.allclose(block(images), F.relu(main + strided), atol=1e-12)


@pytest.mark.parametrize("channels", [2, 4, 8])
def test_gradients_of_narrow_shortcuts_are_right_in_channels_last(channels: int) -> None:
    """Of fewer than 8 channels, oneDNN's strided 1x1 convolution has wrong ones, or crashes."""
    block = BasicBlock(channels, 2 * channels, 2, "group", project=True)
    images = torch.randn(5, channels, 32, 32, generator=stream())
    exact = copy.deepcopy(block).double()
    exact(images.double()).square().sum().backward()
    block.to(memory_format=torch.channels_last)
    block(images.contiguous(memory_format=torch.channels_last)).square().sum().backward()
    weights = [one.get_parameter("shortcut.0.weight") for one in (block, exact)]
    found, expected = (weight.grad.double() for weight in weights if weight.grad is not None)
    assert torch.allclose(found, expected, rtol=0, atol=1e-3 * float(expected.abs().max()))


def test_resnet18_has_the_stated_size_at_each_width() -> None:
    sizes = [count(skeleton("resnet18", num_classes=10, channels=3, width=w)) for w in WIDTHS]
    assert sizes == [11_173_962, 2_797_610, 701_466, 176_402, 44_622]


def test_bytes_of_the_state() -> None:
    model = skeleton("resnet18", num_classes=10, channels=3)
    assert state_bytes(model) == 44_734_408


def test_classic_lenet_has_61706_parameters() -> None:
    assert count(skeleton("lenet", num_classes=10, channels=1, norm="none")) == 61_706


@pytest.mark.parametrize("family", SCALABLE)
@pytest.mark.parametrize("width", [1, Fraction(1, 3), 0.1, Fraction(1, 16)])
def test_every_family_norm_and_width_runs(family: str, width: Fraction | float) -> None:
    x = torch.randn(2, 3, 32, 32, generator=stream())
    for norm in family_info(family).norms:
        model = build(
            family, num_classes=7, channels=3, width=width, norm=norm, generator=stream()
        ).eval()
        assert isinstance(model, Classifier)
        features = model.features(x)
        assert features.shape == (2, model.num_features)
        assert torch.equal(model(x), model.head(features))
        assert model(x).shape == (2, 7) == (2, model.num_classes)
        assert list(model.state_dict())[-2:] == ["head.weight", "head.bias"]


@pytest.mark.parametrize("family", SCALABLE)
def test_64_pixels_run_and_one_image_trains(family: str) -> None:
    for norm in family_info(family).norms:
        for size in (32, 64):
            model = build(
                family, num_classes=4, channels=1, image_size=size, width=Fraction(1, 8),
                norm=norm, generator=stream(),
            )  # fmt: skip
            model(torch.ones(1, 1, size, size)).sum().backward()
            assert model.head.bias.grad is not None
            assert model.head.weight.grad is not None
            assert torch.isfinite(model.head.weight.grad).all()


@pytest.mark.parametrize("family", ["resnet18", "cnn"])
def test_globally_pooled_families_share_weights_between_sizes(family: str) -> None:
    small, large = (
        build(family, num_classes=4, channels=3, image_size=s, width=0.25, generator=stream())
        for s in (32, 64)
    )
    for a, b in zip(small.state_dict().values(), large.state_dict().values(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("family", [*SCALABLE, "timm:resnet10t"])
def test_initial_weights_come_from_the_generator_alone(family: str) -> None:
    before = torch.get_rng_state()
    models = [build(family, num_classes=4, channels=1, generator=stream(s)) for s in (3, 3, 4)]
    assert torch.equal(torch.get_rng_state(), before)
    first, again, other = (m.state_dict() for m in models)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_initial_weights_have_pytorchs_default_distribution() -> None:
    model = build("cnn", num_classes=10, channels=3, norm="none", generator=stream())
    for layer in (model.get_submodule("conv2"), model.head):
        assert isinstance(layer, (nn.Conv2d, nn.Linear))
        bound = layer.weight[0].numel() ** -0.5
        for tensor in (layer.weight, layer.bias):
            assert tensor is not None
            assert 0.5 * bound < tensor.abs().max() <= bound
        ours = layer.weight.std().item()
        with torch.random.fork_rng(devices=[]):
            layer.reset_parameters()
        assert ours == pytest.approx(layer.weight.std().item(), rel=0.05)


def test_fresh_norms_are_the_identity() -> None:
    state = build("cnn", num_classes=10, channels=3, generator=stream()).state_dict()
    assert torch.equal(state["norm2.weight"], torch.ones(64))
    assert torch.equal(state["norm2.bias"], torch.zeros(64))
    assert torch.equal(state["norm2.running_mean"], torch.zeros(64))
    assert torch.equal(state["norm2.running_var"], torch.ones(64))
    assert state["norm2.num_batches_tracked"] == 0


def test_initialize_refuses_layers_it_does_not_know() -> None:
    with pytest.raises(TypeError, match="PReLU"):
        initialize(nn.Sequential(nn.Linear(2, 2), nn.PReLU()), stream())


@pytest.mark.parametrize(("channels", "groups"), [(64, 4), (6, 3), (2, 2), (1, 1), (11, 1), (4, 4)])
def test_group_count_divides_the_channels(channels: int, groups: int) -> None:
    assert group_count(channels) == groups


@pytest.mark.parametrize("name", ["resnet10t", "mobilenetv3_small_050", "vit_tiny_patch16_224"])
def test_timm_models_expose_features_and_head(name: str) -> None:
    model = build(f"timm:{name}", num_classes=5, channels=1, generator=stream()).eval()
    x = torch.randn(2, 1, 32, 32, generator=stream())
    assert model.features(x).shape == (2, model.num_features)
    assert torch.equal(model(x), model.head(model.features(x)))
    assert model.num_classes == 5


def test_timm_features_and_head_make_up_the_original_model() -> None:
    import timm

    from benchmark.seeds import seeded_global

    with seeded_global(stream(5)):
        original = timm.create_model("resnet10t", num_classes=5, in_chans=1).eval()
    ours = build("timm:resnet10t", num_classes=5, channels=1, generator=stream(5)).eval()
    x = torch.randn(2, 1, 32, 32, generator=stream())
    with torch.no_grad():
        torch.testing.assert_close(ours(x), original(x), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"family": "resnet81"}, "did you mean 'resnet18'"),
        ({"family": "timm:"}, "unknown model 'timm:'"),
        ({"family": "timm:resnet10x"}, "closest: .*resnet10t"),
        ({"family": "timm:resnet10t", "width": 0.5}, "width 1 only"),
        ({"family": "timm:resnet10t", "norm": "group"}, "native"),
        ({"family": "timm:vgg11", "image_size": 2}, "does not take"),
        ({"family": "cnn", "norm": "bach"}, "did you mean 'batch'"),
        ({"family": "resnet18", "norm": "none"}, "known: batch, group"),
        ({"family": "cnn", "width": 0}, "a width lies above 0"),
        ({"family": "cnn", "width": 1.5}, "a width lies above 0"),
        ({"family": "cnn", "width": "half"}, "a width is a fraction"),
        ({"family": "cnn", "width": float("nan")}, "a width is a fraction"),
        ({"family": "lenet", "image_size": 28}, "at least 32"),
    ],
)
def test_impossible_requests_are_refused_in_one_line(
    options: dict[str, object], message: str
) -> None:
    with pytest.raises(UserError, match=message) as caught:
        build(**{"num_classes": 3, "channels": 3, "generator": stream(), **options})  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_skeleton_of_a_timm_model_is_refused() -> None:
    with pytest.raises(UserError, match="no skeleton"):
        skeleton("timm:resnet10t", num_classes=3, channels=3)


def test_check_model_returns_the_family() -> None:
    assert check_model("cnn", norm="group", width="1/4").name == "cnn"
    assert check_model("timm:anything").name == "timm:anything"
    assert family_info("cnn_cifar").default_norm == "none"


def test_registry_imports_no_torch() -> None:
    code = (
        "import sys, benchmark.models.registry as registry; registry.check_model('cnn'); "
        "print(sorted(sys.modules))"
    )
    root = Path(__file__).parents[3]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True
    )
    assert "'torch'" not in done.stdout
    assert "benchmark.models.registry" in done.stdout
