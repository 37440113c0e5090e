"""Federated dropout (Caldas et al., 2018): clients train random channels of the global model."""

from __future__ import annotations

from typing import Any, Self

import torch
from pydantic import model_validator

from benchmark.contract import ClientInfo, Information, Server, Source, parameter
from benchmark.models.registry import family_info
from benchmark.models.submodel import IndexSets, misaligned_index_sets
from benchmark.specs import ScenarioSpec
from methods.blocks.submodels import SubmodelConfig, SubmodelMethod, Window, width_ratio


class FederatedDropoutConfig(SubmodelConfig):
    """Federated dropout's hyper-parameters."""

    misaligned: bool = parameter(
        False,
        "draw channels anew for every layer, as the published code of FedRolex does, so that "
        "identity shortcuts add different channels to each other; needs parity",
    )

    @model_validator(mode="after")
    def _check_misaligned(self) -> Self:
        if self.misaligned and not self.parity:
            raise ValueError(
                "misaligned channels reproduce a flaw of published code; leave it false, or set "
                "parity=true"
            )
        return self


class FederatedDropout(SubmodelMethod[FederatedDropoutConfig]):
    """Every client draws new channels in every round."""

    name = "federated_dropout"
    summary = "clients train slices of the global model, random channels drawn anew each round"
    source = Source(
        "Expanding the Reach of Federated Learning by Reducing Client Resource Requirements",
        2018,
        "https://arxiv.org/abs/1812.07210",
    )
    uses = frozenset({Information.WEIGHTS, Information.LABEL_SETS})
    uploads = (
        "the trained slice's state dict (batch-norm buffers included) and the list of classes "
        "that the client holds (not with label_head=false)"
    )
    implemented = (
        "Random sub-models as FedRolex's authors compare with them ('random'): one permutation "
        "for each client, round and set of channels, averaged like FedRolex. In the first round "
        "of strict one-shot a client is sent the seed of its channels only."
    )
    deviations = (
        "Layers that a shortcut adds share one draw; the published code of FedRolex draws for "
        "each layer, which misaligns identity shortcuts (misaligned=true with parity=true).",
        "Clients of the global model's width hold all channels in plain order.",
        "The share of channels follows the client's width; the paper drops one fixed share at "
        "all clients, and compresses updates as well.",
        "Label-masked loss and label-wise averaging of the last layer are taken from FedRolex's "
        "published code for all its window schemes.",
        "No scaler, and running statistics of batch norm averaged over the owners of each channel.",
        "After warm-up rounds the first channels are sent, and booked: they are not those that "
        "the warm-up left the client with.",
        "All clients take part in every round, and the local steps of one full training are "
        "shared out over the rounds. Optimiser and learning rate are the scenario's.",
    )
    scenarios = "any widths of the suite's own models; timm models at width 1 only"
    Config = FederatedDropoutConfig

    def unsupported(self, scenario: ScenarioSpec) -> str | None:
        """Refuse misaligned draws of models whose structure is unknown."""
        family = family_info(scenario.model.family)
        if self.config.misaligned and not family.scalable:
            return f"misaligned needs a model whose structure is known, not '{family.name}'"
        return super().unsupported(scenario)

    def window(self, client: ClientInfo, server: Server) -> Window:
        """Return a random window, the same whenever it is asked for in a round."""
        return Window(client.window, "random", seed=_seed(f"window of {client.index}", server))

    def known_start(self, client: ClientInfo, server: Server) -> dict[str, Any] | None:
        """Return the window's seed; misaligned slices are sent."""
        return None if self.config.misaligned else super().known_start(client, server)

    def sets(self, client: ClientInfo, server: Server) -> IndexSets | None:
        """Return a client's channels in this round."""
        if not self.config.misaligned:
            return super().sets(client, server)
        structure = server.index_sets(client.index).structure
        ratios = [width_ratio(info, server) for info in server.clients]
        generator = torch.Generator().manual_seed(_seed("windows", server))
        return misaligned_index_sets(structure, ratios, generator)[client.index]


def _seed(purpose: str, server: Server) -> int:
    """Return a seed of a stream's name, below 2^53: a number that any JSON reader keeps exactly."""
    generator = server.generator(purpose)
    return int(torch.randint(2**53, (1,), generator=generator, device=generator.device))
