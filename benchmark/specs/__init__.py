"""Specs: frozen, typed, validated values that determine results, hashed by content."""

from benchmark.specs.base import Spec, digest_of, read_yaml
from benchmark.specs.run import (
    ENGINE_VERSION,
    RECIPE_VERSION,
    BudgetSpec,
    CodeSpec,
    ComputeSpec,
    MeasureSpec,
    MethodSpec,
    RunSpec,
)
from benchmark.specs.scenario import (
    ModelSpec,
    PartitionSpec,
    RecipeSpec,
    ScenarioSpec,
    StudentSpec,
    WarmupSpec,
    Width,
    plan_name,
)

__all__ = [
    "ENGINE_VERSION",
    "RECIPE_VERSION",
    "BudgetSpec",
    "CodeSpec",
    "ComputeSpec",
    "MeasureSpec",
    "MethodSpec",
    "ModelSpec",
    "PartitionSpec",
    "RecipeSpec",
    "RunSpec",
    "ScenarioSpec",
    "Spec",
    "StudentSpec",
    "WarmupSpec",
    "Width",
    "digest_of",
    "plan_name",
    "read_yaml",
]
