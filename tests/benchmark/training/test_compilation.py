"""Training through ``torch.compile``: repeatable, counted, a part of the run's id."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from benchmark.errors import UserError
from benchmark.flops import FlopMeter
from benchmark.images import Normalization
from benchmark.specs import CodeSpec, ComputeSpec, MethodSpec, RecipeSpec, RunSpec, ScenarioSpec
from benchmark.training import precision
from benchmark.training.compilation import compiled
from benchmark.training.trainer import train

NORM = Normalization((0.5,), (0.5,))
PLAIN, COMPILED = ComputeSpec(), ComputeSpec(compile=True)


class Tiny(nn.Module):
    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.dropout = dropout
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(3)
            self.conv = nn.Conv2d(1, 4, 3, padding=1)
            self.norm = nn.BatchNorm2d(4)
            self.head = nn.Linear(4, 3)

    def forward(self, images: Tensor) -> Tensor:
        features = torch.relu(self.norm(self.conv(images))).mean((2, 3))
        return self.head(nn.functional.dropout(features, self.dropout, self.training))


def trained(
    compute: ComputeSpec, n: int = 21, dropout: float = 0.2
) -> tuple[dict[str, Tensor], int]:
    """Train on batches of 8 and a last one of ``n % 8``; return the state and FLOPs."""
    random = torch.Generator().manual_seed(n)
    images = torch.randint(256, (n, 1, 8, 8), generator=random, dtype=torch.uint8)
    labels = torch.randint(3, (n,), generator=random)
    model, meter = Tiny(dropout), FlopMeter()
    with meter.section():
        train(model, images, labels, recipe=RecipeSpec(epochs=3, batch_size=8, lr=0.05),
              normalization=NORM, generator=random, compute=compute)  # fmt: skip
    return model.state_dict(), meter.total


def check_history_independence() -> None:
    first, flops = trained(COMPILED)
    for n in (19, 23, 17):  # other shapes of last batches, one of them a single image
        trained(COMPILED, n)
    again, _ = trained(COMPILED)
    plain, counted = trained(PLAIN)
    assert all(torch.equal(value, again[name]) for name, value in first.items())
    assert torch.equal(first["norm.num_batches_tracked"], plain["norm.num_batches_tracked"])
    # The same training, but for the last bits (a compiler draws dropout in another way).
    for name, value in trained(COMPILED, dropout=0.0)[0].items():
        torch.testing.assert_close(value, trained(PLAIN, dropout=0.0)[0][name], atol=1e-5, rtol=0)
    # Uncompiled, 4 of the 9 steps are counted: 8 images, then 21 in 3, and 5 steps like these 3.
    assert flops / 63 == pytest.approx(counted / (8 + 21 + 5 * 21 / 3))


@pytest.mark.long
def test_bits_do_not_depend_on_earlier_trainings(monkeypatch: pytest.MonkeyPatch) -> None:
    """With dynamo's graphs but without the compiler behind it, which takes its time."""
    used: list[bool] = []

    def eager(*args: Any, **kwargs: Any) -> Any:
        used.append(True)
        return functools.partial(compile_, backend="eager")(*args, **kwargs)

    compile_ = torch.compile
    monkeypatch.setattr(torch, "compile", eager)
    check_history_independence()
    assert len(used) == 6


def test_the_compiler_takes_the_threads_of_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is imported before any run is, and then reads its environment no more."""
    from torch._inductor import config

    monkeypatch.setattr(config, "compile_threads", 32)
    with compiled(Tiny(0.0)):
        assert config.compile_threads == torch.get_num_threads()


@pytest.mark.slow
def test_bits_do_not_depend_on_earlier_compilations() -> None:
    check_history_independence()


def test_it_is_a_part_of_the_id_and_changes_no_older_one() -> None:
    def run(compute: ComputeSpec) -> RunSpec:
        return RunSpec(
            scenario=ScenarioSpec(dataset="digits"),
            method=MethodSpec(name="fedavg"),
            compute=compute,
            code=CodeSpec(plugin="0"),
        )

    assert "compile" not in run(PLAIN).canonical()["compute"]
    assert run(COMPILED).canonical()["compute"]["compile"] is True
    assert run(PLAIN).run_id != run(COMPILED).run_id
    again = RunSpec.parse(run(COMPILED).canonical(), "test")
    assert again == run(COMPILED)
    assert RunSpec.parse(run(PLAIN).canonical(), "test").compute.compile is False


def test_no_compiler_is_one_clear_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(UserError, match=r"--compile: no C\+\+ compiler found"):
        precision.check_compiler("cpu")
    (tmp_path / "mycxx").write_text("#!/bin/sh\n")
    (tmp_path / "mycxx").chmod(0o755)
    monkeypatch.setenv("CXX", "mycxx")
    precision.check_compiler("cpu")


def test_a_pause_counts_nothing_and_ends() -> None:
    meter, layer = FlopMeter(), nn.Linear(5, 3)
    with meter.section(), torch.no_grad():
        layer(torch.ones(8, 5))
        with meter.paused():
            layer(torch.ones(8, 5))
        layer(torch.ones(8, 5))
    assert meter.total == 2 * (2 * 8 * 5 * 3)
