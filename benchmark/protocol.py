"""The protocol of one run: rounds of broadcast, client update, upload and server update."""

from __future__ import annotations

import copy
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from benchmark.contract import Broadcast, Generated, GlobalModel, Method, Oracle, Reference, Upload
from benchmark.federation.client import LocalClient
from benchmark.federation.federation import Federation
from benchmark.federation.server import ServerContext
from benchmark.federation.traffic import Traffic
from benchmark.flops import FlopMeter
from benchmark.registry import PluginError
from benchmark.specs import BudgetSpec
from benchmark.store import BusyError
from benchmark.store.files import plain

ReturnT = TypeVar("ReturnT")


@dataclass
class ProtocolResult:
    """What a method made, and what it cost.

    Parameters
    ----------
    output : GlobalModel
        The last round's global model.
    server : ServerContext
        With the snapshots that it reported.
    traffic : Traffic
        Bytes that crossed, without the warm-up's.
    client_seconds : dict of int to float
        Work of each client, cached training at the price it had when it was done.
    server_seconds : float
        Work of the server.
    cached_client_seconds : float
        The part of the clients' work that was not done again.
    client_flops, server_flops : int or None
        Floating-point operations of all clients and of the server, cached training included;
        see :mod:`benchmark.flops`.
    cache_ids : dict of int to list of str
        Cache entries of each client's models.
    other_processors : set of str
        Other processors, which made what the clients have from the cache.
    client_reports : dict of int to dict
        Losses that each client reported, by round and step.
    """

    output: GlobalModel
    server: ServerContext
    traffic: Traffic
    client_seconds: dict[int, float] = field(default_factory=dict)
    server_seconds: float = 0.0
    cached_client_seconds: float = 0.0
    client_flops: int | None = None
    server_flops: int | None = None
    cache_ids: dict[int, list[str]] = field(default_factory=dict)
    other_processors: set[str] = field(default_factory=set)
    client_reports: dict[int, dict[tuple[int, int], dict[str, float]]] = field(default_factory=dict)


def run_protocol(
    method: Method[Any],
    federation: Federation,
    budget: BudgetSpec,
    oracle: Callable[[], Oracle],
) -> ProtocolResult:
    """Run all rounds of a method.

    Parameters
    ----------
    method : Method
        The configured plugin.
    federation : Federation
        Clients and shared start.
    budget : BudgetSpec
        What the profile grants.
    oracle : callable
        Makes what a reference row may see; called for references only.

    Returns
    -------
    ProtocolResult
        The global model and its costs.

    Raises
    ------
    PluginError
        If the method returns something of a wrong type.
    """
    if not isinstance(method.rounds, int) or method.rounds < 1:
        raise PluginError(f"method '{method.name}': rounds must be at least 1")
    server = federation.server(method.stream, method.rounds, budget)
    # Made anew only once: a client keeps its data on the device over all rounds.
    clients = [federation.client(info.index) for info in federation.infos]
    # What a client keeps in `self` stays with it: neither server nor other clients can read it.
    on_device = {client.info.index: copy.deepcopy(method) for client in clients}
    for client in clients:
        client.budget = budget
    traffic = Traffic(federation.spool())
    result = ProtocolResult(GlobalModel(server.global_model), server, traffic)
    flops = FlopMeter()
    for round_index in range(method.rounds):
        server.round = round_index
        uploads = _uploads(method, on_device, clients, server, result)
        began = time.perf_counter()
        with flops.section():
            if isinstance(method, Reference):
                output = method.reference_update(uploads, server, oracle())
            else:
                output = method.server_update(uploads, server)
        result.output = _checked(method, "server_update", output, GlobalModel)
        _check_content(method, output, federation)
        server.global_model = output.model
        result.server_seconds += time.perf_counter() - began
    result.server_flops = flops.total
    if all(client.flops.known for client in clients):
        result.client_flops = sum(client.flops.total for client in clients)
    for client in clients:
        cost = client.ledger.cost
        result.cached_client_seconds += cost.cached_seconds
        result.cache_ids[client.info.index] = list(cost.cache_ids)
        result.other_processors |= cost.other_processors
        result.client_reports[client.info.index] = client.reports
    return result


def update_client(
    method: Method[Any], federation: Federation, budget: BudgetSpec, index: int
) -> None:
    """Do one client's work of a method's first round, for what of it stays in the cache.

    What another run is making just now is left to that run.
    """
    server = federation.server(method.stream, method.rounds, budget)
    client = federation.client(index)
    client.budget, client.patient = budget, False
    result = ProtocolResult(GlobalModel(server.global_model), server, Traffic())
    arrived = _broadcast(method, client, server, result, 0)
    with suppress(BusyError):
        _update(method, client, arrived, result)


def _uploads(
    method: Method[Any],
    on_device: dict[int, Method[Any]],
    clients: Sequence[LocalClient],
    server: ServerContext,
    result: ProtocolResult,
) -> dict[int, Upload]:
    """Return all clients' uploads of a round, by index.

    Clients are asked in order, but one whose model another run is training at this moment is
    left for later: two runs of one scenario so share the training between them. No result
    depends on the order, since every client has streams of its own.
    """
    uploads: dict[int, Upload] = {}
    waiting: deque[tuple[LocalClient, Broadcast | None]] = deque((c, None) for c in clients)
    left_alone = 0
    while waiting:
        client, arrived = waiting.popleft()
        if arrived is None:
            arrived = _broadcast(method, client, server, result, server.round)
        # Only when nobody is left who could do something else.
        client.patient = left_alone > len(waiting)
        index = client.info.index
        # What a try that is broken off wrote into `self` is forgotten with it.
        tried = on_device[index] if client.patient else copy.deepcopy(on_device[index])
        try:
            made = _update(tried, client, arrived, result)
        except BusyError:
            waiting.append((client, arrived))
            left_alone += 1
        else:
            left_alone, on_device[index] = 0, tried
            uploads[index] = result.traffic.up(server.round, index, made)
    for client in clients:
        client.patient = True
    return dict(sorted(uploads.items()))


def _broadcast(
    method: Method[Any],
    client: LocalClient,
    server: ServerContext,
    result: ProtocolResult,
    round_index: int,
) -> Broadcast:
    client.round = round_index
    began = time.perf_counter()
    sent = _checked(method, "broadcast", method.broadcast(client.info, server), Broadcast)
    result.server_seconds += time.perf_counter() - began
    return result.traffic.down(round_index, client.info.index, sent)


def _update(
    method: Method[Any], client: LocalClient, arrived: Broadcast, result: ProtocolResult
) -> Upload:
    index = client.info.index
    client.config, client.arrived = method.config.model_dump(mode="json"), arrived
    before = client.ledger.snapshot()
    began, (cost, _) = time.perf_counter(), before
    try:
        with client.flops.section():
            made = _checked(method, "client_update", method.client_update(client, arrived), Upload)
    except BusyError:
        # All of it comes again: what it left in the cache at its first price, the rest anew.
        client.ledger.restore(before)
        raise
    now = client.ledger.cost
    seconds = time.perf_counter() - began - (now.idle_seconds - cost.idle_seconds)
    seconds += now.cached_seconds - cost.cached_seconds
    result.client_seconds[index] = result.client_seconds.get(index, 0.0) + seconds
    return made


def _check_content(method: Method[Any], output: GlobalModel, federation: Federation) -> None:
    """Refuse a global model whose fields could be neither evaluated nor recorded."""
    where = f"method '{method.name}': GlobalModel"
    for name in ("model", "teacher"):
        value = getattr(output, name)
        if not (isinstance(value, nn.Module) or (name == "teacher" and value is None)):
            kind = type(value).__name__
            raise PluginError(f"{where}.{name} is a {kind}, expected an nn.Module")
    if not isinstance(output.details, Mapping):
        kind = type(output.details).__name__
        raise PluginError(f"{where}.details is a {kind}, expected a mapping")
    try:
        plain(dict(output.details), "details")
    except TypeError as error:
        raise PluginError(f"{where}: {error}") from None
    for name, images in output.images.items():
        if not _is_pictures(images):
            raise PluginError(f"{where}.images '{name}' is no uint8 tensor [n, C, H, W]")
    _check_generated(where, output.generated, federation)
    if isinstance(output.warnings, str) or not all(isinstance(w, str) for w in output.warnings):
        raise PluginError(f"{where}.warnings holds several lines of text: use a tuple of str")


def _check_generated(where: str, generated: object, federation: Federation) -> None:
    if generated is None:
        return
    if not isinstance(generated, Generated):
        kind = type(generated).__name__
        raise PluginError(f"{where}.generated is a {kind}, expected a Generated")
    images, task = generated.images, federation.task
    where = f"{where}.generated"
    if not _is_pictures(images) or not len(images):
        raise PluginError(f"{where}.images is no uint8 tensor [n >= 1, C, H, W]")
    shape = (task.channels, task.image_size, task.image_size)
    if tuple(images.shape[1:]) != shape:
        raise PluginError(
            f"{where}.images are {tuple(images.shape[1:])}, the task's are {shape} (C, H, W)"
        )
    if generated.clients is not None:
        _check_clients(f"{where}.clients", generated.clients, len(images), len(federation.infos))


def _is_pictures(images: object) -> bool:
    return isinstance(images, Tensor) and images.dtype == torch.uint8 and images.dim() == 4


def _check_clients(where: str, clients: object, images: int, count: int) -> None:
    """Check that each image has the index of one of ``count`` clients."""
    if not isinstance(clients, Tensor) or clients.shape != (images,):
        raise PluginError(f"{where} names no client for every image")
    kind = clients.dtype
    if kind.is_floating_point or kind.is_complex or kind == torch.bool:
        raise PluginError(f"{where} is {kind}, expected torch.int64")
    least, most = int(clients.min()), int(clients.max())
    if least < 0 or most >= count:
        wrong = least if least < 0 else most
        raise PluginError(f"{where} names client {wrong}, the clients are 0 to {count - 1}")


def _checked(method: Method[Any], function: str, value: object, kind: type[ReturnT]) -> ReturnT:
    if not isinstance(value, kind):
        raise PluginError(
            f"method '{method.name}': {function} returned a {type(value).__name__}, "
            f"expected {kind.__name__}"
        )
    return value
