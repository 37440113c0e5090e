"""Runs in bfloat16, as the records of the headline are: what is reduced, and what stays exact."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from torch import Tensor, nn

from benchmark.protocol import ProtocolResult
from benchmark.registry import Registry, discover
from benchmark.specs import BudgetSpec
from benchmark.testing import Bench
from methods.blocks.ensemble import ClientEnsemble
from methods.mosaic.experts import MosaicTeacher

SCENARIO: dict[str, Any] = {
    "widths": ["1/8"],
    "train_samples": 90,
    "epochs": 1,
    "generator_steps": 4,
    "generated_images": 64,
    "distilled_images": 64,
    "history_points": 0,
}
SMALL: dict[str, dict[str, Any]] = {
    "dense": {"generator_width": 2, "synthesis_batch": 64, "noise_size": 16},
    "mosaic": {
        "generator_width": 2,
        "generator_discriminator_width": 2,
        "generator_batch_size": 8,
        "meta": "none",
        "distillation_images_per_client": 8,
    },
}


@pytest.fixture(scope="module")
def registry() -> Registry:
    return discover()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("half")


@pytest.fixture(scope="module")
def make(registry: Registry, folder: Path) -> Any:
    """Return a maker of benches of either precision that share one cache."""

    def made(name: str, precision: Literal["fp32", "bf16"] = "bf16") -> Bench:
        return Bench(name, {**SCENARIO, "set": SMALL}, folder, registry, precision)

    return made


@pytest.fixture(scope="module")
def dense(make: Any) -> ProtocolResult:
    result: ProtocolResult = make("dense").run()
    return result


def draw() -> Tensor:
    return torch.rand((4, 1, 32, 32), generator=torch.Generator().manual_seed(0))


def test_the_precisions_share_no_client_model(make: Any, dense: ProtocolResult) -> None:
    for index, ids in dense.cache_ids.items():
        client = make("dense", "fp32").federation().client(index)
        client.local_model()
        assert len(ids) == 1
        assert not set(ids) & set(client.ledger.cost.cache_ids)


def test_client_and_server_compute_in_the_runs_precision(make: Any) -> None:
    square = torch.ones(2, 2)
    for precision, expected in (("bf16", torch.bfloat16), ("fp32", torch.float32)):
        federation = make("dense", precision).federation()
        for side in (federation.client(0), federation.server("dense", 1, BudgetSpec())):
            with side.autocast():
                assert (square @ square).dtype == expected, type(side).__name__


@pytest.mark.parametrize(
    ("precision", "expected"), [("bf16", torch.bfloat16), ("fp32", torch.float32)]
)
def test_local_training_computes_in_the_runs_precision(
    make: Any, precision: str, expected: torch.dtype
) -> None:
    seen: set[torch.dtype] = set()
    client = make("dense", precision).federation().client(0)
    model = client.initial_model()

    def look(module: nn.Module, inputs: Any, output: Tensor) -> None:
        seen.add(output.dtype)

    model.head.register_forward_hook(look)
    client.train(model, steps=1)
    assert seen == {expected}
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_the_ensemble_of_record_is_exact(dense: ProtocolResult) -> None:
    """It taught in bfloat16, and is evaluated as every model is."""
    teacher, images = dense.output.teacher, draw()
    assert isinstance(teacher, nn.Module)
    ensemble = teacher.ensemble
    assert isinstance(ensemble, ClientEnsemble)
    with torch.no_grad():
        answers = [client(images) for client in ensemble.clients]
        assert torch.equal(teacher(images), torch.stack(answers).mean(0))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            reduced = ensemble.clients[0](images).float()
    assert not torch.equal(reduced, answers[0]), "or the test could not fail"


def test_mosaics_teacher_of_record_is_exact(make: Any) -> None:
    teacher, images = make("mosaic").run().output.teacher, draw()
    assert isinstance(teacher, MosaicTeacher)
    with torch.no_grad():
        exact = teacher.experts.logits(images.contiguous(memory_format=torch.channels_last))
        assert torch.equal(teacher(images), exact.mean(1))
