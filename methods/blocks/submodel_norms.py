"""Batch norm in sub-models: statistics re-estimated by the clients, and the published rule."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from fractions import Fraction

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from benchmark.contract import Broadcast, Client, Upload
from benchmark.models.base import Classifier
from benchmark.models.build import build
from methods.blocks.batch_norm import reestimate_batch_norm
from methods.blocks.runtime import Precision

MEAN, VARIANCE = "running_mean", "running_var"


def measured_statistics(client: Client, broadcast: Broadcast) -> Upload:
    """Return a client's upload of statistics of its data under the whole global model.

    HeteroFL (arXiv 2010.01264, section 3) has its clients queried for the global model's
    statistics after training. They are those of the whole model and not of a slice, so even a
    narrow client runs it, forward only, on its plain images in its recipe's batch size.

    Parameters
    ----------
    client : Client
        The client.
    broadcast : Broadcast
        Part ``model``: the global state; value ``width``: its width, as text.

    Returns
    -------
    Upload
        Part ``statistics``: running means and variances of all batch norms; value ``samples``.
    """
    model = _whole_model(client, Fraction(broadcast.values["width"]))
    model.load_state_dict(dict(broadcast.parts["model"]))
    # As many batches as the recipe has, but even, so that a short last one counts no more.
    pieces = client.images.tensor_split(math.ceil(client.num_samples / client.recipe.batch_size))
    batches = (client.task.normalization.from_uint8(piece) for piece in pieces)
    reestimate_batch_norm(model, batches, Precision(client.autocast))
    state = model.state_dict()
    statistics = {
        f"{name}.{field}": state[f"{name}.{field}"]
        for name, module in model.named_modules()
        if isinstance(module, _BatchNorm)
        for field in (MEAN, VARIANCE)
    }
    return Upload({"statistics": statistics}, {"samples": client.num_samples})


def _whole_model(client: Client, width: Fraction) -> Classifier:
    if width == client.info.width:
        return client.initial_model()
    task = client.task
    return build(
        task.model.family,
        num_classes=task.num_classes,
        channels=task.channels,
        image_size=task.image_size,
        width=width,
        norm=task.model.norm,
        generator=torch.Generator(),  # weights are overwritten by the broadcast
    ).to(client.device)


def pooled_statistics(uploads: Iterable[Upload]) -> dict[str, Tensor]:
    """Return mean and variance of the clients' data taken together, by sample counts.

    The spread between the clients' means belongs to the variance (law of total variance), in
    contrast to averaged variances.

    Parameters
    ----------
    uploads : iterable of Upload
        As :func:`measured_statistics` makes them.

    Returns
    -------
    dict of str to Tensor
        Running means and variances by name, of the uploads' type.
    """
    found = [(upload.parts["statistics"], int(upload.values["samples"])) for upload in uploads]
    total = sum(samples for _, samples in found)
    pooled: dict[str, Tensor] = {}
    for name, like in found[0][0].items():
        if not name.endswith(f".{MEAN}"):
            continue
        other = name.removesuffix(MEAN) + VARIANCE
        means = torch.stack([part[name].double() * (count / total) for part, count in found])
        squares = torch.stack(
            [
                (part[other].double() + part[name].double().square()) * (count / total)
                for part, count in found
            ]
        )
        mean = means.sum(0)
        variance = (squares.sum(0) - mean.square()).clamp(min=0)
        pooled[name], pooled[other] = mean.to(like.dtype), variance.to(like.dtype)
    return pooled


@contextmanager
def divided_inputs(model: nn.Module, ratio: Fraction) -> Iterator[None]:
    """Divide the inputs of all batch norms by ``ratio`` while they train.

    The scaler of HeteroFL (arXiv 2010.01264, section 3), at the place that the published code of
    FedRolex gives it. In evaluation it does nothing; a ratio of 1 does nothing at all.
    """
    if ratio == 1:
        yield
        return

    def divide(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
        return (inputs[0] / float(ratio),) if module.training else None

    handles = [
        module.register_forward_pre_hook(divide)
        for module in model.modules()
        if isinstance(module, _BatchNorm)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def use_batch_statistics(model: nn.Module) -> nn.Module:
    """Return a copy of ``model`` whose batch norms use the batch's statistics even in eval mode.

    The published rule of FedRolex: a prediction then depends on its batch mates, so that such a
    model is not for tables.
    """
    changed = copy.deepcopy(model)
    for module in changed.modules():
        if isinstance(module, _BatchNorm):
            module.track_running_stats = False
            module.running_mean = module.running_var = module.num_batches_tracked = None
    return changed
