"""Experts of unequal widths on the suite's own model families and windows."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch
from torch import Tensor

from benchmark.models.base import Classifier
from benchmark.models.build import build
from benchmark.models.structure import find_structure
from benchmark.models.submodel import scatter
from benchmark.models.windows import IndexSets, index_sets
from methods.mosaic.experts import LogitExperts, ParameterExperts
from methods.mosaic.mixing import ExpertMixer, expert_weights
from methods.mosaic.prototypes import scatter_features


def net(family: str, width: Fraction, seed: int) -> Classifier:
    random = torch.Generator().manual_seed(seed)
    model = build(family, num_classes=3, channels=1, width=width, generator=random)
    for name, value in model.state_dict().items():
        if name.endswith(("running_mean", "running_var")):
            value.copy_(torch.rand(value.shape, generator=random) + 0.5)
    return model.eval()


def images() -> Tensor:
    return torch.randn(3, 1, 32, 32, generator=torch.Generator().manual_seed(5))


COUNTS = torch.tensor([[4, 0, 0], [0, 5, 1], [0, 0, 6]])


def setting(family: str, full: Fraction) -> tuple[Classifier, list[Classifier], list[IndexSets]]:
    model = net(family, full, 0)
    structure = find_structure(model)
    shares = [Fraction(1), Fraction(1, 2), Fraction(1, 4)]
    clients = [net(family, full * share, seed) for seed, share in enumerate(shares, start=1)]
    sets = [index_sets(structure, share, round_index=3) for share in shares]
    return model, clients, sets


@pytest.mark.parametrize(
    ("family", "full"), [("cnn", Fraction(1, 4)), ("resnet18", Fraction(1, 8))]
)
def test_one_holder_means_the_expert_is_that_clients_model(family: str, full: Fraction) -> None:
    model, clients, sets = setting(family, full)
    pairs = [
        scatter(client.state_dict(), windows, model.state_dict())
        for client, windows in zip(clients, sets, strict=True)
    ]
    weights = expert_weights(COUNTS)
    mixer = ExpertMixer([s for s, _ in pairs], weights, masks=[m for _, m in pairs])
    logits = ParameterExperts(model, mixer, resident=1).logits(images())
    with torch.no_grad():
        for expert, client in ((0, 0), (1, 1)):
            assert torch.allclose(logits[:, expert], clients[client](images()), atol=1e-5)
        assert not torch.allclose(logits[:, 2], clients[2](images()), atol=1e-3)
    mixed = LogitExperts(clients, weights).logits(images())
    assert torch.allclose(mixed[:, :2], logits[:, :2], atol=1e-5)
    with pytest.raises(ValueError, match="head takes"):
        LogitExperts(clients, weights).head_logits(torch.ones(2, clients[0].num_features))


def test_narrow_prototypes_pass_the_experts_head_as_the_clients_own() -> None:
    model, clients, sets = setting("cnn", Fraction(1, 4))
    pairs = [
        scatter(client.state_dict(), windows, model.state_dict())
        for client, windows in zip(clients, sets, strict=True)
    ]
    masks = [m for _, m in pairs]
    mixer = ExpertMixer([s for s, _ in pairs], expert_weights(COUNTS), masks=masks)
    with torch.no_grad():
        features = clients[1].features(images())
        placed = scatter_features(features, sets[1].features, model.num_features)
        heads = ParameterExperts(model, mixer).head_logits(placed)
        assert torch.allclose(heads[:, 1], clients[1].head(features), atol=1e-5)


def test_global_average_of_all_widths_is_a_runnable_student() -> None:
    model, clients, sets = setting("cnn", Fraction(1, 4))
    previous = model.state_dict()
    narrow = [
        scatter(client.state_dict(), windows, previous)
        for client, windows in list(zip(clients, sets, strict=True))[1:]
    ]
    masks = [m for _, m in narrow]
    mixer = ExpertMixer(
        [s for s, _ in narrow], expert_weights(COUNTS[1:]), masks=masks, previous=previous
    )
    state = mixer.global_state()
    model.load_state_dict(state)
    assert model(images()).isfinite().all()
    # Channels outside both windows were trained by nobody and stay as they were.
    for name in previous:
        nobody = ~(masks[0][name] | masks[1][name])
        assert torch.equal(
            state[name][nobody], net("cnn", Fraction(1, 4), 0).state_dict()[name][nobody]
        )
