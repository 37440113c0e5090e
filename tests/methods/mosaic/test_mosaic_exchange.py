"""What Mosaic's clients send, in one exchange and in the published rounds."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from mosaic_golden import load
from mosaic_lab import Done, Make, uploads_of
from torch import nn

from benchmark.contract import Upload
from benchmark.federation.client import LocalClient
from benchmark.specs import BudgetSpec, RecipeSpec
from benchmark.training.trainer import _sgd, cross_entropy
from methods.blocks.composition import Materials
from methods.blocks.schedule import Budget
from methods.mosaic.gan_trainer import GanTrainer
from methods.mosaic.images import ClientGenerators, FreshMixture, make_images
from methods.mosaic.networks import GanShape


def test_one_exchange_sends_model_generator_prototypes_and_counts(make: Make, done: Done) -> None:
    small = make()
    uploads, result = done()
    assert set(uploads) == {(0, 0), (0, 1), (0, 2)}
    federation = small.federation()
    for (_, index), upload in uploads.items():
        client = federation.client(index)
        booked = result.traffic.uploads[0, index]
        state = client.local_model().state_dict()
        held = (client.label_counts > 0).sum()
        per_class = torch.tensor(upload.values["prototypes_per_class"])
        assert ((per_class > 0) == (client.label_counts > 0)).all()
        features = upload.parts["prototypes"]["features"]
        assert features.shape == (per_class.sum(), client.local_model().num_features)
        assert int(held) <= len(features) <= 10 * int(held)
        assert booked["model"] == sum(v.nbytes for v in state.values())
        assert booked["prototypes"] == 4 * features.numel()
        assert booked["counts"] == 80
        assert booked["generator"] == sum(v.nbytes for v in upload.parts["generator"].values())
    assert not result.traffic.broadcasts


def test_full_size_generator_is_14_3_megabytes() -> None:
    state = GanShape().build_generator(torch.Generator()).state_dict()
    assert sum(value.nbytes for value in state.values()) == 14_303_008


def test_counts_come_from_all_samples(make: Make, done: Done) -> None:
    """The published counts leave out a sample that the loader drops (k21)."""
    small = make()
    uploads, _ = done()
    sizes = small.data.partition.sizes
    for (_, index), upload in uploads.items():
        assert int(upload.parts["counts"]["labels"].sum()) == sizes[index]
        assert upload.values["samples"] == sizes[index]


def test_prototypes_see_every_image_once_and_leave_training_alone(make: Make) -> None:
    """The published code takes some batches off the iterator that trains (k11)."""
    small = make(prototypes_clusters=1)
    uploads, _ = uploads_of(small)
    federation = small.federation()
    for (_, index), upload in uploads.items():
        client = federation.client(index)
        model = client.local_model()
        shared = model.state_dict()
        assert all(torch.equal(shared[k], v) for k, v in upload.parts["model"].items())
        with torch.no_grad():
            features = model.features(client.task.normalization.from_uint8(client.images))
        means = [features[client.labels == c].mean(0) for c in torch.unique(client.labels)]
        sent = upload.parts["prototypes"]["features"]
        assert torch.allclose(sent, torch.stack(means), atol=1e-5)


def test_a_generator_is_another_one_after_other_local_training(make: Make) -> None:
    states = []
    for epochs in (1, 2):
        uploads, _ = uploads_of(make({"epochs": epochs}, meta="none"))
        states.append(uploads[0, 0].parts["generator"])
    assert any(not torch.equal(states[0][name], states[1][name]) for name in states[0])


@pytest.mark.parametrize("kept", ["last", "all"])
def test_published_rounds_are_a_code_path(make: Make, kept: str) -> None:
    """P0: prototypes of many rounds (k10), one generator (k22), the last model counts (k29)."""
    calls: list[int] = []
    trained: list[tuple[int, int | None, float | None]] = []
    small = make(
        preset="code",
        prototypes_rounds=3,
        prototypes_kept=kept,
        prototypes_clusters=1,
        finetune_rounds=2,
        finetune_lr=0.003,
        round_steps=1,
    )
    with pytest.MonkeyPatch.context() as patch:
        run, train = GanTrainer.run, LocalClient.train

        def counted_run(self: GanTrainer, steps: int) -> Any:
            calls.append(steps)
            return run(self, steps)

        def counted_train(self: LocalClient, model: Any, **given: Any) -> None:
            trained.append((self.round, given.get("steps"), given.get("lr")))
            train(self, model, **given)

        patch.setattr(GanTrainer, "run", counted_run)
        patch.setattr(LocalClient, "train", counted_train)
        uploads, result = uploads_of(small)
    # One run of three clients' generators at most (a cached one is not trained again), and
    # five rounds of one step: no round more, and no second generator.
    assert len(calls) in {0, 3}
    # After the exchange at a learning rate of its own, before it at the recipe's.
    rates = 3 * [None] + 2 * [0.003]
    assert trained == [(r, 1, rates[r]) for r in range(5) for _ in range(3)]
    assert small.method().rounds == 5
    assert [("generator" in uploads[r, 0].parts) for r in range(5)] == [True] + 4 * [False]
    assert [("prototypes" in uploads[r, 0].parts) for r in range(5)] == 3 * [True] + 2 * [False]
    sent = [sum(uploads[r, k].values["prototypes_per_class"]) for r in range(3) for k in range(3)]
    joined = sum(len(found) for found in result.server.state["prototypes"])
    assert joined == (sum(sent) if kept == "all" else sum(sent[6:]))
    distilled = result.server.state["exchange"].model
    assert result.output.model is not distilled
    assert result.output.model is result.server.global_model
    assert result.output.details["protocol"].startswith("P0")
    assert result.traffic.broadcasts.keys() == {(r, k) for r in range(1, 5) for k in range(3)}


def test_described_preset_takes_the_last_prototypes_alone(make: Make) -> None:
    result = make(prototypes_rounds=2, round_steps=1, prototypes_clusters=1).run()
    assert len(result.server.state["prototypes"]) == 3


def test_warm_prototypes_live_in_one_space(make: Make) -> None:
    warm = make({"rounds_warmup": [1], "warmup_steps": 1}, prototypes_clusters=1)
    uploads, _ = uploads_of(warm)
    client = warm.federation().client(0)
    with torch.no_grad():
        images = client.task.normalization.from_uint8(client.images)
        features = client.initial_model().eval().features(images)
    means = [features[client.labels == c].mean(0) for c in torch.unique(client.labels)]
    assert torch.allclose(
        uploads[0, 0].parts["prototypes"]["features"], torch.stack(means), atol=1e-5
    )


def test_golden_local_training() -> None:
    """Three plain SGD steps with weight decay, by the suite's own optimiser settings."""
    golden = load("prototypes.npz")
    model = nn.Linear(8, 4)
    model.load_state_dict(
        {"weight": golden["linear_weight_before"], "bias": golden["linear_bias_before"]}
    )
    lr, decay = float(golden["lr"]), float(golden["weight_decay"])
    optimizer = _sgd(model, RecipeSpec(momentum=0.0, weight_decay=decay), lr)
    losses = []
    for features, labels in zip(golden["train_features"], golden["train_labels"], strict=True):
        loss = cross_entropy(model(features), labels)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        losses.append(loss.item())
    assert torch.allclose(model.weight, golden["linear_weight_after"], atol=1e-6)
    assert torch.allclose(model.bias, golden["linear_bias_after"], atol=1e-6)
    assert sum(losses) / 3 == pytest.approx(float(golden["mean_loss"]), rel=1e-5)


def test_the_clients_models_are_never_all_in_memory(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Materials) -> Any:
        raise AssertionError("the ensemble of all clients was loaded")

    monkeypatch.setattr(Materials, "ensemble", property(refuse))
    assert make().run().output.teacher is not None


def test_only_images_to_learn_from_are_counted(make: Make) -> None:
    counters = make(meta="none", images_pool="fresh").run().output.details["counters"]
    assert counters["generated_images"] == counters["distilled_images"] == 96


@pytest.mark.parametrize(("shares", "expected"), [("equal", [16, 16, 16]), ("size", [6, 12, 30])])
def test_generators_are_asked_for_the_shares_that_are_set(
    make: Make, shares: str, expected: list[int]
) -> None:
    server = make().federation().server("mosaic", 1, BudgetSpec(generated_images=48))
    state = GanShape(1, noise=3, width=2).build_generator(torch.Generator()).state_dict()
    uploads = {
        index: Upload({"generator": state}, {"samples": samples})
        for index, samples in enumerate((10, 20, 50))
    }
    settings = ClientGenerators.model_validate({"shares": shares, "pool": "fresh"})
    images = make_images(Materials(server, uploads, Budget(1, 48, 48)), settings)
    assert isinstance(images, FreshMixture)
    owners = images.generated().clients
    assert owners is not None
    assert torch.bincount(owners).tolist() == expected
