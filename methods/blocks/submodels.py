"""Federated learning of sub-models: what FedRolex, HeteroFL and federated dropout share.

Each client trains a slice of the global model and the server averages each entry over the
clients that hold it. The three methods differ in one thing, the window of channels that a client
gets in a round (:meth:`SubmodelMethod.window`). Batch-norm policies are in
:mod:`methods.blocks.submodel_norms`.

Group norm: a window changes which channels share a group, so that a slice does not compute what
the same channels compute inside the global model.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal, Self, TypeVar

import torch
from pydantic import model_validator
from torch import Tensor, nn

from benchmark.contract import (
    Broadcast,
    Client,
    ClientInfo,
    GlobalModel,
    Method,
    MethodConfig,
    Server,
    Upload,
    parameter,
)
from benchmark.models.base import Classifier
from benchmark.models.registry import family_info
from benchmark.models.submodel import IndexSets, OrderCounters, SubmodelUpload, aggregate, extract
from benchmark.specs import BudgetSpec, ScenarioSpec
from methods.blocks.submodel_averaging import (
    average_whole,
    head_names,
    held_classes,
    mark_trained,
    share,
)
from methods.blocks.submodel_norms import (
    divided_inputs,
    measured_statistics,
    pooled_statistics,
    use_batch_statistics,
)

TRAINING_VERSION = "1"
"""Raised whenever a client's training of a slice changes: cached slices are then not reused."""

BATCH_DEPENDENT = (
    "predictions depend on their batch mates (statistics of the test batch); not for tables"
)

_GLOBAL = "global state"
_COUNTERS = "order counters"
_TRAINED = "trained entries"
_DETAILS = "details"


class SubmodelConfig(MethodConfig):
    """What the methods of this family have in common."""

    rounds: int = parameter(
        1,
        "communication rounds; the local steps of one full local training are shared out over "
        "them, so that many rounds cost the clients no more than one (papers: thousands)",
        unit="rounds",
        ge=1,
    )
    label_masked: bool = parameter(
        True,
        "set the logits of classes that a client does not hold to zero in its loss (HeteroFL, "
        "section 3)",
        source="paper",
    )
    label_head: bool = parameter(
        True,
        "average each row of the last layer over the clients that hold its class; a row that "
        "nobody holds keeps its value",
        source="code",
    )
    order_weighted: bool = parameter(
        False,
        "weigh the k-th client that touches an entry of a norm or the last layer by k, as "
        "FedRolex's published code does by mistake; the papers average uniformly",
        source="paper",
    )
    batch_norm: Literal["average", "reestimated", "published"] = parameter(
        "average",
        "running statistics of batch norm: averaged over the owners of each channel; or "
        "re-estimated on the clients' data by the whole global model in one more exchange; or "
        "as published (inputs divided by the width ratio while training, statistics of the test "
        "batch), which needs parity",
    )
    parity: bool = parameter(
        False,
        "allow settings that reproduce published code against this suite's rules; such runs are "
        "not for tables",
    )

    @model_validator(mode="after")
    def _check_parity(self) -> Self:
        if self.batch_norm == "published" and not self.parity:
            raise ValueError(
                "batch_norm 'published' makes a prediction depend on its batch mates; use "
                "'average' or 'reestimated', or set parity=true and keep the run out of tables"
            )
        return self


SubmodelConfigT = TypeVar("SubmodelConfigT", bound=SubmodelConfig)


@dataclass(frozen=True)
class Window:
    """Which channels a client gets, in a form that is cheap to send.

    Parameters
    ----------
    round : int
        Round of the rolling window.
    scheme : str
        As in :func:`benchmark.models.windows.index_sets`.
    phase : Fraction
        Where a staggered window starts, in [0, 1).
    seed : int or None
        Seed of a random window.
    """

    round: int
    scheme: str = "rolling"
    phase: Fraction = Fraction(0)
    seed: int | None = None

    def sets(self, client: int, server: Server) -> IndexSets:
        """Return the channels on the server."""
        return server.index_sets(
            client,
            self.round,
            scheme=self.scheme,
            phase=self.phase,
            generator=self._generator(),
        )

    def values(self) -> dict[str, Any]:
        """Return what a client needs to find the channels in the common initialisation."""
        return {"scheme": self.scheme, "phase": str(self.phase), "seed": self.seed}

    @classmethod
    def read(cls, values: Mapping[str, Any], client: ClientInfo) -> Window:
        """Return the window that :meth:`values` described, on the client."""
        phase = Fraction(values.get("phase", 0))
        return cls(client.window, values.get("scheme", "rolling"), phase, values.get("seed"))

    def initial_model(self, client: Client) -> Classifier:
        """Return these channels of the common initialisation, on the client."""
        return client.initial_model(
            scheme=self.scheme, phase=self.phase, generator=self._generator()
        )

    def _generator(self) -> torch.Generator | None:
        return None if self.seed is None else torch.Generator().manual_seed(self.seed)


class SubmodelMethod(Method[SubmodelConfigT]):
    """Template of the family: subclasses choose the window."""

    @abstractmethod
    def window(self, client: ClientInfo, server: Server) -> Window:
        """Return a client's window in the server's current round.

        A rolling window in round 0 must be the one that the client's first weights are of.
        """

    @property
    def rounds(self) -> int:
        """Rounds of training, and one more where statistics are re-estimated."""
        return self.config.rounds + (self.config.batch_norm == "reestimated")

    def unsupported(self, scenario: ScenarioSpec) -> str | None:
        """Refuse narrow clients of models that can't be sliced, and policies without effect."""
        family = family_info(scenario.model.family)
        if not family.scalable:
            if set(scenario.widths) != {Fraction(1)}:
                return f"model '{family.name}' can't be cut into narrower models"
            if self.config.order_weighted:
                return f"order_weighted needs a model whose structure is known, not '{family.name}'"
        norm = scenario.model.norm or family.default_norm
        if self.config.batch_norm != "average" and norm != "batch":
            return f"batch_norm '{self.config.batch_norm}' needs batch norm, not norm '{norm}'"
        return None

    def workload(self, scenario: ScenarioSpec, samples: int, budget: BudgetSpec) -> int:
        """Return one full local training: sub-models are the method's own."""
        return samples * scenario.recipe.epochs

    def broadcast(self, client: ClientInfo, server: Server) -> Broadcast:
        """Send a client its slice of the global model, or how to find it in the first one."""
        if server.round == self.config.rounds:
            width = client.width / width_ratio(client, server)
            return Broadcast({"model": global_state(server)}, {"width": str(width)})
        values: dict[str, Any] = {}
        ratio = width_ratio(client, server)
        if self.config.batch_norm == "published" and ratio != 1:
            values["ratio"] = str(ratio)
        if server.round == 0 and (known := self.known_start(client, server)) is not None:
            return Broadcast({}, {**values, **known})
        sets = self.sets(client, server)
        state = global_state(server)
        return Broadcast({"model": state if sets is None else extract(state, sets)}, values)

    def known_start(self, client: ClientInfo, server: Server) -> dict[str, Any] | None:
        """Return what makes the client find its first weights by itself; None: they are sent."""
        window = self.window(client, server)
        if window.scheme == "rolling" or width_ratio(client, server) == 1:
            return {}
        return None if client.window else window.values()

    def client_update(self, client: Client, broadcast: Broadcast) -> Upload:
        """Train the slice by this round's share of the local steps."""
        if client.round == self.config.rounds:
            return measured_statistics(client, broadcast)
        values = {"classes": held_classes(client)} if self.config.label_head else {}
        if "model" in broadcast.parts:
            model = client.initial_model()
            model.load_state_dict(dict(broadcast.parts["model"]))
            return Upload({"model": self._trained(model, client, broadcast)}, values)
        window = Window.read(broadcast.values, client.info)
        # From here on the same for every method of the family that asks for the same.
        state, _ = client.cached(
            "submodel",
            {
                "version": TRAINING_VERSION,
                "start": broadcast.values,
                "rounds": self.config.rounds,
                "label_masked": self.config.label_masked,
            },
            lambda: (self._trained(window.initial_model(client), client, broadcast), {}),
        )
        return Upload({"model": state}, values)

    def _trained(
        self, model: Classifier, client: Client, broadcast: Broadcast
    ) -> dict[str, Tensor]:
        if steps := share(client.local_steps(), self.config.rounds, client.round):
            with divided_inputs(model, Fraction(broadcast.values.get("ratio", 1))):
                client.train(model, steps=steps, label_masked=self.config.label_masked)
        return dict(model.state_dict())

    def server_update(self, uploads: Mapping[int, Upload], server: Server) -> GlobalModel:
        """Average each entry over the clients that hold it."""
        if server.round == self.config.rounds:
            state = {**global_state(server), **pooled_statistics(uploads.values())}
        else:
            state = self._aggregate(uploads, server)
        server.state[_GLOBAL] = state
        model: nn.Module = server.initial_model()
        model.load_state_dict(state)
        if self.config.batch_norm == "published":
            model = use_batch_statistics(model)
        server.report(server.round + 1, self.rounds, model)
        details: dict[str, Any] = server.state[_DETAILS]
        warnings = (BATCH_DEPENDENT,) if self.config.batch_norm == "published" else ()
        return GlobalModel(model, details=details, warnings=warnings)

    def sets(self, client: ClientInfo, server: Server) -> IndexSets | None:
        """Return a client's channels in this round; None where the model can't be sliced."""
        if not family_info(server.task.model.family).scalable:
            return None
        return self.window(client, server).sets(client.index, server)

    def _aggregate(self, uploads: Mapping[int, Upload], server: Server) -> dict[str, Tensor]:
        before = global_state(server)
        states = [upload.parts["model"] for upload in uploads.values()]
        classes = [upload.values.get("classes") for upload in uploads.values()]
        found = [self.sets(server.clients[index], server) for index in uploads]
        sets = [chosen for chosen in found if chosen is not None]
        server.state[_DETAILS] = self._details(sets, classes, server)
        if not sets:
            head = head_names(server.initial_model()) if self.config.label_head else ()
            return average_whole(states, [1.0] * len(states), before, head, classes)
        counters = None
        if self.config.order_weighted:
            counters = server.state.setdefault(_COUNTERS, OrderCounters())
        return aggregate(
            before,
            [SubmodelUpload(*parts) for parts in zip(states, sets, classes, strict=True)],
            label_head=self.config.label_head,
            order_counters=counters,
        )

    def _details(
        self, sets: Sequence[IndexSets], classes: Sequence[Sequence[int] | None], server: Server
    ) -> dict[str, Any]:
        trained: dict[str, Tensor] = server.state.setdefault(_TRAINED, {})
        details: dict[str, Any] = {}
        if sets:
            details["trained_share"] = mark_trained(trained, global_state(server), sets, classes)
            details["index_sets"] = [chosen.describe() for chosen in sets]
        if self.config.batch_norm == "reestimated":
            details["also_uses"] = ["sample counts"]
        if self.config.batch_norm == "published":
            details["not_for_tables"] = True
        return details


def global_state(server: Server) -> dict[str, Tensor]:
    """Return the global model's state before this round (round 0: the scenario's start)."""
    known: dict[str, Tensor] | None = server.state.get(_GLOBAL)
    return dict(server.global_model.state_dict()) if known is None else known


def width_ratio(client: ClientInfo, server: Server) -> Fraction:
    """Return a client's share of the global model's channels, in (0, 1]."""
    if not family_info(server.task.model.family).scalable:
        return Fraction(1)
    return server.index_sets(client.index).width
