"""Reference rows by hand: ensembles, class shares, the best client, and central training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from benchmark.evaluation import evaluate
from benchmark.federation.client import LocalClient
from benchmark.federation.federation import Federation
from benchmark.registry import discover
from benchmark.seeds import Streams
from benchmark.testing import Bench
from benchmark.testing.reach import Secret, reachable_tensors
from benchmark.training.trainer import train

SMALL = {"train_samples": 200, "epochs": 2, "alpha": [0.2]}
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("references")


def bench(name: str, folder: Path, config: dict[str, Any] | None = None, **over: Any) -> Bench:
    return Bench(name, {**SMALL, **over, "set": {name: config or {}}}, folder=folder)


def inputs(place: Bench, count: int = 40) -> Tensor:
    return place.data.task.normalization.from_uint8(place.data.test(CPU).images[:count])


def client_logits(place: Bench, images: Tensor) -> tuple[Tensor, list[LocalClient]]:
    federation = place.federation()
    clients = [federation.client(info.index) for info in federation.infos]
    with torch.no_grad():
        return torch.stack([client.local_model()(images) for client in clients]), clients


def predicted(place: Bench, images: Tensor) -> Tensor:
    model = place.run().output.model.eval()
    with torch.no_grad():
        logits = model(images)
    assert isinstance(logits, Tensor)
    return logits


@pytest.mark.parametrize("name", ["ensemble", "class_share", "best_client", "centralized"])
def test_they_are_references_and_say_what_they_use(name: str) -> None:
    info = discover().info(name)
    assert info.kind == "reference"
    assert info.uses
    assert info.summary.startswith("reference: ")


@pytest.mark.parametrize("widths", ["1/4", ("1/4,1/8",)])
@pytest.mark.parametrize("weights", ["uniform", "samples"])
def test_mean_of_logits(folder: Path, weights: str, widths: Any) -> None:
    place = bench("ensemble", folder, {"weights": weights}, widths=widths)
    images = inputs(place)
    logits, clients = client_logits(place, images)
    sizes = [client.num_samples for client in clients]
    assert len(set(sizes)) > 1
    shares = torch.tensor([size / sum(sizes) if weights == "samples" else 1 / 3 for size in sizes])
    expected = sum(share * one for share, one in zip(shares, logits, strict=True))
    assert torch.allclose(predicted(place, images), torch.as_tensor(expected), atol=1e-5)


@pytest.mark.parametrize("weights", ["uniform", "samples"])
def test_mean_of_probabilities(folder: Path, weights: str) -> None:
    place = bench("ensemble", folder, {"weights": weights, "average": "probabilities"})
    images = inputs(place)
    logits, clients = client_logits(place, images)
    sizes = torch.tensor([float(client.num_samples) for client in clients])
    shares = sizes / sizes.sum() if weights == "samples" else torch.full((3,), 1 / 3)
    expected = (shares.view(3, 1, 1) * logits.softmax(-1)).sum(0)
    found = predicted(place, images)
    assert torch.allclose(found.exp(), expected, atol=1e-6)
    assert torch.allclose(found.softmax(-1), expected, atol=1e-6)


def test_class_shares(folder: Path) -> None:
    place = bench("class_share", folder)
    images = inputs(place)
    logits, clients = client_logits(place, images)
    counts = torch.stack([client.label_counts for client in clients])
    assert bool((counts == 0).any()), "some class is missing at some client"
    expected = torch.zeros_like(logits[0])
    for label in range(10):
        held = int(counts[:, label].sum())
        for client in range(3):
            share = int(counts[client, label]) / held if held else 1 / 3
            expected[:, label] += share * logits[client, :, label]
    assert torch.allclose(predicted(place, images), expected, atol=1e-5)


def test_class_shares_of_probabilities(folder: Path) -> None:
    place = bench("class_share", folder, {"average": "probabilities"})
    images = inputs(place)
    logits, clients = client_logits(place, images)
    counts = torch.stack([client.label_counts for client in clients]).double()
    counts = torch.where(counts.sum(0) > 0, counts, torch.ones_like(counts))
    shares = (counts / counts.sum(0)).float()
    expected = torch.einsum("kc,kbc->bc", shares, logits.softmax(-1))
    assert torch.allclose(predicted(place, images).exp(), expected, atol=1e-6)


def test_class_share_uploads_the_counts(folder: Path) -> None:
    result = bench("class_share", folder).run()
    for parts in result.traffic.uploads.values():
        assert parts["counts"] == 10 * 8
        assert set(parts) == {"model", "counts", "values", "header"}


def accuracies(place: Bench, images: Tensor, labels: Tensor) -> list[float]:
    federation = place.federation()
    return [
        evaluate(
            federation.client(info.index).local_model(),
            images,
            labels,
            normalization=place.data.task.normalization,
            num_classes=10,
        ).accuracy
        for info in federation.infos
    ]


def test_the_best_client_is_chosen_on_the_holdout(folder: Path) -> None:
    place = bench("best_client", folder, holdout=0.3)
    held = place.data.validation(CPU)
    by_hand = accuracies(place, held.images, held.labels)
    result = place.run()
    best = result.output.details["client"]
    assert best == by_hand.index(max(by_hand))
    assert list(result.output.details["validation_accuracy"].values()) == by_hand
    images = inputs(place)
    logits, _ = client_logits(place, images)
    assert torch.allclose(predicted(place, images), logits[best], atol=1e-6)


def test_ties_go_to_the_lower_index(folder: Path) -> None:
    place = bench("best_client", folder, holdout=0.3)

    class Oracle:
        validation_images = validation_labels = torch.zeros(0)

        def accuracy(self, *_: Any) -> float:
            return 0.5

    federation = place.federation()
    server = federation.server("best_client", 1, place.spec.budget)
    method: Any = place.method()
    uploads = {index: method.client_update(federation.client(index), None) for index in (2, 0, 1)}
    assert method.reference_update(uploads, server, Oracle()).details["client"] == 0


@pytest.mark.parametrize("name", ["best_client", "centralized"])
def test_no_reference_reaches_the_test_set(name: str, folder: Path) -> None:
    place = bench(name, folder, holdout=0.3)
    test = Secret(place.data.test(CPU).images)
    held_out = Secret(place.data.validation(CPU).images)
    looked: list[int] = []

    def watch(method: Any, federation: Federation) -> None:
        original = method.reference_update

        def reference_update(uploads: Any, server: Any, oracle: Any) -> Any:
            found = list(reachable_tensors(uploads, server, oracle))
            assert any(held_out.is_in(tensor) for tensor in found)
            assert not any(test.is_in(tensor) for tensor in found)
            looked.append(len(found))
            return original(uploads, server, oracle)

        method.reference_update = reference_update

    place.run(watch)
    assert len(looked) == 1


def test_nothing_held_out_is_nothing_to_choose_on(folder: Path) -> None:
    assert "--holdout 0.1" in str(bench("best_client", folder, holdout=0.0).skip)
    assert bench("best_client", folder, holdout=0.1).skip is None


def trained_centrally(place: Bench, *, seed: int) -> tuple[nn.Module, int]:
    """Train on all data by the recipe, beside the suite; return model and steps."""
    federation, everybody = place.federation(), place.data.everybody(CPU)
    model: nn.Module = federation.client(0).initial_model()
    summary = train(
        model,
        everybody.images,
        everybody.labels,
        recipe=place.spec.scenario.recipe,
        normalization=place.data.task.normalization,
        augmentation=federation.augmentation,
        generator=Streams(seed).torch("central training"),
        compute=place.spec.compute,
    )
    return model, summary.steps


@pytest.mark.parametrize("warmup", [0, 1])
def test_central_training_is_the_recipe_on_all_data(folder: Path, warmup: int) -> None:
    place = bench("centralized", folder, rounds_warmup=warmup)
    model, steps = trained_centrally(place, seed=0)
    assert steps == 2 * -(-len(place.data.everybody(CPU)) // 16)
    result = place.run()
    for name, value in result.output.model.state_dict().items():
        assert torch.equal(value, model.state_dict()[name]), name
    assert result.traffic.totals() == (0, 0)
    assert result.cache_ids == {0: [], 1: [], 2: []}


def test_central_training_has_the_plans_largest_width(folder: Path) -> None:
    place = bench("centralized", folder, widths=("1/4,1/8",))
    model = place.run().output.model
    assert model.state_dict()["conv1.weight"].shape[0] == 8


def test_central_training_has_the_chance_of_the_training_seed(folder: Path) -> None:
    place = bench("centralized", folder, seeds=[1], split_seeds=[0])
    model, _ = trained_centrally(place, seed=1)
    for name, value in place.run().output.model.state_dict().items():
        assert torch.equal(value, model.state_dict()[name]), name
