"""The server's side: what a method may see there. No client's data is reachable from it."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor, nn

from benchmark.contract import ClientInfo, Task
from benchmark.events import Events
from benchmark.federation.slicing import empty_model, index_sets, initial_state, slice_state
from benchmark.models.base import Classifier
from benchmark.models.submodel import IndexSets
from benchmark.seeds import Streams
from benchmark.specs import BudgetSpec, ComputeSpec, StudentSpec
from benchmark.training.precision import autocast

SCALAR_POINTS = 100
"""Steps at which losses are kept, at most; models are kept at the profile's points."""


@dataclass(frozen=True, eq=False)
class Snapshot:
    """The global model as it was at a reported step, kept for the harness to evaluate later."""

    round: int
    step: int
    scalars: Mapping[str, float]
    model: nn.Module | None
    teacher: nn.Module | None = None


class ServerContext:
    """The server of one method; implements :class:`benchmark.contract.Server`.

    Parameters
    ----------
    task : Task
        Shapes and ranges.
    clients : sequence of ClientInfo
        All clients.
    width : Fraction
        Width of the global model.
    start : mapping of str to Tensor
        State that the scenario starts from, at the global width.
    seed : int
        The training seed.
    method : str
        The method's name: server streams carry it.
    rounds : int
        Rounds of the method.
    budget : BudgetSpec
        What the profile grants.
    student : StudentSpec
        The scenario's setting for students.
    compute : ComputeSpec
        Device, precision, threads.
    events : Events
        Where progress goes.
    """

    def __init__(
        self,
        *,
        task: Task,
        clients: Sequence[ClientInfo],
        width: Fraction,
        start: Mapping[str, Tensor],
        seed: int,
        method: str,
        rounds: int,
        budget: BudgetSpec,
        student: StudentSpec,
        compute: ComputeSpec,
        events: Events,
    ) -> None:
        self.task = task
        self.clients = tuple(clients)
        self.rounds = rounds
        self.round = 0
        self.budget = budget
        self.student = student
        self.state: dict[str, Any] = {}
        self.snapshots: list[Snapshot] = []
        self._last_round = self._last_step = 0
        self._width = width
        self._start = start
        self._streams = Streams(seed, method)
        self._compute = compute
        self._events = events
        self.global_model: nn.Module = self.initial_model()

    @property
    def device(self) -> torch.device:
        """Where to compute."""
        return torch.device(self._compute.device)

    def initial_model(self, width: Fraction | None = None) -> Classifier:
        """Return a model with the weights that the scenario starts from."""
        state = self._start
        info = ClientInfo(-1, width or self._width, self.clients[0].window)
        if info.width != self._width:
            sets = index_sets(self.task, self._width, info.width, info.window)
            state = slice_state(state, sets)
        return self._load(info, state)

    def new_model(self, purpose: str = "student", width: Fraction | None = None) -> Classifier:
        """Return a model with fresh random weights of this method's own stream."""
        info = ClientInfo(-1, width or self._width)
        generator = self._streams.torch(f"weights of {purpose}", round=self.round)
        return self._load(info, initial_state(self.task, info.width, generator)).train()

    def client_model(self, client: int, state: Mapping[str, Tensor]) -> Classifier:
        """Return client ``client``'s architecture with an uploaded state, frozen, in eval mode."""
        model = self._load(self.clients[client], state)
        return model.eval().requires_grad_(False)

    def index_sets(
        self,
        client: int,
        window: int | None = None,
        *,
        scheme: str = "rolling",
        phase: Fraction = Fraction(0),
        generator: torch.Generator | None = None,
    ) -> IndexSets:
        """Return which channels of the global model a client's model holds."""
        info = self.clients[client]
        return index_sets(
            self.task,
            self._width,
            info.width,
            info.window if window is None else window,
            scheme=scheme,
            phase=phase,
            generator=generator,
        )

    def generator(self, purpose: str) -> torch.Generator:
        """Return this method's random stream for a purpose and the current round."""
        return self._streams.torch(purpose, round=self.round, device=self.device)

    def autocast(self) -> AbstractContextManager[Any]:
        """Return the context in which forward passes run at the run's precision."""
        return autocast(self._compute)

    def report(
        self,
        step: int,
        total: int,
        model: nn.Module | None = None,
        *,
        teacher: nn.Module | None = None,
        **scalars: float,
    ) -> None:
        """Report progress, losses, the current global model and its teacher.

        Copies of the models are kept at the steps that the profile asks for; the harness
        evaluates the copies after the method has ended, so nothing can flow back.
        """
        self._events.progress("server", step, total, **scalars)
        points = self.budget.history_points
        # Steps begin anew with a round, or run on through all of them.
        same = self._last_round == self.round or step > self._last_step
        before = self._last_step if same else 0
        self._last_round, self._last_step = self.round, step
        if _due(before, step, total, SCALAR_POINTS if points else 0) or step == total:
            keep = points > 0 and (_due(before, step, total, points) or step == total)
            kept = [copy.deepcopy(module) if keep else None for module in (model, teacher)]
            values = {name: float(value) for name, value in scalars.items()}
            if self.snapshots and (self.snapshots[-1].round, self.snapshots[-1].step) == (
                self.round,
                step,
            ):
                # Reported again, such as the finished model after the last step.
                self.snapshots.pop()
            self.snapshots.append(Snapshot(self.round, step, values, *kept))

    def _load(self, info: ClientInfo, state: Mapping[str, Tensor]) -> Classifier:
        model = empty_model(self.task, info, self.device)
        model.load_state_dict(dict(state))
        return model


def _due(before: int, step: int, total: int, points: int) -> bool:
    """Return whether one of evenly spread points lies after ``before`` and not after ``step``."""
    if points < 1 or total < 1:
        return False
    return (step * points) // total > (before * points) // total
