"""Experiments: a grid of runs, written as flags or as YAML, and expanded to run specs."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, ValidationError, field_validator, model_validator

from benchmark.contract import Method
from benchmark.entries import (
    check_trials,
    configure,
    entries,
    refuse_equals,
    refuse_settings_set_twice,
)
from benchmark.errors import UserError
from benchmark.profiles import DEFAULT_PROFILE, profile
from benchmark.registry import BrokenPlugin, MethodInfo, PluginError, Registry, asking, load
from benchmark.sizes import training_samples
from benchmark.specs import (
    BudgetSpec,
    CodeSpec,
    ComputeSpec,
    MeasureSpec,
    MethodSpec,
    ModelSpec,
    PartitionSpec,
    RecipeSpec,
    RunSpec,
    ScenarioSpec,
    Spec,
    StudentSpec,
    WarmupSpec,
)
from benchmark.specs.base import explain
from benchmark.specs.fields import Plan, Seeds, Strings, as_extractors, as_tuple
from benchmark.specs.scenario import PartitionScheme
from benchmark.unused_keys import refuse_unused

COMMITTED = "reference"
"""Folder of committed results below ``results``: no experiment may have its name."""


class ExperimentSpec(Spec):
    """A named grid of runs; every field is a key of the YAML file and a flag.

    Fields that hold several values span the grid. See ``run --help`` for their
    meaning; :func:`resolve` gives the order in which files, profiles and flags count.
    """

    experiment: str = "main"
    description: str = ""
    profile: str = DEFAULT_PROFILE
    methods: Strings = ("all",)
    variants: dict[str, dict[str, Any]] = Field(default_factory=dict)
    sweep: dict[str, dict[str, Annotated[tuple[Any, ...], Field(min_length=1)]]] = Field(
        default_factory=dict
    )
    set: dict[str, dict[str, Any]] = Field(default_factory=dict)
    datasets: Strings = ("digits",)
    partition: PartitionScheme = "dirichlet"
    alpha: Annotated[
        tuple[Annotated[float, Field(gt=0)], ...], BeforeValidator(as_tuple), Field(min_length=1)
    ] = (0.1,)
    classes_per_client: int | None = Field(None, ge=1)
    min_samples: int = Field(10, ge=1)
    clients: Annotated[
        tuple[Annotated[int, Field(ge=1)], ...], BeforeValidator(as_tuple), Field(min_length=1)
    ] = (10,)
    widths: Annotated[tuple[Plan, ...], BeforeValidator(as_tuple), Field(min_length=1)] = (
        (Fraction(1),),
    )
    models: Strings = ("cnn",)
    norm: Literal["batch", "group", "none"] | None = None
    image_size: Literal[32, 64] = 32
    train_samples: int | None = Field(None, ge=1)
    holdout: float = Field(0.0, ge=0, le=0.5)
    epochs: int = Field(20, ge=1)
    batch_size: int = Field(64, ge=1)
    lr: float = Field(0.01, gt=0)
    schedule: Literal["constant", "cosine"] = "constant"
    momentum: float = Field(0.9, ge=0, lt=1)
    weight_decay: float = Field(0.0, ge=0)
    augment: bool = True
    rounds_warmup: Annotated[
        tuple[Annotated[int, Field(ge=0)], ...], BeforeValidator(as_tuple), Field(min_length=1)
    ] = (0,)
    warmup_steps: int = Field(10, ge=1)
    warmup_lr: float = Field(0.01, gt=0)
    warmup_local: Literal["recipe", "steps"] = "recipe"
    student_init: Literal["random", "aggregate"] = "random"
    student_batch_norm: Literal["update", "freeze", "reestimate"] = "update"
    seeds: Seeds = (0,)
    split_seeds: Seeds | None = None
    generator_steps: int = Field(1000, ge=1)
    generated_images: int = Field(10_000, ge=1)
    distilled_images: int = Field(100_000, ge=1)
    # Products beyond what a float counts exactly are no budgets.
    budget: float = Field(1.0, gt=0, le=1e6, description="factor on the three budgets")
    history_points: int = Field(10, ge=0)
    extractors: Annotated[
        tuple[Literal["classifier", "inception"], ...], BeforeValidator(as_extractors)
    ] = ("classifier",)
    judged_on: Literal["test", "holdout"] = "test"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    threads: int = Field(1, ge=1)
    compile: bool = False

    @field_validator(
        "methods",
        "datasets",
        "alpha",
        "clients",
        "widths",
        "models",
        "rounds_warmup",
        "seeds",
        "split_seeds",
        "extractors",
    )
    @classmethod
    def _no_duplicates(cls, values: tuple[Any, ...] | None) -> tuple[Any, ...] | None:
        for index, value in enumerate(values or ()):
            if value in (values or ())[:index]:
                shown = ",".join(map(str, value)) if isinstance(value, tuple) else value
                raise ValueError(f"{shown} is named twice")
        return values

    @field_validator("experiment")
    @classmethod
    def _check_name(cls, name: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
            raise ValueError(
                "a name has letters, digits, '.', '_' and '-', a letter or digit first"
            )
        if name == COMMITTED:
            raise ValueError("that folder holds committed results; take another name")
        return name

    @model_validator(mode="before")
    @classmethod
    def _no_yes_for_a_number(cls, values: Any) -> Any:
        """Refuse ``true`` where a number or a name is due: pydantic would read it as 1."""
        for name, value in values.items() if isinstance(values, dict) else ():
            field = cls.model_fields.get(name)
            if field is None or field.annotation is bool:
                continue
            for item in value if isinstance(value, list | tuple) else (value,):
                if isinstance(item, bool):
                    raise ValueError(f"{name}: expected a value, got {str(item).lower()}")
        return values

    @model_validator(mode="after")
    def _check_variants(self) -> Self:
        for label, values in self.variants.items():
            if not isinstance(values.get("method"), str):
                raise ValueError(f"variant '{label}' needs `method: NAME`")
        return self

    @model_validator(mode="after")
    def _check_partition(self) -> Self:
        if self.partition == "classes_per_client" and self.classes_per_client is None:
            raise ValueError("partition 'classes_per_client' needs classes_per_client")
        return self

    def scenarios(self) -> list[ScenarioSpec]:
        """Return the scenarios of the grid, seeds innermost.

        Raises
        ------
        UserError
            If values that are right by themselves don't fit together.
        """
        try:
            return self._scenarios()
        except ValidationError as error:
            raise UserError(f"experiment '{self.experiment}': {explain(error, Spec)}") from None

    def _scenarios(self) -> list[ScenarioSpec]:
        return [
            ScenarioSpec(
                dataset=dataset,
                image_size=self.image_size,
                train_samples=self.train_samples,
                holdout=self.holdout,
                partition=PartitionSpec(
                    scheme=self.partition,
                    clients=clients,
                    alpha=alpha,
                    classes_per_client=self.classes_per_client,
                    min_samples=self.min_samples,
                ),
                model=ModelSpec(family=model, norm=self.norm),
                widths=plan,
                recipe=self._recipe(),
                warmup=WarmupSpec(
                    rounds=rounds,
                    steps=self.warmup_steps,
                    lr=self.warmup_lr,
                    local=self.warmup_local,
                ),
                student=StudentSpec(init=self.student_init, batch_norm=self.student_batch_norm),
                split_seed=split_seed,
                seed=seed,
            )
            for dataset, clients, alpha, plan, model, rounds, (
                split_seed,
                seed,
            ) in itertools.product(
                self.datasets,
                self.clients,
                self.alpha if self.partition.startswith("dirichlet") else (None,),
                self.widths,
                self.models,
                self.rounds_warmup,
                self._seed_pairs(),
            )
        ]

    def _recipe(self) -> RecipeSpec:
        return RecipeSpec(
            epochs=self.epochs,
            batch_size=self.batch_size,
            lr=self.lr,
            schedule=self.schedule,
            momentum=self.momentum,
            weight_decay=self.weight_decay,
            augment=self.augment,
        )

    def _seed_pairs(self) -> list[tuple[int, int]]:
        if self.split_seeds is None:
            return [(seed, seed) for seed in self.seeds]
        return list(itertools.product(self.split_seeds, self.seeds))

    def budget_spec(self) -> BudgetSpec:
        """Return the budget of every run, with the factor applied."""
        return BudgetSpec(
            generator_steps=max(1, round(self.generator_steps * self.budget)),
            generated_images=max(1, round(self.generated_images * self.budget)),
            distilled_images=max(1, round(self.distilled_images * self.budget)),
            history_points=self.history_points,
        )

    def measure_spec(self) -> MeasureSpec:
        """Return what is measured; where the holdout judges, accuracy alone.

        Raises
        ------
        UserError
            If the holdout is to judge and nothing is held out.
        """
        if self.judged_on == "holdout":
            if not self.holdout:
                raise UserError("judged_on 'holdout' needs a holdout above 0, such as 0.1")
            return MeasureSpec(judged_on="holdout")
        return MeasureSpec(extractors=self.extractors)


def resolve(flags: Mapping[str, Any], file: Mapping[str, Any], where: str) -> ExperimentSpec:
    """Return the experiment that flags and a file ask for.

    Precedence: flag, then file, then profile, then default; ``set`` is merged parameter
    by parameter in this order.

    Raises
    ------
    UserError
        If a key is unknown, a value is wrong, or one can have no effect.
    """
    ExperimentSpec.parse(file, where)  # names the file for what is wrong in it
    refuse_settings_set_twice(flags, file, where)
    name = flags.get("profile", file.get("profile", DEFAULT_PROFILE))
    defaults = profile(str(name)).settings
    settings: dict[str, Any] = {**defaults, **file, **flags}
    merged: dict[str, dict[str, Any]] = {}
    for layer in (defaults.get("set"), file.get("set"), flags.get("set")):
        for method, values in (layer or {}).items():
            merged[method] = {**merged.get(method, {}), **values}
    experiment = ExperimentSpec.parse(
        {**settings, "set": merged}, "command line" if flags else where
    )
    refuse_unused(experiment, flags, file, where)
    return experiment


@dataclass(frozen=True)
class PlannedRun:
    """One cell of the grid.

    Parameters
    ----------
    label : str
        How tables call the method in this configuration.
    spec : RunSpec
        What is run.
    info : MethodInfo
        The plugin.
    skip : str or None
        Why the method can't run this scenario, or ``None``.
    work : int
        About how many training images' worth of work it is, beside shared client training.
    rounds : int
        Rounds of the method.
    defaults : mapping of str to Any
        The settings that the method has by itself, in canonical form.
    """

    label: str
    spec: RunSpec
    info: MethodInfo
    skip: str | None
    work: int = 0
    rounds: int = 1
    defaults: Mapping[str, Any] = field(default_factory=dict)


def plan(
    experiment: ExperimentSpec, registry: Registry, compute: ComputeSpec
) -> tuple[list[PlannedRun], list[BrokenPlugin]]:
    """Expand an experiment to its runs, scenario by scenario.

    Returns
    -------
    runs : list of PlannedRun
        All cells, those to skip included.
    broken : list of BrokenPlugin
        Plugins that ``all`` would have run but can't be used.

    Raises
    ------
    UserError
        If a method or parameter is unknown or a value is wrong.
    """
    every = "all" in experiment.methods
    broken = dict(registry.broken) if every else {}
    rows: list[tuple[str, MethodInfo, Method[Any]]] = []
    planned: list[list[PlannedRun]] = []
    for label, info, values in entries(experiment, registry):
        try:
            cls = load(info)
            with asking(info):
                method = configure(label, info, cls, values)
                runs = _runs_of(label, info, method, experiment, compute)
        except PluginError as error:
            if not every:
                raise
            # Sound when it was listed, but not any more: the others go on without it.
            reason = str(error)
            broken[info.name] = BrokenPlugin(name=info.name, path=info.path, reason=reason)
            continue
        rows.append((label, info, method))
        planned.append(runs)
    refuse_equals(rows)
    if experiment.judged_on == "holdout":
        check_trials([info for _, info, _ in rows])
    return [run for scenario in zip(*planned, strict=True) for run in scenario], [*broken.values()]


def _runs_of(
    label: str,
    info: MethodInfo,
    method: Method[Any],
    experiment: ExperimentSpec,
    compute: ComputeSpec,
) -> list[PlannedRun]:
    """Return a row's runs, one for each scenario; what it can't do is left to be skipped."""
    budget, measure = experiment.budget_spec(), experiment.measure_spec()
    defaults = type(method).Config().model_dump(mode="json")
    runs = []
    for scenario in experiment.scenarios():
        spec = RunSpec(
            scenario=scenario,
            method=MethodSpec(name=info.name, config=method.config.model_dump(mode="json")),
            budget=budget,
            measure=measure,
            compute=compute,
            code=CodeSpec(plugin=info.plugin, parts=info.parts),
        )
        skip = method.unsupported(scenario)
        work = 0 if skip else method.workload(scenario, training_samples(scenario), budget)
        runs.append(PlannedRun(label, spec, info, skip, work, method.rounds, defaults))
    return runs
