from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pytest
import torch
from mosaic_golden import GOLDEN, close, load, part, random_tiny
from torch import Tensor, nn
from torch.nn import functional as F

from benchmark.errors import DivergedError
from benchmark.models.base import Classifier
from methods.mosaic import meta as meta_model
from methods.mosaic import meta_training
from methods.mosaic.experts import Experts, LogitExperts, MosaicTeacher, ParameterExperts
from methods.mosaic.meta import MetaTransformer, OwnClass, make_meta
from methods.mosaic.meta_training import (
    ImageBatches,
    MetaBatch,
    PrototypeBatches,
    WeightAverage,
    mean_expert_label,
    train_meta,
)
from methods.mosaic.mixing import ExpertMixer, expert_weights
from methods.mosaic.networks import parameter_count
from methods.mosaic.prototypes import Prototypes
from methods.mosaic.settings import MetaSettings


def stream(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_each_expert_speaks_for_its_own_class_alone() -> None:
    logits = torch.randn(5, 4, 4, generator=stream())
    answer = OwnClass()(logits)
    for expert in range(4):
        torch.testing.assert_close(
            answer[:, expert].exp(), logits[:, expert].softmax(-1)[:, expert]
        )
    # What an expert says of other classes counts only through its own probability.
    logits[:, 1] += 3.0
    torch.testing.assert_close(OwnClass()(logits), answer)
    # Unlike the published meta model, it knows which expert said what.
    assert not torch.allclose(OwnClass()(logits[:, [1, 0, 2, 3]]), answer)


def golden_meta(dropout: float = 0.2) -> tuple[MetaTransformer, dict[str, Tensor]]:
    golden = load("meta_transformer.npz")
    text = np.load(GOLDEN / "meta_transformer.npz")
    names = text["W_names"].tolist()
    denominators = golden["W_denominators"].tolist()
    state = {
        name: golden[f"W.{name}"].float() / denominator
        for name, denominator in zip(names, denominators, strict=True)
        # Two published parameters that no output depends on.
        if name not in ("attention_weights", "diag_weights")
    }
    meta = MetaTransformer(4, stream(), dropout=dropout)
    meta.load_state_dict(state)
    return meta.eval(), golden


def head_logits(golden: dict[str, Tensor], features: Tensor) -> Tensor:
    heads = [
        F.linear(features, golden[f"expert{i}.linear.weight"], golden[f"expert{i}.linear.bias"])
        for i in range(4)
    ]
    return torch.stack(heads, dim=1)


class GoldenExpert(Classifier):
    """A 1x1 convolution, ReLU, mean over space, linear."""

    def __init__(self, golden: dict[str, Tensor], index: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 1, bias=False)
        self.head = nn.Linear(6, 4)
        state = part(golden, f"expert{index}.")
        self.load_state_dict({k.replace("linear.", "head."): v for k, v in state.items()})

    def features(self, images: Tensor) -> Tensor:
        pooled: Tensor = self.conv(images).relu().mean((2, 3))
        return pooled


def golden_experts(golden: dict[str, Tensor], kind: str) -> Experts:
    """Return the file's four experts, each the model of a class's only holder."""
    models, weights = [GoldenExpert(golden, i) for i in range(4)], expert_weights(torch.eye(4))
    if kind == "logit":
        return LogitExperts(models, weights)
    mixer = ExpertMixer([model.state_dict() for model in models], weights)
    return ParameterExperts(models[0], mixer, resident=2)


@pytest.mark.parametrize("kind", ["parameter", "logit"])
def test_golden_meta_transformer(kind: str) -> None:
    meta, golden = golden_meta()
    experts = golden_experts(golden, kind)
    from_features = experts.head_logits(golden["features"])
    assert close(from_features, golden["expert_logits_from_features"])
    from_images = experts.logits(golden["images"])
    assert close(from_images, golden["expert_logits_from_images"])
    with torch.no_grad():
        assert close(meta(from_features), golden["out_from_features"])
        assert close(meta(from_images), golden["out_from_images"])
        rotated = meta(from_features.roll(1, dims=1))
        assert close(rotated, golden["out_from_features_experts_rotated"])
    # The same numbers with gradients on, where PyTorch takes another path.
    assert close(meta(from_features), golden["out_from_features"])


def test_golden_meta_train_ema() -> None:
    meta, start = golden_meta(dropout=0.0)
    golden = load("meta_train_ema.npz")
    probe = head_logits(start, golden["probe_features"])
    assert close(meta(probe), golden["probe_out_initial"], 1e-3)
    # The published loop goes over three batches in each of five epochs, but learns from the
    # first one only: five steps.
    batch = (head_logits(start, golden["batch_features"][0]), golden["batch_labels"][0])
    settings = MetaSettings(steps=golden["n_steps"].item(), dropout=0, bias_correction=False)
    trained = train_meta(meta, lambda _: batch, settings, stream())
    assert close(trained.losses, golden["losses"], 1e-3)
    trained.current.eval()
    assert close(trained.current(probe), golden["probe_out_current"], 1e-3)
    assert close(trained.model(probe), golden["probe_out_ema"], 1e-3)
    assert close(trained.current.fc.weight, golden["fc_weight_current"], 1e-3)
    assert close(trained.model.fc.weight, golden["fc_weight_ema"], 1e-3)
    assert trained.initial_share == pytest.approx(0.99**5)


@pytest.mark.parametrize(
    ("classes", "pooling", "count"), [(10, "sum", 948_316 - 110), (100, "mean", 20_425_396 - 200)]
)
def test_parameter_counts_without_the_unused_ones(classes: int, pooling: str, count: int) -> None:
    settings = MetaSettings()
    assert settings.pooling(classes) == pooling
    meta = MetaTransformer(classes, None, pooling=settings.pooling(classes))
    assert parameter_count(meta) == count


@pytest.mark.parametrize("classes", [2, 3, 7])
@pytest.mark.parametrize("pooling", ["sum", "mean"])
def test_any_number_of_classes_and_every_parameter_counts(classes: int, pooling: str) -> None:
    settings = MetaSettings(variant="sum" if pooling == "sum" else "mean", feedforward=8)
    meta = make_meta(classes, classes + 1, settings, stream())
    out = meta(torch.randn(5, classes + 1, classes, generator=stream()))
    assert out.shape == (5, classes)
    grads = torch.autograd.grad(out.square().sum(), list(meta.parameters()), allow_unused=True)
    assert all(grad is not None for grad in grads)


def test_expert_order_matters_only_with_an_embedding() -> None:
    """Without one (published) the model cannot learn whom to trust for what."""
    logits = torch.randn(6, 4, 4, generator=stream())
    for embedded in (False, True):
        meta = make_meta(4, 4, MetaSettings(expert_embedding=embedded), stream()).eval()
        same = torch.allclose(meta(logits), meta(logits.flip(1)), atol=1e-5)
        assert same is not embedded


def test_sum_and_mean_pooling_differ_in_scale_by_the_number_of_experts() -> None:
    meta = MetaTransformer(10, stream(), pooling="sum").eval()
    logits = torch.randn(3, 10, 10, generator=stream())
    summed = meta(logits) - meta.fc.bias
    meta.pooling = "mean"
    assert torch.allclose(summed, 10 * (meta(logits) - meta.fc.bias), atol=1e-4)


def test_initial_weights_follow_the_library_and_the_stream() -> None:
    before = torch.random.get_rng_state()
    meta = MetaTransformer(10, stream(1))
    assert torch.equal(before, torch.random.get_rng_state())
    again = MetaTransformer(10, stream(1)).state_dict()
    assert all(torch.equal(v, again[k]) for k, v in meta.state_dict().items())
    library = nn.Transformer(100, 10, 1, 1, 2048, batch_first=True).state_dict()
    ours = meta.transformer.state_dict()
    assert list(ours) == list(library)
    for name, value in library.items():
        if name.endswith("bias") and "linear" in name:
            assert ours[name].abs().max().item() == pytest.approx(value.abs().max().item(), rel=0.1)
        elif value.std() == 0:
            assert torch.equal(ours[name], value), name
        else:
            assert ours[name].std().item() == pytest.approx(value.std().item(), rel=0.05), name
    bound = 1 / math.sqrt(10)
    assert 0.9 * bound < meta.fc_expand.weight.abs().max() <= bound


def toy_batches(random: torch.Generator) -> MetaBatch:
    """Expert logits whose mean points at the label."""
    labels = torch.randint(0, 3, (32,), generator=random)
    noise = torch.randn(32, 3, 3, generator=random)
    return noise + 3 * F.one_hot(labels, 3)[:, None], labels


def test_training_learns_repeats_and_leaves_the_global_stream_alone() -> None:
    settings = MetaSettings(steps=40, feedforward=32)
    before = torch.random.get_rng_state()
    first, second = (
        train_meta(make_meta(3, 3, settings, stream(1)), toy_batches, settings, stream(2))
        for _ in range(2)
    )
    assert torch.equal(before, torch.random.get_rng_state())
    assert torch.equal(first.losses, second.losses)
    weights = second.model.state_dict()
    assert all(torch.equal(v, weights[k]) for k, v in first.model.state_dict().items())
    assert first.losses[-5:].mean() < 0.7 * first.losses[0]
    assert not first.model.training
    assert not any(p.requires_grad for p in first.model.parameters())
    logits, labels = toy_batches(stream(3))
    assert (first.model(logits).argmax(1) == labels).float().mean() > 0.8


def test_number_of_steps_is_explicit_and_each_has_a_fresh_batch() -> None:
    """The published loop reads whole epochs of batches, and learns from the first of each."""
    seen: list[Tensor] = []

    def batches(random: torch.Generator) -> MetaBatch:
        batch = toy_batches(random)
        seen.append(batch[0])
        return batch

    settings = MetaSettings(steps=4, feedforward=8)
    trained = train_meta(make_meta(3, 3, settings, stream()), batches, settings, stream())
    assert len(trained.losses) == len(seen) == 4
    assert not any(torch.equal(a, b) for a, b in pairwise(seen))


def test_divergence_is_reported() -> None:
    def batches(random: torch.Generator) -> MetaBatch:
        logits, labels = toy_batches(random)
        return logits * math.nan, labels

    settings = MetaSettings(steps=2, feedforward=8)
    with pytest.raises(DivergedError, match="meta model diverged at step 0: loss is nan"):
        train_meta(make_meta(3, 3, settings, stream()), batches, settings, stream())


def walk(layer: nn.Linear) -> Iterator[float]:
    """Move a layer's only weight along 1, 2, 3."""
    for value in (1.0, 2.0, 3.0):
        nn.init.constant_(layer.weight, value)
        yield value


@pytest.mark.parametrize("corrected", [False, True])
def test_weight_average_by_hand(corrected: bool) -> None:
    layer = nn.Linear(1, 1, bias=False)
    nn.init.constant_(layer.weight, 10.0)
    average = WeightAverage(layer, 0.5, bias_correction=corrected)
    by_hand, weight = 10.0, 0.0
    for value in walk(layer):
        average.update(layer)
        by_hand = 0.5 * by_hand + 0.5 * value
        weight = 0.5 * weight + 0.5 * value
    average.apply_to(layer)
    wanted = weight / (1 - 0.5**3) if corrected else by_hand
    assert layer.weight.item() == pytest.approx(wanted)
    assert average.initial_share == (0 if corrected else 0.125)


def test_weight_average_before_any_update_is_the_model() -> None:
    layer = nn.Linear(2, 2)
    before = layer.weight.clone()
    WeightAverage(layer, 0.9, bias_correction=True).apply_to(layer)
    assert torch.equal(layer.weight, before)
    with pytest.raises(ValueError, match="decay"):
        WeightAverage(layer, 1.0, bias_correction=True)


def some_experts() -> LogitExperts:
    weights = expert_weights(torch.tensor([[3, 1, 0, 2], [0, 1, 4, 2]]))
    return LogitExperts([random_tiny(0), random_tiny(1)], weights)


def test_prototype_batches_are_random_parts_without_repetition() -> None:
    prototypes = Prototypes(torch.arange(54.0).view(9, 6), torch.arange(9) % 4)
    source = PrototypeBatches(some_experts(), prototypes, 5)
    random = stream()
    logits, labels = source(random)
    assert logits.shape == (5, 4, 4)
    assert labels.shape == (5,)
    assert not torch.equal(logits, source(random)[0])
    every, _ = PrototypeBatches(some_experts(), prototypes, 99)(random)
    expected = some_experts().head_logits(prototypes.features)
    assert torch.allclose(every.sum((1, 2)).sort().values, expected.sum((1, 2)).sort().values)
    with pytest.raises(ValueError, match="at least one prototype"):
        PrototypeBatches(some_experts(), Prototypes(torch.ones(0, 6), torch.ones(0)), 5)


def test_image_batches_show_images_to_whole_experts() -> None:
    def draw(count: int, random: torch.Generator) -> tuple[Tensor, Tensor]:
        return torch.randn(count, 3, 8, 8, generator=random), torch.zeros(count)

    experts = some_experts()
    logits, labels = ImageBatches(experts, draw, mean_expert_label, 6)(stream(4))
    assert torch.equal(logits, experts.logits(draw(6, stream(4))[0]))
    assert torch.equal(labels, logits.mean(1).argmax(1))


def test_teacher_with_meta_model_does_not_depend_on_batch_mates() -> None:
    meta = make_meta(4, 4, MetaSettings(feedforward=16), stream()).eval()
    teacher = MosaicTeacher(some_experts(), meta)
    images = torch.randn(5, 3, 8, 8, generator=stream())
    alone = torch.cat([teacher(image[None]) for image in images])
    assert torch.allclose(teacher(images), alone, atol=1e-5)
    assert not teacher(images).requires_grad


def test_a_batch_in_pieces_has_the_gradients_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    random = torch.Generator().manual_seed(3)
    logits = torch.randn(7, 4, 4, generator=random)
    labels = torch.randint(0, 4, (7,), generator=random)
    calls: list[int] = []
    found = []
    for attention in (meta_model.ATTENTION, 2 * 4 * 4 * 4):
        monkeypatch.setattr(meta_model, "ATTENTION", attention)
        meta = MetaTransformer(4, torch.Generator().manual_seed(1), dropout=0.0, feedforward=8)
        meta.register_forward_pre_hook(lambda _, inputs: calls.append(len(inputs[0])))
        loss = meta_training._backward(meta, logits, labels)
        found.append([loss, *(p.grad for p in meta.parameters())])
    assert calls == [7, 2, 2, 2, 1]
    for whole, pieces in zip(*found, strict=True):
        torch.testing.assert_close(pieces, whole, rtol=1e-4, atol=1e-6)


def test_many_examples_are_read_in_pieces_without_gradients(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    meta = make_meta(4, 4, MetaSettings(feedforward=16), stream()).eval()
    logits = torch.randn(7, 4, 4, generator=stream())
    sizes: list[int] = []
    meta.transformer.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    answers = []
    for attention in (meta_model.ATTENTION, 2 * 4 * 4 * 4):
        monkeypatch.setattr(meta_model, "ATTENTION", attention)
        with torch.no_grad():
            answers.append(meta(logits))
    assert sizes == [7, 2, 2, 2, 1]
    torch.testing.assert_close(*answers)
    assert meta(logits.requires_grad_()).requires_grad
    assert sizes[-1] == 7
