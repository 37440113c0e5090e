"""FedRolex (Alam et al., NeurIPS 2022): clients train a window that rolls over the channels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

from benchmark.contract import (
    ClientInfo,
    GlobalModel,
    Information,
    Server,
    Source,
    Upload,
    parameter,
)
from benchmark.models.submodel import staggered_phases
from methods.blocks.submodels import SubmodelConfig, SubmodelMethod, Window, width_ratio


class FedRolexConfig(SubmodelConfig):
    """FedRolex's hyper-parameters."""

    offsets: Literal["shared", "staggered"] = parameter(
        "shared",
        "where the clients' windows start: all at the same channel, or each where the one before "
        "ends, so that narrow clients cover more of the global model (ours, not FedRolex)",
        source="paper",
    )


class FedRolex(SubmodelMethod[FedRolexConfig]):
    """The window moves by one channel a round; one round of it is HeteroFL."""

    name = "fedrolex"
    summary = "clients train slices of the global model; the window rolls on each round"
    source = Source(
        "FedRolex: Model-Heterogeneous Federated Learning with Rolling Sub-Model Extraction",
        2022,
        "https://arxiv.org/abs/2212.01548",
    )
    uses = frozenset({Information.WEIGHTS, Information.LABEL_SETS})
    uploads = (
        "the trained slice's state dict (batch-norm buffers included) and the list of classes "
        "that the client holds (not with label_head=false)"
    )
    implemented = (
        "Rolling sub-model extraction, selective averaging of each entry over the clients that "
        "hold it, label-masked loss and label-wise averaging of the last layer. Sub-models are "
        "the method's own: they are not the clients' shared local models."
    )
    deviations = (
        "One round (the default) equals HeteroFL bit for bit: the window has not rolled yet.",
        "The window moves backwards by one channel a round and keeps ceil(width * n) of n "
        "channels, as in the published code; the paper moves forwards and rounds down.",
        "Clients of the global model's width hold all channels in plain order; the published "
        "code rolls theirs too, which is the same function.",
        "All entries are averaged uniformly, as the paper says; the published code weighs norms "
        "and the last layer by the order of the clients (order_weighted=true).",
        "Running statistics of batch norm are kept and averaged over the owners of each channel, "
        "without a scaler; the published code divides by the width ratio in training and uses "
        "statistics of the test batch (batch_norm=published with parity=true, whose uploads "
        "still carry the unused running statistics).",
        "All clients take part in every round with their own fixed width, and the local steps of "
        "one full training are shared out over the rounds, and the recipe's learning-rate "
        "schedule spans each round's steps; the "
        "paper samples clients, redraws widths and trains one epoch in each of thousands.",
        "Optimiser, learning rate and batch size are the scenario's; no gradient clipping.",
        "The global model has the largest client width, as in the published code.",
        "After warm-up rounds the window goes on from the round at which they ended.",
        "The published code's options `overlap` and `weighting` (entries weighted by width, or by "
        "how often they were trained) are left out: its defaults are used.",
        "The suite's ResNets activate after their blocks' sums; the published ones before.",
    )
    scenarios = "any widths of the suite's own models; timm models at width 1 only"
    Config = FedRolexConfig

    def window(self, client: ClientInfo, server: Server) -> Window:
        """Return the window rolled to this round, at its own phase if staggered."""
        now = client.window + server.round
        if self.config.offsets == "shared":
            return Window(now)
        phases = staggered_phases([width_ratio(info, server) for info in server.clients])
        return Window(now, "staggered", phases[client.index])

    def server_update(self, uploads: Mapping[int, Upload], server: Server) -> GlobalModel:
        """Average each entry over the clients that hold it; one round says what it equals."""
        output = super().server_update(uploads, server)
        if self.config.rounds > 1 or self.config.offsets != "shared":
            return output
        return replace(output, details={**output.details, "equals": "heterofl"})
