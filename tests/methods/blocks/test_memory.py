"""A teacher is asked about a stored image once, and what comes of it is the same."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmark.images import Normalization
from methods.blocks.distill import DENSE_DISTILLATION, DistilledStudent
from methods.blocks.ensemble import ClientEnsemble
from methods.blocks.memory import TeacherMemory
from methods.blocks.parts import Counters, Epoch
from methods.blocks.pool import GrowingPool
from methods.blocks.schedule import EpochPlan
from methods.blocks.teachers import (
    BoostedTeacher,
    ClassShareTeacher,
    EnsembleTeacher,
    MeanTeacher,
    WeightUpdate,
)
from methods.mosaic.experts import MosaicTeacher

UNIT = Normalization((0.0,) * 3, (1.0,) * 3)


class Counting:
    """A teacher whose logits are sums of pixels, and that counts what it is asked."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        self.asked.append(len(images))
        sums = images.sum((1, 2, 3))
        return torch.stack([sums, -sums], dim=1)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(st.integers(0, 40), min_size=1, max_size=12), min_size=1, max_size=8))
def test_each_image_is_asked_about_once(groups: list[list[int]]) -> None:
    teacher = Counting()
    memory = TeacherMemory(teacher)
    everything = torch.rand(41, 1, 2, 2)
    for group in groups:
        keys = torch.tensor(group)
        said = memory(everything[keys], keys)
        assert torch.equal(said, Counting()(everything[keys]))
        assert not said.requires_grad
    assert sum(teacher.asked) == len({key for group in groups for key in group})
    assert 0 not in teacher.asked


def test_without_keys_nothing_is_remembered() -> None:
    teacher = Counting()
    memory = TeacherMemory(teacher)
    images = torch.rand(3, 1, 2, 2, requires_grad=True)
    for _ in range(2):
        assert not memory(images, None).requires_grad
    assert teacher.asked == [3, 3]


@pytest.mark.parametrize("flip", [False, True])
def test_equal_keys_are_equal_images_however_the_pool_grows(kit, flip) -> None:
    pool = GrowingPool((3, 4, 6), UNIT, flip=flip)
    stream, seen = kit.stream(), {}
    for _ in range(3):
        pool.add(torch.rand(5, 3, 4, 6, generator=kit.stream(pool.size)))
        for batch in pool.batches(4, generator=stream, images=60):
            for key, image in zip(batch.keys.tolist(), batch.images, strict=True):
                assert torch.equal(seen.setdefault(key, image), image)
    assert len(seen) == 15 * (2 if flip else 1)
    assert len({tuple(image.flatten().tolist()) for image in seen.values()}) == len(seen)


def test_cropped_images_have_no_keys(kit) -> None:
    pool = GrowingPool((3, 4, 6), UNIT, crop_padding=1)
    pool.add(torch.rand(5, 3, 4, 6))
    (batch,) = pool.batches(5, generator=kit.stream())
    assert batch.keys is None


# -- in the student's epochs ---------------------------------------------------------------


class Forgetful(GrowingPool):
    """The same pool without keys: the teacher is asked every time, as published."""

    def batches(self, *args, **kwargs):
        for batch in super().batches(*args, **kwargs):
            yield replace(batch, keys=None)


def _ensemble(kit) -> ClientEnsemble:
    return ClientEnsemble([kit.tiny(30 + k, bn=True) for k in range(3)])


def _learn(kit, pool, teacher, epochs: int = 2) -> tuple[DistilledStudent, list[int]]:
    """Distil 30 images in each epoch, each with ten more in the pool; return what was asked."""
    asked: list[int] = []
    handle = teacher.ensemble.clients[0].register_forward_hook(
        lambda _m, inputs, _o: asked.append(len(inputs[0]))
    )
    student = DistilledStudent(
        kit.tiny(40, bn=True),
        DENSE_DISTILLATION.model_copy(update={"batch_size": 4, "ahead": 9}),
        normalization=kit.symmetric,
        num_classes=6,
        generator=kit.stream(5),
    )
    per_epoch = []
    for index in range(epochs):
        pool.add(torch.rand(10, 3, 8, 8, generator=kit.stream(index)))
        student.learn(
            Epoch(EpochPlan(index, epochs, 0, 0, 30), Counters(), 30 * epochs), pool, teacher
        )
        per_epoch.append(sum(asked))
        asked.clear()
    handle.remove()
    return student, per_epoch


def test_the_student_ends_the_same_and_the_teacher_works_less(kit) -> None:
    ends = []
    for kind in (GrowingPool, Forgetful):
        pool = kind((3, 8, 8), kit.symmetric)
        ends.append(_learn(kit, pool, MeanTeacher(_ensemble(kit))))
    (remembering, few), (asking, many) = ends
    assert many == [30, 30]
    assert few == [10, 10]
    assert torch.equal(remembering._generator.get_state(), asking._generator.get_state())
    expected = asking.model.state_dict()
    for name, value in remembering.model.state_dict().items():
        torch.testing.assert_close(value, expected[name], rtol=1e-5, atol=1e-6)


def test_a_teacher_that_learns_is_asked_again_in_the_next_epoch(kit) -> None:
    teacher = BoostedTeacher(_ensemble(kit), WeightUpdate(), kit.stream())
    _, asked = _learn(kit, GrowingPool((3, 8, 8), kit.symmetric), teacher)
    assert asked == [10, 20]


def test_another_pool_is_another_memory(kit) -> None:
    teacher = MeanTeacher(_ensemble(kit))
    student, _ = _learn(kit, GrowingPool((3, 8, 8), kit.symmetric), teacher)
    asked: list[int] = []
    teacher.ensemble.clients[0].register_forward_hook(
        lambda _m, inputs, _o: asked.append(len(inputs[0]))
    )
    other = GrowingPool((3, 8, 8), kit.symmetric)
    other.add(torch.rand(10, 3, 8, 8, generator=kit.stream(9)))
    student.learn(Epoch(EpochPlan(1, 2, 0, 0, 30), Counters(), 30), other, teacher)
    assert sum(asked) == 10


def test_which_teachers_are_fixed() -> None:
    assert MeanTeacher.fixed
    assert ClassShareTeacher.fixed
    assert MosaicTeacher.fixed
    # One that says nothing of itself, as a plugin's may, is taken to learn.
    assert not EnsembleTeacher.fixed
    assert not BoostedTeacher.fixed
