"""What the server makes of uploads, by hand: experts and prototypes in their windows, the meta."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from mosaic_lab import Make
from torch import Tensor

from benchmark.contract import Upload
from benchmark.federation.server import ServerContext
from benchmark.models.submodel import SubmodelUpload, aggregate
from benchmark.specs import BudgetSpec
from methods.blocks.composition import Materials
from methods.blocks.schedule import Budget
from methods.mosaic import server as mosaic_server
from methods.mosaic import teaching
from methods.mosaic.experts import ParameterExperts
from methods.mosaic.meta_training import TrainedMeta, train_meta
from methods.mosaic.teaching import ClassExperts, build_teacher, make_experts, read_prototypes

UNEQUAL = {"widths": ["1/2,1/4,1/8"]}
WARM = {"rounds_warmup": [2], "warmup_steps": 1}
COUNTS = torch.tensor([[4, 0, 3], [0, 5, 1], [0, 2, 6]])
"""Clients by class; every class has other weights, and class 0 has one holder."""
State = Mapping[str, Tensor]


@pytest.fixture(scope="module", params=[0, 2], ids=["cold", "warm"])
def server(request: pytest.FixtureRequest, make: Make) -> ServerContext:
    """Return a server of three widths, before and after a warm-up that shifted the windows."""
    federation = make(UNEQUAL | (WARM if request.param else {})).federation()
    assert {info.window for info in federation.infos} == {request.param}
    return federation.server("mosaic", 1, BudgetSpec())


def uploaded(server: ServerContext) -> dict[int, Upload]:
    """Return an upload of random weights from each client."""
    random = torch.Generator().manual_seed(0)

    def drawn(like: Tensor) -> Tensor:
        return 0.5 + torch.rand(like.shape, generator=random) if like.is_floating_point() else like

    uploads = {}
    for info in server.clients:
        shapes = server.initial_model(info.width).state_dict()
        state = {name: drawn(value) for name, value in shapes.items()}
        held = COUNTS[info.index]
        parts: dict[str, State] = {"model": state, "counts": {"labels": held}}
        uploads[info.index] = Upload(parts, {"samples": int(held.sum())})
    return uploads


def averaged(server: ServerContext, state: State, weights: Tensor) -> dict[str, Tensor]:
    """Average the uploads over those who hold an entry, as FedRolex does; else keep ``state``."""
    parts = [
        SubmodelUpload(upload.parts["model"], server.index_sets(index))
        for index, upload in uploaded(server).items()
    ]
    return aggregate(state, parts, label_head=False, weights=weights.tolist())


def neutral(state: State) -> State:
    return {
        name: torch.ones_like(value) if name.endswith("running_var") else torch.zeros_like(value)
        for name, value in state.items()
    }


@pytest.mark.parametrize("fill", ["zero", "global"])
def test_an_expert_averages_the_holders_of_its_class_in_their_windows(
    server: ServerContext, fill: str
) -> None:
    """Checked against FedRolex's code, which shares none with the experts'."""
    materials = Materials(server, uploaded(server), Budget(1, 1, 1))
    experts, _ = make_experts(materials, ClassExperts.model_validate({"unheld_channels": fill}))
    assert isinstance(experts, ParameterExperts)
    initial = server.initial_model().state_dict()
    before = neutral(initial)
    if fill == "global":
        before = averaged(server, initial, COUNTS.sum(1))
    for label in range(3):
        expected = averaged(server, before, COUNTS[:, label])
        found = experts.expert(label).state_dict()
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value, msg=f"{name} of expert {label}")


def test_the_aggregate_of_unequal_widths_weighs_clients_by_their_samples(
    server: ServerContext,
) -> None:
    uploads = uploaded(server)
    found = mosaic_server.average(uploads, server)
    expected = averaged(server, server.global_model.state_dict(), COUNTS.sum(1))
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, msg=name)
    # Every client holds all of the head's bias: a plain weighted mean, without windows.
    sizes = COUNTS.sum(1).double()
    biases = torch.stack([upload.parts["model"]["head.bias"] for upload in uploads.values()])
    torch.testing.assert_close(found["head.bias"], (sizes @ biases.double() / sizes.sum()).float())


def test_prototypes_keep_their_class_and_stand_at_the_positions_of_their_window(
    server: ServerContext,
) -> None:
    uploads, placed = {}, []
    per_class = {0: [2, 0, 1], 1: [0, 1, 3], 2: [1, 0, 0]}
    length = server.initial_model().num_features
    for index, counts in per_class.items():
        owned = server.index_sets(index).features
        features = 1 + torch.arange(sum(counts) * len(owned)).float().view(-1, len(owned))
        uploads[index] = Upload(
            {"prototypes": {"features": features}}, {"prototypes_per_class": counts}
        )
        full = torch.zeros(len(features), length)
        full[:, owned] = features
        placed.append(full)
    found = read_prototypes(server, uploads)
    assert [part.labels.tolist() for part in found] == [[0, 0, 2], [1, 2, 2, 2], [0]]
    for part, full in zip(found, placed, strict=True):
        assert torch.equal(part.features, full)


def test_the_teacher_has_the_average_of_the_meta_models_weights(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The published evaluation reads the moving average, not the last iterate."""
    made: list[TrainedMeta] = []

    def watched(*given: Any) -> TrainedMeta:
        made.append(train_meta(*given))
        return made[-1]

    monkeypatch.setattr(teaching, "train_meta", watched)
    small = make()
    settings = mosaic_server.teacher_settings(small.method().settings)  # type: ignore[attr-defined]
    server = small.federation().server("mosaic", 1, BudgetSpec())
    prototypes = {"features": torch.rand(4, server.initial_model().num_features)}
    uploads = {
        index: Upload(
            {**upload.parts, "prototypes": prototypes},
            {**upload.values, "prototypes_per_class": [1, 1, 1, 1]},
        )
        for index, upload in uploaded(server).items()
    }
    found = build_teacher(Materials(server, uploads, Budget(1, 1, 1)), settings)
    (trained,) = made
    assert found.teacher.meta is trained.model
    assert found.meta is trained
    # The two must differ, or it would not matter which one is taken.
    last = trained.current.state_dict()
    assert any(not torch.equal(last[name], v) for name, v in trained.model.state_dict().items())
