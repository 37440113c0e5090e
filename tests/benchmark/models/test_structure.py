from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from preactivation import PreActivationResNet
from torch import Tensor, nn

from benchmark.errors import UserError
from benchmark.models.build import build, skeleton
from benchmark.models.structure import Structure, find_structure


def structure_of(family: str, **options: object) -> Structure:
    return find_structure(skeleton(family, **{"num_classes": 10, "channels": 3, **options}))  # type: ignore[arg-type]


def space_of(structure: Structure, name: str) -> tuple[int | None, int | None]:
    """Return the (out, in) spaces of a state-dict entry; None where it has no such axis."""
    entry = structure.entries[name]
    out_axis, in_axis = (
        None if axis is None else structure.layers[axis.layer].space
        for axis in (entry.out_axis, entry.in_axis)
    )
    return out_axis, in_axis


def test_resnet18_unifies_the_spaces_of_each_stage_and_nothing_else() -> None:
    structure = structure_of("resnet18")
    for stage in range(1, 5):
        outputs = {space_of(structure, f"layer{stage}.{b}.conv2.weight")[0] for b in range(2)}
        assert len(outputs) == 1
        inner = [space_of(structure, f"layer{stage}.{b}.conv1.weight")[0] for b in range(2)]
        assert len({*inner, *outputs}) == 3
        if stage > 1:
            shortcut = space_of(structure, f"layer{stage}.0.shortcut.0.weight")
            assert {shortcut[0]} == outputs
            assert shortcut[1] == space_of(structure, f"layer{stage}.0.conv1.weight")[1]
    assert space_of(structure, "conv1.weight")[0] == space_of(structure, "layer1.1.conv2.weight")[0]
    assert sorted(structure.spaces.values()) == [64] * 3 + [128] * 3 + [256] * 3 + [512] * 3


@pytest.mark.parametrize("norm", ["batch", "group"])
def test_norm_entries_belong_to_the_space_they_normalise(norm: str) -> None:
    structure = structure_of("resnet18", norm=norm)
    kinds = {
        "weight": "affine", "bias": "affine", "running_mean": "mean", "running_var": "variance",
        "num_batches_tracked": "counter",
    }  # fmt: skip
    seen = set()
    for name, entry in structure.entries.items():
        prefix, field = name.rsplit(".", 1)
        if "norm" not in prefix.rsplit(".", 1)[-1]:
            continue
        seen.add(field)
        assert entry.kind == kinds[field]
        conv = f"{prefix.replace('norm', 'conv')}.weight"
        expected = None if field == "num_batches_tracked" else space_of(structure, conv)[0]
        assert space_of(structure, name) == (expected, None)
    assert seen == (set(kinds) if norm == "batch" else {"weight", "bias"})


@pytest.mark.parametrize("family", ["resnet18", "cnn", "lenet", "cnn_cifar", "cnn_mnist"])
def test_image_channels_and_classes_are_fixed(family: str) -> None:
    structure = structure_of(family)
    assert structure.head == ("head.weight", "head.bias")
    assert (
        structure.entries.keys() == skeleton(family, num_classes=10, channels=3).state_dict().keys()
    )
    for name, dim in [("conv1.weight", 1), ("head.weight", 0), ("head.bias", 0)]:
        space = space_of(structure, name)[dim]
        assert space is not None
        assert space not in structure.spaces
    assert space_of(structure, "conv1.weight")[0] in structure.spaces


def test_flatten_makes_each_channel_a_run_of_features() -> None:
    axis = structure_of("cnn_cifar").entries["head.weight"].in_axis
    assert axis is not None
    assert axis.repeat == 16
    lenet = structure_of("lenet", image_size=64)
    fc = lenet.entries["fc.weight"]
    assert fc.in_axis is not None
    assert fc.in_axis.repeat == 81
    assert lenet.layers[fc.in_axis.layer].size == 120
    assert space_of(lenet, "head.weight")[1] == space_of(lenet, "fc.bias")[0]


def test_a_pre_activation_network_is_understood_by_its_graph() -> None:
    structure = find_structure(PreActivationResNet([4, 6, 8, 10], [2, 1, 1, 1], 5))
    stream = {
        space_of(structure, name)[0]
        for name in ("conv1.weight", "layer1.0.conv2.weight", "layer1.1.conv2.weight")
    }
    assert len(stream) == 1
    assert space_of(structure, "layer1.1.n1.weight")[0] in stream
    shortcut, branch = (space_of(structure, f"layer2.0.{n}.weight") for n in ("shortcut", "conv2"))
    assert shortcut[0] == branch[0]
    assert shortcut[1] in stream
    assert (
        space_of(structure, "layer4.0.conv2.weight")[0] == space_of(structure, "linear.weight")[1]
    )


def test_the_model_is_left_as_it_was() -> None:
    model = build("cnn", num_classes=3, channels=1, generator=torch.Generator().manual_seed(0))
    before = copy.deepcopy(model.state_dict())
    find_structure(model)
    assert model.training
    assert all(torch.equal(before[n], t) for n, t in model.state_dict().items())


class Plain(nn.Module):
    """Conv, a function under test, and a head."""

    def __init__(self, channels: int = 4) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, channels, 3)
        self.head = nn.Linear(channels, 2)

    def middle(self, x: Tensor) -> Tensor:
        return x

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.middle(self.conv(x)))


class MeanPooled(Plain):
    def middle(self, x: Tensor) -> Tensor:
        return torch.relu(0.5 * x / 2 + 1).mean(dim=(2, 3))


class KeptPooled(Plain):
    def middle(self, x: Tensor) -> Tensor:
        return x.mean((2, 3), False)


class ShapeReading(Plain):
    def middle(self, x: Tensor) -> Tensor:
        return F.adaptive_avg_pool2d(x, 1).view(x.shape[0], -1)


class Gated(Plain):
    def middle(self, x: Tensor) -> Tensor:
        return (x * torch.sigmoid(x)).mean(dim=(2, 3))


class Branching(Plain):
    def middle(self, x: Tensor) -> Tensor:
        return x.mean((2, 3)) if x.sum() > 0 else x.amax((2, 3))


class Concatenating(Plain):
    def middle(self, x: Tensor) -> Tensor:
        return torch.cat([x, x], 1).mean((2, 3))


class Broadcasting(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Conv2d(4, 1, 1)

    def middle(self, x: Tensor) -> Tensor:
        return (x + self.one(x)).mean((2, 3))


class Unused(MeanPooled):
    def __init__(self) -> None:
        super().__init__()
        self.spare = nn.Linear(2, 2)


class Depthwise(MeanPooled):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, groups=3)


class Headless(Plain):
    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x).mean((2, 3))


class Shared(MeanPooled):
    def __init__(self) -> None:
        super().__init__()
        self.twice = nn.Conv2d(4, 4, 1)

    def middle(self, x: Tensor) -> Tensor:
        return super().middle(self.twice(self.twice(x)))


class RawTensor(MeanPooled):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(4, 1, 1))

    def middle(self, x: Tensor) -> Tensor:
        return super().middle(x * self.scale)


@pytest.mark.parametrize("cls", [MeanPooled, KeptPooled, ShapeReading])
def test_ordinary_ways_of_pooling_are_understood(cls: type[Plain]) -> None:
    structure = find_structure(cls())
    assert space_of(structure, "head.weight")[1] == space_of(structure, "conv.weight")[0]


@pytest.mark.parametrize(
    ("cls", "reason"),
    [
        (Gated, "'mul'"),
        (Branching, "traced"),
        (Concatenating, "'cat'"),
        (Broadcasting, "4 channels are added to 1,"),
        (Unused, "'spare.weight' plays no part"),
        (Depthwise, "Conv2d at 'conv'"),
        (Headless, "does not end in a linear layer"),
        (Shared, "more than once"),
        (RawTensor, "'scale'"),
    ],
)
def test_what_is_not_understood_is_refused_by_name(cls: type[Plain], reason: str) -> None:
    with pytest.raises(UserError, match=reason) as caught:
        find_structure(cls())
    assert cls.__name__ in str(caught.value)
    assert "\n" not in str(caught.value)


def test_timm_models_are_width_one_only() -> None:
    model = build(
        "timm:resnet10t", num_classes=3, channels=3, generator=torch.Generator().manual_seed(0)
    )
    with pytest.raises(UserError, match="width 1"):
        find_structure(model)
