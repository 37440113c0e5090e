"""What a student starts from: fresh weights, or the aggregate of the clients' models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from benchmark.aggregation import weighted_average
from benchmark.contract import Server, Upload
from benchmark.models.base import Classifier
from benchmark.models.submodel import SubmodelUpload, aggregate


def starting_model(
    server: Server, uploads: Mapping[int, Upload], init: Literal["random", "aggregate"]
) -> Classifier:
    """Return the student before distillation, at the width of the global model.

    Parameters
    ----------
    server : Server
        Gives models and windows.
    uploads : mapping of int to Upload
        With part ``model`` and value ``samples``; read for ``"aggregate"`` only.
    init : {"random", "aggregate"}
        Fresh weights of the method's own stream; or the clients' average, weighted by
        samples: FedAvg's (arXiv 1602.05629), and where widths differ the selective average
        of FedRolex (arXiv 2212.01548) over the entries that a client holds.
    """
    if init == "random":
        return server.new_model("student")
    states = [uploads[index].parts["model"] for index in sorted(uploads)]
    weights = [float(uploads[index].values["samples"]) for index in sorted(uploads)]
    model = server.initial_model()
    if len({info.width for info in server.clients}) == 1:
        model.load_state_dict(weighted_average(states, weights))
    else:
        parts = [
            SubmodelUpload(state, server.index_sets(index), None)
            for index, state in zip(sorted(uploads), states, strict=True)
        ]
        start = model.state_dict()
        model.load_state_dict(aggregate(start, parts, label_head=False, weights=weights))
    return model.train()
