"""Profiles: budgets that set sizes and steps, never what a method is."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from benchmark.errors import unknown


@dataclass(frozen=True)
class Profile:
    """A named set of defaults for an experiment.

    Parameters
    ----------
    name : str
        How ``--profile`` calls it.
    summary : str
        What it is for, one line.
    settings : mapping of str to value
        Fields of :class:`benchmark.experiment.ExperimentSpec` that it sets.
    """

    name: str
    summary: str
    settings: MappingProxyType[str, Any]


def _on_a_cpu(
    width: int, *, synthesis_batch: int, batch_size: int, **mosaic: Any
) -> dict[str, dict[str, Any]]:
    """Return settings that narrow all methods' generators and batches alike, for a CPU."""
    server = {
        "generator_width": width,
        "synthesis_batch": synthesis_batch,
        "batch_size": batch_size,
    }
    gan = {"generator_width": width, "generator_discriminator_width": width}
    named = {**gan, "meta_feedforward": 256, **mosaic}
    return {
        "dense": server,
        "dense_cb": server,
        "co_boosting": server,
        "compose": {"defaults": _of_parts(server, named)},
        "mosaic": named,
    }


def _of_parts(server: dict[str, Any], mosaic: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the same settings under the names that the parts of ``compose`` have for them."""
    synthesis = {key: server[key] for key in ("generator_width", "synthesis_batch")}
    of: dict[str, dict[str, Any]] = {"generator_": {}, "meta_": {}}
    for key, value in mosaic.items():
        prefix = next(prefix for prefix in of if key.startswith(prefix))
        of[prefix][key.removeprefix(prefix)] = value
    batch = {"batch_size": server["batch_size"]}
    adversarial = ("dense", "dense_cb", "co_boosting")
    return {
        "images": {**dict.fromkeys(adversarial, synthesis), "generators": of["generator_"]},
        "teacher": {"boosted": batch, "experts_meta": {"meta_model": of["meta_"]}},
        "student": dict.fromkeys(adversarial, batch),
    }


def _profile(name: str, summary: str, **settings: Any) -> Profile:
    return Profile(name, summary, MappingProxyType(settings))


_ALL = (
    _profile(
        "smoke",
        "tests: all methods in under a minute; the numbers mean nothing",
        datasets=("digits",),
        clients=(3,),
        alpha=(0.5,),
        widths=("1/4",),
        train_samples=300,
        holdout=0.1,
        epochs=5,
        batch_size=16,
        lr=0.05,
        generator_steps=8,
        generated_images=64,
        distilled_images=256,
        history_points=2,
        extractors=(),
        set=_on_a_cpu(
            8,
            synthesis_batch=32,
            batch_size=32,
            generator_batch_size=16,
            meta_steps=10,
            meta_feedforward=64,
        ),
    ),
    _profile(
        "quick",
        "a first look: scikit-learn's digits, nothing to download, under 5 minutes",
        datasets=("digits",),
        clients=(5,),
        alpha=(0.5,),
        widths=("1/2",),
        holdout=0.1,
        epochs=20,
        batch_size=16,
        lr=0.02,
        schedule="cosine",
        generator_steps=200,
        generated_images=256,
        distilled_images=20_480,
        history_points=5,
        set=_on_a_cpu(16, synthesis_batch=32, batch_size=32, generator_batch_size=16),
    ),
    _profile(
        "cpu",
        "real conclusions without a GPU: Fashion-MNIST, narrow CNNs, under an hour a scenario",
        datasets=("fashion_mnist",),
        clients=(10,),
        alpha=(0.1,),
        widths=("1/2",),
        holdout=0.1,
        epochs=8,
        lr=0.05,
        schedule="cosine",
        generator_steps=1_000,
        # 20 generator steps for each batch that DENSE makes (30 published), 2,300 student steps.
        generated_images=6_400,
        distilled_images=150_000,
        history_points=10,
        set=_on_a_cpu(24, synthesis_batch=128, batch_size=64),
    ),
    _profile(
        "paper",
        "the paper's settings: ResNet-18, 10 clients, full budgets; wants a GPU or a cluster",
        datasets=("fashion_mnist",),
        models=("resnet18",),
        clients=(10,),
        alpha=(0.01, 0.1, 1.0),
        epochs=50,
        momentum=0.0,
        weight_decay=1e-4,
        seeds=(0, 1, 2),
        generator_steps=6_000,
        generated_images=51_200,
        distilled_images=5_145_600,
        history_points=20,
        extractors=("classifier", "inception"),
    ),
)

PROFILES = MappingProxyType({profile.name: profile for profile in _ALL})
DEFAULT_PROFILE = "quick"


def profile(name: str) -> Profile:
    """Return a profile by name.

    Raises
    ------
    UserError
        If there is none of this name.
    """
    if name not in PROFILES:
        raise unknown("profile", name, PROFILES)
    return PROFILES[name]
