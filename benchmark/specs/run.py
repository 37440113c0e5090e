"""The run: one method, with one configuration, on one scenario."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from benchmark.specs.base import Spec, digest_of
from benchmark.specs.scenario import ScenarioSpec

ENGINE_VERSION = "2"
"""Raised whenever the engine's results change: protocol, evaluation, accounting."""

RECIPE_VERSION = "2"
"""Raised whenever local training's results change."""


class ComputeSpec(Spec):
    """What changes bits without changing meaning: it belongs to the id, and is never ``auto``."""

    device: Literal["cpu", "cuda"] = "cpu"
    precision: Literal["fp32", "bf16"] = "fp32"
    threads: int = Field(1, ge=1, description="CPU threads of one run")
    compile: bool = Field(False, description="whether training goes through torch.compile")

    @model_serializer(mode="wrap")
    def _without_default(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave ``compile`` out where it is off, so that ids from before it was there stand."""
        values: dict[str, Any] = handler(self)
        if not self.compile:
            values.pop("compile", None)
        return values


class BudgetSpec(Spec):
    """What a profile grants every distillation method alike, and the history it records."""

    generator_steps: int = Field(1000, ge=1, description="optimiser steps of server generators")
    generated_images: int = Field(10_000, ge=1, description="synthetic images made")
    distilled_images: int = Field(100_000, ge=1, description="images the student learns from")
    history_points: int = Field(10, ge=0, description="passive evaluations while the server works")


class MeasureSpec(Spec):
    """What is measured beside accuracy; changes what a record holds, never what a method does."""

    extractors: tuple[Literal["classifier", "inception"], ...] = Field(
        (), description="networks in whose features generated images are judged"
    )
    judged_on: Literal["test", "holdout"] = Field(
        "test", description="images that accuracy is measured on; holdout is for tuning"
    )

    @model_serializer(mode="wrap")
    def _without_default(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave ``judged_on`` out where it is the test set, as in ids from before it was there."""
        values: dict[str, Any] = handler(self)
        if self.judged_on == "test":
            values.pop("judged_on", None)
        return values


class MethodSpec(Spec):
    """A method's name and its complete configuration."""

    name: str
    config: dict[str, Any] = Field(default_factory=dict)


class CodeSpec(Spec):
    """The code that makes the numbers: a run made by other code is stale, not the same.

    ``plugin`` is the digest of the plugin's own code, without words; ``parts`` the versions of
    the building blocks it imports, declared or digests again.
    """

    engine: str = ENGINE_VERSION
    recipe: str = RECIPE_VERSION
    plugin: str
    parts: dict[str, str] = Field(default_factory=dict)


class RunSpec(Spec):
    """Everything that determines one run's metrics."""

    scenario: ScenarioSpec
    method: MethodSpec
    budget: BudgetSpec = BudgetSpec()
    measure: MeasureSpec = MeasureSpec()
    compute: ComputeSpec = ComputeSpec()
    code: CodeSpec

    @model_validator(mode="after")
    def _check_judge(self) -> Self:
        if self.measure.judged_on == "holdout" and not self.scenario.holdout:
            raise ValueError("judged_on 'holdout' needs a scenario with a holdout above 0")
        if self.measure.judged_on == "holdout" and self.measure.extractors:
            raise ValueError("extractors compare with test images: none where the holdout judges")
        return self

    @property
    def run_id(self) -> str:
        """Id of the run: the hash of all of it."""
        return self.digest()

    @property
    def cell_id(self) -> str:
        """Id of the question: the run without the code that answers it.

        Records of one cell with different run ids were made by different code.
        """
        values = self.canonical()
        del values["code"]
        return digest_of(values)
