"""The speed script compares like with like: the same losses, and an error where they differ."""

from __future__ import annotations

import pytest

from benchmark.speed import dense_epoch

SMALL = ["--batch", "8", "--epoch", "3", "--steps", "3", "--width", "1/8", "--clients", "2"]
SMALL += ["--rounds", "1", "--workers", "0"]


def test_both_ways_have_the_same_losses(capsys) -> None:
    dense_epoch.main([*SMALL, "--least", "0"])
    out = capsys.readouterr().out
    assert "| plain, 0 workers |" in out
    assert "largest relative difference of a loss in fp32" in out


def test_a_speed_up_that_is_not_reached_is_an_error(capsys) -> None:
    with pytest.raises(SystemExit) as stop:
        dense_epoch.main([*SMALL, "--least", "1e9"])
    assert stop.value.code == 1
    assert "times faster, not 1e+09" in capsys.readouterr().err


def test_other_mathematics_is_noticed(monkeypatch, capsys) -> None:
    changed = dense_epoch.SYNTHESIS.model_copy(update={"batch_norm": 0.9})
    monkeypatch.setattr(dense_epoch, "SYNTHESIS", changed)
    with pytest.raises(SystemExit):
        dense_epoch.main([*SMALL, "--least", "0"])
    assert "losses differ" in capsys.readouterr().err


def test_hooks_of_earlier_epochs_pile_up_in_the_plain_way() -> None:
    start = dense_epoch.scene(batch=4, epoch=4, steps=1, width="1/8", clients=1)
    assert start.epoch == 4
    assert len(start.images) == 12
    layers = len(dense_epoch._add_hooks(start.clients))
    assert layers == 3
