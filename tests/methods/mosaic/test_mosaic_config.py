from __future__ import annotations

import json
from fractions import Fraction
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from benchmark.images import Normalization
from benchmark.specs import BudgetSpec
from methods.mosaic.config import MosaicConfig, parameter_name
from methods.mosaic.images import StoredImages
from methods.mosaic.networks import GanShape
from methods.mosaic.sampling import GeneratorMixture
from methods.mosaic.server import budget_of, image_settings, teacher_settings
from methods.mosaic.settings import PRESETS, GeneratorSettings, MosaicSettings, preset_settings


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_flat_parameters_are_the_settings(preset: str) -> None:
    config = MosaicConfig.model_validate({"preset": preset})
    assert config.settings() == preset_settings(preset)
    for section, info in MosaicSettings.model_fields.items():
        for field in getattr(info.annotation, "model_fields", {}):
            assert parameter_name(section, field) in MosaicConfig.model_fields


def test_what_is_given_wins_over_the_preset_and_survives_a_record() -> None:
    config = MosaicConfig.model_validate({"preset": "code", "generator_entropy": 2})
    assert config.settings().generator.entropy == 2
    assert config.settings().generator.pixel_range == "raw"
    again = MosaicConfig.model_validate(json.loads(config.model_dump_json()))
    assert again == config


def test_every_parameter_has_a_meaning_and_a_source() -> None:
    for name, info in MosaicConfig.model_fields.items():
        extra = info.json_schema_extra
        assert info.description, name
        assert isinstance(extra, dict)
        assert extra["source"] in {"paper", "code", "ours"}, name


@pytest.mark.parametrize(
    "wrong",
    [
        {"preset": "paper"},
        {"generator_widht": 3},
        {"generator_width": 0},
        {"meta": "images"},
        {"experts": "weights"},
        {"distillation_alpha": 1.5},
        {"prototypes_rounds": 0},
    ],
)
def test_wrong_parameters_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        MosaicConfig.model_validate(wrong)


def test_a_generator_as_narrow_as_its_client() -> None:
    settings = GeneratorSettings(follows_width=True, width=64, discriminator_width=32)
    narrow = settings.of_width(Fraction(1, 16))
    assert (narrow.width, narrow.discriminator_width) == (4, 2)
    assert settings.of_width(Fraction(1)).width == 64
    assert GeneratorSettings().of_width(Fraction(1, 16)).width == 64
    # Quartering the width takes nearly all of the 14.3 MB away from the weakest client.
    state = GanShape(width=4).build_generator(torch.Generator()).state_dict()
    assert sum(value.nbytes for value in state.values()) < 300_000


def test_budget_is_the_profiles_or_the_published_one() -> None:
    granted = BudgetSpec(generator_steps=5, generated_images=6, distilled_images=7)
    mine = budget_of(preset_settings(), granted, 10)
    assert (mine.generated_images, mine.distilled_images) == (6, 7)
    published = budget_of(
        preset_settings(overrides={"protocol.schedule": "published"}), granted, 10
    )
    assert published.distilled_images == published.generated_images == 1500 * 320


def test_parts_take_over_the_settings() -> None:
    settings = preset_settings("code", {"teacher.meta": "none", "images.shares": "size"})
    images, teacher = image_settings(settings), teacher_settings(settings)
    assert (images.pool, images.shares, images.pixel_range) == ("fresh", "size", "raw")
    assert (teacher.meta, teacher.pixel_range) == ("none", "raw")
    assert teacher.meta_model == settings.meta


@pytest.mark.parametrize("pixel_range", ["unified", "raw"])
def test_stored_images_are_read_in_the_range_that_fresh_ones_have(pixel_range: Any) -> None:
    random = torch.Generator().manual_seed(0)
    shape = GanShape(1, noise=4, width=2, discriminator_width=2)
    generator = shape.build_generator(random).eval()
    grey = Normalization((0.3,), (0.2,))
    mixture = GeneratorMixture([generator], [5], grey, pixel_range=pixel_range)
    fresh, _ = mixture.draw(16, torch.Generator().manual_seed(1))
    stored = StoredImages(mixture, 16, torch.Generator().manual_seed(1))._draw()
    assert stored.older() is not None
    read = torch.cat(
        [b.images for b in stored.batches(16, generator=torch.Generator().manual_seed(2))]
    )
    order = torch.randperm(16, generator=torch.Generator().manual_seed(2))
    step = (2 if pixel_range == "raw" else 1 / 0.2) / 255
    assert (read - fresh[order]).abs().max() <= step * 1.01
