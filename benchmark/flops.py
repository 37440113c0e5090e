"""Floating-point operations of a run: torch's own formulas, on a sample of the steps.

Counting every operation in Python costs a quarter of a small model's time, so only some
optimiser steps are counted, and the others are taken to be like those with the same
optimiser (its number of parameters tells optimisers apart). What happens between two
optimiser steps belongs to the later one; an optimiser's first step, which preparations belong
to, stands for itself alone. Counting changes no bit of a result.

Work that is done now and then between steps, in pieces larger than they, would be missed or
taken for usual: it is done :func:`counted`, and then nothing of it is estimated.

Compiled code hides its operations, and is not run at all while somebody counts them: it is
:func:`uncounted`, and says itself how many they were.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch.optim.optimizer import register_optimizer_step_post_hook
from torch.utils._python_dispatch import TorchDispatchMode, _get_current_dispatch_mode
from torch.utils.flop_counter import flop_registry

FIRST = 4
"""Steps at the beginning of a section that are all counted."""

EVERY = 31
"""Of later ones, one of so many: a prime, so that alternating optimisers each have their turn."""


_aten = torch.ops.aten
_ON_CPU = {
    _aten._scaled_dot_product_flash_attention_for_cpu: _aten._scaled_dot_product_flash_attention,
    _aten._scaled_dot_product_flash_attention_for_cpu_backward: (
        _aten._scaled_dot_product_flash_attention_backward
    ),
}
"""Attention as a CPU does it, which torch has no formula for, and the same on a GPU."""


class _Counter(TorchDispatchMode):
    """Adds up the operations that pass by: matrix products, convolutions, attention."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        kind = func._overloadpacket
        formula: Callable[..., int] | None = flop_registry.get(_ON_CPU.get(kind, kind))
        if formula is not None:
            self.total += int(formula(*args, **kwargs, out_val=out))
        return out


@dataclass
class _Tally:
    """Steps of one optimiser."""

    first: int = 0
    later: int = 0
    counted: int = 0
    uncounted: int = 0

    def add(self, flops: int) -> None:
        if self.counted:
            self.later += flops
        else:
            self.first = flops
        self.counted += 1

    @property
    def total(self) -> int:
        usual = self.later / (self.counted - 1) if self.counted > 1 else self.first
        return self.first + self.later + round(usual * self.uncounted)


_meters: list[FlopMeter] = []
"""The meters whose section is open."""


@contextmanager
def uncounted() -> Iterator[Callable[[int], None]]:
    """Count nothing inside; gives what is to be told how many operations there were."""
    if not _meters:
        yield lambda flops: None
        return
    with _meters[-1].paused():
        yield _meters[-1].add


@contextmanager
def counted() -> Iterator[None]:
    """Count all of what is done inside, whichever steps it stands between.

    For what a method does for many optimiser steps together: a teacher that works ahead, a
    pass over all images. Without it a run is right all the same, but not its operations.
    """
    if not _meters:
        yield
        return
    with _meters[-1].whole():
        yield


def operations(work: Callable[[], object]) -> int:
    """Return the floating-point operations of some work, which is done."""
    counter = _Counter()
    with counter:
        work()
    return counter.total


class FlopMeter:
    """Estimates the floating-point operations of sections of a run.

    A multiply-add counts two. Work of a section after its last optimiser step is counted
    only where that step's successor would have been.

    Attributes
    ----------
    known : bool
        Whether everything that was added had been counted.
    """

    def __init__(self) -> None:
        self.known = True
        self._closed = 0
        self._tallies: dict[int, _Tally] = {}
        self._counter = _Counter()
        self._on = False
        self._step = 0
        self._open = False
        self._paused = False
        self._whole = False

    @property
    def total(self) -> int:
        """Operations so far, of all sections."""
        loose = self._counter.total if self._on else 0
        return self._closed + loose + sum(tally.total for tally in self._tallies.values())

    @property
    def counting(self) -> bool:
        """Whether what is done now will have been counted, or estimated."""
        return self._open and not self._paused

    def add(self, flops: int | None) -> None:
        """Add operations that were counted when they were done, in an earlier run.

        ``None`` says that nobody counted them then: the sum is not known any more.
        """
        if flops is None:
            self.known = False
        else:
            self._closed += flops

    def snapshot(self) -> tuple[bool, int]:
        """Return what was counted in closed sections, for :meth:`restore`."""
        return self.known, self._closed

    def restore(self, before: tuple[bool, int]) -> None:
        """Forget what was counted since."""
        self.known, self._closed = before

    @contextmanager
    def section(self) -> Iterator[None]:
        """Count what is done inside; sections don't nest."""
        if self._open:
            raise RuntimeError("a section is open already")
        self._open, self._step = True, 0
        # A fused transformer layer skips autocast when it passes through a counter: all of a
        # section goes without it, so that counted and uncounted steps have the same bits.
        fused = torch.backends.mha.get_fastpath_enabled()
        torch.backends.mha.set_fastpath_enabled(False)
        hook = register_optimizer_step_post_hook(self._after_step)
        self._switch(on=True)
        _meters.append(self)
        try:
            yield
        finally:
            _meters.remove(self)
            hook.remove()
            torch.backends.mha.set_fastpath_enabled(fused)
            self._switch(on=False)
            self._close()
            self._open = False

    @contextmanager
    def apart(self) -> Iterator[None]:
        """Count what is done inside by itself, in the midst of a section or outside of any.

        What comes before and after is estimated as if nothing had been done here: it is the same
        whether something is made inside, or taken from the cache.
        """
        self._begin_anew()
        try:
            yield
        finally:
            self._begin_anew()

    def _begin_anew(self) -> None:
        if self._open and not self._paused and not self._whole:
            self._close()
            self._step = 0
            self._switch(on=True)

    def _close(self) -> None:
        self._closed += sum(tally.total for tally in self._tallies.values())
        self._closed += self._counter.total
        self._counter.total = 0
        self._tallies.clear()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Count nothing inside, in the midst of a section."""
        was_on, was_paused = self._on, self._paused
        self._switch(on=False)
        self._paused = True
        try:
            yield
        finally:
            self._paused = was_paused
            self._switch(on=was_on)

    @contextmanager
    def whole(self) -> Iterator[None]:
        """Count everything inside, and take no step for it."""
        if self._paused or self._whole:
            yield
            return
        was_on, before = self._on, self._counter.total
        self._switch(on=True)
        self._whole = True
        try:
            yield
        finally:
            self._whole = False
            self._closed += self._counter.total - before
            self._counter.total = before
            self._switch(on=was_on)

    def _after_step(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        if self._paused or self._whole:
            return
        key = sum(p.numel() for group in optimizer.param_groups for p in group["params"])
        tally = self._tallies.setdefault(key, _Tally())
        if self._on:
            tally.add(self._counter.total)
            self._counter.total = 0
        else:
            tally.uncounted += 1
        self._step += 1
        unknown = any(tally.counted < 2 for tally in self._tallies.values())
        self._switch(on=self._step < FIRST or self._step % EVERY == 0 or unknown)

    def _switch(self, *, on: bool) -> None:
        """Start or stop counting, unless somebody else's mode lies on top of ours."""
        current = _get_current_dispatch_mode()
        if on and not self._on and current is None:
            self._counter.__enter__()
            self._on = True
        elif not on and self._on and current is self._counter:
            self._counter.__exit__(None, None, None)
            self._on = False
