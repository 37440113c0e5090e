from __future__ import annotations

from collections.abc import Callable

import pytest

from benchmark.errors import UserError
from methods.mosaic.settings import (
    PRESETS,
    LossWeights,
    preset_choices,
    preset_settings,
)


def test_presets_name_a_source_for_every_value() -> None:
    for preset in PRESETS:
        choices = preset_choices(preset)
        assert {choice.source for choice in choices.values()} <= {"paper", "code", "ours"}
        assert all(choice.reason for choice in choices.values())
        made = preset_settings(preset)
        for key, choice in choices.items():
            section, field = key.split(".")
            assert getattr(getattr(made, section), field) == choice.value


def test_described_has_all_terms_and_code_what_really_runs() -> None:
    described = preset_settings().generator.loss_weights(10)
    assert min(described.entropy, described.diversity, described.inversion) > 0
    assert preset_settings().generator.pixel_range == "unified"
    code = preset_settings("code")
    assert code.generator.loss_weights(10) == LossWeights(0.0, 5.0, 0.0)
    assert code.generator.pixel_range == "raw"
    assert not code.meta.bias_correction


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: preset_settings("decribed"), "did you mean 'described'"),
        (lambda: preset_settings(overrides={"generator.entropi": 1}), "generator.entropy"),
        (lambda: preset_settings(overrides={"generator.inversion": -1}), "generator.inversion"),
    ],
)
def test_wrong_settings_are_named(call: Callable[[], object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        call()


def test_weights_are_options() -> None:
    overrides = {"generator.entropy": 2, "generator.diversity": 10, "generator.inversion": 15}
    weights = preset_settings("code", overrides).generator.loss_weights(1)
    assert (weights.entropy, weights.diversity) == (2, 10)
    assert weights.inversion == pytest.approx(0.015)
