"""Windows: which channels of the global model a narrower client model holds.

The schemes are those of FedRolex (rolling, arXiv 2212.01548), HeteroFL (static, arXiv 2010.01264)
and federated dropout (random, arXiv 1812.07210). One window per channel space, so that residual
branches stay aligned; ``random_misaligned`` is the published code's behaviour, for parity only.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from benchmark.errors import unknown
from benchmark.models.structure import Axis, Structure
from benchmark.models.widths import as_width, scaled

WINDOWS: tuple[str, ...] = ("rolling", "static", "staggered", "random")


@dataclass(frozen=True, eq=False)
class IndexSets:
    """Which channels of a full model one client holds, in the order it holds them.

    Parameters
    ----------
    structure : Structure
        Of the full model.
    width : Fraction
        Kept fraction of the full model's channels.
    window : str
        The scheme that chose them.
    channels : tuple of Tensor
        For each of ``structure.layers``, the int64 CPU indices of its kept channels.
    """

    structure: Structure
    width: Fraction
    window: str
    channels: tuple[Tensor, ...]

    def indices(self, name: str) -> tuple[Tensor | None, Tensor | None]:
        """Return the kept indices along dimensions 0 and 1 of a state-dict entry.

        None stands for a dimension without channels. Behind a flatten a channel's features are all
        kept, contiguously.
        """
        entry = self.structure.entries[name]
        return self._expand(entry.out_axis), self._expand(entry.in_axis)

    def _expand(self, axis: Axis | None) -> Tensor | None:
        if axis is None:
            return None
        kept = self.channels[axis.layer]
        if axis.repeat == 1:
            return kept
        return (kept[:, None] * axis.repeat + torch.arange(axis.repeat)).flatten()

    @cached_property
    def features(self) -> Tensor:
        """Positions of the client's features [F_client] in the full model's feature vector."""
        index = self.indices(self.structure.head[0])[1]
        if index is None:
            raise ValueError("the head has no input axis")
        return index

    @cached_property
    def digest(self) -> str:
        """SHA-256 of all kept channels, to be recorded."""
        hashed = hashlib.sha256()
        for kept in self.channels:
            hashed.update(len(kept).to_bytes(8, "little"))
            hashed.update(kept.numpy().astype("<i8").tobytes())
        return hashed.hexdigest()

    def describe(self) -> dict[str, Any]:
        """Return a JSON-ready summary: scheme, width, digest, and [first, kept, of] per space."""
        firsts: dict[int, list[int]] = {}
        for layer, kept in zip(self.structure.layers, self.channels, strict=True):
            if not layer.fixed:
                firsts.setdefault(layer.space, [int(kept[0]), len(kept), layer.size])
        return {
            "window": self.window,
            "width": str(self.width),
            "digest": self.digest,
            "spaces": list(firsts.values()),
        }


def rolling_window(size: int, keep: int, round_index: int) -> Tensor:
    """Return FedRolex's window: channel ``(i - round_index) mod size`` for i below ``keep``.

    The published code moves the window backwards by one channel per round (its paper describes a
    forward move); the order is kept, so a wrapped window does not start with its smallest index.
    """
    return (torch.arange(keep) - round_index) % size


def staggered_window(size: int, keep: int, phase: Fraction) -> Tensor:
    """Return the cyclic window that starts at ``floor(phase * size)``; ours."""
    return (torch.arange(keep) + math.floor(phase * size)) % size


def staggered_phases(widths: Sequence[Fraction]) -> list[Fraction]:
    """Return phases at which clients tile the width: the widths before summed, modulo 1; ours."""
    return [sum(widths[:client], Fraction(0)) % 1 for client in range(len(widths))]


def index_sets(
    structure: Structure,
    width: Fraction | float | str,
    window: str = "rolling",
    *,
    round_index: int = 0,
    phase: Fraction | float = Fraction(0),
    generator: torch.Generator | None = None,
) -> IndexSets:
    """Choose a client's channels.

    Parameters
    ----------
    structure : Structure
        Of the full (global) model.
    width : Fraction, float or str
        Kept fraction *of that model*: a client of width 1/4 under a global model of width 1/2
        holds 1/2 of it. A space of n channels keeps ``ceil(width * n)``.
    window : {"rolling", "static", "staggered", "random"}
        ``rolling``: FedRolex at round ``round_index``, the same for all clients. ``static``:
        HeteroFL's leading channels. ``staggered``: a window at ``phase`` of every space, ours.
        ``random``: one fresh permutation per space, in the order drawn.
    round_index : int
        Round counter from 0, read by ``rolling``.
    phase : Fraction or float
        In [0, 1), read by ``staggered``; see :func:`staggered_phases`.
    generator : torch.Generator or None
        Read by ``random``, and required for it.

    Returns
    -------
    IndexSets
        With aligned channels in every space.

    Raises
    ------
    UserError
        If the width or the window's name is not valid.
    ValueError
        If ``random`` is asked for without a generator.
    """
    share = as_width(width)
    if window not in WINDOWS:
        raise unknown("window", window, WINDOWS)
    if window == "random" and generator is None:
        raise ValueError("a random window needs a generator")
    start = Fraction(phase).limit_denominator(1_000_000)

    def choose(size: int) -> Tensor:
        keep = scaled(size, share)
        if window == "rolling":
            return rolling_window(size, keep, round_index)
        if window == "staggered":
            return staggered_window(size, keep, start)
        if generator is not None and window == "random":
            return _permutation(size, generator)[:keep]
        return torch.arange(keep)

    return _aligned(structure, share, window, choose)


def misaligned_index_sets(
    structure: Structure, widths: Sequence[Fraction | float | str], generator: torch.Generator
) -> list[IndexSets]:
    """Choose all clients' channels as FedRolex's published code does for ``random``; parity only.

    Every layer draws anew, for each client in turn, in the order of the state dict; a projection
    shortcut takes the draw of the convolution it is added to. Identity shortcuts are therefore
    *not* aligned with their branch: channels that are added to each other are different channels
    of the global model.

    Parameters
    ----------
    structure : Structure
        Of the full model.
    widths : sequence
        One width per client, relative to the full model.
    generator : torch.Generator
        The published code uses PyTorch's global stream; a CPU generator with the same seed draws
        the same numbers.

    Returns
    -------
    list of IndexSets
        One per client.
    """
    shares = [as_width(width) for width in widths]
    drawn: list[dict[int, Tensor]] = [{} for _ in shares]
    for entry in structure.entries.values():
        axis = entry.out_axis
        if axis is None or axis.layer in drawn[0] or structure.layers[axis.layer].fixed:
            continue
        size = structure.layers[axis.layer].size
        for share, client in zip(shares, drawn, strict=True):
            client[axis.layer] = _permutation(size, generator)[: scaled(size, share)]
    everything = [torch.arange(layer.size) for layer in structure.layers]
    return [
        IndexSets(
            structure,
            share,
            "random_misaligned",
            tuple(client.get(index, whole) for index, whole in enumerate(everything)),
        )
        for share, client in zip(shares, drawn, strict=True)
    ]


def _permutation(size: int, generator: torch.Generator) -> Tensor:
    return torch.randperm(size, generator=generator, device=generator.device).cpu()


def _aligned(
    structure: Structure, share: Fraction, window: str, choose: Callable[[int], Tensor]
) -> IndexSets:
    chosen = {space: choose(size) for space, size in structure.spaces.items()}
    channels = tuple(
        torch.arange(layer.size) if layer.fixed else chosen[layer.space]
        for layer in structure.layers
    )
    return IndexSets(structure, share, window, channels)
