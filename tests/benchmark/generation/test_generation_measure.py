"""The harness's view of generated images: extractors, real features, what a record holds."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_fid import inception as pytorch_fid_inception
from torch import Tensor, nn

from benchmark.contract import Generated
from benchmark.errors import UserError
from benchmark.events import Events
from benchmark.federation import data as data_module
from benchmark.federation.data import ScenarioData, load_scenario_data
from benchmark.generation import (
    Features,
    GenerationMeter,
    InceptionExtractor,
    WeightsMissingError,
    measure,
    scores,
)
from benchmark.generation import extractors as extractors_module
from benchmark.generation import inception as inception_module
from benchmark.generation import real as real_module
from benchmark.generation.inception import WEIGHTS_VARIABLE, find_weights, load_inception
from benchmark.generation.measure import _by_class, _pooled
from benchmark.generation.real import Comparison, RealImages, in_mix
from benchmark.generation.scores import statistics_of
from benchmark.specs import ComputeSpec, ScenarioSpec
from benchmark.store import Cache
from benchmark.testing import Bench

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def data() -> ScenarioData:
    spec = ScenarioSpec.parse(
        {"dataset": "digits", "partition": {"clients": 3, "alpha": 1}}, "test"
    )
    return load_scenario_data(spec, None, None)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Cache:
    return Cache(tmp_path_factory.mktemp("cache"))


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Train the extractor for a moment only, and draw few of the kernel distance's subsets."""
    monkeypatch.setattr(extractors_module, "_MAX_STEPS", 60)
    monkeypatch.setattr(scores, "KID_SUBSETS", 2)


def meter(data: ScenarioData, cache: Cache, *names: str, **more: Any) -> GenerationMeter:
    return GenerationMeter(data, ComputeSpec(), cache, Events(), extractors=names, **more)


@pytest.mark.long
def test_real_images_measure_as_real_and_noise_does_not(data: ScenarioData, cache: Cache) -> None:
    judge = meter(data, cache, "classifier")
    real = data.everybody(CPU).images
    (entry,), warnings = judge(Generated(real))
    assert entry["extractor"] == "classifier"
    assert entry["extractor_accuracy"] > 0.8
    assert entry["pooled"]["fid"] == pytest.approx(0, abs=1e-4)
    assert entry["pooled"]["precision"] == entry["pooled"]["recall"] == 1.0
    assert entry["usefulness"]["coverage"] == 1.0
    assert entry["usefulness"]["accuracy"] > 0.7
    assert entry["real"]["fid"] > 0
    assert not warnings
    noise = torch.randint(0, 256, real.shape, dtype=torch.uint8, generator=torch.Generator())
    (bad,), _ = judge(Generated(noise))
    assert bad["pooled"]["fid_over_real"] > 20
    assert bad["usefulness"]["accuracy"] < entry["usefulness"]["accuracy"]


@pytest.mark.long
def test_one_constant_image_carries_the_signature(data: ScenarioData, cache: Cache) -> None:
    same = data.everybody(CPU).images[:1].expand(80, -1, -1, -1)
    (entry,), warnings = meter(data, cache, "classifier")(Generated(same))
    assert entry["usefulness"]["coverage"] == 0.1
    extractor = extractors_module.trained_extractor(data, ComputeSpec(), cache, Events())
    assert entry["extractor_key"] == extractor.key
    assert any("Inception score (classifier) is 1.00, under " in text for text in warnings)


def test_each_client_is_measured_against_its_own_data(data: ScenarioData, cache: Cache) -> None:
    clients = [data.client(index, CPU).images for index in range(3)]
    owners = torch.repeat_interleave(torch.tensor([len(images) for images in clients]))
    (entry,), _ = meter(data, cache, "classifier")(Generated(torch.cat(clients), owners))
    assert set(entry["clients"]) == {"0", "1", "2"}
    for index, images in enumerate(clients):
        row = entry["clients"][str(index)]
        assert row["images"] == len(images)
        assert row["own"]["fid"] == pytest.approx(0, abs=1e-4)
        assert row["pooled"]["fid"] > row["own"]["fid"]


def test_too_few_images_are_marked_or_left_out(data: ScenarioData, cache: Cache) -> None:
    few = Generated(data.everybody(CPU).images[:20], torch.arange(20) % 2)
    (entry,), _ = meter(data, cache, "classifier")(few)
    assert entry["pooled"]["enough"] is False
    assert entry["pooled"]["images"] == 20
    assert all(row["own"]["fid"] is None for row in entry["clients"].values())
    assert all(row["fid"] is None for row in entry["classes"])


def test_classes_are_those_of_the_named_labeller_whoever_judges(
    data: ScenarioData, cache: Cache
) -> None:
    classifier = extractors_module.trained_extractor(data, ComputeSpec(), cache, Events())

    class Foreign:
        """Another network, whose classes are not the dataset's."""

        name, key, accuracy = "foreign", "0", None

        def __call__(self, images: Tensor) -> Features:
            seen = classifier(images)
            return Features(seen.vectors[:, :16], torch.zeros(len(images), 1008))

    judge = Foreign()
    samples = data.everybody(CPU)
    seen = judge(samples.images)
    train = judge(data.training_set(CPU).images)
    real = RealImages(train, judge(data.test(CPU).images), data)
    entry = measure(judge, seen, None, real, samples.labels)
    assert entry["labeller"] == "classifier"
    assert [row["images"] for row in entry["classes"]] == torch.bincount(samples.labels).tolist()
    assert all(row["fid"] == pytest.approx(0, abs=1e-4) for row in entry["classes"])


@pytest.mark.parametrize("few", ["generated", "train", "test", "none"])
def test_a_distance_of_too_few_images_on_any_side_is_marked(data: ScenarioData, few: str) -> None:
    """The scale's own side, too: a perfect generator would else look twice as good as real."""
    chance = torch.Generator().manual_seed(0)
    features = 16

    def normal(count: int) -> Features:
        vectors = torch.randn(count, features, generator=chance)
        return Features(vectors, torch.randn(count, 10, generator=chance))

    total, tested = len(data.training_set(CPU).images), len(data.dataset.test.labels)
    whole = RealImages(normal(total), normal(tested), data)
    held, others = whole.pool.vectors, whole.test.vectors
    if few == "train":
        held = held[:features]
    if few == "test":
        others = others[:features]
        whole.__dict__["test_labels"] = torch.arange(tested) % 100
    whole.__dict__["everybody"] = Comparison(statistics_of(held), others)
    made = normal(features if few == "generated" else 500)
    assert _pooled(made, whole)["enough"] is (few == "none")
    rows = _by_class(made, whole, torch.zeros(len(made), dtype=torch.int64))
    ratio = rows[0] and rows[0]["fid_over_real"]
    assert (ratio is None) is (few in ("test", "generated"))


def test_true_labels_are_read_without_the_images(
    data: ScenarioData, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = data.everybody(CPU).labels

    def refuse(*_: Any) -> None:
        raise AssertionError("images were gathered")

    monkeypatch.setattr(data_module, "_samples", refuse)
    few = Features(torch.zeros(1, 2), torch.zeros(1, 2))
    assert torch.equal(RealImages(few, few, data).labels, wanted)


@pytest.mark.parametrize("images", [40, 200, 1000])
def test_as_good_as_real_is_one_however_many_images_there_are(
    data: ScenarioData, images: int
) -> None:
    chance = torch.Generator().manual_seed(0)

    def normal(count: int) -> Features:
        vectors = torch.randn(count, 16, generator=chance)
        return Features(vectors, torch.randn(count, 10, generator=chance))

    tested = len(data.dataset.test.labels)
    real = RealImages(normal(len(data.training_set(CPU).images)), normal(tested), data)
    entry = _pooled(normal(images), real)
    assert entry["fid_over_real"] == pytest.approx(1, rel=0.3)
    # Which the distance of all test images does not make it.
    biased = entry["fid"] / real.describe()["fid"]
    assert (biased > 3) is (images == 40)


@pytest.mark.parametrize(("generated", "own", "scale"), [(40, 1, 2), (20, 1, 4), (100, 2, 1)])
def test_no_distance_is_computed_twice(
    monkeypatch: pytest.MonkeyPatch, generated: int, own: int, scale: int
) -> None:
    """Of 80 test images: the generated images', that of as many if they are more, the scale's."""
    made = []

    def counted(*sides: Any) -> float:
        made.append(sides)
        return scores.frechet_distance(*sides)

    monkeypatch.setattr(real_module, "frechet_distance", counted)
    compared = Comparison(statistics_of(torch.randn(99, 4)), torch.randn(80, 4))
    compared.measured(torch.randn(generated, 4))
    assert len(made) == own + scale
    compared.measured(torch.randn(generated, 4))
    assert len(made) == 2 * own + scale, "the scale is kept"


def test_a_client_is_compared_to_test_images_in_its_own_mix_of_classes(data: ScenarioData) -> None:
    counts, labels = torch.tensor([30, 10, 0]), torch.tensor([2, 0, 0, 1, 0, 2, 0, 1, 1])
    assert in_mix(counts, labels).tolist() == [1, 2, 4, 6, 3]
    splits = data.dataset.train, data.dataset.test
    train, test = (torch.zeros(len(split.labels), 2) for split in splits)
    real = RealImages(Features(train, train), Features(test, test), data)
    for index in range(3):
        mine = data.client(index, CPU).labels
        alike = in_mix(torch.bincount(mine, minlength=10), real.test_labels)
        shares = torch.bincount(real.test_labels[alike], minlength=10) / len(alike)
        assert (shares - torch.bincount(mine, minlength=10) / len(mine)).abs().max() < 0.02
        assert len(real.client(index).others) == len(alike)


def test_images_of_half_the_real_modes_are_precise_and_recall_little(data: ScenarioData) -> None:
    random = torch.Generator().manual_seed(0)

    def modes(count: int, places: list[float]) -> Features:
        centres = torch.tensor(places).repeat(count)[:count, None]
        vectors = torch.randn((count, 2), generator=random) + centres
        return Features(vectors, vectors)

    splits = data.dataset.train, data.dataset.test
    train, test = (modes(len(split.labels), [0.0, 50.0]) for split in splits)
    pooled = _pooled(modes(300, [0.0]), RealImages(train, test, data))
    assert pooled["precision"] > 0.8
    assert 0.2 < pooled["recall"] < 0.55


def test_the_extractor_depends_on_the_dataset_alone(
    data: ScenarioData, cache: Cache, tmp_path: Path
) -> None:
    other = ScenarioSpec.parse(
        {"dataset": "digits", "partition": {"clients": 2, "alpha": 9}, "seed": 7, "holdout": 0.2},
        "test",
    )
    elsewhere = load_scenario_data(other, None, None)
    made = [
        extractors_module.trained_extractor(where, ComputeSpec(), kept, Events())
        for where, kept in ((data, cache), (elsewhere, Cache(tmp_path)), (elsewhere, cache))
    ]
    assert made[0].key == made[1].key == made[2].key
    states = [extractor.model.state_dict() for extractor in made]
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


def test_features_do_not_depend_on_the_batch(
    data: ScenarioData, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    extractor = extractors_module.trained_extractor(data, ComputeSpec(), cache, Events())
    images = data.everybody(CPU).images[:64]
    whole = extractor(images)
    monkeypatch.setattr(extractors_module, "BATCH", 7)
    assert torch.allclose(extractor(images).vectors, whole.vectors, atol=1e-5)


def test_nothing_is_measured_without_an_extractor(data: ScenarioData, cache: Cache) -> None:
    assert meter(data, cache)(Generated(data.everybody(CPU).images)) == ([], [])


# --- Inception ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def inception_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights in the published file's format."""
    states: list[Mapping[str, Tensor]] = []

    def keep(self: nn.Module, state: Any, *_: Any, **__: Any) -> None:
        states.append(self.state_dict())

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(pytorch_fid_inception, "load_state_dict_from_url", lambda *_, **__: {})
        patched.setattr(nn.Module, "load_state_dict", keep)
        torch.manual_seed(0)
        pytorch_fid_inception.fid_inception_v3()
    path = tmp_path_factory.mktemp("weights") / "inception.pth"
    torch.save(dict(states[0]), path)
    return path


def test_inception_reads_grey_and_colour_by_one_rule(inception_weights: Path) -> None:
    extractor = load_inception(inception_weights, CPU)
    grey = torch.randint(0, 256, (2, 1, 32, 32), dtype=torch.uint8)
    features = extractor(grey)
    assert features.vectors.shape == (2, 2048)
    assert features.logits.shape == (2, 1008)
    colour = extractor(grey.expand(-1, 3, -1, -1))
    assert torch.equal(features.vectors, colour.vectors)
    # Unit range goes in: pytorch-fid itself scales to [-1, 1].
    with torch.no_grad():
        expected = extractor._body(grey.expand(-1, 3, -1, -1) / 255)[0].flatten(1)
    # Random weights make tiny features: no absolute tolerance.
    torch.testing.assert_close(features.vectors, expected, rtol=1e-4, atol=0)
    assert features.vectors.any()


def test_weights_that_are_not_there_are_said_to_be_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(WEIGHTS_VARIABLE, raising=False)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))

    def offline(*_: Any, **__: Any) -> None:
        raise OSError("no network")

    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    with pytest.raises(WeightsMissingError, match=r"pt_inception.*no network.*--inception-weights"):
        find_weights(None)
    monkeypatch.setenv(WEIGHTS_VARIABLE, str(tmp_path / "elsewhere.pth"))
    with pytest.raises(WeightsMissingError, match=r"there is no file .*elsewhere\.pth"):
        find_weights(None)
    damaged = tmp_path / "damaged.pth"
    damaged.write_bytes(b"not weights")
    with pytest.raises(WeightsMissingError, match=r"damaged\.pth holds no Inception weights"):
        load_inception(damaged, CPU)


def test_no_other_network_takes_the_place_of_one_without_weights(
    data: ScenarioData, cache: Cache, tmp_path: Path
) -> None:
    judge = meter(data, cache, "classifier", "inception", inception_weights=tmp_path / "none.pth")
    with pytest.raises(UserError, match=r"there is no file .*none\.pth.*--extractors classifier"):
        judge(Generated(data.everybody(CPU).images[:100]))


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a device that is not there")
def test_a_device_that_fails_is_not_blamed_on_the_weights(inception_weights: Path) -> None:
    with pytest.raises((RuntimeError, AssertionError), match=r"(?i)cuda|nvidia"):
        load_inception(inception_weights, torch.device("cuda"))


def test_weights_that_are_not_the_published_ones_are_warned_of(
    data: ScenarioData,
    cache: Cache,
    inception_weights: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = hashlib.sha256(inception_weights.read_bytes()).hexdigest()
    judge = meter(data, cache, "inception", inception_weights=inception_weights)
    _, warnings = judge._extractors()
    assert [text.split(": ")[0] for text in warnings] == [
        f"Inception weights inception.pth are not the published ones (sha256 {made[:8]}, not "
        "6726825d)"
    ]
    monkeypatch.setattr(inception_module, "PUBLISHED", made[:8])
    assert judge._extractors()[1] == []


def test_the_weights_tell_inception_extractors_apart(inception_weights: Path) -> None:
    state = torch.load(inception_weights, weights_only=True)
    first = InceptionExtractor(state)
    name = next(iter(state))
    other = InceptionExtractor({**state, name: state[name] + 1})
    assert first.key != other.key


# --- in a run ----------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["dense", "mosaic"])
def test_methods_hand_over_what_they_made(method: str, tmp_path: Path) -> None:
    brief = {"train_samples": 120, "epochs": 1, "generator_steps": 4, "distilled_images": 64}
    bench = Bench(method, brief, folder=tmp_path)
    made = bench.run().output.generated
    assert made is not None
    assert made.images.dtype == torch.uint8
    assert len(made.images) == bench.spec.budget.generated_images
    if method == "mosaic":
        assert made.clients is not None
        assert set(made.clients.tolist()) == {0, 1, 2}
    assert replace(made, images=made.images[:3]).images.shape[0] == 3
