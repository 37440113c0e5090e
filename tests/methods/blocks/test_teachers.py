from __future__ import annotations

import pytest
import torch

from benchmark.errors import UserError
from methods.blocks.ensemble import ClientEnsemble
from methods.blocks.parts import Batch, Counters, Epoch
from methods.blocks.schedule import EpochPlan
from methods.blocks.teachers import BoostedTeacher, ClassShareTeacher, MeanTeacher, WeightUpdate


def _epoch(index: int, distilled: int) -> Epoch:
    return Epoch(EpochPlan(index, 10, 1, 1, distilled), Counters(), 0)


def _boosted(kit, clients: int = 3, **kwargs) -> BoostedTeacher:
    ensemble = ClientEnsemble([kit.Slice(k) for k in range(clients)])
    return BoostedTeacher(ensemble, WeightUpdate(**kwargs), kit.stream())


def _batch(arrays, index: int) -> Batch:
    logits = arrays["logits_batches"][index]
    return Batch(logits[:, :, None, :], arrays["labels"][index])


@pytest.mark.parametrize(
    ("case", "older"),
    [
        ("A_uniform_ep1_1batch", [0]),
        ("B_skew_ep7_3batches_wa2", [0, 1, 2, 0, 1, 2]),
        ("C_uniform_ep0_skipped", [0]),
        ("D_uniform_ep3_bigmu", [0, 1]),
        ("E_clamp_ep2_2batches", [0, 2]),
    ],
)
@pytest.mark.parametrize("ahead", [1, 7, 100])
def test_golden_cb_weight_update_of_the_teacher(golden, kit, case, older, ahead) -> None:
    arrays = golden("cb_weight_update.npz")
    epoch, _, _, mu, decay = arrays[f"{case}_meta_ep_wa_nb_mu_wdc"].tolist()
    sequence = arrays[f"{case}_w_sequence"][..., 0]
    teacher = _boosted(kit, step=mu, decay=decay, batch_size=7, ahead=ahead)
    teacher.weights.copy_(sequence[0])
    old = [_batch(arrays, index) for index in older]
    teacher.improve(_epoch(int(epoch), 7), kit.ListPool([*old, old[0]], older=old))
    torch.testing.assert_close(teacher.weights, sequence[-1], rtol=0, atol=1e-12)
    assert not teacher.weights.requires_grad


def test_mean_teacher_averages_logits_not_probabilities(kit) -> None:
    images = torch.randn(4, 3, 1, 5, generator=kit.stream(), dtype=torch.float64)
    teacher = MeanTeacher(ClientEnsemble([kit.Slice(k) for k in range(3)]))
    torch.testing.assert_close(teacher(images), images[:, :, 0].mean(1))


def test_class_share_teacher(kit) -> None:
    images = torch.randn(4, 2, 1, 3, generator=kit.stream(), dtype=torch.float64)
    counts = torch.tensor([[3, 0, 0], [1, 5, 0]])
    teacher = ClassShareTeacher(ClientEnsemble([kit.Slice(k) for k in range(2)]), counts)
    first, second = images[:, 0, 0], images[:, 1, 0]
    logits = teacher(images)
    torch.testing.assert_close(logits[:, 0], 0.75 * first[:, 0] + 0.25 * second[:, 0])
    torch.testing.assert_close(logits[:, 1], second[:, 1])
    torch.testing.assert_close(logits[:, 2], (first[:, 2] + second[:, 2]) / 2)


def test_class_share_teacher_on_probabilities(kit) -> None:
    images = torch.randn(4, 2, 1, 3, generator=kit.stream(), dtype=torch.float64)
    counts = torch.tensor([[3, 0, 0], [1, 5, 0]])
    ensemble = ClientEnsemble([kit.Slice(k) for k in range(2)])
    teacher = ClassShareTeacher(ensemble, counts, "probabilities")
    first, second = images[:, 0, 0].softmax(-1), images[:, 1, 0].softmax(-1)
    found = teacher(images).exp()
    torch.testing.assert_close(found[:, 0], 0.75 * first[:, 0] + 0.25 * second[:, 0])
    torch.testing.assert_close(found[:, 1], second[:, 1])
    torch.testing.assert_close(found[:, 2], (first[:, 2] + second[:, 2]) / 2)
    # One client, however sure, says no more of a class than its share of it.
    loud = images.clone()
    loud[:, 0, 0, 0] = 100.0
    assert (teacher(loud).exp()[:, 0] <= 1).all()
    assert (ClassShareTeacher(ensemble, counts)(loud)[:, 0] > 70).all()
    wanted = images.clone().requires_grad_()
    torch.autograd.backward(teacher(wanted).sum())
    assert wanted.grad is not None
    assert wanted.grad.isfinite().all()


@pytest.mark.parametrize("counts", [torch.ones(3, 4), torch.ones(2), -torch.ones(2, 4)])
def test_class_share_refuses_bad_counts(kit, counts) -> None:
    with pytest.raises(UserError, match="label counts"):
        ClassShareTeacher(ClientEnsemble([kit.Slice(0), kit.Slice(1)]), counts)


def test_boosted_teacher_is_uniform_at_first_and_weighted_after(kit) -> None:
    images = torch.randn(4, 3, 1, 5, generator=kit.stream(), dtype=torch.float64)
    teacher = _boosted(kit)
    torch.testing.assert_close(teacher(images), images[:, :, 0].mean(1))
    teacher.weights.copy_(torch.tensor([0.9, 0.1, 0.0], dtype=torch.float64))
    expected = 0.9 * images[:, 0, 0] + 0.1 * images[:, 1, 0]
    torch.testing.assert_close(teacher(images), expected)
    assert "weights" in teacher.state_dict()


def test_no_passes_no_older_images_and_few_classes_are_fine(kit) -> None:
    # Not inherited: wa_steps = 0 and fewer than five classes crash.
    batch = Batch(torch.randn(4, 3, 1, 2, dtype=torch.float64), torch.tensor([0, 1, 1, 0]))
    idle = _boosted(kit, passes=0)
    idle.improve(_epoch(3, 4), kit.ListPool([batch], older=[batch]))
    assert idle.weights.tolist() == [1 / 3] * 3
    fresh = _boosted(kit)
    fresh.improve(_epoch(3, 4), kit.ListPool([batch]))
    assert fresh.weights.tolist() == [1 / 3] * 3
    moved = _boosted(kit)
    moved.improve(_epoch(3, 4), kit.ListPool([batch], older=[batch]))
    assert moved.weights.tolist() != [1 / 3] * 3


def test_missing_labels_are_an_error_or_the_ensembles_prediction(kit) -> None:
    batch = Batch(torch.randn(4, 3, 1, 5, generator=kit.stream(), dtype=torch.float64), None)
    pool = kit.ListPool([batch], older=[batch])
    with pytest.raises(UserError, match="missing_labels=ensemble"):
        _boosted(kit).improve(_epoch(1, 4), pool)
    guided, labelled = _boosted(kit, missing_labels="ensemble"), _boosted(kit)
    guided.improve(_epoch(1, 4), pool)
    known = Batch(batch.images, batch.images[:, :, 0].mean(1).argmax(1))
    labelled.improve(_epoch(1, 4), kit.ListPool([known], older=[known]))
    assert torch.equal(guided.weights, labelled.weights)


def test_weight_update_runs_each_client_once_an_image_and_no_backward(kit) -> None:
    # Not inherited: the update that differentiates through all clients.
    batch = Batch(torch.randn(6, 3, 1, 5, dtype=torch.float64), torch.zeros(6, dtype=torch.int64))
    teacher = _boosted(kit, batch_size=2)
    seen = []
    teacher.ensemble.clients[0].register_forward_hook(
        lambda _m, inputs, _o: seen.append((len(inputs[0]), torch.is_grad_enabled()))
    )
    epoch = _epoch(1, 6)
    teacher.improve(epoch, kit.ListPool([batch], older=[batch]))
    assert seen == [(6, False)]
    assert epoch.counters.weighed_images == 6
    assert epoch.scalars["teacher/loss"] > 0
