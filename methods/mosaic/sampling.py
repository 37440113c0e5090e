"""Images for the server: drawn from all clients' generators, without gradients.

Nothing here can be traced back into a generator: images are drawn in evaluation mode
without gradients (the published loop lets unused gradients pile up in the generators).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from benchmark.images import Normalization
from methods.mosaic.networks import Generator
from methods.mosaic.settings import PixelRange


@torch.no_grad()
def sample_tanh(
    generator: Generator, count: int, random: torch.Generator, *, batch_size: int = 512
) -> Tensor:
    """Draw ``count`` images [count, C, H, W] in tanh range, on the generator's device."""
    device = next(generator.parameters()).device
    training = generator.training
    generator.eval()
    shape = (count, generator.shape.noise, 1, 1)
    noise = torch.randn(shape, generator=random, device=random.device).to(device)
    images = torch.cat([generator(part) for part in torch.split(noise, batch_size)])
    generator.train(training)
    return images


def sample_unit(
    generator: Generator, count: int, random: torch.Generator, *, batch_size: int = 512
) -> Tensor:
    """Draw ``count`` images [count, C, H, W] in unit range, for grids and metrics."""
    return (sample_tanh(generator, count, random, batch_size=batch_size) + 1) / 2


def allocate(total: int, weights: Sequence[float], random: torch.Generator) -> list[int]:
    """Share ``total`` images among generators, in proportion to ``weights`` on average.

    Systematic sampling: each share is rounded up or down, with the right expectation, so
    that a client too small for an image a batch still has its turn. Exact shares stay exact.

    Raises
    ------
    ValueError
        If ``weights`` are negative or sum to zero.
    """
    wanted = torch.tensor(weights, dtype=torch.float64)
    if not len(wanted) or bool((wanted < 0).any()) or float(wanted.sum()) <= 0:
        raise ValueError(f"shares must be non-negative with a positive sum, got {list(weights)}")
    ends = total * wanted.cumsum(0) / wanted.sum()
    start = torch.rand((), generator=random, device=random.device, dtype=torch.float64).cpu()
    filled = (ends - start).ceil().clamp(0, total).long()
    filled[-1] = total
    return filled.diff(prepend=filled.new_zeros(1)).tolist()


class GeneratorMixture:
    """All clients' generators as one source of images.

    Parameters
    ----------
    generators : sequence of Generator
        One per client.
    sizes : sequence of int
        Samples n_k of each client.
    normalization : Normalization
        The way from tanh range to the classifier's.
    shares : {'equal', 'size'}
        How many images each generator gives (published: equal, whatever n_k).
    pixel_range : {'unified', 'raw'}
        ``raw`` hands out images as they leave tanh.

    Raises
    ------
    ValueError
        If there is no generator, or not one size for each.
    """

    def __init__(
        self,
        generators: Sequence[Generator],
        sizes: Sequence[int],
        normalization: Normalization,
        *,
        shares: Literal["equal", "size"] = "equal",
        pixel_range: PixelRange = "unified",
    ) -> None:
        if not generators or len(generators) != len(sizes):
            raise ValueError(f"{len(generators)} generators but {len(sizes)} client sizes")
        self._generators, self._normalization = list(generators), normalization
        self._weights = [float(n) for n in sizes] if shares == "size" else [1.0] * len(sizes)
        self._raw = pixel_range == "raw"

    def draw(self, count: int, random: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw fresh images.

        Parameters
        ----------
        count : int
            Number of images of all generators together.
        random : torch.Generator
            Stream of shares and noise.

        Returns
        -------
        tuple of Tensor
            Images [count, C, H, W] in classifier range, in client order, and the client
            [count] (int64) whose generator made each.
        """
        images, owners = self.draw_tanh(count, random)
        return images if self._raw else self._normalization.from_tanh(images), owners

    def draw_tanh(self, count: int, random: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw fresh images in tanh range, and the client that made each."""
        counts = allocate(count, self._weights, random)
        parts = [
            sample_tanh(generator, number, random)
            for generator, number in zip(self._generators, counts, strict=True)
            if number
        ]
        images = torch.cat(parts)
        return images, torch.repeat_interleave(torch.tensor(counts)).to(images.device)

    @property
    def reading(self) -> Normalization:
        """The way from unit range to what classifiers are shown."""
        if self._raw:
            half = (0.5,) * self._normalization.channels
            return Normalization(half, half)
        return self._normalization
