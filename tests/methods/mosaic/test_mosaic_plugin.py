"""The Mosaic plugin on a small federation: uploads, protocols, and what is not inherited.

Oddities of the published code (k1 to k29) that are in no preset, and where that is tested:

=========== ==========================================================================
k1 to k6    class 0 dropped, inert inversion, modes, logarithm, literals: ``_gan_trainer``,
            ``_generator_losses``, ``_settings``; here a client of one class alone
k7, k8      one batch an epoch, uncorrected average (``code`` alone): ``_meta``
k9          no expert identity; the embedding is an option: ``_meta``
k10 to k12  stale prototypes (``code`` alone), shared iterator, foreign features: here
k13         mixed ranges (``code`` alone): ``_gan_trainer``, ``_config``
k14         class nobody holds: ``_experts``, here
k15, k22    frozen student (``code`` alone), second generator, extra round: here
k16, k17    gradients in generators, unused shares: ``_sampling``
k18         "JSD": ``_distillation``
k19, k20    split files, duplicates: the datasets room's tests
k21, k24    counts, working-folder files: here
k23, k25    dead code: not written
k26, k27    ignored model type, batch norm by name: here, ``_experts``
k28         data quirks: the datasets room's tests
k29         reporting point: here
=========== ==========================================================================
"""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from mosaic_golden import load
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from benchmark.contract import Method
from benchmark.engine import execute
from benchmark.federation.client import LocalClient
from benchmark.federation.federation import Federation
from benchmark.protocol import ProtocolResult
from benchmark.registry import Registry, discover
from benchmark.specs import RecipeSpec
from benchmark.store import Store
from benchmark.testing import Bench
from benchmark.training.trainer import _sgd, cross_entropy
from methods.mosaic import Mosaic, gan_trainer
from methods.mosaic.gan_trainer import GanTrainer
from methods.mosaic.networks import GanShape
from methods.mosaic.server import image_settings, teacher_settings

Make = Callable[..., Bench]
SMALL = {
    "generator_width": 2,
    "generator_discriminator_width": 2,
    "generator_batch_size": 8,
    "meta_steps": 4,
    "meta_feedforward": 16,
    "distillation_images_per_client": 8,
}
SCENARIO = {
    "widths": ["1/8"],
    "train_samples": 90,
    "epochs": 1,
    "generator_steps": 4,
    "generated_images": 48,
    "distilled_images": 96,
}


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Make:
    """Return a maker of benches that share one cache, as the runs of a grid do."""
    folder, registry = tmp_path_factory.mktemp("mosaic"), discover()

    def made(scenario: dict[str, Any] | None = None, **settings: Any) -> Bench:
        return bench(folder, registry, scenario or {}, settings)

    return made


def bench(
    folder: Path, registry: Registry, scenario: dict[str, Any], settings: dict[str, Any]
) -> Bench:
    overrides = {**SCENARIO, **scenario, "set": {"mosaic": {**SMALL, **settings}}}
    return Bench("mosaic", overrides, folder, registry)


def uploads_of(bench: Bench) -> tuple[dict[tuple[int, int], Any], ProtocolResult]:
    """Run, and return what clients sent by (round, client)."""
    seen: dict[tuple[int, int], Any] = {}

    def watch(method: Method[Any], federation: Federation) -> None:
        original = method.client_update

        def client_update(client: Any, broadcast: Any) -> Any:
            seen[client.round, client.info.index] = original(client, broadcast)
            return seen[client.round, client.info.index]

        method.client_update = client_update  # type: ignore[method-assign]

    return seen, bench.run(watch)


def buffers(model: nn.Module) -> list[torch.Tensor]:
    layers = [m for m in model.modules() if isinstance(m, _BatchNorm)]
    return [b for layer in layers for b in layer.buffers() if b.is_floating_point()]


def test_one_exchange_sends_model_generator_prototypes_and_counts(make: Make) -> None:
    small = make()
    uploads, result = uploads_of(small)
    assert set(uploads) == {(0, 0), (0, 1), (0, 2)}
    federation = small.federation()
    for (_, index), upload in uploads.items():
        client = federation.client(index)
        booked = result.traffic.uploads[0, index]
        state = client.local_model().state_dict()
        held = (client.label_counts > 0).sum()
        per_class = torch.tensor(upload.values["prototypes_per_class"])
        assert ((per_class > 0) == (client.label_counts > 0)).all()
        features = upload.parts["prototypes"]["features"]
        assert features.shape == (per_class.sum(), client.local_model().num_features)
        assert int(held) <= len(features) <= 10 * int(held)
        assert booked["model"] == sum(v.nbytes for v in state.values())
        assert booked["prototypes"] == 4 * features.numel()
        assert booked["counts"] == 80
        assert booked["generator"] == sum(v.nbytes for v in upload.parts["generator"].values())
    assert not result.traffic.broadcasts


def test_full_size_generator_is_14_3_megabytes() -> None:
    state = GanShape().build_generator(torch.Generator()).state_dict()
    assert sum(value.nbytes for value in state.values()) == 14_303_008


def test_counts_come_from_all_samples(make: Make) -> None:
    """The published counts leave out a sample that the loader drops (k21)."""
    small = make()
    uploads, _ = uploads_of(small)
    sizes = small.data.partition.sizes
    for (_, index), upload in uploads.items():
        assert int(upload.parts["counts"]["labels"].sum()) == sizes[index]
        assert upload.values["samples"] == sizes[index]


def test_prototypes_see_every_image_once_and_leave_training_alone(make: Make) -> None:
    """The published code takes some batches off the iterator that trains (k11)."""
    small = make(prototypes_clusters=1)
    uploads, _ = uploads_of(small)
    federation = small.federation()
    for (_, index), upload in uploads.items():
        client = federation.client(index)
        model = client.local_model()
        shared = model.state_dict()
        assert all(torch.equal(shared[k], v) for k, v in upload.parts["model"].items())
        with torch.no_grad():
            features = model.features(client.task.normalization.from_uint8(client.images))
        means = [features[client.labels == c].mean(0) for c in torch.unique(client.labels)]
        sent = upload.parts["prototypes"]["features"]
        assert torch.allclose(sent, torch.stack(means), atol=1e-5)


def test_server_side_settings_share_one_generator(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[int] = []
    original = GanTrainer.run

    def run(self: GanTrainer, steps: int) -> Any:
        trained.append(steps)
        return original(self, steps)

    monkeypatch.setattr(gan_trainer.GanTrainer, "run", run)
    alone = {"alpha": [0.4]}
    first = make(alone, meta="none").run()
    assert trained == [4, 4, 4]
    second = make(alone, meta="none", distillation_beta=0.5, images_pool="fresh").run()
    assert trained == [4, 4, 4]
    assert second.cached_client_seconds > 0
    assert sum(second.client_seconds.values()) == pytest.approx(
        sum(first.client_seconds.values()), rel=0.5
    )
    assert first.client_reports == second.client_reports
    assert sorted(step for _, step in first.client_reports[0]) == [1, 2, 3, 4]
    make(alone, meta="none", generator_entropy=0.0).run()
    assert len(trained) == 6


def test_a_generator_is_another_one_after_other_local_training(make: Make) -> None:
    states = []
    for epochs in (1, 2):
        uploads, _ = uploads_of(make({"epochs": epochs}, meta="none"))
        states.append(uploads[0, 0].parts["generator"])
    assert any(not torch.equal(states[0][name], states[1][name]) for name in states[0])


@pytest.mark.parametrize("kept", ["last", "all"])
def test_published_rounds_are_a_code_path(make: Make, kept: str) -> None:
    """P0: prototypes of many rounds (k10), one generator (k22), the last model counts (k29)."""
    calls: list[int] = []
    trained: list[tuple[int, int | None]] = []
    small = make(
        preset="code",
        prototypes_rounds=3,
        prototypes_kept=kept,
        prototypes_clusters=1,
        finetune_rounds=2,
        round_steps=1,
    )
    with pytest.MonkeyPatch.context() as patch:
        run, train = GanTrainer.run, LocalClient.train

        def counted_run(self: GanTrainer, steps: int) -> Any:
            calls.append(steps)
            return run(self, steps)

        def counted_train(self: LocalClient, model: Any, **given: Any) -> None:
            trained.append((self.round, given.get("steps")))
            train(self, model, **given)

        patch.setattr(GanTrainer, "run", counted_run)
        patch.setattr(LocalClient, "train", counted_train)
        uploads, result = uploads_of(small)
    # One run of three clients' generators at most (a cached one is not trained again), and
    # five rounds of one step: no round more, and no second generator.
    assert len(calls) in {0, 3}
    assert trained == [(r, 1) for r in range(5) for _ in range(3)]
    assert small.method().rounds == 5
    assert [("generator" in uploads[r, 0].parts) for r in range(5)] == [True] + 4 * [False]
    assert [("prototypes" in uploads[r, 0].parts) for r in range(5)] == 3 * [True] + 2 * [False]
    sent = [sum(uploads[r, k].values["prototypes_per_class"]) for r in range(3) for k in range(3)]
    joined = sum(len(found) for found in result.server.state["prototypes"])
    assert joined == (sum(sent) if kept == "all" else sum(sent[6:]))
    distilled = result.server.state["exchange"].model
    assert result.output.model is not distilled
    assert result.output.model is result.server.global_model
    assert result.output.details["protocol"].startswith("P0")
    assert result.traffic.broadcasts.keys() == {(r, k) for r in range(1, 5) for k in range(3)}


def test_only_images_to_learn_from_are_counted(make: Make) -> None:
    counters = make(meta="none", images_pool="fresh").run().output.details["counters"]
    assert counters["generated_images"] == counters["distilled_images"] == 96


def test_described_preset_takes_the_last_prototypes_alone(make: Make) -> None:
    result = make(prototypes_rounds=2, round_steps=1, prototypes_clusters=1).run()
    assert len(result.server.state["prototypes"]) == 3


def test_native_student_is_frozen_and_the_scenarios_is_not(make: Make) -> None:
    """The published student keeps the aggregate's batch-norm statistics (k15)."""
    uploads, native = uploads_of(make(student="native", meta="none"))
    sizes = torch.tensor([uploads[0, k].values["samples"] for k in range(3)]).double()
    name = next(k for k in uploads[0, 0].parts["model"] if k.endswith("running_var"))
    wanted = sum(n * uploads[0, k].parts["model"][name] for k, n in enumerate(sizes)) / sizes.sum()
    kept = native.output.model.state_dict()[name]
    assert torch.allclose(kept, wanted.float(), atol=1e-5)
    updated = make({"student_init": "aggregate"}, meta="none").run()
    assert not torch.allclose(buffers(updated.output.model)[1], buffers(native.output.model)[1])
    again = make(
        {"student_init": "aggregate", "student_batch_norm": "reestimate"}, meta="none"
    ).run()
    assert not torch.allclose(buffers(again.output.model)[1], buffers(updated.output.model)[1])


@pytest.mark.parametrize(
    ("settings", "scenario", "words"),
    [
        ({}, {}, "own model"),
        ({}, {"rounds_warmup": [1], "warmup_steps": 1}, "starting model"),
        ({"meta": "synthetic"}, {}, "generated images"),
        ({"meta": "none"}, {}, "no meta model"),
    ],
)
def test_every_row_says_its_meta_setting(
    make: Make, settings: dict[str, Any], scenario: dict[str, Any], words: str
) -> None:
    details = make(scenario, **settings).run().output.details
    meta = settings.get("meta", "prototypes")
    assert details["label"] == f"mosaic (meta={meta})"
    assert words in details["meta_space"]
    assert details["protocol"][:2] == ("P1" if scenario else "P2")
    assert bool(details["meta_losses"]) == (meta != "none")
    assert len(details["expert_weights"]) == 10
    assert len(details["generators"]) == 3


def test_warm_prototypes_live_in_one_space(make: Make) -> None:
    warm = make({"rounds_warmup": [1], "warmup_steps": 1}, prototypes_clusters=1)
    uploads, _ = uploads_of(warm)
    client = warm.federation().client(0)
    with torch.no_grad():
        images = client.task.normalization.from_uint8(client.images)
        features = client.initial_model().eval().features(images)
    means = [features[client.labels == c].mean(0) for c in torch.unique(client.labels)]
    assert torch.allclose(
        uploads[0, 0].parts["prototypes"]["features"], torch.stack(means), atol=1e-5
    )


UNEQUAL = {"widths": ["1/2,1/4,1/8"], "alpha": [0.5]}


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"unheld_channels": "global", "meta": "none"},
        {"experts": "logit", "meta": "synthetic"},
        {"generator_follows_width": True, "generator_width": 8, "meta": "none"},
    ],
)
def test_unequal_widths(make: Make, settings: dict[str, Any]) -> None:
    small = make(UNEQUAL, **settings)
    assert small.skip is None
    result = small.run()
    assert len(result.output.details["windows"]) == 3
    assert result.output.teacher is not None
    sizes = result.output.details["bytes"]["generator"]
    assert (len(set(sizes)) > 1) == bool(settings.get("generator_follows_width"))
    small.evaluate(result)


def test_logit_experts_of_unequal_widths_refuse_prototypes(make: Make) -> None:
    assert "meta=synthetic" in str(make(UNEQUAL, experts="logit").skip)
    assert make({}, experts="logit").skip is None


def test_without_batch_norm_the_inversion_term_is_said_to_be_zero(make: Make) -> None:
    result = make({"norm": "group"}, meta="none").run()
    assert any("no batch norm" in warning for warning in result.output.warnings)
    off = make({"norm": "group"}, meta="none", generator_inversion=0.0).run()
    assert not any("no batch norm" in warning for warning in off.output.warnings)


def test_single_samples_and_classes_nobody_holds(make: Make) -> None:
    """A client of one class, even of class 0, trains its generator like any other (k1, k14)."""
    scenario = {"alpha": [0.01], "clients": [6], "train_samples": 20, "min_samples": 1}
    small = make(scenario)
    assert min(small.data.partition.sizes) < 3
    result = small.run()
    small.evaluate(result)


@pytest.mark.parametrize("family", ["lenet", "cnn_mnist"])
def test_any_family_of_models_takes_part(make: Make, family: str) -> None:
    """The published option is ignored (k26)."""
    small = make({"models": [family], "widths": ["1/4"]})
    result = small.run()
    assert type(result.output.model) is type(small.federation().client(0).initial_model())
    small.evaluate(result)


def test_nothing_is_written_to_the_working_folder(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The published code writes models, splits and logs where it is started (k24)."""
    monkeypatch.chdir(tmp_path)
    make({"clients": [2]}, meta="none").run()
    assert not list(tmp_path.iterdir())


def test_grids_are_stored_images_of_every_client(make: Make) -> None:
    images = make().run().output.images
    assert sorted(images) == [f"client {k} generated" for k in range(3)]
    assert all(v.dtype == torch.uint8 and v.shape[1:] == (1, 32, 32) for v in images.values())


def test_the_record_keeps_grids_losses_and_warnings(make: Make, tmp_path: Path) -> None:
    small = make({"norm": "none", "history_points": 2}, meta="none")
    store = Store(tmp_path).experiment("t")
    attempt = store.begin(small.spec.run_id)
    execute(
        {
            "spec": small.spec.canonical(),
            "info": small.info.model_dump(mode="json"),
            "label": "mosaic",
            "attempt": str(attempt.path),
            "cache": str(small.folder),
            "use_cache": True,
        }
    )
    record = store.find(small.spec.run_id)
    assert record is not None
    assert any("no batch norm" in warning for warning in record.warnings)
    names = {path.name for path in attempt.final_path.iterdir()}
    assert {f"grid-client-{k}-generated.png" for k in range(3)} <= names
    rows = list(csv.DictReader((attempt.final_path / "history.csv").open()))
    assert {row["client"] for row in rows} == {"", "0", "1", "2"}
    of_clients = [row for row in rows if row["client"]]
    assert all(float(row["generator"]) and float(row["classes"]) >= 1 for row in of_clients)
    looked_at = [row for row in rows if row["accuracy"]]
    assert len(looked_at) == 2
    assert record.metrics["teacher"] is not None
    teacher = record.metrics["teacher"]["accuracy"]
    assert {float(row["teacher_accuracy"]) for row in looked_at} == {teacher}


def test_parts_put_together_give_the_same_bits(make: Make) -> None:
    method = make()
    plugin = method.method()
    assert isinstance(plugin, Mosaic)
    settings = plugin.settings
    parts = {
        "images": "generators",
        "teacher": "experts_meta",
        "student": "mosaic",
        "images_settings": image_settings(settings).model_dump(mode="json"),
        "teacher_settings": teacher_settings(settings).model_dump(mode="json"),
        "student_settings": settings.distillation.model_dump(mode="json"),
    }
    composed = Bench(
        "compose", {**SCENARIO, "set": {"compose": parts}}, method.folder, method.registry
    )
    first, second = method.run().output.model, composed.run().output.model
    wanted = second.state_dict()
    assert all(torch.equal(value, wanted[name]) for name, value in first.state_dict().items())


def test_golden_local_training() -> None:
    """Three plain SGD steps with weight decay, by the suite's own optimiser settings."""
    golden = load("prototypes.npz")
    model = nn.Linear(8, 4)
    model.load_state_dict(
        {"weight": golden["linear_weight_before"], "bias": golden["linear_bias_before"]}
    )
    lr, decay = float(golden["lr"]), float(golden["weight_decay"])
    optimizer = _sgd(model, RecipeSpec(momentum=0.0, weight_decay=decay), lr)
    losses = []
    for features, labels in zip(golden["train_features"], golden["train_labels"], strict=True):
        loss = cross_entropy(model(features), labels)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        losses.append(loss.item())
    assert torch.allclose(model.weight, golden["linear_weight_after"], atol=1e-6)
    assert torch.allclose(model.bias, golden["linear_bias_after"], atol=1e-6)
    assert sum(losses) / 3 == pytest.approx(float(golden["mean_loss"]), rel=1e-5)
