from __future__ import annotations

import pytest
import torch
from torch import nn

from benchmark.errors import DivergedError
from methods.blocks.ensemble import ClientEnsemble
from methods.blocks.generator import DenseGenerator
from methods.blocks.losses import distillation_loss, kl_per_sample
from methods.blocks.runtime import Precision
from methods.blocks.synthesis import (
    CO_BOOSTING_SYNTHESIS,
    DENSE_CB_SYNTHESIS,
    DENSE_SYNTHESIS,
    Synthesis,
    _Best,
    batch_norm_term,
    draw_noise,
    draw_targets,
    synthesis_loss,
    synthesise,
)
from methods.blocks.teachers import BoostedTeacher, MeanTeacher, WeightUpdate


def _gradients(loss, *inputs):
    gradients = torch.autograd.grad(loss, inputs, allow_unused=True)
    return [
        g if g is not None else torch.zeros_like(i) for g, i in zip(gradients, inputs, strict=True)
    ]


@pytest.mark.parametrize("row", range(4))
def test_golden_dense_losses(golden, kit, row) -> None:
    arrays = golden("dense_losses.npz")
    clients = arrays["client_logits"].requires_grad_(True)
    student = arrays["student_logits"].requires_grad_(True)
    bn, onehot, adversarial = arrays["cfg_bn_oh_adv"][row].tolist()
    settings = DENSE_SYNTHESIS.model_copy(
        update={"onehot": onehot, "adversarial": adversarial, "batch_norm": bn}
    )
    teacher = MeanTeacher(ClientEnsemble([kit.Slice(0)]))
    ensemble = teacher.combine(clients)
    torch.testing.assert_close(ensemble, arrays["ensemble_logits"], rtol=0, atol=1e-9)
    # The published hooks never attach, so its total has no batch-norm term.
    loss = synthesis_loss(ensemble, student, arrays["targets"], settings)
    assert loss.item() == pytest.approx(float(arrays["total_loss"][row]), abs=1e-9)
    for got, name in zip(_gradients(loss, clients, student), ("client", "student"), strict=True):
        expected = arrays[f"grad_{name}_logits"][row]
        torch.testing.assert_close(got, expected, rtol=0, atol=1e-9)


def test_golden_dense_losses_divergences(golden) -> None:
    arrays = golden("dense_losses.npz")
    teacher, student = arrays["ensemble_logits"], arrays["student_logits"].requires_grad_(True)
    torch.testing.assert_close(
        kl_per_sample(teacher, student), arrays["kl_per_sample_T1"], rtol=0, atol=1e-9
    )
    for i, temperature in enumerate(arrays["kd_T"].tolist()):
        loss = distillation_loss(student, teacher, temperature)
        assert loss.item() == pytest.approx(float(arrays["kd_loss"][i]), abs=1e-9)
        (slope,) = torch.autograd.grad(loss, student)
        torch.testing.assert_close(slope, arrays["kd_grad_student"][i], rtol=0, atol=1e-9)


@pytest.mark.parametrize("row", range(5))
@pytest.mark.parametrize(
    ("variant", "preset"), [("coboost", CO_BOOSTING_SYNTHESIS), ("denseCB", DENSE_CB_SYNTHESIS)]
)
def test_golden_cb_gen_losses(golden, kit, variant, preset, row) -> None:
    arrays = golden("cb_gen_losses.npz")
    clients = arrays["client_logits"].requires_grad_(True)
    student = arrays["student_logits"].requires_grad_(True)
    onehot, adversarial, hardness = arrays["cfg_oh_adv_hs"][row].tolist()
    update = {"onehot": onehot, "adversarial": adversarial}
    if variant == "coboost":
        update["hardness"] = hardness
    ensemble = ClientEnsemble([kit.Slice(k) for k in range(3)])
    teacher = BoostedTeacher(ensemble, WeightUpdate(), kit.stream())
    teacher.weights.copy_(arrays["ensemble_w"][:, 0])
    logits = teacher.combine(clients)
    targets = arrays[f"{variant}_targets"]
    loss = synthesis_loss(logits, student, targets, preset.model_copy(update=update))
    assert loss.item() == pytest.approx(float(arrays[f"{variant}_total_loss"][row]), abs=1e-9)
    for got, name in zip(_gradients(loss, clients, student), ("client", "student"), strict=True):
        expected = arrays[f"{variant}_grad_{name}_logits"][row]
        torch.testing.assert_close(got, expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("shared", [True, False])
def test_golden_cb_bn_loss(golden, kit, shared) -> None:
    arrays = golden("cb_bn_loss.npz")
    ensemble = ClientEnsemble([kit.tiny_from(arrays, f"client{k}") for k in range(3)])
    teacher = MeanTeacher(ensemble) if shared else nn.Identity()
    settings = DENSE_CB_SYNTHESIS.model_copy(
        update={"onehot": 0.0, "adversarial": 0.0, "batch_norm": 1.0}
    )
    inputs = kit.symmetric.from_unit(arrays["gen_images"]).requires_grad_(True)
    norms = [m for m in ensemble.modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(norms) == int(arrays["hooks"])
    with batch_norm_term(teacher, ensemble, settings) as term:
        teacher(inputs)
        value = term(inputs)
        assert sum(len(m._forward_pre_hooks) for m in norms) == int(arrays["hooks"])
        zero = torch.zeros(5, 6, dtype=torch.float64)
        targets = torch.zeros(5, dtype=torch.int64)
        loss = synthesis_loss(zero, zero, targets, settings, value)
    assert loss.item() == pytest.approx(float(arrays["total_loss_bn1_oh0_adv0"]), abs=1e-9)
    (slope,) = torch.autograd.grad(loss, inputs)
    assert float(slope.abs().sum()) > 0
    assert all(not m._forward_pre_hooks and not m._forward_hooks for m in norms)


# -- the loop ---------------------------------------------------------------------------


def _scene(kit, count: int = 6, bn: bool = True):
    generator = DenseGenerator(kit.stream(1), image_size=8, channels=3, noise_size=6, width=4)
    ensemble = ClientEnsemble([kit.tiny(10 + k, bn=bn) for k in range(3)])
    student = kit.tiny(20, bn=True)
    noise = draw_noise(count, 6, kit.stream(2), torch.zeros(1))
    targets = draw_targets(count, 6, DENSE_SYNTHESIS, kit.stream(3), noise.device)
    return generator, noise, targets, MeanTeacher(ensemble), student


def _run(kit, scene, settings=DENSE_CB_SYNTHESIS, steps=12, **kwargs):
    generator, noise, targets, teacher, student = scene
    return synthesise(
        generator,
        noise,
        targets,
        teacher,
        student,
        steps=steps,
        settings=settings,
        normalization=kit.symmetric,
        stream=kit.stream(4),
        **kwargs,
    )


@pytest.mark.parametrize(
    "settings",
    [DENSE_SYNTHESIS, DENSE_CB_SYNTHESIS, CO_BOOSTING_SYNTHESIS],
    ids=["dense", "cb", "co"],
)
def test_steps_lower_the_loss_and_the_lowest_batch_is_kept(kit, settings) -> None:
    result = _run(kit, _scene(kit), settings, steps=40)
    assert result.losses.shape == (40,)
    assert float(result.best_loss) == float(result.losses.min())
    assert float(result.best_loss) < float(result.losses[0])
    assert result.images.shape == (6, 3, 8, 8)
    assert 0 <= float(result.images.min()) <= float(result.images.max()) <= 1
    assert not result.images.requires_grad


def test_kept_batch_is_the_one_of_the_lowest_loss(kit) -> None:
    seen = []

    class Spy(nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def forward(self, noise):
            images = self.inner(noise)
            seen.append(images.detach().clone())
            return images

    generator, *rest = _scene(kit)
    # A rate that overshoots makes the last step not the best.
    settings = DENSE_CB_SYNTHESIS.model_copy(update={"learning_rate": 0.5})
    result = _run(kit, (Spy(generator), *rest), settings, steps=15)
    best = int(result.losses.argmin())
    assert best != 14
    assert torch.equal(result.images, seen[best])


def test_one_step_keeps_the_first_batch_before_the_step(kit) -> None:
    generator, noise, *rest = _scene(kit)
    expected = generator.train()(noise)
    start = noise.clone()
    result = _run(kit, (generator, noise, *rest), steps=1)
    assert torch.equal(result.images, expected)
    assert torch.equal(noise, start)


def test_stored_images_are_not_augmented_but_the_loss_sees_augmented_ones(kit) -> None:
    plain = _run(
        kit, _scene(kit), DENSE_SYNTHESIS.model_copy(update={"crop_padding": 0, "flip": False}), 1
    )
    augmented = _run(kit, _scene(kit), DENSE_SYNTHESIS, 1)
    assert torch.equal(plain.images, augmented.images)
    assert not torch.equal(plain.losses, augmented.losses)


def test_student_is_frozen_in_eval_mode_and_then_restored(kit) -> None:
    # Not inherited: a student in train mode during the first synthesis, and weight
    # gradients that pile up in student and clients.
    scene = _scene(kit)
    teacher, student = scene[3], scene[4]
    student.train()
    before = {name: value.clone() for name, value in student.state_dict().items()}
    modes = []
    student.register_forward_pre_hook(lambda module, _: modes.append(module.bn.training))
    _run(kit, scene, steps=3)
    assert modes == [False] * 3
    assert student.training
    assert student.bn.training
    for name, value in student.state_dict().items():
        assert torch.equal(value, before[name])
    assert all(p.requires_grad and p.grad is None for p in student.parameters())
    assert all(p.grad is None for p in teacher.parameters())


def test_batch_norm_term_attaches_once_and_counts(kit) -> None:
    # Not inherited: hooks that never attach, so that the term is silently zero.
    settings = DENSE_CB_SYNTHESIS.model_copy(update={"batch_norm": 1.0})
    scene = _scene(kit)
    ensemble = scene[3].ensemble
    calls = []
    ensemble.clients[0].register_forward_hook(lambda *_: calls.append(1))
    with_term = _run(kit, scene, settings, steps=4, ensemble=ensemble)
    without = _run(kit, _scene(kit), DENSE_CB_SYNTHESIS, steps=4)
    assert float(with_term.losses[0]) > float(without.losses[0])
    assert len(calls) == 4
    norms = [m for m in ensemble.modules() if isinstance(m, nn.BatchNorm2d)]
    assert all(not m._forward_pre_hooks for m in norms)


def test_no_hooks_while_the_batch_norm_term_has_no_weight(kit) -> None:
    # Not inherited: hooks that stay registered with weight 0.
    scene = _scene(kit)
    counts = []
    bn = scene[3].ensemble.clients[0].bn
    scene[4].register_forward_hook(lambda *_: counts.append(len(bn._forward_pre_hooks)))
    _run(kit, scene, DENSE_CB_SYNTHESIS, steps=2, ensemble=scene[3].ensemble)
    assert counts == [0, 0]
    with (
        pytest.raises(ValueError, match="needs the ensemble"),
        batch_norm_term(scene[3], None, Synthesis(batch_norm=1)),
    ):
        pass


def test_batch_norm_term_of_a_stacked_ensemble(kit) -> None:
    settings = DENSE_CB_SYNTHESIS.model_copy(update={"batch_norm": 1.0})
    losses = []
    for implementation in ("loop", "stack"):
        scene = _scene(kit)
        ensemble = ClientEnsemble(list(scene[3].ensemble.clients), implementation=implementation)
        scene = (*scene[:3], MeanTeacher(ensemble), scene[4])
        losses.append(_run(kit, scene, settings, steps=2, ensemble=ensemble).losses)
    torch.testing.assert_close(losses[0], losses[1])


def test_only_the_generators_gradient_is_clipped(kit) -> None:
    limits = []
    original = nn.utils.clip_grad_norm_

    def spy(parameters, limit):
        parameters = list(parameters)
        limits.append((len(parameters), limit))
        return original(parameters, limit)

    generator = _scene(kit)[0]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nn.utils, "clip_grad_norm_", spy)
        _run(kit, _scene(kit), DENSE_CB_SYNTHESIS, steps=2)
        _run(kit, _scene(kit), DENSE_SYNTHESIS, steps=2)
    assert limits == [(len(list(generator.parameters())), 10.0)] * 2


def test_noise_is_trained_too(kit) -> None:
    # With the generator held still, only the noise can lower the loss.
    scene = _scene(kit)
    for parameter in scene[0].parameters():
        parameter.requires_grad_(False)
    settings = DENSE_CB_SYNTHESIS.model_copy(update={"clip_norm": None, "learning_rate": 0.05})
    result = _run(kit, scene, settings, steps=20)
    assert float(result.best_loss) < float(result.losses[0])


@pytest.mark.parametrize(
    "preset",
    [DENSE_SYNTHESIS, DENSE_CB_SYNTHESIS, CO_BOOSTING_SYNTHESIS],
    ids=["dense", "cb", "co"],
)
def test_one_adam_of_published_settings_moves_generator_and_noise(kit, monkeypatch, preset) -> None:
    made = []

    class Spy(torch.optim.Adam):
        def __init__(self, parameters, **given):
            super().__init__(parameters, **given)
            made.append(self)

    monkeypatch.setattr(torch.optim, "Adam", Spy)
    scene = _scene(kit)
    _run(kit, scene, preset, steps=1)
    ((group,),) = [adam.param_groups for adam in made]
    assert (group["lr"], group["betas"]) == (1e-3, (0.5, 0.999))
    weights = list(scene[0].parameters())
    assert group["params"][:-1] == weights
    assert group["params"][-1].shape == scene[1].shape


def test_same_streams_same_bits_and_no_global_draw(kit) -> None:
    state = torch.get_rng_state()
    first, second = _run(kit, _scene(kit), DENSE_SYNTHESIS), _run(kit, _scene(kit), DENSE_SYNTHESIS)
    assert torch.equal(first.images, second.images)
    assert torch.equal(torch.get_rng_state(), state)


def test_bf16_and_channels_last_are_options(kit) -> None:
    precision = Precision(lambda: torch.autocast("cpu", torch.bfloat16), torch.channels_last)
    rough = _run(kit, _scene(kit), DENSE_CB_SYNTHESIS, steps=3, precision=precision)
    exact = _run(kit, _scene(kit), DENSE_CB_SYNTHESIS, steps=3)
    assert rough.images.dtype == torch.float32
    torch.testing.assert_close(rough.losses, exact.losses, rtol=0.1, atol=0.1)


def test_a_loss_that_is_never_finite_is_said_to_diverge(kit) -> None:
    # Not inherited: a crash without a word when nothing was ever kept.
    generator, noise, targets, _, student = _scene(kit)
    with pytest.raises(DivergedError, match="synthesis diverged at step 0: loss is nan"):
        _run(kit, (generator, noise, targets, lambda x: kit.tiny(1)(x) * float("nan"), student))


def test_a_nan_is_never_the_best_batch(kit) -> None:
    best = _Best()
    for loss, pixel in ((float("nan"), 0.0), (3.0, 1.0), (float("nan"), 2.0), (4.0, 3.0)):
        best.see(torch.tensor(loss), torch.full((2, 1, 1, 1), pixel))
    result = best.result(torch.zeros(2))
    assert float(result.best_loss) == 3.0
    assert result.images.unique().tolist() == [1.0]


def test_no_steps_make_no_image(kit) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        _run(kit, _scene(kit), steps=0)


def test_targets_are_sorted_only_where_published(kit) -> None:
    device = torch.device("cpu")
    dense = draw_targets(50, 7, DENSE_SYNTHESIS, kit.stream(), device)
    free = draw_targets(50, 7, CO_BOOSTING_SYNTHESIS, kit.stream(), device)
    assert torch.equal(dense, free.sort().values)
    assert not torch.equal(dense, free)
    assert set(dense.tolist()) == set(range(7))


def test_presets_hold_the_published_numbers() -> None:
    common = {"onehot": 1.0, "adversarial": 1.0, "learning_rate": 1e-3, "beta1": 0.5}
    for preset in (DENSE_SYNTHESIS, DENSE_CB_SYNTHESIS, CO_BOOSTING_SYNTHESIS):
        assert preset.model_dump().items() >= common.items()
    assert (DENSE_SYNTHESIS.temperature, DENSE_SYNTHESIS.masked, DENSE_SYNTHESIS.clip_norm) == (
        1.0,
        True,
        None,
    )
    assert (
        DENSE_CB_SYNTHESIS.temperature,
        DENSE_CB_SYNTHESIS.masked,
        DENSE_CB_SYNTHESIS.clip_norm,
    ) == (3.0, True, 10.0)
    assert (CO_BOOSTING_SYNTHESIS.hardness, CO_BOOSTING_SYNTHESIS.masked) == (1.0, False)
    assert (DENSE_SYNTHESIS.crop_padding, DENSE_SYNTHESIS.flip) == (4, True)
    assert (CO_BOOSTING_SYNTHESIS.crop_padding, CO_BOOSTING_SYNTHESIS.flip) == (0, False)
