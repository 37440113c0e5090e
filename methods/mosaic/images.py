"""Images for the server from uploaded generators: fresh at every step, or drawn once and kept."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from benchmark.contract import Generated, Server
from benchmark.errors import UserError
from benchmark.flops import counted
from methods.blocks.composition import (
    Materials,
)
from methods.blocks.image_sources import FreshImages
from methods.blocks.parts import Batch, Epoch, Student, Teacher
from methods.blocks.pool import GrowingPool, quantise
from methods.mosaic.networks import GanShape, Generator
from methods.mosaic.sampling import GeneratorMixture
from methods.mosaic.settings import (
    GeneratorSettings,
    ImageSettings,
    PixelRange,
)

CHUNK = 512
"""Images drawn together for a stored pool."""


class ClientGenerators(GeneratorSettings, ImageSettings):
    """Settings of the clients' generators, and of drawing from them."""


def load_generator(state: Mapping[str, Tensor], server: Server) -> Generator:
    """Return an uploaded generator, frozen; its sizes are read off its state.

    Raises
    ------
    UserError
        If the state is no generator's of this problem.
    """
    first = state.get("main.0.weight")
    if first is None or first.dim() != 4 or first.shape[1] % 8:
        raise UserError("uploaded generator does not start with a layer of Mosaic's generator")
    task = server.task
    shape = GanShape(
        channels=task.channels,
        image_size=task.image_size,
        noise=first.shape[0],
        width=first.shape[1] // 8,
    )
    return shape.load_generator(dict(state), server.device)


def sizes_of(materials: Materials) -> list[int]:
    """Return the clients' sample counts, by index."""
    return [int(materials.uploads[i].values["samples"]) for i in sorted(materials.uploads)]


def mixture_of(
    materials: Materials,
    *,
    shares: Literal["equal", "size"] = "equal",
    pixel_range: PixelRange = "unified",
) -> GeneratorMixture:
    """Return all uploaded generators as one source.

    Raises
    ------
    UserError
        If clients uploaded none, because other images were chosen.
    """
    uploads = [materials.uploads[index] for index in sorted(materials.uploads)]
    if any("generator" not in upload.parts for upload in uploads):
        raise UserError("generated images need generators from the clients: use images=generators")
    return GeneratorMixture(
        [load_generator(upload.parts["generator"], materials.server) for upload in uploads],
        sizes_of(materials),
        materials.server.task.normalization,
        shares=shares,
        pixel_range=pixel_range,
    )


class StoredImages:
    """Images drawn from a mixture once, and kept.

    Parameters
    ----------
    mixture : GeneratorMixture
        The source.
    count : int
        Images to draw.
    random : torch.Generator
        Stream of noise and shares.
    """

    def __init__(self, mixture: GeneratorMixture, count: int, random: torch.Generator) -> None:
        self._mixture, self._count, self._random = mixture, count, random
        self._owners: list[Tensor] = []
        self.pool: GrowingPool | None = None

    def make(self, epoch: Epoch, teacher: Teacher, student: Student) -> GrowingPool:
        """Return the pool; the first call draws it."""
        if self.pool is None:
            self.pool = self._draw()
            epoch.counters.generated_images += self._count
        return self.pool

    def generated(self) -> Generated:
        """Return the pool, and whose generator made each image.

        Raises
        ------
        RuntimeError
            If nothing was drawn yet.
        """
        if self.pool is None:
            raise RuntimeError("no image was drawn yet")
        return Generated(self.pool.images.cpu().clone(), torch.cat(self._owners))

    @counted()
    def _draw(self) -> GrowingPool:
        pool: GrowingPool | None = None
        for start in range(0, self._count, CHUNK):
            count = min(CHUNK, self._count - start)
            images, owners = self._mixture.draw_tanh(count, self._random)
            self._owners.append(owners.cpu())
            if pool is None:
                _, channels, height, width = images.shape
                shape, reading = (channels, height, width), self._mixture.reading
                pool = GrowingPool(shape, reading, device=images.device, capacity=self._count)
            pool.add((images + 1) / 2)
        if pool is None:
            raise ValueError("a pool needs at least one image")
        pool.settle()
        return pool


class FreshMixture(FreshImages):
    """Fresh images of a mixture at every step.

    Parameters
    ----------
    mixture : GeneratorMixture
        The source.
    count : int
        Images of the sample that is measured.
    random : torch.Generator
        Stream of that sample; training draws from its own.
    """

    def __init__(self, mixture: GeneratorMixture, count: int, random: torch.Generator) -> None:
        super().__init__(lambda number, stream: Batch(mixture.draw(number, stream)[0], None))
        self._mixture, self._count, self._random = mixture, count, random

    def generated(self) -> Generated:
        """Return a sample like those that the student learned from."""
        with counted():
            images, owners = self._mixture.draw_tanh(self._count, self._random)
        return Generated(quantise((images + 1) / 2).cpu(), owners.cpu())


def make_images(materials: Materials, settings: ClientGenerators) -> StoredImages | FreshMixture:
    """Make the images part: a stored pool, or fresh images at every step."""
    mixture = mixture_of(materials, shares=settings.shares, pixel_range=settings.pixel_range)
    if settings.pool == "fresh":
        count = materials.server.budget.generated_images
        return FreshMixture(mixture, count, materials.stream("measured images"))
    return StoredImages(mixture, materials.budget.generated_images, materials.stream("images"))
