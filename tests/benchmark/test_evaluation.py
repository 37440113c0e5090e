from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from benchmark.errors import DivergedError, UserError
from benchmark.evaluation import (
    SELECTION,
    Evaluation,
    batch_gap,
    evaluate,
    inference_flops,
    predict,
)
from benchmark.images import Normalization
from benchmark.models.build import build

NORM = Normalization((0.5,), (0.25,))


class FirstPixel(nn.Module):
    """Predicts the class that the first pixel's value names; the logit is ``scale``."""

    def __init__(self, classes: int, scale: float = 3.0) -> None:
        super().__init__()
        self.classes = classes
        self.scale = scale

    def forward(self, images: Tensor) -> Tensor:
        value = (NORM.to_unit(images)[:, 0, 0, 0] * 255).round().to(torch.int64)
        return nn.functional.one_hot(value, self.classes).float() * self.scale


def images_of(predictions: list[int]) -> Tensor:
    images = torch.zeros(len(predictions), 1, 4, 4, dtype=torch.uint8)
    images[:, 0, 0, 0] = torch.tensor(predictions)
    return images


def check(predictions: list[int], labels: list[int], **changes: float) -> Evaluation:
    model = FirstPixel(3, **changes)
    return evaluate(
        model, images_of(predictions), torch.tensor(labels), normalization=NORM, num_classes=3
    )


def test_numbers_by_hand() -> None:
    result = check([0, 1, 1, 1], [0, 0, 1, 1])
    assert result.accuracy == 0.75
    assert result.per_class == (0.5, 1.0, None)
    assert result.confusion == ((1, 1, 0), (0, 2, 0), (0, 0, 0))
    assert result.n == 4
    right = math.log(1 + 2 * math.exp(-3))
    assert result.loss == pytest.approx(right + 3 / 4, rel=1e-7)


def random_problem(n: int = 60) -> tuple[nn.Module, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    model = build("cnn", num_classes=10, channels=1, width="1/4", generator=generator)
    images = torch.randint(256, (n, 1, 32, 32), dtype=torch.uint8, generator=generator)
    return model, images, torch.randint(10, (n,), generator=generator)


@pytest.mark.parametrize("batch_size", [1, 7, 60])
def test_nothing_depends_on_the_batch_size(batch_size: int) -> None:
    model, images, labels = random_problem()
    whole = evaluate(model, images, labels, normalization=NORM, num_classes=10)
    parts = evaluate(
        model, images, labels, normalization=NORM, num_classes=10, batch_size=batch_size
    )
    assert parts.confusion == whole.confusion
    assert parts.accuracy == whole.accuracy
    assert parts.loss == pytest.approx(whole.loss, rel=1e-6)


def test_the_model_is_as_it_was_mixed_modes_included() -> None:
    model, images, labels = random_problem(8)
    model.train()
    frozen = next(m for m in model.modules() if isinstance(m, nn.BatchNorm2d)).eval()
    modes = [module.training for module in model.modules()]
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    evaluate(model, images, labels, normalization=NORM, num_classes=10)
    assert [module.training for module in model.modules()] == modes
    assert not frozen.training
    assert all(torch.equal(state[name], tensor) for name, tensor in model.state_dict().items())


def test_the_mode_is_restored_after_an_error() -> None:
    class Failing(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            raise RuntimeError("broken")

    model = Failing()
    with pytest.raises(RuntimeError, match="broken"):
        predict(model, images_of([0]), normalization=NORM)
    assert model.training


def test_logits_are_fp32_in_eval_mode_without_gradient_even_inside_autocast() -> None:
    model, images, _ = random_problem(8)
    model.train()
    outside = predict(model, images, normalization=NORM)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = predict(model, images, normalization=NORM)
    assert outside.dtype == torch.float32
    assert not outside.requires_grad
    assert torch.equal(inside, outside)
    with torch.no_grad():
        expected = model.eval()(NORM.from_uint8(images))
    torch.testing.assert_close(outside, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("scale", [math.nan, math.inf])
def test_a_model_without_finite_logits_has_no_accuracy(scale: float) -> None:
    with pytest.raises(DivergedError, match=r"^the model's answers diverged: 2 of 2 images"):
        check([0, 1], [0, 1], scale=scale)


def test_an_answer_costs_the_operations_of_one_image() -> None:
    model = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.Flatten(), nn.Linear(4 * 16, 3))
    one = 2 * (4 * 9 * 16 + 64 * 3)
    image = images_of([1])
    assert inference_flops(model, image, normalization=NORM) == one

    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.members = nn.ModuleList([model, model])

        def forward(self, images: Tensor) -> Tensor:
            return torch.stack([member(images) for member in self.members]).mean(0)

    assert inference_flops(Two(), image, normalization=NORM) == 2 * one


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(UserError, match="nothing to evaluate"):
        check([], [])
    with pytest.raises(ValueError, match="2 images but labels"):
        check([0, 1], [0])
    with pytest.raises(ValueError, match="outside 0 … 2"):
        check([0, 1], [0, 3])
    with pytest.raises(ValueError, match="logits have shape"):
        evaluate(
            FirstPixel(4), images_of([0]), torch.tensor([0]), normalization=NORM, num_classes=3
        )
    with pytest.raises(ValueError, match="batches of 0"):
        predict(FirstPixel(3), images_of([0]), normalization=NORM, batch_size=0)


@pytest.mark.parametrize(
    ("images", "says"),
    [
        (torch.zeros(2, 3, 32, 32, dtype=torch.uint8), "3 channels, the normalization 1"),
        (torch.zeros(2, 1, 32, 32), "must be uint8"),
        (torch.zeros(2, 32, 32, dtype=torch.uint8), "must be uint8"),
    ],
)
def test_images_that_do_not_fit_are_refused_before_a_model_sees_them(
    images: Tensor, says: str
) -> None:
    model, _, _ = random_problem(1)
    with pytest.raises(ValueError, match=says):
        evaluate(
            model, images, torch.zeros(2, dtype=torch.int64), normalization=NORM, num_classes=10
        )


def test_the_accuracy_of_record_is_the_last_never_the_best() -> None:
    assert SELECTION.name == "last"
    assert SELECTION.select([0.2, 0.9, 0.5]) == 0.5
    assert SELECTION.description.endswith(".")
    with pytest.raises(ValueError, match="no accuracy"):
        SELECTION.select([])


class Leaking(nn.Module):
    """The first image of a batch tells in one of its logits how many mates it has."""

    def forward(self, images: Tensor) -> Tensor:
        logits = torch.zeros(len(images), 10)
        logits[0, 0] = 0.01 * (len(images) - 1)
        return logits


def test_the_gap_is_that_of_the_one_logit_that_moves_most() -> None:
    assert batch_gap(Leaking(), images_of([0] * 8), normalization=NORM) == pytest.approx(0.07)
