from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mosaic_golden import TinyBN, random_tiny
from torch import Tensor, nn

from benchmark.errors import DivergedError
from benchmark.images import Normalization
from methods.blocks.bn_statistics import BatchNormStatistics
from methods.mosaic.adversarial import LOSS_NAMES
from methods.mosaic.gan_trainer import GanTrainer, endless_order, steps_of_epochs
from methods.mosaic.modes import frozen
from methods.mosaic.networks import GanShape
from methods.mosaic.settings import (
    GeneratorSettings,
)

GREY = Normalization((0.5,), (0.25,))
SMALL: dict[str, Any] = {"noise": 6, "width": 2, "discriminator_width": 2, "batch_size": 4}


def stream(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pictures(count: int, channels: int = 1, seed: int = 0) -> Tensor:
    shape = (count, channels, 32, 32)
    return torch.randint(0, 256, shape, generator=stream(seed), dtype=torch.uint8)


def trainer(images: Tensor, classifier: nn.Module | None = None, **changes: Any) -> GanTrainer:
    fields = {"classifier": classifier or random_tiny(1, channels=images.shape[1])}
    options = {
        name: changes.pop(name)
        for name in (
            "interval",
            "report",
            "random",
            "autocast",
            "augment",
            "channels_last",
            "normalization",
        )
        if name in changes
    }
    options = {"random": stream(), "normalization": GREY, **options}
    return GanTrainer(
        images,
        fields["classifier"],
        num_classes=4,
        settings=GeneratorSettings(**{**SMALL, **changes}),
        **options,
    )


@pytest.mark.parametrize("count", [1, 3, 4, 9])
def test_trains_on_any_number_of_images_and_of_one_class(count: int) -> None:
    made = trainer(pictures(count), interval=2)
    before = {k: v.clone() for k, v in made.generator.state_dict().items()}
    history = made.run(5)
    assert history.losses.shape == (5, len(LOSS_NAMES))
    assert history.losses.isfinite().all()
    assert history.class_histograms.sum(1).tolist() == [8, 8, 4]
    weights = [k for k in before if k.endswith("weight")]
    assert all(not torch.equal(before[k], made.generator.state_dict()[k]) for k in weights)


def test_no_class_is_left_out() -> None:
    """The published loop drops class 0; here every image of the client has its turn."""
    order = endless_order(7, 3, stream())
    seen = torch.cat([next(order) for _ in range(7)])
    assert [sorted(p.tolist()) for p in seen.view(3, 7)] == [list(range(7))] * 3


@given(st.integers(1, 20), st.integers(1, 20))
@settings(max_examples=25, deadline=None)
def test_order_is_full_batches_of_whole_passes(samples: int, batch: int) -> None:
    order = endless_order(samples, batch, stream(samples))
    seen = torch.cat([next(order) for _ in range(samples)])
    counts = torch.bincount(seen, minlength=samples)
    assert counts.tolist() == [batch] * samples


def test_training_is_repeatable_and_touches_no_global_stream() -> None:
    classifier = random_tiny(1, channels=1)
    before = torch.random.get_rng_state()
    runs = [trainer(pictures(6), classifier, random=stream(5)) for _ in range(2)]
    for made in runs:
        made.run(3)
    states = [made.generator.state_dict() for made in runs]
    assert all(torch.equal(v, states[1][k]) for k, v in states[0].items())
    assert torch.equal(before, torch.random.get_rng_state())
    other = trainer(pictures(6), random=stream(6))
    other.run(3)
    assert not torch.equal(runs[0].history.losses, other.history.losses)


def test_training_in_parts_equals_training_at_once() -> None:
    whole, parts = trainer(pictures(6)), trainer(pictures(6))
    whole.run(4)
    parts.run(1)
    history = parts.run(3)
    assert torch.equal(history.losses, whole.history.losses)
    state = parts.generator.state_dict()
    assert all(torch.equal(v, state[k]) for k, v in whole.generator.state_dict().items())


def test_floating_and_stored_images_train_alike() -> None:
    stored = pictures(5)
    first, second = trainer(stored).run(2), trainer(stored.float() / 255).run(2)
    assert torch.allclose(first.losses, second.losses, atol=1e-4)


def test_classifier_is_frozen_in_training_and_handed_back_as_it_was() -> None:
    """The published guide is left in train mode: generated images drift its statistics."""
    modes: list[bool] = []

    class Noting(TinyBN):
        def features(self, images: Tensor) -> Tensor:
            modes.append(self.training or any(p.requires_grad for p in self.parameters()))
            return super().features(images)

    classifier = Noting(4, 1).train()
    before = {k: v.clone() for k, v in classifier.state_dict().items()}
    trainer(pictures(5), classifier, threshold=100).run(3)
    assert modes == [False] * 3
    assert classifier.training
    assert all(p.requires_grad and p.grad is None for p in classifier.parameters())
    assert all(torch.equal(before[k], v) for k, v in classifier.state_dict().items())
    assert not any(m._forward_pre_hooks for m in classifier.modules())


def test_frozen_restores_mixed_modes_after_an_error() -> None:
    model = random_tiny(0).train()
    model.bn1.eval()
    model.head.weight.requires_grad_(False)
    with pytest.raises(KeyError), frozen(model) as held:
        raise KeyError(held.training)
    assert (model.training, model.bn1.training, model.bn2.training) == (True, False, True)
    assert not model.head.weight.requires_grad
    assert model.conv1.weight.requires_grad


def test_only_clients_under_the_threshold_get_the_inversion_term() -> None:
    at, under = (trainer(pictures(5), threshold=t).run(2) for t in (5, 6))
    column = LOSS_NAMES.index("inversion")
    assert not at.losses[:, column].any()
    assert (under.losses[:, column] > 0).all()
    assert GeneratorSettings(threshold=6).loss_weights(5).inversion == pytest.approx(0.01)
    assert GeneratorSettings(threshold=6).loss_weights(6).inversion == 0


def test_inversion_changes_the_generator_through_the_given_model_with_plus_sign() -> None:
    """The published term is computed without gradient, on the global model, with a minus."""
    only: dict[str, Any] = {
        "entropy": 0.0,
        "diversity": 0.0,
        "inversion_scale": 1.0,
        "threshold": 10,
    }
    runs = [trainer(pictures(5), inversion=i, **only) for i in (0.0, 5.0)]
    for made in runs:
        made.run(1)
    first, second = (made.generator.main[0].weight for made in runs)
    assert isinstance(first, Tensor)
    assert isinstance(second, Tensor)
    assert not torch.equal(first, second)
    losses = dict(zip(LOSS_NAMES, runs[1].history.losses[0].tolist(), strict=True))
    wanted = losses["adversarial"] + 5 * losses["inversion"]
    assert losses["generator"] == pytest.approx(wanted, rel=1e-5)


def test_inversion_descends() -> None:
    """Alone, it brings the batch's statistics nearer to the classifier's."""
    shape = GanShape(1, noise=6, width=4, discriminator_width=2)
    generator = shape.build_generator(stream()).train()
    classifier = random_tiny(3, channels=1).requires_grad_(False)
    noise = torch.randn(16, 6, 1, 1, generator=stream())
    optimizer = torch.optim.Adam(generator.parameters(), lr=5e-3)
    distances = []
    with BatchNormStatistics(classifier) as statistics:
        for _ in range(25):
            classifier(generator(noise))
            distance = statistics.loss()
            optimizer.zero_grad()
            torch.autograd.backward(distance)
            optimizer.step()
            distances.append(distance.item())
    assert distances[-1] < 0.9 * distances[0]


def ranges_seen(pixel_range: str) -> tuple[Tensor, Tensor]:
    """Train one step; return what discriminator and classifier were shown."""
    real: list[Tensor] = []
    shown: list[Tensor] = []
    classifier = random_tiny(1, channels=1)
    classifier.register_forward_pre_hook(lambda _, x: shown.append(x[0].detach()))
    made = trainer(
        torch.full((4, 1, 32, 32), 255, dtype=torch.uint8), classifier, pixel_range=pixel_range
    )
    made.gan.discriminator.main[0].register_forward_pre_hook(
        lambda _, x: real.append(x[0].detach())
    )
    made.run(1)
    return real[0], torch.stack([real[1], shown[0]])


def test_real_and_generated_images_meet_in_one_range() -> None:
    """The published code shows tanh output to a classifier of normalised images."""
    real, (fake, classified) = ranges_seen("unified")
    assert (real == 1).all()
    assert torch.allclose(classified, GREY.from_tanh(fake))
    assert not torch.allclose(classified, fake)


def test_raw_mode_converts_nothing() -> None:
    real, (fake, classified) = ranges_seen("raw")
    assert torch.allclose(real, torch.full_like(real, 2.0))
    assert torch.equal(classified, fake)


def test_report_comes_once_an_interval() -> None:
    calls: list[tuple[int, int, set[str]]] = []

    def report(step: int, total: int, **losses: float) -> None:
        calls.append((step, total, set(losses)))

    trainer(pictures(4), interval=2, report=report).run(5)
    assert calls == [(n, 5, set(LOSS_NAMES)) for n in (2, 4, 5)]


def test_divergence_is_reported_with_step_and_loss() -> None:
    classifier = random_tiny(1, channels=1)
    calls = 0

    def break_third(_module: nn.Module, _inputs: object, output: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return output * math.nan if calls == 3 else output

    classifier.register_forward_hook(break_third)
    with pytest.raises(DivergedError, match=r"generator diverged at step 2: \w+ loss is nan"):
        trainer(pictures(4), classifier, interval=2).run(6)


@pytest.mark.parametrize("channels_last", [False, True])
def test_reduced_precision_and_memory_format(channels_last: bool) -> None:
    def autocast() -> torch.autocast:
        return torch.autocast("cpu", dtype=torch.bfloat16)

    plain = trainer(pictures(8, 3), normalization=Normalization((0.5,) * 3, (0.25,) * 3)).run(2)
    low = trainer(
        pictures(8, 3),
        autocast=autocast,
        channels_last=channels_last,
        normalization=Normalization((0.5,) * 3, (0.25,) * 3),
    ).run(2)
    assert torch.allclose(plain.losses, low.losses, atol=0.3)
    assert not torch.equal(plain.losses, low.losses)


def test_augmentation_sees_the_stored_batch_and_the_stream() -> None:
    seen: list[tuple[torch.Size, torch.dtype]] = []

    def flip(batch: Tensor, random: torch.Generator) -> Tensor:
        seen.append((batch.shape, batch.dtype))
        return batch.flip(3) if torch.rand((), generator=random) < 0.5 else batch

    trainer(pictures(4), augment=flip).run(2)
    assert seen == [(torch.Size([4, 1, 32, 32]), torch.uint8)] * 2


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.zeros(0, 1, 32, 32, dtype=torch.uint8), "n >= 1"),
        (torch.full((2, 1, 32, 32), 1.5), r"\[0, 1\]"),
        (torch.full((2, 1, 32, 32), math.nan), r"\[0, 1\]"),
    ],
)
def test_unusable_images_are_refused(images: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        trainer(images)


def test_steps_are_what_is_asked_for() -> None:
    assert steps_of_epochs(5000, GeneratorSettings()) == 200 * 79
    assert len(trainer(pictures(9)).run(7).losses) == 7
