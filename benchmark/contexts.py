"""What crosses the wire, and what the functions of a method see on either side of it.

Clients see their own data, model and chance; the server sees uploads and public facts;
an oracle is what reference rows may see on top. All are protocols: the engine implements
them, tests may too. Importing this module costs no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from benchmark.images import Normalization
    from benchmark.models.base import Classifier
    from benchmark.models.submodel import IndexSets
    from benchmark.specs import BudgetSpec, ModelSpec, RecipeSpec, StudentSpec


@dataclass(frozen=True)
class Message:
    """What crosses the wire: named tensors in named parts, and small JSON values.

    Parameters
    ----------
    parts : mapping of str to (mapping of str to Tensor)
        Tensors by part, such as ``{"model": state, "counts": {"label": counts}}``; bytes
        are booked by part. Part names contain no slash.
    values : mapping of str to JSON value
        Small metadata.
    """

    parts: Mapping[str, Mapping[str, Tensor]] = field(default_factory=dict)
    values: Mapping[str, Any] = field(default_factory=dict)


class Upload(Message):
    """What a client sends the server.

    There its tensors are read when they are looked at, from memory or from the disk, and each
    look gives a fresh tensor on the CPU: a stream over the clients' states holds one tensor at a
    time, however many clients there are. Writing into a tensor changes neither the upload nor
    what the next look finds; what is looked at often is better kept.
    """


class Broadcast(Message):
    """What the server sends a client."""


@dataclass(frozen=True)
class Task:
    """What everybody knows about the problem: shapes and ranges, never a sample.

    ``crop_padding`` (pixels) and ``flip`` are the augmentation that clients train with.
    """

    num_classes: int
    channels: int
    image_size: int
    normalization: Normalization
    model: ModelSpec
    crop_padding: int = 0
    flip: bool = False


@dataclass(frozen=True)
class ClientInfo:
    """What the server knows of a client without asking.

    Parameters
    ----------
    index : int
        0 … K-1; uploads are keyed by it.
    width : Fraction
        Share of each layer's channels that its model keeps.
    window : int
        Round ``t`` of the rolling window that its first weights were taken from.
    """

    index: int
    width: Fraction
    window: int = 0


class Client(Protocol):
    """What :meth:`Method.client_update` sees: one client's data, model and chance."""

    @property
    def info(self) -> ClientInfo:
        """Index and width."""

    @property
    def task(self) -> Task:
        """Shapes and ranges of the problem."""

    @property
    def images(self) -> Tensor:
        """The client's training images, uint8 [n, C, H, W], on the device."""

    @property
    def labels(self) -> Tensor:
        """The client's labels, int64 [n], on the device."""

    @property
    def num_samples(self) -> int:
        """Number of local samples n."""

    @property
    def label_counts(self) -> Tensor:
        """Samples of each class, int64 [num_classes], on the CPU."""

    @property
    def round(self) -> int:
        """The current round, 0-based."""

    @property
    def recipe(self) -> RecipeSpec:
        """The scenario's local training recipe."""

    @property
    def device(self) -> torch.device:
        """Where to compute."""

    @property
    def budget(self) -> BudgetSpec:
        """What the profile grants; a client's own generator may take ``generator_steps``."""

    def local_steps(self) -> int:
        """Return the number of SGD steps of one full local training."""

    def local_model(self) -> Classifier:
        """Return this client's model, trained once per scenario and shared by all methods."""

    def initial_model(
        self,
        *,
        scheme: str = "rolling",
        phase: Fraction = Fraction(0),
        generator: torch.Generator | None = None,
    ) -> Classifier:
        """Return an untrained model with the weights that local training starts from.

        Other channels of the common initialisation, chosen as in :meth:`Server.index_sets`,
        can be had without warm-up only: it is a seed, whereas what comes out of a warm-up
        must be sent.
        """

    def train(
        self,
        model: Classifier,
        *,
        steps: int | None = None,
        lr: float | None = None,
        label_masked: bool = False,
        loss: Loss | None = None,
    ) -> None:
        """Train ``model`` in place on this client's data by the scenario's recipe.

        Parameters
        ----------
        model : Classifier
            Any classifier of this problem.
        steps : int, optional
            SGD steps; the full recipe if not given.
        lr : float, optional
            Learning rate; the recipe's if not given.
        label_masked : bool
            Whether logits of classes that this client does not hold are set to zero in
            the loss (HeteroFL's masked cross-entropy).
        loss : callable, optional
            What is minimised in place of the mean cross-entropy, such as that with FedProx's
            proximal term: ``loss(model, images, logits, labels)``, see :data:`Loss`. Optimiser,
            schedule, batches and augmentation stay the recipe's.

        Each call of a round begins the same batches, with optimiser and schedule, anew: give one
        model all its steps at once.
        """

    def cached(
        self, kind: str, description: Mapping[str, Any], make: Callable[[], Made]
    ) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return what ``make`` makes, or what it made in an earlier run.

        Parameters
        ----------
        kind : str
            What it is, in small letters, such as ``"generator"``.
        description : mapping of str to JSON value
            What tells several artefacts of a kind apart. Added here are this client's data,
            start, local training, seed, round, precision and the version of torch; and the method's
            code and configuration, the budget and the round's broadcast. A ``"version"`` (or
            ``"code"``) in it stands for these four instead: methods and configurations that
            describe the same share what they make, so all that it depends on has to be
            described, and whoever edits the code has to raise it.
        make : callable
            Returns tensors by name, and small JSON values about them: all that is needed of it,
            for what it writes elsewhere, or draws from a stream begun outside, is missing where
            the artefact is found. Its seconds and operations are booked as the client's work, once
            a run, as they were measured when it was made, and so are those of what it asked for
            meanwhile; what it reported is reported again.

        Returns
        -------
        tuple of dict
            Tensors on the CPU, and the JSON values.
        """

    def generator(self, purpose: str) -> torch.Generator:
        """Return this client's random stream for a purpose and the current round.

        The same purpose begins the same stream at each call, and for every method: ask once,
        before a loop, and leave ``"train"`` and ``"warm-up"`` to the local training.
        """

    def autocast(self) -> AbstractContextManager[Any]:
        """Return the context in which forward passes run at the run's precision."""

    def report(self, step: int, total: int, **scalars: float) -> None:
        """Report progress and losses; passive. They become rows of the run's history."""


Loss = Callable[["nn.Module", "Tensor", "Tensor", "Tensor"], "Tensor"]
"""From the model in train mode, images [B, C, H, W] in classifier range, their logits
[B, classes] (fp32, masked where the training is) and labels [B] to the loss (0-d)."""

Made = tuple["Mapping[str, Tensor]", Mapping[str, Any]]
"""Tensors by name, and small JSON values about them."""


class Server(Protocol):
    """What :meth:`Method.server_update` sees beside the uploads. No data is reachable from it."""

    @property
    def task(self) -> Task:
        """Shapes and ranges of the problem."""

    @property
    def clients(self) -> Sequence[ClientInfo]:
        """All clients, by index."""

    @property
    def round(self) -> int:
        """The current round, 0-based."""

    @property
    def rounds(self) -> int:
        """Number of rounds of this method."""

    @property
    def global_model(self) -> nn.Module:
        """The previous round's global model (round 0: the scenario's starting state)."""

    @property
    def state(self) -> dict[str, Any]:
        """The method's own memory between rounds."""

    @property
    def budget(self) -> BudgetSpec:
        """Generator steps and images that the profile grants every method alike."""

    @property
    def student(self) -> StudentSpec:
        """How the scenario starts and normalises the student of distilling methods."""

    @property
    def device(self) -> torch.device:
        """Where to compute."""

    def initial_model(self, width: Fraction | None = None) -> Classifier:
        """Return a model with the weights that the scenario starts from (full width if not given).

        For narrower widths it is the slice that the scenario's window names.
        """

    def new_model(self, purpose: str = "student", width: Fraction | None = None) -> Classifier:
        """Return a model with fresh random weights of this method's own stream."""

    def client_model(self, client: int, state: Mapping[str, Tensor]) -> Classifier:
        """Return client ``client``'s architecture with an uploaded state, frozen, in eval mode."""

    def index_sets(
        self,
        client: int,
        window: int | None = None,
        *,
        scheme: str = "rolling",
        phase: Fraction = Fraction(0),
        generator: torch.Generator | None = None,
    ) -> IndexSets:
        """Return which channels of the global model a client's model holds.

        ``window`` is the rolling round; by default the one of the client's first weights.
        ``scheme``, ``phase`` and ``generator`` are those of
        :func:`benchmark.models.windows.index_sets`; a staggered window rolls from its phase.
        A client of the global model's width holds all channels in order, whatever the scheme.
        """

    def generator(self, purpose: str) -> torch.Generator:
        """Return this method's random stream for a purpose and the current round.

        The same purpose begins the same stream at each call: ask once, before a loop.
        """

    def autocast(self) -> AbstractContextManager[Any]:
        """Return the context in which forward passes run at the run's precision."""

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

        ``step`` of ``total`` counts the images that a student has been distilled on, or rounds
        where there is no student: figures draw the histories of several methods over it.

        The harness evaluates both models at the steps the profile asks for: a passive
        record, which nothing in a method can read. Teachers of equal state are evaluated
        once.
        """


class Oracle(Protocol):
    """What a reference row may see beside what methods see. Never the test set."""

    @property
    def images(self) -> Tensor:
        """All clients' training images, uint8 [n, C, H, W]."""

    @property
    def labels(self) -> Tensor:
        """All clients' labels, int64 [n]."""

    @property
    def validation_images(self) -> Tensor:
        """The held-out part of the training set, uint8 [n, C, H, W]; empty without holdout."""

    @property
    def validation_labels(self) -> Tensor:
        """Labels of the held-out part, int64 [n]."""

    def train_centrally(self, model: Classifier) -> None:
        """Train ``model`` in place on all clients' data by the scenario's recipe."""

    def accuracy(self, model: nn.Module, images: Tensor, labels: Tensor) -> float:
        """Return the share of ``images`` (uint8) that ``model`` classifies as ``labels``."""
