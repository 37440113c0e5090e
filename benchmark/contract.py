"""The plugin contract: what a method is, and all that it may see.

A method is one class with a name, a validated configuration and three functions:

- :meth:`Method.broadcast` (optional): what a client is sent in a round;
- :meth:`Method.client_update`: what a client makes of it and uploads, "on the device";
- :meth:`Method.server_update`: what the server makes of the uploads.

What these see is described in :mod:`benchmark.contexts`, whose names can be imported from
here. Importing this module costs no torch, so that a plugin's metadata is cheap to read.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from benchmark.contexts import (
    Broadcast,
    Client,
    ClientInfo,
    Loss,
    Made,
    Message,
    Oracle,
    Server,
    Task,
    Upload,
)

if TYPE_CHECKING:
    from torch import Tensor, nn

    from benchmark.specs import BudgetSpec, ScenarioSpec

__all__ = [
    "Broadcast",
    "Client",
    "ClientInfo",
    "Generated",
    "GlobalModel",
    "Information",
    "Loss",
    "Made",
    "Message",
    "Method",
    "MethodConfig",
    "Oracle",
    "Reference",
    "Server",
    "Source",
    "Task",
    "Upload",
    "parameter",
]


class Information(StrEnum):
    """What a method uses beyond the images on the device; tables group by it."""

    WEIGHTS = "weights"
    SAMPLE_COUNTS = "sample counts"
    LABEL_COUNTS = "label counts"
    LABEL_SETS = "label sets"
    PROTOTYPES = "prototypes"
    GENERATORS = "generators"
    PUBLIC_DATA = "public data"
    VALIDATION = "validation data"
    ALL_DATA = "all data"


@dataclass(frozen=True)
class Source:
    """Where a method was published."""

    title: str
    year: int
    link: str


class MethodConfig(BaseModel):
    """Base of a method's configuration: frozen, validated, documented field by field.

    Declare fields with :func:`parameter`. Unknown keys are refused.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def parameter(
    default: Any, meaning: str, *, unit: str = "", source: str = "ours", **limits: Any
) -> Any:
    """Declare one hyper-parameter.

    Parameters
    ----------
    default : object
        Its default, from the paper where the paper says one.
    meaning : str
        What it does, one sentence.
    unit : str
        Its unit, empty for pure numbers and switches.
    source : str
        Where the default comes from: ``"paper"``, ``"code"`` (the published one) or ``"ours"``.
    **limits
        pydantic's constraints, such as ``ge=0``.
    """
    extra: dict[str, JsonValue] = {"unit": unit, "source": source}
    return Field(default, description=meaning, json_schema_extra=extra, **limits)


@dataclass(frozen=True)
class Generated:
    """Images that a method made, to be measured by the harness.

    Parameters
    ----------
    images : Tensor
        uint8 [n, C, H, W], n ≥ 1: those that the student learned from, or a sample of them.
    clients : Tensor, optional
        int64 [n]: the client whose generator made each image, where there is one.
    """

    images: Tensor
    clients: Tensor | None = None


@dataclass(frozen=True)
class GlobalModel:
    """What a method hands over.

    Parameters
    ----------
    model : nn.Module
        From images in classifier range [B, C, H, W] to logits [B, num_classes]: one network, as
        the clients have. What answers by several of them is a teacher, or makes the plugin a
        :class:`Reference`; tables show the operations of an answer.
    teacher : nn.Module, optional
        The teacher that it was distilled from; evaluated beside it.
    details : mapping of str to JSON value
        Anything worth keeping in the record, the same on every repetition. Tables read

        - ``counters``: what the run spent, for "Budget spent": any of ``generator_steps`` (the
          server's), ``generated_images``, ``distilled_images`` and ``student_steps``;
        - ``also_uses``: list of :class:`Information` that this run used beyond what its method
          declares in ``uses``, such as for an option; rows are grouped by both;
        - ``student_start``: ``"aggregate"`` where the student started from the mean of clients by
          their sample counts, which the row is then said to use;
        - ``label``: what to call a row whose options make it another method;
        - ``not_for_tables``: true for a published habit that no table may show as a result.
    images : mapping of str to Tensor
        Sample grids by name, each uint8 [n, C, H, W]; kept as pictures beside the record. The
        harness puts real images beside them: of client K where the name starts with ``client K``,
        else of all clients.
    warnings : tuple of str
        What a reader of the record should know, one line each.
    generated : Generated, optional
        What it distilled from, where that was made by a generator; the harness measures its
        distance to real images. Pictures are kept of ``images`` alone.
    """

    model: nn.Module
    teacher: nn.Module | None = None
    details: Mapping[str, Any] = field(default_factory=dict)
    images: Mapping[str, Tensor] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    generated: Generated | None = None


ConfigT = TypeVar("ConfigT", bound=MethodConfig)


class Method(ABC, Generic[ConfigT]):
    """A federated-learning method: subclass it in one file under ``methods/``.

    Parameters
    ----------
    config : MethodConfig
        The validated configuration.
    """

    name: ClassVar[str]
    """How the command line calls it."""
    summary: ClassVar[str]
    """One line."""
    source: ClassVar[Source | None] = None
    """The paper, if any."""
    kind: ClassVar[Literal["method", "reference"]] = "method"
    """``"reference"`` marks every table's row of what is no method, such as an answer by several
    models. What needs data that no method may see is a :class:`Reference`."""
    uses: ClassVar[frozenset[Information]] = frozenset({Information.WEIGHTS})
    """What it uses beyond the images on the device."""
    uploads: ClassVar[str] = ""
    """What a client sends, in words."""
    implemented: ClassVar[str] = ""
    """What of the paper is implemented."""
    deviations: ClassVar[tuple[str, ...]] = ()
    """Where it differs from the paper or the published code, one sentence each."""
    scenarios: ClassVar[str] = "any"
    """Which scenarios it supports, in words."""
    Config: ClassVar[type[MethodConfig]] = MethodConfig
    """Its configuration class."""

    def __init__(self, config: ConfigT) -> None:
        self.config: ConfigT = config

    @property
    def stream(self) -> str:
        """Name that the method's server streams carry: its own.

        A method that can be configured to be another one returns that one's name then, and
        so gives the same bits.
        """
        return self.name

    @property
    def rounds(self) -> int:
        """Rounds of broadcast and upload; 1 is one-shot."""
        return 1

    def unsupported(self, scenario: ScenarioSpec) -> str | None:
        """Return why a scenario can't be run, or ``None`` if it can."""
        return None

    def workload(self, scenario: ScenarioSpec, samples: int, budget: BudgetSpec) -> int:
        """Return the images trained on beyond the clients' shared local models.

        An estimate for ``--dry-run`` only. By default none in one round, and as many as one
        full local training of all clients otherwise.

        Parameters
        ----------
        scenario : ScenarioSpec
            The scenario.
        samples : int
            Training samples of all clients together.
        budget : BudgetSpec
            What the profile grants.
        """
        return 0 if self.rounds == 1 else samples * scenario.recipe.epochs

    def broadcast(self, client: ClientInfo, server: Server) -> Broadcast:
        """Return what a client is sent in this round; nothing by default.

        The common first initialisation is a seed, and costs nothing.
        """
        return Broadcast()

    @abstractmethod
    def client_update(self, client: Client, broadcast: Broadcast) -> Upload:
        """Return what a client uploads in this round.

        Where another run is making something that this one asks the cache for, the call is broken
        off and made again later, on the method as it was before: it has no effect but its upload
        and what it keeps in ``self``, which stays on this client.
        """

    @abstractmethod
    def server_update(self, uploads: Mapping[int, Upload], server: Server) -> GlobalModel:
        """Return the global model made of the uploads, keyed by client index.

        Floating-point operations are estimated from a sample of optimiser steps. Work in larger
        pieces between steps, such as a teacher that answers for many of them at once, is done
        under :func:`benchmark.flops.counted`, or its operations are recorded wrongly.
        """


class Reference(Method[ConfigT]):
    """A reference row that sees more than a method may; marked in every table."""

    kind: ClassVar[Literal["method", "reference"]] = "reference"

    @abstractmethod
    def reference_update(
        self, uploads: Mapping[int, Upload], server: Server, oracle: Oracle
    ) -> GlobalModel:
        """Return the reference's model."""

    def server_update(self, uploads: Mapping[int, Upload], server: Server) -> GlobalModel:
        """Refuse: a reference is called with its oracle instead."""
        raise TypeError(f"{self.name} is a reference: call reference_update")
