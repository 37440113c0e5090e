"""What can be told of a Mosaic run from the server alone: numbers, grids, and warnings.

The signs of failure: generators whose images look alike or fall into few classes, experts
that are one client's model in disguise, a meta model whose loss rises, and a distillation
that has come to a stop far from its teacher.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from benchmark.contract import Server, Upload
from methods.blocks.composition import Materials
from methods.blocks.pool import quantise
from methods.mosaic.client import effective_classes
from methods.mosaic.images import load_generator
from methods.mosaic.mixing import ExpertWeights
from methods.mosaic.sampling import sample_tanh
from methods.mosaic.settings import MosaicSettings

LOOKED_AT = 256
"""Images of each generator that are classified."""
SHOWN = 32
"""Images of each generator in its grid."""
FEWER_CLASSES = 0.5
"""Collapse: fewer effective classes than this share of those that the client holds."""
ALIKE = 0.02
"""Diversity near zero: standard deviation between images, mean over pixels, unit range."""
ONE_SIDED = 0.95
"""A class's expert is one-sided from this share of one client on."""
STOPPED = 0.01
"""Plateau: relative gain of the second half of the distillation."""
AGREEMENT = 0.9
"""Share of images on which a student that has stopped should agree with its teacher."""


@dataclass(frozen=True)
class Look:
    """What a look at the generators found.

    Parameters
    ----------
    generators : list of dict
        For each client the histogram of its images' classes, as its own model sees them,
        and how much images differ.
    images : dict of str to Tensor
        Grids, uint8 [n, C, H, W].
    warnings : list of str
        Signs of failure.
    """

    generators: list[dict[str, Any]]
    images: dict[str, Tensor]
    warnings: list[str]


@torch.no_grad()
def look_at_generators(materials: Materials, settings: MosaicSettings) -> Look:
    """Draw from every generator, and let the client's own model say what it sees."""
    server, uploads = materials.server, materials.uploads
    normalization = server.task.normalization
    random = materials.stream("look")
    found = Look([], {}, [])
    for index in sorted(uploads):
        generator = load_generator(uploads[index].parts["generator"], server)
        tanh = sample_tanh(generator, LOOKED_AT, random)
        raw = settings.generator.pixel_range == "raw"
        shown = tanh if raw else normalization.from_tanh(tanh)
        labels = materials.client_model(index)(shown).argmax(1).cpu()
        histogram = torch.bincount(labels, minlength=server.task.num_classes)
        unit = (tanh + 1) / 2
        spread = float(unit.std(dim=0).mean())
        seen, held = (effective_classes(c) for c in (histogram, materials.label_counts[index]))
        found.generators.append(
            {
                "client": index,
                "class_histogram": histogram.tolist(),
                "effective_classes": seen,
                "effective_classes_held": held,
                "pixel_deviation": spread,
                "bytes": sum(v.nbytes for v in uploads[index].parts["generator"].values()),
            }
        )
        found.images[f"client {index} generated"] = quantise(unit[:SHOWN])
        if spread < ALIKE:
            found.warnings.append(
                f"generator of client {index}: diversity is near zero (images differ by "
                f"{spread:.3f} of the pixel range)"
            )
        if seen < FEWER_CLASSES * held:
            found.warnings.append(
                f"generator of client {index}: its images collapsed onto {seen:.1f} classes, "
                f"the client holds {held:.1f} (effective numbers)"
            )
    return found


def warn_of_experts(weights: ExpertWeights) -> list[str]:
    """Name classes that nobody holds, and experts that are mostly one client's model."""
    warnings = []
    if weights.unheld:
        warnings.append(
            f"no client holds classes {list(weights.unheld)}; their experts are the global average"
        )
    largest, who = weights.shares.max(dim=1)
    one_sided = largest >= ONE_SIDED
    if weights.shares.shape[1] > 1 and 2 * int(one_sided.sum()) >= weights.num_experts:
        clients = torch.unique(who[one_sided]).tolist()
        warnings.append(
            f"expert weights are one-sided: {int(one_sided.sum())} of {weights.num_experts} "
            f"experts are at least {ONE_SIDED:.0%} the model of one client (clients {clients})"
        )
    return warnings


def warn_of_meta(losses: Tensor) -> list[str]:
    """Say so if the meta model's loss [steps] ends above where it began."""
    part = max(1, len(losses) // 10)
    first, last = float(losses[:part].mean()), float(losses[-part:].mean())
    if len(losses) > 1 and last > first:
        return [f"the meta model's loss diverges: from {first:.3f} to {last:.3f}"]
    return []


def warn_of_inversion(server: Server, settings: MosaicSettings, sizes: Sequence[int]) -> list[str]:
    """Say so if the inversion term is asked for but has nothing to work on."""
    generator = settings.generator
    wanted = generator.inversion * generator.inversion_scale > 0
    if not wanted or not any(size < generator.threshold for size in sizes):
        return []
    if any(isinstance(m, _BatchNorm) for m in server.initial_model().modules()):
        return []
    return ["the inversion term is 0: the clients' models have no batch norm"]


@dataclass
class Progress:
    """Mean student losses between reports, from the means since the start that are reported.

    Attributes
    ----------
    points : list of (int, float)
        Distilled images, and the mean loss since the point before.
    """

    points: list[tuple[int, float]] = field(default_factory=list)
    _sum: float = 0.0

    def add(self, images: int, scalars: Mapping[str, float]) -> None:
        """Take in a report."""
        before = self.points[-1][0] if self.points else 0
        if "student/loss" not in scalars or images <= before:
            return
        total = scalars["student/loss"] * images
        self.points.append((images, (total - self._sum) / (images - before)))
        self._sum = total

    def warn(self, agreement: float) -> list[str]:
        """Say so if the loss has stopped falling while student and teacher disagree."""
        losses = [loss for _, loss in self.points]
        part = len(losses) // 5
        if part < 1 or agreement >= AGREEMENT:
            return []
        middle = sum(losses[len(losses) // 2 - part : len(losses) // 2]) / part
        last = sum(losses[-part:]) / part
        if last < (1 - STOPPED) * middle:
            return []
        return [
            f"distillation has reached a plateau: loss {middle:.3f} halfway and {last:.3f} at the "
            f"end, while student and teacher agree on {agreement:.0%} of the images"
        ]


def meta_space(settings: MosaicSettings, space: str) -> str:
    """Say in which space the meta model's inputs live.

    Parameters
    ----------
    settings : MosaicSettings
        What the meta model learns from.
    space : str
        Whose features prototypes are, ``local`` or ``start``.
    """
    if settings.teacher.meta == "none":
        return "no meta model"
    if settings.teacher.meta == "own_class":
        return "no meta model: each expert's probability of its own class"
    if settings.teacher.meta == "synthetic":
        return "logits of whole experts on generated images"
    whose = {
        "start": "the starting model that all clients share: one space, not the experts' own",
        "local": "each client's own model: a space per client, read by the heads of all experts",
    }
    stale = settings.prototypes.rounds > 1 and settings.prototypes.kept == "all"
    rounds = f"; of {settings.prototypes.rounds} rounds, each another space" if stale else ""
    return f"logits of the experts' heads on features of {whose[space]}{rounds}"


def thinned(values: Tensor, points: int = 20) -> list[float]:
    """Return at most ``points`` means of consecutive parts of values [n]."""
    size = max(1, -(-len(values) // points))
    return [float(part.mean()) for part in torch.split(values, size)]


def uploaded_bytes(uploads: Mapping[int, Upload], part: str) -> list[int]:
    """Return the size of a part's tensors for each client, without the wire's header."""
    return [
        sum(value.nbytes for value in uploads[index].parts.get(part, {}).values())
        for index in sorted(uploads)
    ]
