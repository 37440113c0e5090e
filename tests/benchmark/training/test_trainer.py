from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmark.errors import DivergedError, UserError
from benchmark.images import Normalization
from benchmark.models.build import build
from benchmark.specs import ComputeSpec, RecipeSpec
from benchmark.training.memory import reuse_freed_memory
from benchmark.training.trainer import TrainingSummary, cross_entropy, train

ROOT = Path(__file__).parents[3]
NORM = Normalization((0.5,), (0.25,))
FP32 = ComputeSpec(precision="fp32", threads=1)
CROP_AND_FLIP = SimpleNamespace(crop_padding=2, flip=True)


def stream(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def squares(n: int, classes: int = 4, size: int = 8) -> tuple[Tensor, Tensor]:
    """Noise with a bright quadrant that names the class."""
    labels = torch.arange(n) % classes
    images = torch.randint(0, 60, (n, 1, size, size), dtype=torch.uint8, generator=stream(9))
    half = size // 2
    for image, label in zip(images, labels.tolist(), strict=True):
        y, x = divmod(label, 2)
        image[0, y * half : (y + 1) * half, x * half : (x + 1) * half] += 150
    return images, labels


def small(classes: int = 4, dropout: float = 0.0) -> nn.Module:
    model = nn.Sequential(
        nn.Conv2d(1, 6, 3, padding=1),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Dropout(dropout),
        nn.Linear(24, classes),
    )
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.uniform_(-0.3, 0.3, generator=stream(1))
            elif parameter is not model[1].weight:
                parameter.zero_()
    return model


def run(model: nn.Module, n: int = 40, **changes: Any) -> TrainingSummary:
    images, labels = squares(n)
    settings: dict[str, Any] = {
        "recipe": RecipeSpec(epochs=2, batch_size=16, lr=0.1),
        "normalization": NORM,
        "generator": stream(),
        "compute": FP32,
    }
    return train(model, images, labels, **(settings | changes))


def same_state(a: nn.Module, b: nn.Module) -> bool:
    pairs = zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    return all(torch.equal(x, y) for x, y in pairs)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_it_learns(precision: str) -> None:
    model = small()
    recipe = RecipeSpec(epochs=12, batch_size=16, lr=0.1)
    summary = run(model, recipe=recipe, compute=ComputeSpec(precision=precision))
    images, labels = squares(40)
    with torch.no_grad():
        accuracy = (model(NORM.from_uint8(images)).argmax(1) == labels).float().mean()
    assert accuracy > 0.95
    assert summary.steps == 36
    assert summary.epoch_loss < 0.5
    assert summary.seconds > 0


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_fp32_is_sgd_with_momentum_weight_decay_and_schedule_as_written_down(
    schedule: str,
) -> None:
    images, labels = squares(12)
    model, reference = small(), small()
    recipe = RecipeSpec(
        epochs=3, batch_size=64, lr=0.05, momentum=0.9, weight_decay=0.01, schedule=schedule
    )
    train(
        model, images, labels, recipe=recipe, normalization=NORM, generator=stream(), compute=FP32
    )
    velocity = [torch.zeros_like(p) for p in reference.parameters()]
    for step in range(3):  # one batch an epoch holds all samples: their order does not matter
        factor = (1 + math.cos(math.pi * step / 3)) / 2 if schedule == "cosine" else 1.0
        loss = F.cross_entropy(reference(NORM.from_uint8(images)), labels)
        gradients = torch.autograd.grad(loss, list(reference.parameters()))
        with torch.no_grad():
            for p, g, v in zip(reference.parameters(), gradients, velocity, strict=True):
                v.mul_(0.9).add_(g + 0.01 * p)
                p.sub_(0.05 * factor * v)
    for (name, a), b in zip(model.named_parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=2e-5, rtol=2e-4, msg=name)


def test_steps_and_learning_rate_can_be_given() -> None:
    seen: list[tuple[int, int]] = []
    summary = run(small(), steps=7, on_step=lambda step, total, loss: seen.append((step, total)))
    assert summary.steps == 7
    assert seen == [(step, 7) for step in range(1, 8)]
    frozen, fresh = small(), small()
    run(frozen, lr=1e-30)
    assert torch.equal(frozen[0].weight, fresh[0].weight)


def test_given_steps_are_the_first_steps_of_the_full_training() -> None:
    long: list[float] = []
    short: list[float] = []
    run(small(), on_step=lambda step, total, loss: long.append(float(loss)))
    run(small(), steps=4, on_step=lambda step, total, loss: short.append(float(loss)))
    assert long[:4] == short


def test_the_summary_is_of_the_last_epoch() -> None:
    losses: list[float] = []
    summary = run(small(), on_step=lambda step, total, loss: losses.append(float(loss)))
    assert len(losses) == 6
    assert summary.loss == losses[-1]
    assert summary.epoch_loss == pytest.approx(sum(losses[-3:]) / 3, rel=1e-6)


def test_the_model_is_left_in_eval_mode_plain_order_and_without_gradients() -> None:
    model = small()
    run(model)
    assert not any(module.training for module in model.modules())
    assert all(p.is_contiguous() and p.grad is None for p in model.parameters())


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_the_generator_is_the_only_source_of_chance(dropout: float) -> None:
    a, b, c = small(dropout=dropout), small(dropout=dropout), small(dropout=dropout)
    run(a, augmentation=CROP_AND_FLIP)
    torch.rand(3)  # the global stream must not matter
    before = torch.random.get_rng_state()
    run(b, augmentation=CROP_AND_FLIP)
    assert torch.equal(before, torch.random.get_rng_state())
    run(c, augmentation=CROP_AND_FLIP, generator=stream(1))
    assert same_state(a, b)
    assert not same_state(a, c)


def test_the_recipe_decides_on_augmentation() -> None:
    plain, switched_off, augmented = small(), small(), small()
    off = RecipeSpec(epochs=2, batch_size=16, lr=0.1, augment=False)
    run(plain)
    run(switched_off, recipe=off, augmentation=CROP_AND_FLIP)
    run(augmented, augmentation=CROP_AND_FLIP)
    assert same_state(plain, switched_off)
    assert not same_state(plain, augmented)


def test_masked_cross_entropy_sets_other_logits_to_zero() -> None:
    logits = torch.tensor([[2.0, 5.0, -1.0]], dtype=torch.bfloat16)
    mask = torch.tensor([True, False, True])
    expected = math.log(math.exp(2) + 1 + math.exp(-1)) - 2
    loss = cross_entropy(logits, torch.tensor([0]), mask)
    assert loss.dtype == torch.float32
    assert float(loss) == pytest.approx(expected, rel=1e-6)


def test_the_head_of_masked_classes_does_not_move() -> None:
    images, labels = squares(20, classes=2)
    model, fresh = small(), small()
    mask = torch.tensor([True, True, False, False])
    train(
        model,
        images,
        labels,
        recipe=RecipeSpec(epochs=1, lr=0.1),
        normalization=NORM,
        generator=stream(),
        compute=FP32,
        class_mask=mask,
    )
    assert torch.equal(model[-1].weight[2:], fresh[-1].weight[2:])
    assert not torch.equal(model[-1].weight[:2], fresh[-1].weight[:2])


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_loss_of_ones_own_replaces_the_cross_entropy_and_nothing_else(precision: str) -> None:
    plain, same, proximal = small(dropout=0.3), small(dropout=0.3), small(dropout=0.3)
    start = [parameter.detach().clone() for parameter in small().parameters()]

    def given(model: nn.Module, images: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
        assert model.training
        assert (images.shape[1:], logits.dtype) == ((1, 8, 8), torch.float32)
        return F.cross_entropy(logits, labels)

    def held_back(model: nn.Module, images: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
        ways = zip(model.parameters(), start, strict=True)
        distance = torch.stack([(new - old).square().sum() for new, old in ways]).sum()
        return F.cross_entropy(logits, labels) + 5 * distance

    compute = ComputeSpec(precision=precision, threads=1)
    run(plain, compute=compute)
    run(same, compute=compute, objective=given)
    run(proximal, compute=compute, objective=held_back)
    assert same_state(plain, same)

    def moved(model: nn.Module) -> float:
        ways = zip(model.parameters(), start, strict=True)
        return sum(float((new - old).detach().square().sum()) for new, old in ways)

    assert 0 < moved(proximal) < moved(plain) / 2


def test_a_loss_of_ones_own_sees_masked_logits() -> None:
    seen: list[Tensor] = []

    def keep(model: nn.Module, images: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
        seen.append(logits.detach())
        return F.cross_entropy(logits, labels)

    run(small(), objective=keep, class_mask=torch.tensor([True, True, False, True]))
    assert all(bool((logits[:, 2] == 0).all()) for logits in seen)
    assert bool((seen[0][:, 3] != 0).any())


@pytest.mark.parametrize(("n", "batch"), [(1, 16), (5, 16), (17, 16)])
@pytest.mark.parametrize("family", ["cnn", "resnet18", "lenet"])
def test_few_samples_train(family: str, n: int, batch: int) -> None:
    images, labels = squares(n, size=32)
    model = build(family, num_classes=4, channels=1, width="1/16", generator=stream())
    summary = train(
        model,
        images,
        torch.zeros_like(labels),
        recipe=RecipeSpec(epochs=1, batch_size=batch),
        normalization=NORM,
        augmentation=CROP_AND_FLIP,
        generator=stream(),
        compute=FP32,
    )
    assert summary.steps == math.ceil(n / batch)
    assert math.isfinite(summary.loss)


def test_a_batch_norm_with_one_value_per_channel_uses_its_running_statistics() -> None:
    model = nn.Sequential(
        nn.Conv2d(1, 3, 8), nn.BatchNorm2d(3), nn.Flatten(), nn.BatchNorm1d(3), nn.Linear(3, 4)
    )
    # The last of three batches holds one image, on a map of one pixel.
    summary = run(model, n=33, recipe=RecipeSpec(epochs=1, batch_size=16))
    assert summary.steps == 3
    assert int(model[1].num_batches_tracked) == int(model[3].num_batches_tracked) == 2
    assert not model[1]._forward_pre_hooks


def test_every_epoch_is_trained_in_train_mode() -> None:
    # Not inherited (DENSE, published code): evaluation mode from the second epoch on.
    model = small()
    summary = run(model, n=32, recipe=RecipeSpec(epochs=3, batch_size=16))
    assert int(model[1].num_batches_tracked) == summary.steps == 6


def test_a_batch_norm_of_one_larger_image_uses_batch_statistics() -> None:
    model = small()
    run(model, n=1, steps=2)
    assert int(model[1].num_batches_tracked) == 2


class BreaksOnce(nn.Module):
    """One loss is bad and no other, so that a later one can't be taken for it."""

    def __init__(self, step: int, logit: float) -> None:
        super().__init__()
        self.step, self.logit, self.calls = step, logit, 0
        self.weight = nn.Parameter(torch.zeros(4))
        self.weight.register_hook(torch.zeros_like)

    def forward(self, images: Tensor) -> Tensor:
        logits = self.weight.repeat(len(images), 1)
        if self.calls == self.step:
            logits[:, 0] += self.logit
        self.calls += 1
        return logits


@pytest.mark.parametrize(("step", "total"), [(3, 120), (49, 120), (50, 120), (119, 120), (0, 1)])
@pytest.mark.parametrize(("logit", "reason"), [(math.nan, "nan"), (-math.inf, "inf")])
def test_divergence_names_the_first_bad_step(
    step: int, total: int, logit: float, reason: str
) -> None:
    images, labels = squares(4)
    with pytest.raises(DivergedError) as caught:
        train(
            BreaksOnce(step, logit),
            images,
            torch.zeros_like(labels),
            recipe=RecipeSpec(batch_size=4),
            normalization=NORM,
            generator=stream(),
            compute=FP32,
            steps=total,
            where="client 3",
        )
    error = caught.value
    assert (error.where, error.step, error.reason) == ("client 3", step, f"loss is {reason}")


def test_a_huge_learning_rate_diverges_with_its_name() -> None:
    with pytest.raises(DivergedError, match=r"^client 7 diverged at step \d+: "):
        run(small(), lr=1e38, where="client 7")


def test_weights_broken_by_the_last_update_are_found() -> None:
    with pytest.raises(DivergedError, match="diverged at step 0: weights are not finite"):
        run(small(), n=4, steps=1, lr=3e38, recipe=RecipeSpec(weight_decay=1e3))


def test_no_samples_and_no_steps_are_refused() -> None:
    with pytest.raises(UserError, match="client 5 has no training samples"):
        run(small(), n=0, where="client 5")
    with pytest.raises(ValueError, match="steps must be at least 1"):
        run(small(), steps=0)


def test_threads_are_those_of_the_spec_while_training() -> None:
    before, seen = torch.get_num_threads(), set()
    compute = ComputeSpec(threads=2 if before == 1 else 1)
    run(small(), compute=compute, on_step=lambda *_: seen.add(torch.get_num_threads()))
    assert seen == {compute.threads}
    assert torch.get_num_threads() == before


SCRIPT = """
import hashlib, torch
from types import SimpleNamespace
from benchmark.images import Normalization
from benchmark.models.build import build
from benchmark.specs import ComputeSpec, RecipeSpec
from benchmark.training.precision import configure_threads
from benchmark.training.trainer import train
configure_threads(1)
for precision in ("fp32", "bf16"):
    for family in ("cnn", "resnet18"):
        g = torch.Generator().manual_seed(5)
        images = torch.randint(256, (50, 3, 32, 32), dtype=torch.uint8, generator=g)
        labels = torch.randint(10, (50,), generator=g)
        model = build(family, num_classes=10, channels=3, width="1/8", generator=g)
        train(torch.nn.Sequential(model, torch.nn.Dropout(0.2)), images, labels,
              recipe=RecipeSpec(epochs=1, batch_size=16), generator=g,
              normalization=Normalization((0.5,) * 3, (0.25,) * 3),
              augmentation=SimpleNamespace(crop_padding=4, flip=True),
              compute=ComputeSpec(precision=precision, threads=1))
        state = b"".join(t.numpy().tobytes() for t in model.state_dict().values())
        print(precision, family, hashlib.sha256(state).hexdigest())
"""


@pytest.mark.long
def test_training_is_bit_identical_across_processes() -> None:
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", SCRIPT],
            env=os.environ | {"PYTHONHASHSEED": hash_seed},
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )
        for hash_seed in ("1", "2")
    ]
    outputs = [process.communicate()[0].splitlines() for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert outputs[0] == outputs[1]
    assert len({line.split()[-1] for line in outputs[0]}) == 4


def test_keeping_memory_is_optional_and_changes_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    before, after = small(), small()
    run(before)
    took_effect = reuse_freed_memory()
    run(after)
    assert isinstance(took_effect, bool)
    assert same_state(before, after)
    monkeypatch.setattr(sys, "platform", "darwin")
    assert not reuse_freed_memory()


def test_the_schedule_spans_the_steps_that_are_given() -> None:
    given, whole = small(), small()
    recipe = RecipeSpec(epochs=3, batch_size=64, lr=0.05, schedule="cosine")  # a step an epoch
    run(given, n=12, steps=3, recipe=recipe.model_copy(update={"epochs": 50}))
    run(whole, n=12, recipe=recipe)
    assert same_state(given, whole)
