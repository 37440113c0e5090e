"""Mosaic's teacher of some number of classes: what asking it adds to this process's peak."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import torch

from benchmark.environment import peak_memory_bytes
from benchmark.models.build import build
from benchmark.training.precision import configure_threads
from methods.mosaic.experts import MosaicTeacher, ParameterExperts
from methods.mosaic.meta import make_meta
from methods.mosaic.mixing import ExpertMixer, expert_weights
from methods.mosaic.settings import MetaSettings

CLIENTS = 5
BATCH = 64
"""Images that the teacher is asked about at once."""

IN_MEMORY = 4
"""Experts that are models at a time."""


@dataclass(frozen=True)
class TeacherMemory:
    """Bytes that a teacher takes.

    Parameters
    ----------
    grown : int
        Growth of the peak of resident memory by all experts.
    meta : int
        The meta model.
    model : int
        One client's model.
    """

    grown: int
    meta: int
    model: int


def measure(classes: int) -> TeacherMemory:
    """Make a teacher and ask it, in this process, which should be a fresh one."""
    configure_threads(1)
    random = torch.Generator().manual_seed(0)
    models = [
        build(
            "resnet18",
            num_classes=classes,
            channels=1,
            width=Fraction(1, 2),
            generator=torch.Generator().manual_seed(classes),
        )
        for _ in range(CLIENTS)
    ]
    images = torch.randn(BATCH, 1, 32, 32, generator=random)
    with torch.no_grad():
        models[0](images)  # what torch itself takes for a forward pass is no expert's
    before = peak_memory_bytes()
    counts = torch.randint(1, 50, (CLIENTS, classes), generator=random)
    states = [model.state_dict() for model in models]
    mixer = ExpertMixer(states, expert_weights(counts))
    experts = ParameterExperts(models[0], mixer, IN_MEMORY)
    MosaicTeacher(experts)(images)
    grown = peak_memory_bytes() - before
    meta = make_meta(classes, classes, MetaSettings(), random)
    size = sum(value.nbytes for value in meta.state_dict().values())
    return TeacherMemory(grown, size, sum(value.nbytes for value in states[0].values()))
