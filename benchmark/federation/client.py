"""One client: its data, its model, its chance, and nothing else."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor

from benchmark.contract import Broadcast, ClientInfo, Loss, Made, Task
from benchmark.environment import processor
from benchmark.events import Events
from benchmark.federation.data import Samples
from benchmark.federation.ledger import Ledger
from benchmark.federation.slicing import empty_model, index_sets, slice_state
from benchmark.flops import FlopMeter
from benchmark.models.base import Classifier
from benchmark.seeds import Streams
from benchmark.specs import RECIPE_VERSION, BudgetSpec, ComputeSpec, RecipeSpec, ScenarioSpec
from benchmark.store import Cache, Entry
from benchmark.training.precision import autocast
from benchmark.training.trainer import train
from datasets import Augmentation

TRAINING = "train"
"""Purpose of client-training streams, the same for every method on purpose."""


class LocalClient:
    """A client of the federation; implements :class:`benchmark.contract.Client`.

    Parameters
    ----------
    info : ClientInfo
        Index, width and window.
    task : Task
        Shapes and ranges.
    samples : Samples
        Its data, on the device.
    start : callable
        Returns the state that its training starts from, in its own width.
    common : mapping of str to Tensor or None
        The common initialisation at the global width, which everybody can make from its seed;
        ``None`` after a warm-up.
    scenario : ScenarioSpec
        Recipe, warm-up and seed.
    compute : ComputeSpec
        Device, precision, threads.
    augmentation : Augmentation
        The dataset's.
    data_digest : dict
        What determines its data, for the cache key.
    cache : Cache
        Where trained models are kept.
    events : Events
        Where progress goes.
    code : dict, optional
        Digest and versions of the method's code, for the keys of what it makes.

    Attributes
    ----------
    budget : BudgetSpec
        What the profile grants; set by the protocol.
    config : dict
        The method's configuration; set by the protocol, for the keys of what is made.
    arrived : Broadcast
        The round's broadcast; for these keys, too.
    reports : dict of (int, int) to (dict of str to float)
        Reported losses by round and step.
    flops : FlopMeter
        Counts its operations.
    ledger : Ledger
        Books what its artefacts took.
    patient : bool
        Whether it waits for what another run is making just now, rather than raise
        :class:`~benchmark.store.BusyError`.
    """

    def __init__(
        self,
        *,
        info: ClientInfo,
        task: Task,
        samples: Samples,
        start: Callable[[], Mapping[str, Tensor]],
        common: Mapping[str, Tensor] | None,
        scenario: ScenarioSpec,
        compute: ComputeSpec,
        augmentation: Augmentation,
        data_digest: Mapping[str, Any],
        cache: Cache,
        events: Events,
        code: Mapping[str, Any] | None = None,
    ) -> None:
        self.info = info
        self.task = task
        self.images = samples.images
        self.labels = samples.labels
        self.round = 0
        self._made: dict[tuple[str, str], Entry] = {}
        self.budget = BudgetSpec()
        self.config: Mapping[str, Any] = {}
        self.arrived = Broadcast()
        self.flops = FlopMeter()
        self.ledger = Ledger(self.flops, processor(compute.device))
        self.patient = True
        self.reports: dict[tuple[int, int], dict[str, float]] = {}
        self._told: list[tuple[int, dict[str, float]]] | None = None
        self._start = start
        self._common = common
        self._scenario = scenario
        self._compute = compute
        self._augmentation = augmentation
        self._data_digest = dict(data_digest)
        self._cache = cache
        self._events = events
        self._code = code
        self._streams = Streams(scenario.seed)

    @property
    def num_samples(self) -> int:
        """Number of local samples."""
        return len(self.labels)

    @property
    def label_counts(self) -> Tensor:
        """Samples of each class, int64 [num_classes], on the CPU."""
        return torch.bincount(self.labels.cpu(), minlength=self.task.num_classes)

    @property
    def recipe(self) -> RecipeSpec:
        """The scenario's local training recipe.

        Where a few steps only follow a warm-up, they are trained as one more of its rounds is:
        at its learning rate, which stays constant.
        """
        warmup = self._scenario.warmup
        if self._few_steps():
            return self._scenario.recipe.model_copy(
                update={"lr": warmup.lr, "schedule": "constant"}
            )
        return self._scenario.recipe

    @property
    def device(self) -> torch.device:
        """Where to compute."""
        return torch.device(self._compute.device)

    def local_steps(self) -> int:
        """Return the SGD steps of one full local training."""
        if self._few_steps():
            return self._scenario.warmup.steps
        return self.recipe.epochs * math.ceil(self.num_samples / self.recipe.batch_size)

    def _few_steps(self) -> bool:
        warmup = self._scenario.warmup
        return warmup.rounds > 0 and warmup.local == "steps"

    def initial_model(
        self,
        *,
        scheme: str = "rolling",
        phase: Fraction = Fraction(0),
        generator: torch.Generator | None = None,
    ) -> Classifier:
        """Return an untrained model with the weights that local training starts from."""
        if scheme == "rolling":
            start = self._start()
        else:
            if self._common is None:
                raise ValueError("after a warm-up a client holds its own window only; send it")
            sets = index_sets(
                self.task,
                self._scenario.max_width,
                self.info.width,
                self.info.window,
                scheme=scheme,
                phase=phase,
                generator=generator,
            )
            start = slice_state(self._common, sets)
        model = empty_model(self.task, self.info, self.device)
        model.load_state_dict(dict(start))
        return model

    def local_model(self) -> Classifier:
        """Return this client's model: trained once per scenario, then taken from the cache."""

        def make() -> Made:
            model = self.initial_model()
            # Whichever round asks for it first, it is the model of round 0.
            chance = self._streams.torch(
                TRAINING, client=self.info.index, round=0, device=self.device
            )
            steps = self._fit(model, TRAINING, self.local_steps(), chance=chance)
            return model.state_dict(), {"steps": steps}

        entry = self._made_once("client", self._description(), make, "flops")
        # Fresh or cached, the model is loaded from the same bytes in the same layout.
        model = self.initial_model()
        model.load_state_dict(entry.load())
        return model.eval()

    def train(
        self,
        model: Classifier,
        *,
        steps: int | None = None,
        lr: float | None = None,
        label_masked: bool = False,
        loss: Loss | None = None,
    ) -> None:
        """Train ``model`` in place on this client's data; see the contract."""
        if steps is None:
            steps = self.local_steps()
        self._fit(model, TRAINING, steps, lr=lr, label_masked=label_masked, loss=loss)

    def warm_up(self, model: Classifier) -> None:
        """Train ``model`` in place for one warm-up round."""
        warmup = self._scenario.warmup
        self._fit(model, "warm-up", warmup.steps, lr=warmup.lr)

    def cached(
        self, kind: str, description: Mapping[str, Any], make: Callable[[], Made]
    ) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return what ``make`` makes, or what it made in an earlier run; see the contract."""

        def noted() -> Made:
            around, self._told = self._told, []
            try:
                tensors, values = _unpacked(make(), kind)
                return tensors, {"values": dict(values), "reports": self._told}
            finally:
                self._told = around

        key = {"of": self._description(), "round": self.round, "what": dict(description)}
        if not {"code", "version"} & description.keys():
            # Nobody can forget what it depends on: an edit of the method makes it anew, too.
            key |= {"code": self._code, "config": dict(self.config), "arrived": self._arrived()}
            key["budget"] = self.budget.canonical()
        # Not "flops", where caches of earlier versions have what was estimated wrongly. Entries
        # without "used" are older than it: theirs may hold the client's training, too.
        entry = self._made_once(kind, key, noted, "operations")
        for step, scalars in entry.info.get("reports", ()):
            # What was reported while it was made, if in another run; JSON has words for NaN.
            self._note(step, {name: float(value) for name, value in scalars.items()})
        return entry.load(), dict(entry.info["values"])

    def _arrived(self) -> dict[str, Any]:
        """Return what the round's broadcast holds, tensors as digests."""
        parts = {name: state_digest(tensors) for name, tensors in self.arrived.parts.items()}
        return {"values": dict(self.arrived.values), "parts": parts}

    def _made_once(
        self, kind: str, description: Mapping[str, Any], make: Callable[[], Made], operations: str
    ) -> Entry:
        """Return a cache entry; raise BusyError if another run is at it and ``patient`` is off.

        Remembered here, so that what is asked for twice is made once without a cache, too.
        """

        def get_or_make(priced: Callable[[], Made]) -> Entry:
            name = (kind, self._cache.key(description))
            if name not in self._made:
                wait = None if self.patient else 0.0
                self._made[name] = self._cache.get_or_make(kind, description, priced, wait=wait)
            return self._made[name]

        return self.ledger.entry(get_or_make, make, operations)

    def generator(self, purpose: str) -> torch.Generator:
        """Return this client's random stream for a purpose and the current round."""
        return self._stream(purpose)

    def _stream(self, purpose: str) -> torch.Generator:
        return self._streams.torch(
            purpose, client=self.info.index, round=self.round, device=self.device
        )

    def autocast(self) -> AbstractContextManager[Any]:
        """Return the context in which forward passes run at the run's precision."""
        return autocast(self._compute)

    def report(self, step: int, total: int, **scalars: float) -> None:
        """Report progress and losses; one reported again replaces what it was."""
        self._events.progress(f"client {self.info.index}", step, total, **scalars)
        # A number that nobody keeps is not asked for: on a GPU that would wait for it.
        if scalars and (self._told is not None or self.budget.history_points):
            self._note(int(step), {name: float(value) for name, value in scalars.items()})

    def _note(self, step: int, scalars: dict[str, float]) -> None:
        if self._told is not None:
            self._told.append((step, scalars))
        if self.budget.history_points:
            self.reports[self.round, step] = scalars

    def _fit(
        self,
        model: Classifier,
        purpose: str,
        steps: int,
        *,
        lr: float | None = None,
        label_masked: bool = False,
        loss: Loss | None = None,
        chance: torch.Generator | None = None,
    ) -> int:
        where = f"client {self.info.index}"
        doing = "warm-up of" if purpose == "warm-up" else "training"
        summary = train(
            model,
            self.images,
            self.labels,
            recipe=self._recipe_for(purpose),
            normalization=self.task.normalization,
            augmentation=self._augmentation if self.recipe.augment else Augmentation(),
            generator=chance or self._stream(purpose),
            compute=self._compute,
            steps=steps,
            lr=lr,
            class_mask=(self.label_counts > 0).to(self.device) if label_masked else None,
            objective=loss,
            on_step=self._events.on_step(f"{doing} {where}"),
            where=where,
        )
        return summary.steps

    def _recipe_for(self, purpose: str) -> RecipeSpec:
        # A warm-up round is a few steps of constant size; annealing inside it means nothing.
        if purpose == "warm-up":
            return self.recipe.model_copy(update={"schedule": "constant"})
        return self.recipe

    def _description(self) -> dict[str, Any]:
        """Return everything that determines the local model."""
        return {
            "data": self._data_digest,
            "augmentation": repr(self._augmentation) if self.recipe.augment else "none",
            "normalization": repr(self.task.normalization),
            "model": self.task.model.canonical(),
            "width": str(self.info.width),
            "window": self.info.window,
            "start": state_digest(self._start()),
            "recipe": self.recipe.canonical(),
            "steps": self.local_steps(),
            "seed": self._scenario.seed,
            "client": self.info.index,
            "compute": self._compute.canonical(),
            "torch": torch.__version__,
            "version": RECIPE_VERSION,
        }


def _unpacked(made: object, kind: str) -> Made:
    """Return what ``make`` made, or say what it should have."""
    if isinstance(made, tuple) and len(made) == 2 and all(isinstance(x, Mapping) for x in made):
        return made
    raise TypeError(
        f"client.cached('{kind}'): make must return (tensors by name, JSON values), two mappings; "
        f"it returned {type(made).__name__}"
    )


def state_digest(state: Mapping[str, Tensor]) -> str:
    """Return the digest of a state dict: names, types, shapes and bits, in whatever order."""
    digest = hashlib.sha256()
    # A state from the cache is sorted by name, one just made is not.
    for name, tensor in sorted(state.items()):
        digest.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)};".encode())
        flat = tensor.detach().cpu().contiguous().flatten()
        digest.update(flat.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
