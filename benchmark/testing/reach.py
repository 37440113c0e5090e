"""What tensors an object refers to, directly or not: shows that no data leaks into arguments."""

from __future__ import annotations

import functools
import types
from collections import deque
from collections.abc import Iterable, Iterator, Mapping

import numpy as np
import torch
from torch import Tensor, nn

from benchmark.images import Normalization

_LEAVES = (str, bytes, int, float, bool, type(None), type, types.ModuleType, torch.device)


def reachable_tensors(*roots: object) -> Iterator[Tensor]:
    """Yield all tensors (and arrays, as tensors) that can be reached from ``roots``.

    Attributes, containers, closures and bound methods are followed; modules, classes and
    function globals are not: everything is reachable from those.
    """
    seen: set[int] = set()
    todo: list[object] = list(roots)
    while todo:
        value = todo.pop()
        if isinstance(value, _LEAVES) or id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, np.ndarray):
            if value.dtype.kind in "biuf":
                yield torch.from_numpy(np.array(value))
        else:
            todo.extend(_neighbours(value))


def _neighbours(value: object) -> Iterable[object]:
    if isinstance(value, Mapping):
        yield from list(value.keys())
        yield from list(value.values())
    elif isinstance(value, list | tuple | set | frozenset | deque):
        yield from value
    if isinstance(value, functools.partial):
        yield from (value.func, value.args, value.keywords)
    if isinstance(value, types.MethodType):
        yield value.__self__
        yield value.__func__
    if isinstance(value, types.FunctionType):
        for cell in value.__closure__ or ():
            yield cell.cell_contents
        yield from value.__defaults__ or ()
    if isinstance(value, nn.Module):
        yield from value.state_dict().values()
    yield from vars(value).values() if hasattr(value, "__dict__") else ()
    for slot in getattr(type(value), "__slots__", ()):
        if isinstance(slot, str) and hasattr(value, slot):
            yield getattr(value, slot)


class Secret:
    """Images that must not turn up elsewhere, in whatever form a model is fed them.

    Parameters
    ----------
    images : Tensor
        uint8 [n, C, H, W], any device.
    normalization : Normalization, optional
        The task's; without one, normalised images are not looked for.
    """

    def __init__(self, images: Tensor, normalization: Normalization | None = None) -> None:
        self._shape = images.shape[1:]
        self._rows = _texts(images)
        self._normalization = normalization

    def is_in(self, found: Tensor) -> bool:
        """Return whether a tensor holds any of the images.

        Flat or not, alone or in a batch, as whole numbers or in the ranges 0 to 255, 0 to 1,
        -1 to 1, or normalised. An image of one value alone says nothing, and is not looked for.
        """
        pixels = self._shape.numel()
        if not pixels or found.numel() < pixels or found.numel() % pixels or found.is_complex():
            return False
        values = found.detach().cpu().reshape(-1, *self._shape)
        return any(not self._rows.isdisjoint(_texts(form)) for form in self._forms(values))

    def _forms(self, values: Tensor) -> Iterator[Tensor]:
        """Yield what a tensor would be as 8-bit images, in each form that it can be in."""
        if not values.is_floating_point():
            yield from _as_bytes(values)
            return
        values = values.double()
        yield from _as_bytes(values)
        yield from _as_bytes(255 * values)
        yield from _as_bytes(127.5 * (values + 1))
        if self._normalization is not None:
            mean, std = (
                torch.tensor(each, dtype=torch.float64).view(-1, 1, 1)
                for each in (self._normalization.mean, self._normalization.std)
            )
            yield from _as_bytes(255 * (values * std + mean))


def _as_bytes(values: Tensor) -> Iterator[Tensor]:
    """Yield, as bytes, the rows whose values are in their range when rounded."""
    rounded = values.round() if values.is_floating_point() else values
    rows = ((rounded >= 0) & (rounded <= 255)).flatten(1).all(1)  # NaN is in no range
    if bool(rows.any()):
        yield rounded[rows].to(torch.uint8)


def _texts(images: Tensor) -> set[bytes]:
    flat = images.detach().cpu().flatten(1)
    various = (flat != flat[:, :1]).any(1)
    return {row.numpy().tobytes() for row in flat[various].contiguous()}
