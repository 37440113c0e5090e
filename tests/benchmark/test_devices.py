"""Every method on a device that is not the CPU: nothing is left behind on the other one.

There is no GPU where these tests run; :mod:`pretend_cuda` says what is pretended.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from pretend_cuda import MixedDevicesError, StreamOnCuda, on_cuda, pretended_cuda
from torch import Tensor, nn

from benchmark.engine import execute
from benchmark.experiment import plan, resolve
from benchmark.images import Normalization
from benchmark.registry import discover
from benchmark.seeds import Streams
from benchmark.specs import ComputeSpec, RecipeSpec
from benchmark.store import Status, Store
from benchmark.training.trainer import train

REGISTRY = discover()
CUDA = ComputeSpec(device="cuda", precision="fp32")


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    kept = torch.are_deterministic_algorithms_enabled()
    flags = (torch.backends.cudnn.allow_tf32, torch.backends.cudnn.benchmark)
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":0:0")
    with pretended_cuda(monkeypatch):
        yield
    torch.use_deterministic_algorithms(kept)
    torch.backends.cudnn.allow_tf32, torch.backends.cudnn.benchmark = flags


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cuda")


def run(results: Path, **settings: Any) -> Any:
    """Run one method on the pretended device; return its record."""
    experiment = resolve({"profile": "smoke", **settings}, {}, "test")
    (planned,), _ = plan(experiment, REGISTRY, CUDA)
    if planned.skip is not None:
        pytest.skip(planned.skip)
    store = Store(results).experiment("main")
    attempt = store.begin(planned.spec.run_id)
    execute(
        {
            "spec": planned.spec.canonical(),
            "info": planned.info.model_dump(mode="json"),
            "label": planned.label,
            "attempt": str(attempt.path),
            "cache": str(results / "cache"),
            "use_cache": True,
        }
    )
    return store.find(planned.spec.run_id)


@pytest.mark.slow
@pytest.mark.parametrize("widths", ["1/4", "1/2,1/4,1/8"])
@pytest.mark.parametrize("name", sorted(REGISTRY.methods))
def test_a_method_keeps_to_its_device(name: str, widths: str, results: Path, cuda: None) -> None:
    record = run(results, methods=[name], widths=widths)
    assert record.status is Status.DONE
    assert record.environment["device"] == "cuda"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "values", "more"),
    [
        ("mosaic", {"images_pool": "fresh", "experts": "logit", "meta": "synthetic"},
         {"widths": "1/2,1/4"}),
        ("mosaic", {"generator_guide_epochs": 1, "generator_pixel_range": "raw"}, {}),
        ("mosaic", {"meta_expert_embedding": True, "unheld_channels": "global"}, {}),
        ("fedrolex", {"rounds": 2, "offsets": "staggered"}, {"widths": "1/2,1/4"}),
        ("fedrolex", {"rounds": 2, "parity": True, "batch_norm": "published"}, {}),
        ("federated_dropout", {"rounds": 2}, {"widths": "1/2,1/4"}),
        ("fedavg", {"rounds": 2, "label_masked": True, "label_head": True}, {}),
        ("ensemble", {"average": "probabilities", "weights": "samples"}, {"rounds_warmup": 1}),
        ("compose", {"images": "generators", "teacher": "boosted", "student": "co_boosting",
                     "teacher_settings": {"missing_labels": "ensemble"}},
         {"student_batch_norm": "reestimate"}),
        ("compose", {"images": "dense", "teacher": "class_share", "student": "dense"},
         {"student_init": "aggregate"}),
        ("dense", {"batch_norm": 1.0}, {"student_batch_norm": "freeze"}),
    ],
)  # fmt: skip
def test_its_other_ways_keep_to_the_device(
    name: str, values: dict[str, Any], more: dict[str, Any], results: Path, cuda: None
) -> None:
    record = run(results, methods=[name], set={name: values}, **more)
    assert record.status is Status.DONE


def test_fedavg_keeps_to_its_device(tmp_path: Path, cuda: None) -> None:
    record = run(tmp_path, methods=["fedavg"], rounds_warmup=1, warmup_steps=1)
    assert record.status is Status.DONE


@pytest.mark.parametrize(
    "wrong",
    [
        lambda there, here: there + here,
        lambda there, here: here[there.argsort()],
        lambda there, here: torch.stack([there.sum(), here.sum()]),
        lambda there, here: there.numpy(),
        lambda there, here: nn.Linear(4, 2)(there),
        lambda there, here: torch.randn(3, generator=StreamOnCuda()),
        lambda there, here: torch.randn(3, generator=torch.Generator(), device=there.device),
    ],
)
def test_the_pretence_refuses_what_cuda_would(wrong: Any, cuda: None) -> None:
    there, here = torch.ones(4, device="cuda"), torch.ones(4)
    assert there.device.type == "cuda"
    with pytest.raises(MixedDevicesError):
        wrong(there, here)


def test_the_pretence_follows_a_training(cuda: None) -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3)).to("cuda")
    optimizer = torch.optim.Adam(model.parameters())
    inputs: Tensor = torch.ones(5, 4).to("cuda", non_blocking=True)
    loss = model(inputs).square().mean() + torch.tensor(1.0)
    torch.autograd.backward(loss)
    optimizer.step()
    assert all(p.grad is not None and on_cuda(p.grad) for p in model.parameters())
    assert all(on_cuda(value) for value in model.state_dict().values())
    assert model[0].weight.detach().cpu().numpy().shape == (3, 4)
    assert inputs[torch.tensor([0, 1])].device.type == "cuda"


def test_a_run_on_cuda_prepares_its_libraries(monkeypatch: pytest.MonkeyPatch, cuda: None) -> None:
    from benchmark.training.precision import configure_device, moved

    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")
    configure_device("cuda")
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    assert not torch.backends.cudnn.allow_tf32
    assert not torch.backends.cuda.matmul.allow_tf32
    assert torch.is_deterministic_algorithms_warn_only_enabled()
    assert moved(torch.ones(2), "cuda").device.type == "cuda"


def test_dropout_is_seeded_where_the_model_is(monkeypatch: pytest.MonkeyPatch, cuda: None) -> None:
    seeded: list[int] = []
    monkeypatch.setattr(torch.cuda, "manual_seed", seeded.append)
    model = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(16, 2)).to("cuda")
    train(
        model,
        torch.arange(64, dtype=torch.uint8).view(4, 1, 4, 4),
        torch.tensor([0, 1, 0, 1]),
        recipe=RecipeSpec(epochs=1, batch_size=2),
        normalization=Normalization((0.5,), (0.25,)),
        generator=Streams(0).torch("train"),  # the order of samples is that of a CPU's run
        compute=CUDA,
    )
    assert len(seeded) == 1
