"""What tensors an object refers to, directly or not: shows that no data leaks into arguments."""

from __future__ import annotations

import types
from collections.abc import Iterable, Iterator, Mapping

import numpy as np
import torch
from torch import Tensor, nn

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
    elif isinstance(value, list | tuple | set | frozenset):
        yield from value
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


def shares_rows(found: Tensor, secret: Tensor) -> bool:
    """Return whether a tensor holds any image of ``secret`` (uint8 [n, C, H, W]).

    Floats count as images too, in the unit range.
    """
    if found.dim() != secret.dim() or found.shape[1:] != secret.shape[1:] or not len(found):
        return False
    if found.is_floating_point() and found.min() >= 0 and found.max() <= 1:
        found = (255 * found.float()).round().to(torch.uint8)
    if found.dtype != secret.dtype:
        return False
    mine = {row.numpy().tobytes() for row in secret.cpu().contiguous()}
    return any(row.numpy().tobytes() in mine for row in found.detach().cpu().contiguous())
