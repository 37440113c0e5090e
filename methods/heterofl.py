"""HeteroFL (Diao et al., ICLR 2021): clients train the leading channels of the global model."""

from __future__ import annotations

from benchmark.contract import ClientInfo, Information, Server, Source
from methods.blocks.submodels import SubmodelConfig, SubmodelMethod, Window


class HeteroFL(SubmodelMethod[SubmodelConfig]):
    """The window stays where it is."""

    name = "heterofl"
    summary = "clients train slices of the global model, the same channels in every round"
    source = Source(
        "HeteroFL: Computation and Communication Efficient Federated Learning for "
        "Heterogeneous Clients",
        2021,
        "https://arxiv.org/abs/2010.01264",
    )
    uses = frozenset({Information.WEIGHTS, Information.LABEL_SETS})
    uploads = (
        "the trained slice's state dict (batch-norm buffers included) and the list of classes "
        "that the client holds (not with label_head=false)"
    )
    implemented = (
        "Static sub-model extraction, averaging of each entry over the clients that hold it, "
        "label-masked loss and label-wise averaging of the last layer."
    )
    deviations = (
        "One round equals one round of FedRolex bit for bit.",
        "After warm-up rounds, whose window rolls, the static window is the one at which they "
        "ended: the same for all clients, so that only the numbering of channels differs.",
        "No scaler, and running statistics of batch norm averaged over the owners of each "
        "channel; the paper has a scaler and statistics queried from the clients after training "
        "(batch_norm=reestimated queries them, in one more exchange that is booked).",
        "order_weighted is a habit of FedRolex's published code, not of HeteroFL's.",
        "All clients take part in every round with their own fixed width, and the local steps of "
        "one full training are shared out over the rounds, and the recipe's learning-rate "
        "schedule spans each round's steps; the "
        "paper samples clients and trains several epochs in each round.",
        "Optimiser, learning rate and batch size are the scenario's; no gradient clipping.",
    )
    scenarios = "any widths of the suite's own models; timm models at width 1 only"
    Config = SubmodelConfig

    def window(self, client: ClientInfo, server: Server) -> Window:
        """Return the window of the client's first weights."""
        return Window(client.window)
