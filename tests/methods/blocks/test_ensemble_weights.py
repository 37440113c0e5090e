from __future__ import annotations

import pytest
import torch

from methods.blocks.ensemble_weights import improve_weights, weight_gradient, weighted_logits

# Case of the golden file, and the batches of one pass.
CASES = {
    "A_uniform_ep1_1batch": [0],
    "B_skew_ep7_3batches_wa2": [0, 1, 2],
    "D_uniform_ep3_bigmu": [0, 1],
    "E_clamp_ep2_2batches": [0, 2],
}


@pytest.mark.parametrize("case", CASES)
def test_golden_cb_weight_update(golden, case) -> None:
    arrays = golden("cb_weight_update.npz")
    epoch, passes, _, mu, decay = arrays[f"{case}_meta_ep_wa_nb_mu_wdc"].tolist()
    sequence = arrays[f"{case}_w_sequence"][..., 0]
    weights = sequence[0]
    for step, batch in enumerate(CASES[case] * int(passes)):
        logits = arrays["logits_batches"][batch].transpose(0, 1)
        labels = arrays["labels"][batch]
        loss, gradient = weight_gradient(logits, weights, labels)
        assert float(loss) == pytest.approx(float(arrays[f"{case}_losses"][step]), abs=1e-9)
        expected = arrays[f"{case}_grads"][step, :, 0]
        torch.testing.assert_close(gradient, expected, rtol=0, atol=1e-9)
        weights, losses = improve_weights(weights, [(logits, labels)], mu * decay**epoch)
        torch.testing.assert_close(weights, sequence[step + 1], rtol=0, atol=1e-12)
        assert torch.equal(losses[0], loss)
    assert step + 2 == len(sequence)


def test_closed_form_equals_autograd(kit) -> None:
    logits = torch.randn(4, 9, 6, generator=kit.stream(), dtype=torch.float64)
    labels = torch.randint(6, (9,), generator=kit.stream(1))
    weights = torch.rand(4, generator=kit.stream(2), dtype=torch.float64).requires_grad_(True)
    loss = torch.nn.functional.cross_entropy(weighted_logits(logits, weights), labels)
    (expected,) = torch.autograd.grad(loss, weights)
    _, gradient = weight_gradient(logits, weights.detach(), labels)
    torch.testing.assert_close(gradient, expected, rtol=0, atol=1e-12)
    assert float((weights.detach() * gradient).sum()) == pytest.approx(0, abs=1e-12)


def test_weights_are_clamped_and_not_renormalised(kit) -> None:
    logits = torch.randn(3, 5, 4, generator=kit.stream())
    labels = torch.zeros(5, dtype=torch.int64)
    weights, _ = improve_weights(torch.tensor([0.02, 0.99, 0.5]), [(logits, labels)] * 3, 0.3)
    assert float(weights.min()) >= 0
    assert float(weights.max()) <= 1
    assert float(weights.sum()) != pytest.approx(1)


def test_all_zero_weights_count_as_uniform(kit) -> None:
    logits = torch.randn(3, 5, 4, generator=kit.stream())
    torch.testing.assert_close(weighted_logits(logits, torch.zeros(3)), logits.mean(0))
    _, gradient = weight_gradient(logits, torch.zeros(3), torch.zeros(5, dtype=torch.int64))
    assert bool(torch.isfinite(gradient).all())


def test_a_batch_of_one_image_takes_the_same_path(kit) -> None:
    # Not inherited: a one-image batch that falls into another branch by exception.
    logits = torch.randn(3, 1, 4, generator=kit.stream())
    loss, gradient = weight_gradient(logits, torch.full((3,), 1 / 3), torch.tensor([2]))
    twice, same = weight_gradient(
        logits.repeat(1, 2, 1), torch.full((3,), 1 / 3), torch.tensor([2, 2])
    )
    torch.testing.assert_close(loss, twice)
    torch.testing.assert_close(gradient, same)
