from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from benchmark.errors import DivergedError, UserError
from methods.blocks.batch_norm import reestimate_batch_norm
from methods.blocks.distill import (
    CO_BOOSTING_DISTILLATION,
    DENSE_CB_DISTILLATION,
    DENSE_DISTILLATION,
    Distillation,
    DistilledStudent,
    Lesson,
    distil_step,
    lessons,
)
from methods.blocks.ensemble import ClientEnsemble
from methods.blocks.losses import distillation_loss
from methods.blocks.memory import TeacherMemory
from methods.blocks.parts import Batch, Counters, Epoch
from methods.blocks.perturbation import Perturbation
from methods.blocks.pool import FreshPool, GrowingPool
from methods.blocks.runtime import Precision
from methods.blocks.schedule import EpochPlan
from methods.blocks.teachers import BoostedTeacher, MeanTeacher, WeightUpdate


def _epoch(distilled: int, index: int = 0, epochs: int = 1, observer=None) -> Epoch:
    return Epoch(EpochPlan(index, epochs, 0, 0, distilled), Counters(), distilled, observer)


def _student(kit, model: nn.Module, settings: Distillation, **kwargs) -> DistilledStudent:
    return DistilledStudent(
        model,
        settings,
        normalization=kit.symmetric,
        num_classes=6,
        generator=kit.stream(5),
        **kwargs,
    )


def _golden_pool(kit, arrays):
    return kit.ListPool([Batch(images, None) for images in arrays["images"]])


def _golden_teacher(kit, arrays) -> BoostedTeacher:
    clients = [kit.tiny_from(arrays, f"client{k}") for k in range(3)]
    teacher = BoostedTeacher(ClientEnsemble(clients), WeightUpdate(), kit.stream())
    teacher.weights.copy_(arrays["ensemble_w"][:, 0])
    return teacher


def _same_state(kit, model, arrays, tolerance) -> None:
    expected = kit.state_of(arrays, "student_final")
    assert expected.keys() == model.state_dict().keys()
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, expected[name], rtol=0, atol=tolerance)


@pytest.mark.parametrize("ahead", [1, 12, 100])
def test_golden_dense_kd(golden, kit, ahead) -> None:
    arrays = golden("dense_kd.npz")
    teacher = MeanTeacher(ClientEnsemble([kit.tiny_from(arrays, f"client{k}") for k in (0, 1)]))
    model = kit.tiny_from(arrays, "student0")
    settings = Distillation(
        learning_rate=float(arrays["lr"]),
        momentum=float(arrays["momentum"]),
        temperature=float(arrays["T"]),
        batch_size=6,
        ahead=ahead,
    )
    student = _student(kit, model, settings)
    epoch = _epoch(18)
    student.learn(epoch, _golden_pool(kit, arrays), teacher)
    _same_state(kit, model, arrays, 1e-9)
    assert model.training == bool(arrays["student_training_flag_after"])
    assert epoch.scalars["student/loss"] == pytest.approx(float(arrays["losses"].mean()), abs=1e-9)
    assert (epoch.counters.student_steps, epoch.counters.distilled_images) == (3, 18)


@pytest.mark.parametrize("name", ["cb_kd.npz", "cb_kd_dense_baseline.npz"])
def test_golden_cb_kd_and_cb_kd_dense_baseline(golden, kit, name, monkeypatch) -> None:
    arrays = golden(name)
    perturbed = name == "cb_kd.npz"
    settings = (CO_BOOSTING_DISTILLATION if perturbed else DENSE_CB_DISTILLATION).model_copy(
        update={"batch_size": 6, "ahead": 12}
    )
    assert settings.learning_rate == float(arrays["lr"])
    assert settings.weight_decay == float(arrays["weight_decay"])
    assert settings.temperature == float(arrays["kd_T"])
    assert settings.clip_norm == float(arrays["clip"])
    model = kit.tiny_from(arrays, "student0")
    student = _student(kit, model, settings)
    if perturbed:
        draws = iter(arrays["random_direction"])
        monkeypatch.setattr(student, "_directions", lambda images: next(draws))
    student.learn(_epoch(18), _golden_pool(kit, arrays), _golden_teacher(kit, arrays))
    _same_state(kit, model, arrays, 1e-9)


@pytest.mark.parametrize("name", ["cb_kd.npz", "cb_kd_dense_baseline.npz"])
def test_golden_cb_kd_losses_and_gradient_norms(golden, kit, name) -> None:
    arrays = golden(name)
    model, teacher = kit.tiny_from(arrays, "student0").train(), _golden_teacher(kit, arrays)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4)
    for b in range(3):
        images = arrays["images_seen_by_student"][b]
        loss, norm = distil_step(
            model,
            optimizer,
            Lesson(images, teacher(images).detach()),
            lambda student, said: distillation_loss(student, said, 4.0),
            clip_norm=10.0,
        )
        assert float(loss) == pytest.approx(float(arrays["kd_losses"][b]), abs=1e-9)
        assert float(norm) == pytest.approx(float(arrays["pre_clip_grad_norm"][b]), abs=1e-7)
    _same_state(kit, model, arrays, 1e-9)


# -- working ahead ------------------------------------------------------------------------


def _scene(kit, images: int = 20, bn: bool = True):
    pool = GrowingPool((3, 8, 8), kit.symmetric, crop_padding=2, flip=True)
    pool.add(torch.rand(images, 3, 8, 8, generator=kit.stream(1)))
    teacher = MeanTeacher(ClientEnsemble([kit.tiny(30 + k, bn=True) for k in range(3)]))
    return pool, teacher, kit.tiny(40, bn=bn)


@pytest.mark.parametrize(
    "settings", [DENSE_CB_DISTILLATION, CO_BOOSTING_DISTILLATION], ids=["plain", "perturbed"]
)
def test_working_ahead_changes_neither_draws_nor_weights(kit, settings) -> None:
    outcomes = []
    for ahead in (1, 9, 1000):
        pool, teacher, model = _scene(kit)
        student = _student(
            kit, model, settings.model_copy(update={"batch_size": 4, "ahead": ahead})
        )
        student.learn(_epoch(46), pool, teacher)
        outcomes.append((model.state_dict(), student._generator.get_state()))
    for state, random in outcomes[1:]:
        assert torch.equal(random, outcomes[0][1])
        for name, value in state.items():
            torch.testing.assert_close(value, outcomes[0][0][name], rtol=1e-5, atol=1e-6)


def test_teacher_passes_per_image_are_those_of_the_formula(kit) -> None:
    # m · S client passes without, m · 2S with the perturbation; none to learn a shape.
    for settings, factor in ((DENSE_CB_DISTILLATION, 1), (CO_BOOSTING_DISTILLATION, 2)):
        pool, teacher, model = _scene(kit)
        seen = []
        teacher.ensemble.clients[0].register_forward_hook(
            lambda _m, inputs, _o, seen=seen: seen.append(len(inputs[0]))
        )
        _student(kit, model, settings).learn(_epoch(33), pool, teacher)
        assert sum(seen) == 33 * factor


def test_lessons_carry_the_logits_of_their_own_images(kit) -> None:
    pool, teacher, _ = _scene(kit)
    batches = pool.batches(3, generator=kit.stream())
    count = 0
    for lesson in lessons(batches, TeacherMemory(teacher), ahead=8):
        torch.testing.assert_close(lesson.teacher_logits, teacher(lesson.images))
        assert not lesson.teacher_logits.requires_grad
        count += len(lesson.images)
    assert count == 20


def test_every_image_of_every_batch_is_perturbed(kit) -> None:
    pool, teacher, model = _scene(kit)
    seen = []
    model.register_forward_pre_hook(lambda _m, inputs: seen.append(inputs[0]))
    settings = CO_BOOSTING_DISTILLATION.model_copy(
        update={"batch_size": 4, "perturbation": Perturbation(size=0.3)}
    )
    _student(kit, model, settings).learn(_epoch(20), pool, teacher)
    plain, unmoved = [], DENSE_CB_DISTILLATION.model_copy(update={"batch_size": 4})
    pool, teacher, model = _scene(kit)
    model.register_forward_pre_hook(lambda _m, inputs: plain.append(inputs[0]))
    _student(kit, model, unmoved).learn(_epoch(20), pool, teacher)
    assert len(seen) == len(plain) == 5
    inside = [float(batch.abs().max()) for batch in plain]
    outside = [batch.abs().amax((1, 2, 3)) for batch in seen]
    assert max(inside) <= 1
    assert all(bool((rows > 1).all()) for rows in outside)


# -- optimiser and batch norm ---------------------------------------------------------------


def test_cosine_is_per_epoch_and_constant_otherwise(kit) -> None:
    for settings in (DENSE_DISTILLATION, DENSE_CB_DISTILLATION):
        pool, teacher, model = _scene(kit)
        student = _student(kit, model, settings)
        for index in range(4):
            epoch = _epoch(20, index, 4)
            student.learn(epoch, pool, teacher)
            factor = (1 + math.cos(math.pi * index / 4)) / 2 if settings.cosine else 1
            expected = settings.learning_rate * factor
            assert epoch.scalars["student/learning_rate"] == pytest.approx(expected)


def test_optimiser_state_lasts_over_epochs(kit) -> None:
    settings = DENSE_DISTILLATION.model_copy(update={"batch_size": 10})
    pool, teacher, once = _scene(kit)
    student = _student(kit, once, settings)
    student.learn(_epoch(20), pool, teacher)
    student.learn(_epoch(20), pool, teacher)
    momenta = [state["momentum_buffer"] for state in student._optimizer.state.values()]
    pool, teacher, fresh = _scene(kit)
    again = _student(kit, fresh, settings)
    again.learn(_epoch(20), pool, teacher)
    again._optimizer = again._make_optimizer()
    again.learn(_epoch(20), pool, teacher)
    assert all(bool(m.abs().sum() > 0) for m in momenta)
    assert not torch.equal(once.fc.weight, fresh.fc.weight)


@pytest.mark.parametrize("rule", ["update", "freeze", "reestimate"])
def test_batch_norm_rules(kit, rule) -> None:
    pool, teacher, model = _scene(kit)
    start = {k: v.clone() for k, v in model.state_dict().items()}
    modes = set()
    model.register_forward_pre_hook(lambda module, _: modes.add(module.training))
    settings = DENSE_DISTILLATION.model_copy(update={"batch_norm": rule, "batch_size": 7})
    student = _student(kit, model, settings)
    student.learn(_epoch(20), pool, teacher)
    assert modes == {rule != "freeze"}
    moved = not torch.equal(model.bn.running_mean, start["bn.running_mean"])
    assert moved == (rule != "freeze")
    assert not torch.equal(model.bn.weight, start["bn.weight"])
    trained = model.bn.running_mean.clone()
    student.finish(pool)
    assert torch.equal(model.bn.running_mean, trained) == (rule != "reestimate")
    assert not model.training


def test_reestimation_is_the_plain_average_over_batches(kit) -> None:
    model = kit.tiny(1, bn=True).train()
    model.bn.momentum = 0.3
    batches = [torch.randn(5, 3, 8, 8, generator=kit.stream(k)) for k in range(4)]
    inputs = []
    handle = model.bn.register_forward_pre_hook(lambda _m, x: inputs.append(x[0]))
    assert reestimate_batch_norm(model, batches) == 1
    handle.remove()
    means = torch.stack([x.mean((0, 2, 3)) for x in inputs]).mean(0)
    variances = torch.stack([x.var((0, 2, 3)) for x in inputs]).mean(0)
    torch.testing.assert_close(model.bn.running_mean, means)
    torch.testing.assert_close(model.bn.running_var, variances)
    assert model.bn.momentum == 0.3
    assert model.training


def test_reestimation_leaves_other_norms_and_their_images_alone(kit) -> None:
    class Never:
        def __iter__(self):
            raise AssertionError("consumed")

    assert reestimate_batch_norm(kit.tiny(1, bn=False), Never()) == 0


def test_adam_and_another_loss_fit_the_same_student(kit) -> None:
    _, teacher, model = _scene(kit)
    sampled = []

    def sample(count, generator):
        sampled.append(count)
        return Batch(torch.rand(count, 3, 8, 8, generator=generator), None)

    settings = Distillation(optimizer="adam", learning_rate=1e-3, batch_size=8, batch_norm="freeze")
    student = _student(kit, model, settings, loss=lambda s, t: (s - t).square().mean())
    losses = []
    for _ in range(6):
        epoch = _epoch(64)
        student.learn(epoch, FreshPool(sample), teacher)
        losses.append(epoch.scalars["student/loss"])
    assert losses[-1] < losses[0]
    assert sum(sampled) == 6 * 64


def test_distillation_brings_the_student_to_its_teacher(kit) -> None:
    pool, teacher, model = _scene(kit, images=64)
    settings = DENSE_DISTILLATION.model_copy(
        update={"batch_size": 8, "temperature": 2.0, "learning_rate": 0.05}
    )
    student = _student(kit, model, settings)
    losses = []
    for _ in range(15):
        epoch = _epoch(64)
        student.learn(epoch, pool, teacher)
        losses.append(epoch.scalars["student/loss"])
    assert losses[-1] < 0.5 * losses[0]


def test_dropout_draws_from_the_students_stream(kit) -> None:
    finals = []
    for disturb in (False, True):
        pool, teacher, model = _scene(kit, bn=False)
        model.bn = nn.Dropout(0.5)
        if disturb:
            torch.rand(17)
        state = torch.get_rng_state()
        _student(kit, model, DENSE_DISTILLATION.model_copy(update={"batch_size": 8})).learn(
            _epoch(20), pool, teacher
        )
        assert torch.equal(torch.get_rng_state(), state)
        finals.append(model.fc.weight.detach().clone())
    assert torch.equal(*finals)


def test_bf16_and_channels_last_are_options(kit) -> None:
    finals = []
    bf16 = Precision(lambda: torch.autocast("cpu", torch.bfloat16), torch.channels_last)
    for precision in (None, bf16):
        pool, teacher, model = _scene(kit)
        _student(kit, model, DENSE_CB_DISTILLATION, precision=precision).learn(
            _epoch(20), pool, teacher
        )
        finals.append(model.fc.weight.detach().clone())
    assert finals[1].dtype == torch.float32
    torch.testing.assert_close(finals[0], finals[1], rtol=0.05, atol=0.05)
    assert not torch.equal(*finals)


def test_a_nan_loss_is_reported_with_its_step(kit) -> None:
    pool, teacher, model = _scene(kit)
    calls = []

    def loss(student, said):
        calls.append(1)
        return student.sum() * (float("nan") if len(calls) >= 3 else 0.0)

    student = _student(
        kit, model, DENSE_DISTILLATION.model_copy(update={"batch_size": 4}), loss=loss
    )
    epoch = _epoch(20)
    epoch.counters.student_steps = 100
    with pytest.raises(DivergedError, match="student diverged at step 102: loss is nan"):
        student.learn(epoch, pool, teacher)


def test_a_frozen_student_is_refused(kit) -> None:
    model = kit.tiny(0).requires_grad_(False)
    with pytest.raises(UserError, match="no trainable weight"):
        _student(kit, model, DENSE_DISTILLATION)


def test_nothing_to_distil_changes_nothing(kit) -> None:
    pool, teacher, model = _scene(kit)
    before = model.fc.weight.clone()
    epoch = _epoch(0)
    _student(kit, model, DENSE_DISTILLATION).learn(epoch, pool, teacher)
    assert torch.equal(model.fc.weight, before)
    assert epoch.counters == Counters()


def test_presets_hold_the_published_numbers() -> None:
    assert (
        DENSE_DISTILLATION.learning_rate,
        DENSE_DISTILLATION.temperature,
        DENSE_DISTILLATION.batch_size,
    ) == (0.005, 20.0, 256)
    assert (
        DENSE_DISTILLATION.cosine,
        DENSE_DISTILLATION.clip_norm,
        DENSE_DISTILLATION.weight_decay,
    ) == (False, None, 0.0)
    assert (CO_BOOSTING_DISTILLATION.learning_rate, CO_BOOSTING_DISTILLATION.temperature) == (
        0.01,
        4.0,
    )
    assert (CO_BOOSTING_DISTILLATION.cosine, CO_BOOSTING_DISTILLATION.clip_norm) == (True, 10.0)
    assert CO_BOOSTING_DISTILLATION.perturbation == Perturbation(size=4 / 255, temperature=4.0)
    unperturbed = CO_BOOSTING_DISTILLATION.model_copy(update={"perturbation": None})
    assert unperturbed == DENSE_CB_DISTILLATION
