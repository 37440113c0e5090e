"""Random streams: every consumer gets its own, derived by hashing and never shared.

A stream is named by (seed, purpose, client, round, method). Because the name alone
determines it, adding a method, running methods in another order, in other processes,
or resuming after a kill changes no bit of any result. Client streams leave the
method's name out on purpose, so that two methods that ask a client for the same
training get the same bits.

The limit: the name is hashed to 63 bits, and torch's generator on a CPU (mt19937) starts from
the low 32 of them. Two of a grid's streams are then one with a chance of about n² / 2³³ for n
streams, one in a thousand for three thousand; NumPy's and CUDA's generators take all bits.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import torch


@dataclass(frozen=True)
class Streams:
    """The random streams of one seed, optionally of one method.

    Parameters
    ----------
    seed : int
        The seed that the user named.
    method : str or None
        The method's name for server streams, ``None`` for what all methods share.
    """

    seed: int
    method: str | None = None

    def integer(self, purpose: str, *, client: int | None = None, round: int | None = None) -> int:
        """Return the 63-bit integer that names a stream (ours: SHA-256 of its name)."""
        name = json.dumps([self.seed, purpose, client, round, self.method])
        return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") >> 1

    def numpy(
        self, purpose: str, *, client: int | None = None, round: int | None = None
    ) -> np.random.Generator:
        """Return the stream as a NumPy generator."""
        import numpy as np

        return np.random.default_rng(self.integer(purpose, client=client, round=round))

    def torch(
        self,
        purpose: str,
        *,
        client: int | None = None,
        round: int | None = None,
        device: torch.device | str = "cpu",
    ) -> torch.Generator:
        """Return the stream as a torch generator on ``device``; on a CPU it has 32 bits of seed."""
        import torch

        generator = torch.Generator(device=device)
        generator.manual_seed(self.integer(purpose, client=client, round=round))
        return generator


@contextmanager
def seeded_global(generator: torch.Generator, device: torch.device | None = None) -> Iterator[None]:
    """Lend torch's global streams to code that takes no generator, then restore them.

    Some layers (dropout) and libraries (timm) draw from the global stream only. Inside
    the context that stream is seeded from ``generator``; outside nothing changed.

    Parameters
    ----------
    generator : torch.Generator
        Gives one number, the seed of the CPU's stream and of that on its own device.
    device : torch.device, optional
        Where the code computes, if that may be another device: it draws from its stream there.
    """
    import torch

    seed = int(torch.randint(2**62, (1,), generator=generator, device=generator.device).item())
    places = dict.fromkeys((generator.device, device or generator.device))
    devices = [place for place in places if place.type == "cuda"]
    with torch.random.fork_rng(devices=devices):
        # Not `torch.manual_seed`: it would also seed devices that are not put back.
        torch.default_generator.manual_seed(seed)
        for place in devices:
            with torch.cuda.device(place):
                torch.cuda.manual_seed(seed)
        yield
