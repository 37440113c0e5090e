"""The federation of one scenario: who is who, the shared start, and the warm-up."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from fractions import Fraction
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmark.aggregation import weighted_average
from benchmark.contract import Broadcast, ClientInfo, Task, Upload
from benchmark.environment import processor
from benchmark.evaluation import evaluate
from benchmark.events import Events
from benchmark.federation.client import LocalClient
from benchmark.federation.data import Samples, ScenarioData
from benchmark.federation.ledger import MADE_ON, makers_of
from benchmark.federation.server import ServerContext
from benchmark.federation.slicing import index_sets, initial_state, slice_state
from benchmark.federation.traffic import Traffic, account_for
from benchmark.models.base import Classifier
from benchmark.models.submodel import SubmodelUpload, aggregate
from benchmark.seeds import Streams
from benchmark.specs import RECIPE_VERSION, BudgetSpec, CodeSpec, ComputeSpec, ScenarioSpec
from benchmark.spool import Spool
from benchmark.store import Cache
from benchmark.training.trainer import train
from datasets import Augmentation

State = Mapping[str, Tensor]

WARMUP_CHECKPOINT = 10
"""Warm-up rounds between two cached states, so that a killed warm-up goes on."""


class Federation:
    """Clients and server of one scenario; to make one trains its warm-up, or finds it in the cache.

    Parameters
    ----------
    scenario : ScenarioSpec
        What all methods share.
    compute : ComputeSpec
        Device, precision, threads.
    data : ScenarioData
        Its data, dealt out.
    cache : Cache
        Where trained models are kept.
    events : Events
        Where progress goes.
    code : CodeSpec, optional
        Of the method that runs on it.

    Attributes
    ----------
    warmup_traffic : Traffic
        Bytes of the warm-up rounds and of the broadcast that follows them.
    warmup_seconds : float
        Seconds of the warm-up, its averaging included, as measured when it was computed.
    other_processors : set of str
        Another processor that made the warm-up, where the cache has it from one.
    """

    def __init__(
        self,
        scenario: ScenarioSpec,
        compute: ComputeSpec,
        data: ScenarioData,
        cache: Cache,
        events: Events,
        *,
        code: CodeSpec | None = None,
    ) -> None:
        self.scenario = scenario
        self.compute = compute
        self.data = data
        self.warmup_traffic = Traffic()
        self.warmup_seconds = 0.0
        self.other_processors: set[str] = set()
        self._cache = cache
        self._events = events
        self._code = None if code is None else code.canonical()
        self._device = torch.device(compute.device)
        self.infos = tuple(
            ClientInfo(index, width, scenario.warmup.rounds)
            for index, width in enumerate(assign_widths(scenario))
        )
        self._start = self._warm_up()

    @property
    def task(self) -> Task:
        """Shapes and ranges."""
        return self.data.task

    @property
    def width(self) -> Fraction:
        """Width of the global model: the plan's largest."""
        return self.scenario.max_width

    @property
    def augmentation(self) -> Augmentation:
        """The training augmentation in force."""
        return self.data.dataset.augmentation if self.scenario.recipe.augment else Augmentation()

    def client(self, index: int) -> LocalClient:
        """Return a client with its data and the state it starts from."""
        return self._client(self.infos[index], self._start)

    def server(self, method: str, rounds: int, budget: BudgetSpec) -> ServerContext:
        """Return the server of one method."""
        return ServerContext(
            task=self.task,
            clients=self.infos,
            width=self.width,
            start=self._start,
            seed=self.scenario.seed,
            method=method,
            rounds=rounds,
            budget=budget,
            student=self.scenario.student,
            compute=self.compute,
            events=self._events,
        )

    def spool(self) -> Spool:
        """Return a place where the uploads of one method wait."""
        return Spool(self._cache.scratch)

    def _client(self, info: ClientInfo, global_state: State) -> LocalClient:
        # Bound to what it reads alone: a closure over the federation would lead to all data.
        full = None if self.scenario.homogeneous else self.width
        return LocalClient(
            info=info,
            task=self.task,
            samples=self.data.client(info.index, self._device),
            start=partial(_start, global_state, self.task, full, info),
            common=None if self.scenario.warmup.rounds else global_state,
            scenario=self.scenario,
            compute=self.compute,
            augmentation=self.data.dataset.augmentation,
            data_digest=self.data.client_digest(info.index),
            cache=self._cache,
            events=self._events,
            code=self._code,
        )

    def _warm_up(self) -> State:
        streams = Streams(self.scenario.seed)
        state: State = initial_state(self.task, self.width, streams.torch("initial weights"))
        rounds = self.scenario.warmup.rounds
        if not rounds:
            return state
        with self._cache.alone("warm-up", self._warmup_description(rounds)):
            state = self._warmed_up(state, rounds)
        self._book_warm_up(state, rounds)
        return state

    def _warmed_up(self, state: State, rounds: int) -> State:
        """Return the state after the warm-up, taking from the cache what is there of it."""
        done, here = 0, processor(self.compute.device)
        for candidate in range(rounds, 0, -1):  # a shorter warm-up is the start of a longer one
            entry = self._cache.get("warm-up", self._warmup_description(candidate))
            if entry is not None:
                state, done = entry.load(), candidate
                self.warmup_seconds = float(entry.info["seconds"])
                self.other_processors = makers_of(entry) - {here}
                break
        for round_index in range(done, rounds):
            began = time.perf_counter()
            state = self._warm_up_round(state, round_index)
            self.warmup_seconds += time.perf_counter() - began
            done = round_index + 1
            self._events.progress("warm-up", done, rounds)
            if done == rounds or done % WARMUP_CHECKPOINT == 0:
                makers = sorted({here} | self.other_processors)
                info = {"seconds": self.warmup_seconds, "rounds": done, MADE_ON: makers}
                self._cache.put("warm-up", self._warmup_description(done), dict(state), info)
        return state

    def _warm_up_round(self, state: State, round_index: int) -> State:
        """One round of FedAvg, or of FedRolex's aggregation where widths differ (rule: design).

        Clients train as the average asks for them, so that one model is in memory at a time.
        """
        if self.scenario.homogeneous:
            states = (state for _, state in self._warm_up_clients(state, round_index))
            return weighted_average(states, self.data.partition.sizes)
        uploads = (
            SubmodelUpload(
                upload,
                index_sets(self.task, self.width, client.info.width, round_index),
                torch.nonzero(client.label_counts).flatten().tolist(),
            )
            for client, upload in self._warm_up_clients(state, round_index)
        )
        return aggregate(state, uploads)

    def _warm_up_clients(
        self, state: State, round_index: int
    ) -> Iterator[tuple[LocalClient, State]]:
        for info in self.infos:
            client = self._client(ClientInfo(info.index, info.width, round_index), state)
            client.round = round_index
            model = client.initial_model()
            # Averages are made without gradients, and this runs inside of one.
            with torch.enable_grad():
                client.warm_up(model)
            yield client, model.state_dict()

    def _book_warm_up(self, state: State, rounds: int) -> None:
        for info in self.infos:
            part = state
            if not self.scenario.homogeneous:
                part = slice_state(
                    state, index_sets(self.task, self.width, info.width, info.window)
                )
            # FedAvg weighs by samples; FedRolex's aggregation asks for the classes held instead.
            values: dict[str, Any] = {"samples": self.data.partition.sizes[info.index]}
            if not self.scenario.homogeneous:
                held = np.flatnonzero(self.data.partition.counts[info.index])
                values = {"classes": [int(label) for label in held]}
            down = account_for(Broadcast({"model": part}))
            up = account_for(Upload({"model": part}, values))
            # The first broadcast is the common initialisation, a seed; after the last round
            # every client is sent the state that its local training starts from.
            for round_index in range(rounds):
                self.warmup_traffic.uploads[round_index, info.index] = up
                self.warmup_traffic.broadcasts[round_index + 1, info.index] = down

    def _warmup_description(self, rounds: int) -> dict[str, Any]:
        scenario = self.scenario
        return {
            "data": self.data.pool_digest(),
            "split": self.data.partition.digest,
            "augmentation": repr(self.augmentation),
            "normalization": repr(self.task.normalization),
            "image_size": self.task.image_size,
            "model": self.task.model.canonical(),
            "widths": [str(info.width) for info in self.infos],
            "recipe": {**scenario.recipe.canonical(), "epochs": None, "lr": None},
            "steps": scenario.warmup.steps,
            "lr": scenario.warmup.lr,
            "rounds": rounds,
            "seed": scenario.seed,
            "compute": self.compute.canonical(),
            "torch": torch.__version__,
            "version": RECIPE_VERSION,
        }


class FederationOracle:
    """What a reference row may see; implements :class:`benchmark.contract.Oracle`."""

    def __init__(self, federation: Federation, events: Events) -> None:
        self._scenario = federation.scenario
        self._compute = federation.compute
        self._augmentation = federation.augmentation
        self._task = federation.task
        self._events = events
        device = torch.device(federation.compute.device)
        self._pool: Samples = federation.data.everybody(device)
        self._validation: Samples = federation.data.validation(device)

    @property
    def images(self) -> Tensor:
        """All clients' training images, uint8 [n, C, H, W]."""
        return self._pool.images

    @property
    def labels(self) -> Tensor:
        """All clients' labels, int64 [n]."""
        return self._pool.labels

    @property
    def validation_images(self) -> Tensor:
        """The held-out part of the training set, uint8 [n, C, H, W]."""
        return self._validation.images

    @property
    def validation_labels(self) -> Tensor:
        """Labels of the held-out part, int64 [n]."""
        return self._validation.labels

    def train_centrally(self, model: Classifier) -> None:
        """Train ``model`` in place on all clients' data by the scenario's recipe."""
        train(
            model,
            self._pool.images,
            self._pool.labels,
            recipe=self._scenario.recipe,
            normalization=self._task.normalization,
            augmentation=self._augmentation,
            generator=Streams(self._scenario.seed).torch(
                "central training", device=self._compute.device
            ),
            compute=self._compute,
            on_step=self._events.on_step("central training"),
            where="central training",
        )

    def accuracy(self, model: nn.Module, images: Tensor, labels: Tensor) -> float:
        """Return the share of ``images`` that ``model`` classifies as ``labels``."""
        result = evaluate(
            model,
            images,
            labels,
            normalization=self._task.normalization,
            num_classes=self._task.num_classes,
            device=torch.device(self._compute.device),
        )
        return result.accuracy


def assign_widths(scenario: ScenarioSpec) -> list[Fraction]:
    """Return each client's width: the plan repeated over the clients, dealt out per split."""
    clients = scenario.partition.clients
    repeated = [scenario.widths[index % len(scenario.widths)] for index in range(clients)]
    if scenario.homogeneous:
        return repeated
    order = Streams(scenario.split_seed).numpy("widths").permutation(clients)
    return [repeated[position] for position in np.asarray(order)]


def _start(state: State, task: Task, full: Fraction | None, info: ClientInfo) -> State:
    """Return what a client's training starts from: all of it, or its window where widths differ.

    Cut out when it is needed: the slices of many clients are many models.
    """
    if full is None:
        return state
    return slice_state(state, index_sets(task, full, info.width, info.window))
