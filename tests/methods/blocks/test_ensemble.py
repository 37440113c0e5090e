from __future__ import annotations

import pytest
import torch

from methods.blocks import ensemble as ensembles
from methods.blocks.ensemble import ClientEnsemble
from methods.blocks.runtime import Precision


@pytest.fixture
def images(kit) -> torch.Tensor:
    return torch.randn(7, 3, 8, 8, generator=kit.stream(9))


@pytest.mark.parametrize("chunk", [None, 1, 2, 99])
def test_stack_equals_loop(kit, images, chunk) -> None:
    clients = [kit.tiny(seed, bn=True) for seed in range(5)]
    outcomes = []
    for implementation in ("loop", "stack"):
        inputs = images.clone().requires_grad_(True)
        ensemble = ClientEnsemble(clients, implementation=implementation, chunk=chunk)
        logits = ensemble(inputs)
        (slope,) = torch.autograd.grad(logits.square().sum(), inputs)
        outcomes.append((logits, slope))
    assert outcomes[0][0].shape == (5, 7, 6)
    torch.testing.assert_close(outcomes[1][0], outcomes[0][0], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(outcomes[1][1], outcomes[0][1], rtol=1e-4, atol=1e-4)


def test_stack_groups_unequal_architectures_and_keeps_their_order(kit, images) -> None:
    clients = [
        kit.tiny(s, channels=c, bn=b)
        for s, c, b in [(0, 5, True), (1, 4, False), (2, 5, True), (3, 5, False), (4, 4, False)]
    ]
    loop = ClientEnsemble(clients, implementation="loop")(images)
    stack = ClientEnsemble(clients, implementation="stack")(images)
    torch.testing.assert_close(stack, loop, rtol=1e-5, atol=1e-5)


def test_cpu_loops_by_default(kit, images) -> None:
    ensemble = ClientEnsemble([kit.tiny(s) for s in range(3)])
    calls = []
    ensemble.clients[1].register_forward_hook(lambda *_: calls.append(1))
    assert torch.equal(
        ensemble(images), ClientEnsemble(list(ensemble.clients), implementation="loop")(images)
    )
    assert len(calls) == 2


def test_stacked_copies_follow_a_cast(kit, images) -> None:
    ensemble = ClientEnsemble([kit.tiny(s) for s in range(3)], implementation="stack")
    single = ensemble(images)
    double = ensemble.double()(images.double())
    assert double.dtype == torch.float64
    torch.testing.assert_close(double.float(), single, rtol=1e-5, atol=1e-5)


def test_clients_are_frozen_and_stay_in_eval_mode(kit, images) -> None:
    # Not inherited: `ensemble.eval()` that does not reach clients kept in a plain list.
    clients = [kit.tiny(s, bn=True) for s in range(2)]
    for client in clients:
        client.train()
    ensemble = ClientEnsemble(clients)
    ensemble.train()
    before = [client.bn.running_mean.clone() for client in clients]
    inputs = images.requires_grad_(True)
    ensemble(inputs).sum().backward()
    assert inputs.grad is not None
    for client, mean in zip(clients, before, strict=True):
        assert not client.training
        assert not client.bn.training
        assert torch.equal(client.bn.running_mean, mean)
        assert all(p.grad is None and not p.requires_grad for p in client.parameters())


def test_prediction_does_not_depend_on_batch_mates(kit, images) -> None:
    ensemble = ClientEnsemble([kit.tiny(s, bn=True) for s in range(3)])
    alone = torch.cat([ensemble(image[None]) for image in images], dim=1)
    torch.testing.assert_close(alone, ensemble(images), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("implementation", ["loop", "stack"])
def test_bf16_and_channels_last_are_options(kit, images, implementation) -> None:
    clients = [kit.tiny(s) for s in range(2)]
    exact = ClientEnsemble(clients, implementation=implementation)(images)
    precision = Precision(lambda: torch.autocast("cpu", torch.bfloat16), torch.channels_last)
    rough = ClientEnsemble(clients, implementation=implementation, precision=precision)(images)
    assert rough.dtype == torch.float32
    torch.testing.assert_close(rough, exact, rtol=0.1, atol=0.1)
    assert not torch.equal(rough, exact)


@pytest.mark.parametrize("count", [1, 2, 7])
def test_any_number_of_clients(kit, images, count) -> None:
    # Not inherited: an ensemble of exactly five.
    assert ClientEnsemble([kit.tiny(s) for s in range(count)])(images).shape == (count, 7, 6)


def test_bad_ensembles_are_refused(kit) -> None:
    with pytest.raises(ValueError, match="at least one client"):
        ClientEnsemble([])
    with pytest.raises(ValueError, match="chunk is 0"):
        ClientEnsemble([kit.tiny(0)], chunk=0)


def test_an_error_of_a_client_is_not_swallowed(kit) -> None:
    # Not inherited: bare `except` as control flow.
    with pytest.raises(RuntimeError):
        ClientEnsemble([kit.tiny(0)])(torch.zeros(2, 5, 8, 8))


@pytest.mark.parametrize("bf16", [False, True])
def test_many_clients_are_computed_again_for_gradients_in_the_same_bits(
    kit, images, monkeypatch, bf16
) -> None:
    precision = Precision(lambda: torch.autocast("cpu", torch.bfloat16)) if bf16 else None
    outcomes, counts = [], []
    for remembered in (ensembles.REMEMBERED, 0):
        monkeypatch.setattr(ensembles, "REMEMBERED", remembered)
        ensemble = ClientEnsemble([kit.tiny(s, bn=True) for s in range(3)], precision=precision)
        calls: list[int] = []
        # Before the pass: computing again stops as soon as nothing is missing.
        ensemble.clients[1].register_forward_pre_hook(lambda *_, calls=calls: calls.append(1))
        inputs = images.clone().requires_grad_(True)
        logits = ensemble(inputs)
        (slope,) = torch.autograd.grad(logits.square().sum(), inputs)
        ensemble(images)  # nothing to remember: once
        outcomes.append((logits.detach(), slope))
        counts.append(len(calls))
    assert all(torch.equal(a, b) for a, b in zip(*outcomes, strict=True))
    assert counts == [2, 3]


def test_clients_with_hooks_are_computed_once(kit, images, monkeypatch) -> None:
    monkeypatch.setattr(ensembles, "REMEMBERED", 0)
    ensemble = ClientEnsemble([kit.tiny(s) for s in range(2)])
    calls: list[int] = []
    ensemble.clients[0].register_forward_hook(lambda *_: calls.append(1))
    with ensemble.looping():
        ensemble(images.requires_grad_(True)).sum().backward()
    assert len(calls) == 1
