"""The speed script compares like with like: equal losses, and an error where they differ."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from benchmark.speed import dense_epoch, dense_plain
from benchmark.speed.dense_scene import scene
from methods.blocks.distill import DENSE_DISTILLATION
from methods.blocks.generator import UpsampledConv2d

SMALL = ["--batch", "8", "--epoch", "3", "--steps", "3", "--width", "1/8", "--clients", "2"]
SMALL += ["--rounds", "1", "--workers", "0"]


@pytest.mark.long
def test_both_ways_have_equal_losses_and_are_timed(capsys: Any) -> None:
    dense_epoch.main([*SMALL, "--least", "0"])
    out = capsys.readouterr().out
    assert "| plain, 0 workers |" in out
    assert "largest relative difference of a loss" in out
    assert "left to themselves in fp32" in out


def test_in_double_precision_every_step_has_the_same_loss() -> None:
    start = scene(batch=8, epoch=3, steps=4, width="1/8", clients=2).double()
    apart = dense_epoch.drift(dense_epoch.ours(start), dense_plain.plain(start, 0))
    assert len(apart.synthesis) == 4
    assert apart.largest < 1e-9


def test_the_plain_way_upsamples_and_then_convolves() -> None:
    start = scene(batch=4, epoch=2, steps=1, width="1/8", clients=1).double()
    plainly = dense_plain.plain_generator(start.generator)
    layers = list(plainly.modules())
    assert not any(isinstance(layer, UpsampledConv2d) for layer in layers)
    assert sum(isinstance(layer, torch.nn.Upsample) for layer in layers) == 2
    theirs = list(start.generator.parameters())
    for mine, other in zip(plainly.parameters(), theirs, strict=True):
        assert torch.equal(mine, other)
        assert mine is not other
    torch.testing.assert_close(plainly(start.noise), start.generator(start.noise))


def test_a_speed_up_that_is_not_reached_is_an_error(monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.setattr(dense_epoch, "check_losses", lambda start: "equal")
    with pytest.raises(SystemExit) as stop:
        dense_epoch.main([*SMALL, "--least", "1e9"])
    assert stop.value.code == 1
    assert "times faster, not 1e+09" in capsys.readouterr().err


def _no_view(images: torch.Tensor, draws: torch.Generator) -> torch.Tensor:
    return images


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("_view", _no_view),
        ("draw_permutation", lambda count, draws, device: torch.arange(count)),
        (
            "DENSE_DISTILLATION",
            DENSE_DISTILLATION.model_copy(update={"momentum": 0.5}),
        ),
    ],
)
def test_other_mathematics_is_noticed(monkeypatch: Any, capsys: Any, name: str, other: Any) -> None:
    monkeypatch.setattr(dense_plain, name, other)
    with pytest.raises(SystemExit):
        dense_epoch.main([*SMALL, "--least", "0"])
    assert "losses differ" in capsys.readouterr().err


def test_hooks_of_earlier_epochs_pile_up_in_the_plain_way() -> None:
    start = scene(batch=4, epoch=4, steps=1, width="1/8", clients=1)
    assert start.epoch == 4
    assert len(start.images) == 12
    norms = [m for m in start.clients[0].modules() if isinstance(m, torch.nn.BatchNorm2d)]
    for times in (1, 2):
        assert len(dense_plain.add_hooks(start.clients)) == len(norms) == 3
        assert all(len(norm._forward_hooks) == times for norm in norms)
