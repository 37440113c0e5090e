"""The scenario: everything that all methods share."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, PlainSerializer, model_validator

from benchmark.models.widths import as_width
from benchmark.specs.base import Spec

Width = Annotated[
    Fraction,
    BeforeValidator(as_width),
    PlainSerializer(str, return_type=str),
]

PartitionScheme = Literal[
    "dirichlet", "dirichlet_uncapped", "dirichlet_per_client", "iid", "classes_per_client"
]


class PartitionSpec(Spec):
    """Who holds which training sample."""

    scheme: PartitionScheme = "dirichlet"
    clients: int = Field(10, ge=1, description="number of clients")
    alpha: float | None = Field(0.1, gt=0, description="Dirichlet concentration")
    classes_per_client: int | None = Field(None, ge=1)
    min_samples: int = Field(10, ge=1, description="samples that every client holds at least")

    @model_validator(mode="before")
    @classmethod
    def _drop_what_the_scheme_ignores(cls, values: Any) -> Any:
        # A parameter that changes nothing must not change the id either.
        if isinstance(values, dict):
            values = dict(values)
            scheme = values.get("scheme", "dirichlet")
            if not str(scheme).startswith("dirichlet"):
                values["alpha"] = None
            if scheme != "classes_per_client":
                values["classes_per_client"] = None
        return values

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.scheme.startswith("dirichlet") and self.alpha is None:
            raise ValueError(f"partition '{self.scheme}' needs alpha")
        if self.scheme == "classes_per_client" and self.classes_per_client is None:
            raise ValueError("partition 'classes_per_client' needs classes_per_client")
        return self


class ModelSpec(Spec):
    """The clients' model family and its norm layers."""

    family: str = "cnn"
    norm: Literal["batch", "group", "none"] | None = Field(
        None, description="norm layers; the family's own if not given (batch for most)"
    )


class RecipeSpec(Spec):
    """How a client trains its local model (plain SGD on cross-entropy)."""

    epochs: int = Field(20, ge=1, description="passes over the client's data")
    batch_size: int = Field(64, ge=1, description="samples")
    lr: float = Field(0.01, gt=0, description="learning rate of SGD")
    schedule: Literal["constant", "cosine"] = Field(
        "constant", description="of the learning rate over one training; cosine ends at 0"
    )
    momentum: float = Field(0.9, ge=0, lt=1)
    weight_decay: float = Field(0.0, ge=0)
    augment: bool = Field(True, description="the dataset's own augmentation (crop, flip), if any")


class WarmupSpec(Spec):
    """Shared rounds of FedAvg before the one exchange; 0 rounds is strict one-shot."""

    rounds: int = Field(0, ge=0)
    steps: int = Field(10, ge=1, description="SGD steps per client and warm-up round")
    lr: float = Field(0.01, gt=0)
    local: Literal["recipe", "steps"] = Field(
        "recipe",
        description="local training after the warm-up: the full recipe, or `steps` steps at `lr`",
    )

    @model_validator(mode="before")
    @classmethod
    def _ignore_the_rest_without_rounds(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("rounds", 0) in (0, "0"):
            return {key: value for key, value in values.items() if key not in cls._unused()}
        return values

    @staticmethod
    def _unused() -> frozenset[str]:
        return frozenset({"steps", "lr", "local"})


class StudentSpec(Spec):
    """How every distilling method starts and normalises its student in the main table.

    A method's published setting stands in a second row.
    """

    init: Literal["random", "aggregate"] = Field(
        "random", description="fresh weights, or the size-weighted average of the clients'"
    )
    batch_norm: Literal["update", "freeze", "reestimate"] = Field(
        "update",
        description="running statistics: updated while distilling, left alone, or measured anew "
        "on the images distilled",
    )


class ScenarioSpec(Spec):
    """Dataset, partition, client models, local training, warm-up and seeds.

    Parameters
    ----------
    dataset : str
        Name of the dataset.
    image_size : int
        Side of the square input, in pixels.
    train_samples : int or None
        Size of the stratified part of the training set that is used; all if ``None``.
    holdout : float
        Stratified share of the training data taken away before the split, for
        tuning and choosing.
    widths : sequence of fraction
        The width plan. It is repeated over the clients, and dealt out per split; there are
        at least as many clients as it has widths.
    student : StudentSpec
        How distilling methods start and normalise their student.
    split_seed, seed : int
        Seeds of the split (who holds what, who has which width) and of training.
    """

    dataset: str
    image_size: Literal[32, 64] = 32
    train_samples: int | None = Field(None, ge=1)
    holdout: float = Field(0.0, ge=0, le=0.5)
    partition: PartitionSpec = PartitionSpec()
    model: ModelSpec = ModelSpec()
    widths: tuple[Width, ...] = (Fraction(1),)
    recipe: RecipeSpec = RecipeSpec()
    warmup: WarmupSpec = WarmupSpec()
    student: StudentSpec = StudentSpec()
    split_seed: int = Field(0, ge=0)
    seed: int = Field(0, ge=0)

    @model_validator(mode="after")
    def _check_widths(self) -> Self:
        if not self.widths:
            raise ValueError("a width plan needs at least one width")
        ratios = [self.max_width / width for width in self.widths]
        if self.max_width != 1 and any(ratio.denominator != 1 for ratio in ratios):
            # Slices of slices then differ from slices of the full model by a rounded channel.
            raise ValueError("a width plan without 1 needs widths that divide the largest one")
        clients = self.partition.clients
        if len(self.widths) > clients:
            # The plan's tail would have no client, and the global model a width that nobody has.
            raise ValueError(
                f"widths {plan_name(self.widths)} is a plan for {len(self.widths)} clients or "
                f"more, not for clients {clients}"
            )
        return self

    @property
    def homogeneous(self) -> bool:
        """Whether all clients have the same width."""
        return len(set(self.widths)) == 1

    @property
    def max_width(self) -> Fraction:
        """Largest width of the plan: the width of the global model."""
        return max(self.widths)


def plan_name(widths: Sequence[Fraction]) -> str:
    """Return a width plan as the command line writes it, such as ``1,1/2``."""
    return ",".join(str(width) for width in widths)
