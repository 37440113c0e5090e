"""What is said of images that bear the signs of a generator that failed."""

from __future__ import annotations

from typing import Any

import pytest

from benchmark.generation.measure import _signatures


def said(name: str, fid: float, score: float, own: float | None) -> list[str]:
    entry: dict[str, Any] = {
        "extractor": name,
        "pooled": {"fid": fid, "inception_score": score},
        "real": {"inception_score": own},
    }
    return _signatures(entry)


@pytest.mark.parametrize(
    ("score", "own", "ends"),
    [
        (1.95, 1.98, []),  # of two classes
        (1.4, 2.0, ["score (classifier) is 1.40, under 1.5"]),
        (1.95, 9.9, ["score (classifier) is 1.95, under 2"]),
        (1.95, None, ["score (classifier) is 1.95, under 2"]),
    ],
)
def test_a_small_inception_score_is_judged_by_what_real_images_have(
    score: float, own: float | None, ends: list[str]
) -> None:
    assert said("classifier", 1.0, score, own) == [
        f"generated images: Inception {end}" for end in ends
    ]


def test_a_large_distance_is_told_with_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    assert said("inception", 1234.4, 9.0, 9.9) == [
        "generated images: FID (inception) is 1234, over 1000"
    ]
    assert said("classifier", 1234.4, 9.0, 9.9) == []
    monkeypatch.setitem(_signatures.__globals__, "LARGE_FID", 500.0)
    assert said("inception", 600.0, 9.0, 9.9) == [
        "generated images: FID (inception) is 600, over 500"
    ]
