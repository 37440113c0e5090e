from __future__ import annotations

import pytest
import torch

from methods.blocks import distill as learning
from methods.blocks import synthesis as making
from methods.blocks.distill import DistilledStudent
from methods.blocks.ensemble import ClientEnsemble
from methods.blocks.generator import DenseGenerator
from methods.blocks.image_sources import FreshImages, GeneratorImages, RealImages
from methods.blocks.parts import Batch, Counters, Images, Pool, Student, Teacher, distil
from methods.blocks.pool import GrowingPool
from methods.blocks.schedule import Budget, derive_schedule, single_epoch
from methods.blocks.teachers import (
    BoostedTeacher,
    ClassShareTeacher,
    MeanTeacher,
    WeightUpdate,
)

BUDGET = Budget(generator_steps=9, generated_images=30, distilled_images=100)


def _images(kit, kind: str, ensemble: ClientEnsemble) -> Images:
    pool = GrowingPool((3, 8, 8), kit.symmetric, flip=True)
    if kind == "real":
        pool.add(torch.rand(25, 3, 8, 8, generator=kit.stream(1)), torch.arange(25) % 6)
        return RealImages(pool)
    if kind == "fresh":
        return FreshImages(
            lambda count, generator: Batch(
                torch.rand(count, 3, 8, 8, generator=generator) * 2 - 1, None
            )
        )
    generator = DenseGenerator(kit.stream(2), image_size=8, noise_size=6, width=4)
    return GeneratorImages(
        generator,
        pool,
        num_classes=6,
        settings=making.CO_BOOSTING_SYNTHESIS if kind == "co_boosting" else making.DENSE_SYNTHESIS,
        normalization=kit.symmetric,
        stream=kit.stream(3),
        ensemble=ensemble,
    )


def _teacher(kit, kind: str, ensemble: ClientEnsemble) -> Teacher:
    if kind == "boosted":
        settings = WeightUpdate(batch_size=5, missing_labels="ensemble")
        return BoostedTeacher(ensemble, settings, kit.stream(4))
    if kind == "class_share":
        return ClassShareTeacher(ensemble, torch.arange(18).view(3, 6))
    return MeanTeacher(ensemble)


def _student(kit, perturbed: bool = False, **update) -> DistilledStudent:
    preset = learning.CO_BOOSTING_DISTILLATION if perturbed else learning.DENSE_DISTILLATION
    return DistilledStudent(
        kit.tiny(7, bn=True),
        preset.model_copy(update={"batch_size": 8, **update}),
        normalization=kit.symmetric,
        num_classes=6,
        generator=kit.stream(5),
    )


def _ensemble(kit) -> ClientEnsemble:
    return ClientEnsemble([kit.tiny(10 + k, bn=True) for k in range(3)])


def _run(kit, images="dense", teacher="mean", perturbed=False, report=None, **update):
    ensemble = _ensemble(kit)
    student = _student(kit, perturbed, **update)
    teaching = _teacher(kit, teacher, ensemble)
    schedule = derive_schedule(BUDGET, 10)
    made = _images(kit, images, ensemble)
    counters = distil(schedule, made, teaching, student, report=report)
    return counters, student, teaching, made


@pytest.mark.parametrize("perturbed", [False, True])
@pytest.mark.parametrize("teacher", ["mean", "class_share", "boosted"])
@pytest.mark.parametrize("images", ["dense", "co_boosting", "fresh", "real"])
def test_parts_combine_freely_and_meet_the_budget(kit, images, teacher, perturbed) -> None:
    counters, student, _, _ = _run(kit, images, teacher, perturbed)
    assert counters.distilled_images == BUDGET.distilled_images
    server = images in ("dense", "co_boosting")
    assert counters.generator_steps == (BUDGET.generator_steps if server else 0)
    if server:
        assert counters.generated_images == BUDGET.generated_images
    if images == "fresh":
        # What a teacher looks at is drawn fresh as well, and counted.
        drawn = counters.distilled_images + counters.weighed_images
        assert counters.generated_images == drawn
    assert (counters.weighed_images > 0) == (teacher == "boosted")
    assert all(bool(torch.isfinite(v).all()) for v in student.model.state_dict().values())


def test_parts_are_what_the_protocols_ask_for(kit) -> None:
    ensemble = _ensemble(kit)
    teacher: Teacher = _teacher(kit, "boosted", ensemble)
    student: Student = _student(kit)
    pool: Pool = GrowingPool((3, 8, 8), kit.symmetric)
    assert isinstance(teacher, torch.nn.Module)
    assert isinstance(student.model, torch.nn.Module)
    assert pool.size == 0


def test_order_is_make_with_old_weights_then_improve_on_the_old_pool_then_learn(kit) -> None:
    events = []

    class Spy:
        def __init__(self, name, inner):
            self.name, self.inner = name, inner

        def __getattr__(self, attribute):
            value = getattr(self.inner, attribute)
            if attribute not in ("make", "improve", "learn", "finish"):
                return value

            def called(*args):
                weights = tuple(teacher.weights.tolist())
                events.append((attribute, weights, made.pool.size))
                return value(*args)

            return called

        def __call__(self, images):
            return self.inner(images)

    ensemble = _ensemble(kit)
    teacher = _teacher(kit, "boosted", ensemble)
    made, student = _images(kit, "co_boosting", ensemble), _student(kit)
    schedule = derive_schedule(BUDGET, 10)
    distil(schedule, Spy("i", made), Spy("t", teacher), Spy("s", student))
    assert [name for name, _, _ in events] == ["make", "improve", "learn"] * 3 + ["finish"]
    assert [size for _, _, size in events] == [0, 10, 10, 10, 20, 20, 20, 30, 30, 30]
    uniform = (pytest.approx(1 / 3),) * 3
    weights = [weights for _, weights, _ in events]
    assert weights[3] == weights[4] == uniform
    assert weights[5] != uniform
    assert weights[6] == weights[7] == weights[5]


def test_published_epoch_costs_what_the_formulas_say(kit) -> None:
    # Client passes by image: m (G E Bs + W + 2 S), W and S counted in images.
    ensemble = _ensemble(kit)
    seen = []
    ensemble.clients[0].register_forward_hook(lambda _m, x, _o: seen.append(len(x[0])))
    epochs, steps, batch = 4, 3, 5
    budget = Budget(epochs * steps, epochs * batch, batch * epochs * (epochs + 1) // 2)
    distil(
        derive_schedule(budget, batch),
        _images(kit, "co_boosting", ensemble),
        _teacher(kit, "boosted", ensemble),
        _student(kit, perturbed=True),
    )
    weighed = batch * epochs * (epochs - 1) // 2
    assert sum(seen) == epochs * steps * batch + weighed + 2 * budget.distilled_images


def test_same_streams_same_bits(kit) -> None:
    state = torch.get_rng_state()
    first = _run(kit, "co_boosting", "boosted", perturbed=True)
    second = _run(kit, "co_boosting", "boosted", perturbed=True)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first[2].weights, second[2].weights)
    for a, b in zip(first[1].model.parameters(), second[1].model.parameters(), strict=True):
        assert torch.equal(a, b)
    assert torch.equal(first[3].pool.images, second[3].pool.images)


def test_an_observer_changes_nothing(kit) -> None:
    notes = []

    def report(step, total, scalars, model):
        notes.append((step, total, scalars))
        model.eval()
        torch.rand(3)
        scalars["student/loss"] = -1.0
        with torch.no_grad():
            model(torch.zeros(2, 3, 8, 8))

    watched = _run(kit, "dense", report=report, report_every=2)
    alone = _run(kit, "dense")
    for a, b in zip(
        watched[1].model.state_dict().values(), alone[1].model.state_dict().values(), strict=True
    ):
        assert torch.equal(a, b)
    steps = [step for step, _, _ in notes]
    assert steps == sorted(steps)
    assert steps[-1] == BUDGET.distilled_images
    assert len(notes) > 3
    assert {total for _, total, _ in notes} == {BUDGET.distilled_images}
    assert {"images/loss", "student/loss", "student/learning_rate"} <= notes[-1][2].keys()


def test_the_last_report_sees_the_finished_model(kit) -> None:
    seen = []

    def report(step, total, scalars, model):
        seen.append(model.bn.running_mean.clone())

    _, student, _, _ = _run(kit, "dense", report=report, batch_norm="reestimate")
    assert torch.equal(seen[-1], student.model.bn.running_mean)
    assert len(seen) == 3


def test_a_method_that_distils_once(kit) -> None:
    ensemble = _ensemble(kit)
    student = _student(kit, batch_norm="freeze")
    counters = distil(
        single_epoch(96), _images(kit, "fresh", ensemble), MeanTeacher(ensemble), student
    )
    assert counters == Counters(generated_images=96, distilled_images=96, student_steps=12)


def test_generated_images_keep_their_targets(kit) -> None:
    _, _, _, made = _run(kit, "dense")
    labels = made.pool.labels.view(3, 10)
    assert torch.equal(labels, labels.sort(dim=1).values)
    assert made.pool.images.shape == (30, 3, 8, 8)
    assert len(made.pool.images.unique(dim=0)) == 30


def test_each_epoch_starts_from_a_new_generator_and_new_noise(kit, monkeypatch) -> None:
    starts = []
    original = making.synthesise

    def spy(generator, noise, *args, **kwargs):
        starts.append((generator.project.weight.detach().clone(), noise.clone()))
        return original(generator, noise, *args, **kwargs)

    monkeypatch.setattr("methods.blocks.image_sources.synthesise", spy)
    _run(kit, "dense")
    assert len(starts) == 3
    for weight, noise in starts:
        assert float(weight.std()) == pytest.approx(0.02, rel=0.1)
        assert noise.shape == (10, 6)
    assert not torch.equal(starts[0][1], starts[1][1])
    assert not torch.equal(starts[0][0], starts[1][0])


def test_64_pixels_end_to_end(kit) -> None:
    # Not inherited: clients that see 64 pixels and a generator that makes 32.
    ensemble = _ensemble(kit)
    pool = GrowingPool((3, 64, 64), kit.symmetric)
    images = GeneratorImages(
        DenseGenerator(kit.stream(), image_size=64, noise_size=4, width=2),
        pool,
        num_classes=6,
        settings=making.DENSE_CB_SYNTHESIS,
        normalization=kit.symmetric,
        stream=kit.stream(3),
    )
    schedule = derive_schedule(Budget(2, 4, 4), 4)
    distil(schedule, images, MeanTeacher(ensemble), _student(kit))
    assert pool.images.shape == (4, 3, 64, 64)
