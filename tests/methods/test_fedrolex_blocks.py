from __future__ import annotations

from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from benchmark.contract import Upload
from benchmark.models.build import build
from methods.blocks.submodel_averaging import average_whole, head_names, share
from methods.blocks.submodel_norms import (
    divided_inputs,
    pooled_statistics,
    use_batch_statistics,
)
from methods.blocks.submodels import SubmodelConfig


def stream(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@settings(max_examples=30, deadline=None)
@given(total=st.integers(0, 500), parts=st.integers(1, 40))
def test_shares_add_up_and_are_even(total: int, parts: int) -> None:
    shares = [share(total, parts, index) for index in range(parts)]
    assert sum(shares) == total
    assert max(shares) - min(shares) <= 1


def test_head_rows_are_averaged_over_those_that_hold_the_class() -> None:
    states = [{"body": torch.full((2,), v), "head": torch.full((3, 2), v)} for v in (1.0, 4.0)]
    before = {"body": torch.zeros(2), "head": torch.full((3, 2), 9.0)}
    after = average_whole(states, [1, 3], before, ["head"], [[0], [0, 1]])
    assert after["body"].tolist() == [3.25, 3.25]
    assert after["head"].tolist() == [[3.25, 3.25], [4.0, 4.0], [9.0, 9.0]]
    everyone = average_whole(states, [1, 3], before, ["head"], [None, None])
    assert everyone["head"].tolist() == average_whole(states, [1, 3], before)["head"].tolist()


def test_head_names_are_those_of_the_last_layer() -> None:
    model = build("cnn", num_classes=3, channels=1, width="1/16", generator=stream())
    assert head_names(model) == ("head.weight", "head.bias")


def test_pooled_statistics_are_those_of_all_samples_together() -> None:
    groups = [torch.randn(n, 4, generator=stream(n)) * n + n for n in (3, 8, 21)]
    uploads = [
        Upload(
            {"statistics": {"a.running_mean": g.mean(0), "a.running_var": g.var(0, correction=0)}},
            {"samples": len(g)},
        )
        for g in groups
    ]
    together = torch.cat(groups)
    pooled = pooled_statistics(uploads)
    torch.testing.assert_close(pooled["a.running_mean"], together.mean(0))
    torch.testing.assert_close(pooled["a.running_var"], together.var(0, correction=0))


def test_the_scaler_divides_in_training_only_and_leaves_no_hook() -> None:
    norm = nn.BatchNorm2d(3)
    images = torch.randn(4, 3, 2, 2, generator=stream())

    def statistics(mode: bool) -> torch.Tensor:
        norm.reset_running_stats()
        norm.train(mode)(images)
        assert norm.running_mean is not None
        return norm.running_mean.clone()

    plain = statistics(True)
    with divided_inputs(norm, Fraction(1, 4)):
        torch.testing.assert_close(statistics(True), 4 * plain)
        norm.reset_running_stats()
        inside = norm.eval()(images)
    assert torch.equal(inside, norm(images))
    assert torch.equal(statistics(True), plain)
    with divided_inputs(norm, Fraction(1)):
        assert torch.equal(statistics(True), plain)


def test_batch_statistics_are_those_of_training_and_the_original_is_kept() -> None:
    model = build("cnn", num_classes=3, channels=1, width="1/16", generator=stream()).eval()
    images = torch.randn(6, 1, 16, 16, generator=stream(1))
    alone = model(images)
    changed = use_batch_statistics(model).eval()
    together = changed(images)
    assert torch.equal(model(images), alone)
    torch.testing.assert_close(together, model.train()(images))
    assert not torch.allclose(changed(images[:3]), together[:3], atol=1e-3)


def test_published_batch_norm_is_refused_without_parity() -> None:
    assert SubmodelConfig(batch_norm="published", parity=True).parity
    with pytest.raises(ValueError, match="batch mates"):
        SubmodelConfig(batch_norm="published")
