"""What a teacher has said of stored images: each is asked about once (ours).

A pool hands the same image out many times over, 100 times with the published budgets, and a
teacher is many models: five clients, ten experts, 200 for 200 classes. The published codes ask
it again every time.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


class TeacherMemory:
    """A teacher that answers from memory where it has seen the image before.

    Its answers are the teacher's own, up to rounding: an image is computed among other images
    than it would be without.

    Parameters
    ----------
    teacher : callable
        From images [B, C, H, W] to logits [B, classes]; the same for the same image.
    """

    def __init__(self, teacher: Callable[[Tensor], Tensor]) -> None:
        self._teacher = teacher
        self._known = torch.zeros(0, dtype=torch.bool)
        self._logits = torch.zeros(0, 0)

    @torch.no_grad()
    def __call__(self, images: Tensor, keys: Tensor | None) -> Tensor:
        """Return logits [B, classes], without gradients.

        Parameters
        ----------
        images : Tensor
            [B, C, H, W] in classifier range, at least one.
        keys : Tensor or None
            int64 [B], see :class:`methods.blocks.parts.Batch`; ``None`` asks the teacher about
            every image, and remembers nothing.
        """
        if keys is None:
            return self._teacher(images)
        self._reserve(int(keys.max()) + 1, keys.device)
        new = (~self._known[keys]).nonzero().flatten()
        if len(new):
            unknown, where = torch.unique(keys[new], return_inverse=True)
            # The first of each: which of two writes would win is left to chance on CUDA.
            first = new.new_full((len(unknown),), len(keys)).scatter_reduce(0, where, new, "amin")
            self._store(unknown, self._teacher(images[first]))
        return self._logits[keys]

    def _reserve(self, room: int, device: torch.device) -> None:
        if room <= len(self._known):
            return
        room = max(room, 2 * len(self._known))
        known = torch.zeros(room, dtype=torch.bool, device=device)
        known[: len(self._known)] = self._known
        logits = self._logits.new_zeros(room, self._logits.shape[1])
        logits[: len(self._logits)] = self._logits
        self._known, self._logits = known, logits

    def _store(self, keys: Tensor, logits: Tensor) -> None:
        if self._logits.shape[1] != logits.shape[1]:
            # The first answer says how many classes there are, of which type, and where.
            self._logits = logits.new_zeros(len(self._known), logits.shape[1])
        self._logits[keys] = logits
        self._known[keys] = True
