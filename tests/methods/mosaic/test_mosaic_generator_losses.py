from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mosaic_golden import close, load, part, random_tiny, tiny_bn
from torch import Tensor, nn

from methods.blocks.bn_statistics import bn_statistics_loss
from methods.mosaic.adversarial import LOSS_NAMES, Guide, gan_step, make_gan
from methods.mosaic.losses import (
    adversarial_loss,
    diversity_loss,
    entropy_loss,
    generator_terms,
)
from methods.mosaic.networks import GanShape
from methods.mosaic.settings import (
    GeneratorSettings,
    LossWeights,
)


def stream(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_golden_generator_losses() -> None:
    golden = load("generator_losses.npz")
    logits = golden["fake_logits"].requires_grad_()
    odds = {k: golden[f"d_prob_{k}"].double().logit() for k in ("real", "fake_for_D", "fake_for_G")}
    real = adversarial_loss(odds["real"], real=True)
    fake = adversarial_loss(odds["fake_for_D"], real=False)
    assert close(real, golden["errD_real"])
    assert close(fake, golden["errD_fake"])
    assert close(real + fake, golden["errD"])
    assert close(entropy_loss(logits), golden["entropy_mean"])
    assert close(entropy_loss(logits) * 6, golden["entropy_sum"])
    assert close(diversity_loss(logits), golden["div_loss"])

    entropy, diversity, inversion = golden["weights_code"].tolist()
    off = generator_terms(odds["fake_for_G"], logits, None, LossWeights(entropy, diversity))
    assert close(off.adversarial, golden["errG_adv"])
    assert close(off.total, golden["errG_no_inversion"])
    (grad,) = torch.autograd.grad(off.total, logits)
    assert close(grad, golden["grad_logits_no_inversion"])

    images = golden["fake_images"].requires_grad_()
    distance = bn_statistics_loss(tiny_bn(golden, "inv_model."), images)
    assert close(0.001 * distance, golden["feature_loss"])
    weights = LossWeights(entropy, diversity, inversion * 0.001)
    on = generator_terms(odds["fake_for_G"], logits, distance, weights)
    # The published flag 1; flag 0 is the same with a minus, which nothing here can do.
    assert close(on.total, golden["errG_inversion_flag1"])
    # The published term is inert (no gradient); this one reaches the images.
    assert not golden["feature_loss_requires_grad"]
    (grad,) = torch.autograd.grad(on.total, images)
    assert grad.abs().max() > 0


def test_saturated_diversity_is_finite_where_the_published_one_is_nan() -> None:
    golden = load("generator_losses.npz")
    assert golden["saturated_div_loss"].isnan()
    logits = golden["saturated_logits"].requires_grad_()
    loss = diversity_loss(logits)
    (grad,) = torch.autograd.grad(loss, logits)
    assert loss.isfinite()
    assert grad.isfinite().all()
    # One class alone has mean label entropy 0; that is the worst value there is.
    collapsed = torch.tensor([[1e4, 0.0, 0.0]]).repeat(4, 1)
    assert diversity_loss(collapsed).item() == pytest.approx(0, abs=1e-6)


@given(st.integers(2, 12), st.integers(1, 9), st.floats(0, 30))
@settings(max_examples=25, deadline=None)
def test_entropy_and_diversity_stay_in_their_bounds(classes: int, batch: int, scale: float) -> None:
    logits = scale * torch.randn(batch, classes, generator=stream(classes))
    entropy, diversity = entropy_loss(logits).item(), diversity_loss(logits).item()
    assert -1e-4 <= entropy <= math.log(classes) + 1e-4
    assert -math.log(classes) - 1e-4 <= diversity <= 1e-4
    # Concavity: the mean label is at least as uncertain as the labels are on average.
    assert -diversity >= entropy - 1e-3


def test_every_weight_counts_and_a_term_that_is_off_cannot_spoil_the_sum() -> None:
    scores, logits = torch.zeros(3), torch.randn(3, 4, generator=stream())
    distance = torch.tensor(2.0)
    none = generator_terms(scores, logits, distance, LossWeights())
    assert none.total.item() == pytest.approx(math.log(2))
    for weights, term in (
        (LossWeights(entropy=3), entropy_loss(logits)),
        (LossWeights(diversity=3), diversity_loss(logits)),
        (LossWeights(inversion=3), distance),
    ):
        total = generator_terms(scores, logits, distance, weights).total
        assert (total - none.total).item() == pytest.approx(3 * term.item(), rel=1e-5)
    poisoned = generator_terms(scores, logits, torch.tensor(math.nan), LossWeights())
    assert poisoned.total.isfinite()


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_golden_gan_two_steps(mode: str) -> None:
    golden = load("gan_two_steps.npz")
    shape = GanShape(noise=6, width=2, discriminator_width=2)
    generator, discriminator = shape.build_generator(stream()), shape.build_discriminator(stream())
    generator.load_state_dict(part(golden, "G0."))
    discriminator.load_state_dict(part(golden, "D0."))
    if mode == "eval":
        check_forward(generator, discriminator, golden)
        generator.load_state_dict(part(golden, "G0."))
        discriminator.load_state_dict(part(golden, "D0."))
    classifier = tiny_bn(golden, "classifier.").requires_grad_(False)
    classifier.train(mode == "train")
    betas = golden["betas"].tolist()
    options = GeneratorSettings(lr=golden["lr"].item(), beta1=betas[0], beta2=betas[1])
    gan = make_gan(generator.train(), discriminator.train(), options)
    for step in range(2):
        real = golden["real_images_x64"][step].float() / 64
        guide = Guide(classifier, lambda images: images)
        losses, _ = gan_step(gan, real, golden["noise"][step], guide, LossWeights(diversity=5.0))
        values = dict(zip(LOSS_NAMES, losses, strict=True))
        for name, ours in {
            "errD_real": "discriminator_real",
            "errD_fake": "discriminator_fake",
            "errG_adv": "adversarial",
            "entropy_mean": "entropy",
            "div_loss": "diversity",
            "errG": "generator",
        }.items():
            assert close(values[ours], golden[f"{mode}.{name}"][step]), (name, step)
        if step == 0 and mode == "eval":
            for net, model in (("G", generator), ("D", discriminator)):
                grads = {n: p.grad for n, p in model.named_parameters()}
                for name, wanted in part(golden, f"eval.{net}_grad_step1.").items():
                    grad = grads[name]
                    assert grad is not None
                    assert close(grad, wanted), (net, name)
    states = {"G2.": generator.state_dict(), "D2.": discriminator.state_dict()}
    checked = 0
    for prefix, state in states.items():
        for name, wanted in part(golden, f"{mode}.{prefix}").items():
            gaps = (state[name].double() - wanted.double()).abs()
            # Adam moves a weight whose gradient is nearly zero by the sign of its rounding; all
            # others are far nearer, and wrong decays would move most by more than 1e-6.
            assert gaps.max() <= 1e-4, name
            assert (gaps <= 1e-6 * (1 + wanted.double().abs())).double().mean() > 0.9, name
            checked += 1
    assert checked >= 6
    after = classifier.state_dict()
    for name, wanted in part(golden, "train.classifier_after.").items():
        if mode == "train":
            assert close(after[name], wanted)
        else:
            assert torch.equal(after[name], golden[f"classifier.{name}"])


def check_forward(
    generator: nn.Module, discriminator: nn.Module, golden: dict[str, Tensor]
) -> None:
    with torch.no_grad():
        made = generator.eval()(golden["fwd_z"])
        assert close(made, golden["fwd_G_eval"])
        assert close(discriminator.eval()(made), golden["fwd_D_eval_on_G_eval"])
        made = generator.train()(golden["fwd_z"])
        assert close(made, golden["fwd_G_train"])
        assert close(discriminator.train()(made), golden["fwd_D_train_on_G_train"])


def test_the_generators_turn_leaves_no_gradient_in_the_discriminator() -> None:
    shape = GanShape(1, noise=6, width=2, discriminator_width=2)
    gan = make_gan(
        shape.build_generator(stream(1)), shape.build_discriminator(stream(2)), GeneratorSettings()
    )
    classifier = random_tiny(0, channels=1).requires_grad_(False)
    noise = torch.randn(4, 6, 1, 1, generator=stream())
    real = torch.zeros(4, 1, 32, 32)
    grads: list[Tensor] = []
    step = gan.discriminator_optimizer.step

    def note() -> None:
        grads.extend(p.grad.clone() for p in gan.discriminator.parameters() if p.grad is not None)
        step()

    gan.discriminator_optimizer.step = note  # type: ignore[assignment]
    gan_step(gan, real, noise, Guide(classifier, lambda x: x), LossWeights(diversity=1))
    after = [p.grad for p in gan.discriminator.parameters()]
    assert all(torch.equal(a, b) for a, b in zip(grads, after, strict=True) if b is not None)
    assert len(grads) == len(after)


def test_entropy_has_its_slope_in_the_logits() -> None:
    logits = torch.tensor([[2.0, 0.0, -1.0]], dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(entropy_loss(logits), logits)
    shares = logits.detach().softmax(1)
    entropy = torch.special.entr(shares).sum()
    assert torch.allclose(slope, -shares * (shares.log() + entropy), atol=1e-3)
