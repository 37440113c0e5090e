from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from benchmark.errors import UserError
from benchmark.experiment import plan, resolve
from benchmark.models.build import build
from benchmark.registry import Registry, discover, load
from benchmark.specs import ComputeSpec
from benchmark.testing import Bench
from methods.blocks.composition import (
    IMAGES,
    PRESETS,
    STUDENTS,
    TEACHERS,
    Part,
    register,
    resolve_settings,
)
from methods.compose import ComposeConfig
from methods.mosaic.experts import LogitExperts, MosaicTeacher, ParameterExperts
from methods.mosaic.mixing import ExpertMixer, expert_weights

SMALL = {"generator_width": 2, "synthesis_batch": 64, "noise_size": 16}
NARROW = ["1/8"]
BUDGET = {"generator_steps": 8, "generated_images": 128, "distilled_images": 256}
BRIEF = {"generator_steps": 1, "generated_images": 64, "distilled_images": 64}


@pytest.fixture(scope="module")
def registry() -> Registry:
    return discover()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("compose")


@pytest.fixture
def run(registry: Registry, folder: Path):
    def run(name: str, values: dict[str, Any], **overrides: Any):
        settings = {"set": {name: values}, "widths": NARROW, **BUDGET, **overrides}
        return Bench(name, settings, folder=folder, registry=registry).run()

    return run


def _parts(preset: str) -> dict[str, Any]:
    images, teacher, student = PRESETS[preset]
    return {"images": images, "teacher": teacher, "student": student, "images_settings": SMALL}


def _planned(registry: Registry, **flags: Any) -> Any:
    runs, _ = plan(resolve(flags, {}, "test"), registry, ComputeSpec())
    method = load(runs[0].info)
    return method.Config.model_validate(runs[0].spec.method.config), runs[0]


@pytest.mark.parametrize("profile", ["smoke", "quick", "cpu", "paper"])
@pytest.mark.parametrize("preset", ["dense", "dense_cb", "co_boosting"])
def test_a_profile_narrows_parts_as_it_narrows_methods(
    registry: Registry, profile: str, preset: str
) -> None:
    named, _ = _planned(registry, profile=profile, methods=[preset])
    images, teacher, student = PRESETS[preset]
    own = {"images": images, "teacher": teacher, "student": student}
    composed, _ = _planned(registry, profile=profile, methods=["compose"], set={"compose": own})
    assert composed.composition() == named.composition(preset)
    assert composed.defaults == {}


@pytest.mark.parametrize("profile", ["smoke", "quick", "cpu", "paper"])
def test_a_profile_narrows_mosaics_parts_as_it_narrows_mosaic(
    registry: Registry, profile: str
) -> None:
    named, _ = _planned(registry, profile=profile, methods=["mosaic"])
    images, teacher, student = PRESETS["mosaic"]
    own = {"images": images, "teacher": teacher, "student": student}
    composed, _ = _planned(registry, profile=profile, methods=["compose"], set={"compose": own})
    made, settings = composed.composition(), named.settings()
    generator = settings.generator.model_dump()
    assert {key: getattr(made.images_settings, key) for key in generator} == generator
    assert made.teacher_settings.meta_model == settings.meta


def test_what_is_said_of_a_part_counts_more_than_a_profile(registry: Registry) -> None:
    own = {"teacher": "experts_meta", "teacher_settings": {"meta_model": {"steps": 7}}}
    own |= {"images": "dense", "images_settings": {"generator_width": 5}}
    composed, _ = _planned(registry, profile="cpu", methods=["compose"], set={"compose": own})
    meta = composed.teacher_settings["meta_model"]
    assert (meta["steps"], meta["feedforward"]) == (7, 256)
    found = composed.images_settings
    assert (found["generator_width"], found["synthesis_batch"]) == (5, 128)


def test_parts_that_cant_do_a_scenario_are_skipped_with_their_reason(registry: Registry) -> None:
    own = {"teacher": "experts_meta", "teacher_settings": {"experts": "logit"}}
    flags: dict[str, Any] = {"methods": ["compose"], "set": {"compose": own}}
    _, equal = _planned(registry, **flags)
    assert equal.skip is None
    _, unequal = _planned(registry, widths=["1,1/2"], **flags)
    assert "can't read each other's prototypes" in str(unequal.skip)


@pytest.mark.parametrize("preset", ["dense", "dense_cb", "co_boosting"])
def test_a_published_preset_through_compose_gives_the_same_bits(run, preset) -> None:
    named = run(preset, {**SMALL, "batch_size": 64})
    # A method has one batch size; its parts have one each.
    batch = {"batch_size": 64}
    teacher = {"teacher_settings": batch} if PRESETS[preset][1] == "boosted" else {}
    composed = run("compose", {**_parts(preset), "student_settings": batch, **teacher})
    for name, value in named.output.model.state_dict().items():
        assert torch.equal(value, composed.output.model.state_dict()[name]), name
    for name, value in named.output.teacher.state_dict().items():
        assert torch.equal(value, composed.output.teacher.state_dict()[name]), name
    assert named.output.details == composed.output.details
    assert named.traffic == composed.traffic
    assert torch.equal(named.output.images["generated"], composed.output.images["generated"])


def test_another_part_draws_from_another_stream(run) -> None:
    # Otherwise the test above would not show whose streams are used.
    named = run("dense", SMALL)
    other = run("compose", {**_parts("dense"), "teacher": "class_share"})
    assert not torch.equal(named.output.images["generated"], other.output.images["generated"])


@pytest.mark.parametrize("student", ["dense", "co_boosting"])
@pytest.mark.parametrize("teacher", ["mean", "class_share", "boosted"])
def test_real_images_go_with_any_teacher_and_are_marked(run, teacher, student) -> None:
    details = run("compose", {"teacher": teacher, "student": student}).output.details
    assert details["oracle"] is True
    assert "all data" in details["uses"]
    assert ("label counts" in details["uses"]) == (teacher == "class_share")
    assert details["counters"]["generated_images"] == 0
    assert details["counters"]["distilled_images"] == BUDGET["distilled_images"]
    assert details["counters"]["generator_steps"] == 0


def test_parts_that_are_no_oracle_are_given_none(run, monkeypatch) -> None:
    seen = []
    original = IMAGES["dense"].make
    part = Part(
        "dense", "", IMAGES["dense"].settings, lambda m, s: (seen.append(m), original(m, s))[1]
    )
    monkeypatch.setitem(IMAGES, "dense", part)
    run("compose", _parts("dense"))
    assert seen[0].oracle is None


def test_real_images_without_an_oracle_are_refused(run, monkeypatch) -> None:
    monkeypatch.setattr("methods.compose.Composition.oracle", property(lambda self: False))
    with pytest.raises(UserError, match="images 'real' are an oracle"):
        run("compose", {})


def test_label_counts_are_uploaded_only_for_who_uses_them(run) -> None:
    plain = run("compose", {}).traffic.uploads[0, 0]
    shares = run("compose", {"teacher": "class_share"}).traffic.uploads[0, 0]
    assert "counts" not in plain
    assert shares["counts"] == 10 * 8


def test_the_record_holds_all_settings() -> None:
    config = ComposeConfig(images="dense", images_settings={"adversarial": 2.0})
    assert config.images_settings["adversarial"] == 2.0
    assert config.images_settings["onehot"] == 1.0
    assert config.student_settings["temperature"] == 20.0
    same = ComposeConfig(images="dense", images_settings={"adversarial": 2, "onehot": 1.0})
    assert same.composition() == config.composition()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"images": "dens"}, "unknown images 'dens'; did you mean 'dense'"),
        ({"teacher": "boost"}, "unknown teacher 'boost'; did you mean 'boosted'"),
        ({"student": "densecb"}, "unknown student 'densecb'; did you mean 'dense_cb'"),
        ({"images": "dense", "images_settings": {"adversaril": 1}}, "did you mean 'adversarial'"),
        ({"student_settings": {"temperature": -1}}, "student 'dense': temperature"),
        ({"teacher_settings": 3}, "teacher_settings"),
        ({"defaults": 3}, r"defaults\s+Input should be a valid dictionary"),
        ({"defaults": {"images": 3}}, r"defaults.images\s+Input should be a valid dictionary"),
        (
            {"defaults": {"images": {"dense": 3}}},
            r"defaults.images.dense\s+Input should be a valid",
        ),
        ({"defaults": {"imagse": {}}}, "unknown kind of parts 'imagse'; did you mean 'images'"),
        ({"defaults": {"images": {"dens": {}}}}, "unknown images 'dens'; did you mean 'dense'"),
    ],
)
def test_wrong_names_and_values_are_refused(values, message) -> None:
    with pytest.raises(ValueError, match="(?s)" + message):
        ComposeConfig.model_validate(values)


def test_two_parts_of_one_name_are_refused() -> None:
    part = Part("mean", "", TEACHERS["mean"].settings, TEACHERS["mean"].make)
    with pytest.raises(ValueError, match="two parts of the name 'mean'"):
        register(TEACHERS, part)
    register(TEACHERS, TEACHERS["mean"])


def test_all_parts_have_defaults_that_validate() -> None:
    for kind, registry in (("images", IMAGES), ("teacher", TEACHERS), ("student", STUDENTS)):
        for name, part in registry.items():
            assert resolve_settings(kind, registry, name, {}) == part.settings
            assert part.summary


def test_unequal_widths_and_an_aggregate_start(run) -> None:
    values = {**_parts("co_boosting"), "teacher": "class_share"}
    unequal = {"widths": ["1/2,1/4,1/8"], "epochs": 1, **BRIEF}
    result = run("compose", values, student_init="aggregate", **unequal)
    assert result.output.details["student_start"] == "aggregate"
    assert result.output.model.conv1.weight.shape[0] == 16


MOSAIC = {"width": 4, "discriminator_width": 4}


def test_mosaic_parts_go_with_the_others(run) -> None:
    # Experts let gradients through, so that a server's generator can learn from them.
    adversarial = run(
        "compose",
        {"images": "co_boosting", "images_settings": SMALL, "teacher": "experts"},
    ).output.details
    assert adversarial["counters"]["generator_steps"] == BUDGET["generator_steps"]
    assert "label counts" in adversarial["uses"]
    fresh = {"images": "generators", "images_settings": MOSAIC, "teacher": "boosted"}
    boosted = run("compose", fresh).output.details
    # A teacher that improves between epochs gets some, even on a pool that is drawn once.
    assert boosted["epochs"] == 10
    assert boosted["counters"]["weighed_images"] > 0
    assert boosted["counters"]["distilled_images"] == BUDGET["distilled_images"]


def test_a_learning_rate_is_annealed_whatever_the_images(run) -> None:
    """Or a student would change its schedule with the source of its images."""
    parts = {"teacher": "mean", "student": "dense_cb"}
    own = run("compose", {"images": "generators", "images_settings": MOSAIC, **parts})
    assert own.output.details["epochs"] == 10
    plain = {"images": "generators", "images_settings": MOSAIC, "teacher": "mean"}
    assert run("compose", plain).output.details["epochs"] == 1


@pytest.mark.parametrize("kind", ["parameter", "swapped", "logit"])
def test_experts_let_gradients_through_to_images_alone(kind) -> None:
    generator = torch.Generator().manual_seed(0)
    models = [_classifier(generator) for _ in range(2)]
    weights = expert_weights(torch.tensor([[3, 1, 0], [1, 1, 2]]))
    if kind == "logit":
        experts: Any = LogitExperts(models, weights)
    else:
        mixer = ExpertMixer([model.state_dict() for model in models], weights)
        experts = ParameterExperts(models[0], mixer, 1 if kind == "swapped" else None)
    teacher = MosaicTeacher(experts)
    images = torch.rand((2, 1, 32, 32), generator=generator)
    plain = teacher(images)
    assert not plain.requires_grad
    images.requires_grad_(True)
    logits = teacher(images)
    torch.testing.assert_close(logits, plain)
    (slope,) = torch.autograd.grad(logits.square().sum(), images)
    assert float(slope.abs().sum()) > 0


def _classifier(generator: torch.Generator):
    model = build("cnn", num_classes=3, channels=1, width="1/16", generator=generator)
    return model.eval().requires_grad_(False)


def test_a_teacher_without_gradients_is_refused_by_a_generator(run, monkeypatch) -> None:
    original = TEACHERS["mean"].make

    def made(materials, settings):
        teacher = original(materials, settings)
        monkeypatch.setattr(teacher, "forward", torch.no_grad()(teacher.forward))
        return teacher

    part = Part("mean", "", TEACHERS["mean"].settings, made)
    monkeypatch.setitem(TEACHERS, "mean", part)
    with pytest.raises(UserError, match="no gradient flows through it"):
        run("compose", _parts("dense"))
