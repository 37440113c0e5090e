"""CUDA, pretended on the CPU: tensors say that they are on a GPU, and mixing devices fails.

Every tensor is a CPU tensor, and those "on CUDA" carry a mark. A mode of PyTorch sees all
operations: it hands the mark on, answers questions about devices, and raises what CUDA would
raise: operations across devices, indices on CUDA into tensors on the CPU, generators of another
device, NumPy views of device memory. What it can't see is numerics, memory and speed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from benchmark.seeds import Streams
from methods.blocks import ensemble

_MARK = "_pretends_cuda"
_CUDA, _CPU = torch.device("cuda", 0), torch.device("cpu")
_ANY_DEVICE = {"copy_", "_has_compatible_shallow_copy_type"}
_STRICT = {"stack", "cat", "concat", "equal"}
_NUMPY = {"numpy", "__array__"}


class MixedDevicesError(RuntimeError):
    """What CUDA would have refused."""


class StreamOnCuda(torch.Generator):
    """A generator that says it is on CUDA."""

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return _CUDA


def on_cuda(tensor: object) -> bool:
    return getattr(tensor, _MARK, False) is True


def marked(value: Any) -> Any:
    """Mark all tensors of a value as being on CUDA."""
    for tensor in tensors_of(value):
        if tensor.device.type != "meta":
            setattr(tensor, _MARK, True)
    return value


def tensors_of(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        for part in value.values():
            yield from tensors_of(part)
    elif isinstance(value, tuple | list):
        for part in value:
            yield from tensors_of(part)


def _device(value: object) -> torch.device | None:
    if isinstance(value, torch.device):
        return value
    if isinstance(value, str) and value.split(":")[0] in ("cuda", "cpu", "meta"):
        return torch.device(value)
    return None


class PretendCuda(TorchFunctionMode):
    """Watches all operations."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        name = getattr(func, "__name__", "")
        if name in ("__get__", "__set__"):
            return self._property(func, name, args, kwargs)
        if name in ("to", "cpu", "cuda", "pin_memory", "is_pinned") and isinstance(args[0], Tensor):
            return self._moved(func, name, args, kwargs)
        if name in _NUMPY and on_cuda(args[0]):
            raise MixedDevicesError(f"{name}: can't convert a CUDA tensor to NumPy")
        asked = _device(kwargs.get("device"))
        if asked is not None and asked.type == "cuda":
            kwargs["device"] = _CPU
        self._check(name, args, kwargs, asked)
        result = func(*args, **kwargs)
        inherits = any(on_cuda(each) for each in tensors_of((args, kwargs)))
        if asked is not None:
            inherits = asked.type == "cuda"
        return marked(result) if inherits else result

    def _property(self, func: Any, name: str, args: Any, kwargs: Any) -> Any:
        what, tensor = func.__self__.__name__, args[0]
        if name == "__set__":
            result = func(*args, **kwargs)
            if what == "data" and isinstance(args[1], Tensor):
                setattr(tensor, _MARK, on_cuda(args[1]))
            return result
        if on_cuda(tensor) and what in ("device", "is_cuda", "is_cpu"):
            return {"device": _CUDA, "is_cuda": True, "is_cpu": False}[what]
        result = func(*args, **kwargs)
        return marked(result) if on_cuda(tensor) else result

    def _moved(self, func: Any, name: str, args: Any, kwargs: Any) -> Any:
        tensor, there = args[0], on_cuda(args[0])
        if name == "is_pinned":
            return False
        if name == "pin_memory":
            if there:
                raise MixedDevicesError("pin_memory: only dense CPU tensors can be pinned")
            return tensor
        goal = there if name == "to" else name == "cuda"
        rest = [tensor]
        for value in args[1:]:
            device = _device(value)
            if device is not None:
                goal = device.type == "cuda"
                rest.append(device if device.type == "meta" else _CPU)
            else:
                goal = on_cuda(value) if isinstance(value, Tensor) else goal
                rest.append(value)
        if (device := _device(kwargs.get("device"))) is not None:
            goal = device.type == "cuda"
            kwargs["device"] = device if device.type == "meta" else _CPU
        result = func(*rest, **kwargs) if name == "to" else tensor
        if goal != there and result is tensor:
            result = tensor.clone()  # a copy, as between devices
        if goal:
            return marked(result)
        if result is not tensor:
            setattr(result, _MARK, False)
        return result

    def _check(self, name: str, args: Any, kwargs: Any, asked: torch.device | None) -> None:
        if name in _ANY_DEVICE:
            return
        stream = kwargs.get("generator")
        if stream is not None:
            place = asked or (_CUDA if any(map(on_cuda, tensors_of(args))) else _CPU)
            if place.type not in (stream.device.type, "meta"):
                raise MixedDevicesError(
                    f"{name}: expected a '{place.type}' generator, got '{stream.device.type}'"
                )
        if name in ("__getitem__", "__setitem__"):
            into, index = args[0], list(tensors_of(args[1]))
            if not on_cuda(into) and any(on_cuda(each) and each.dim() for each in index):
                raise MixedDevicesError(f"{name}: indices on CUDA into a tensor on the CPU")
            if name == "__getitem__" or not index:
                return  # a slice is copied to, from wherever
            args = (into, args[2])
        found = [t for t in tensors_of((args, kwargs)) if not t.is_meta]
        if name not in _STRICT:  # a number on the CPU goes with anything
            found = [t for t in found if t.dim() or on_cuda(t)]
        if len({on_cuda(t) for t in found}) > 1:
            shapes = [("cuda" if on_cuda(t) else "cpu", tuple(t.shape)) for t in found]
            raise MixedDevicesError(f"{name}: tensors on several devices: {shapes}")


@contextmanager
def pretended_cuda(patch: pytest.MonkeyPatch) -> Iterator[None]:
    """Pretend that there is a GPU, which the run at hand is put on."""
    made = nn.Parameter.__new__

    def parameter(cls: Any, data: Any = None, *args: Any, **kwargs: Any) -> Any:
        result = made(cls, data, *args, **kwargs)
        return marked(result) if on_cuda(data) else result

    stream = Streams.torch

    def torch_stream(self: Streams, purpose: str, *, device: Any = "cpu", **names: Any) -> Any:
        if torch.device(device).type != "cuda":
            return stream(self, purpose, device=device, **names)
        generator = StreamOnCuda()
        generator.manual_seed(self.integer(purpose, **names))
        return generator

    stacked = ensemble.ClientEnsemble._stacked

    def stack(self: Any, images: Tensor) -> Tensor:
        tensors = [*self.parameters(), *self.buffers(), images]
        if not all(map(on_cuda, tensors)):
            raise MixedDevicesError("stacked models and their images are on several devices")
        with torch._C.DisableTorchFunction():  # vmap's own tensors carry no marks
            result = stacked(self, images)
        return marked(result)

    patch.setattr(nn.Parameter, "__new__", parameter)
    patch.setattr(Streams, "torch", torch_stream)
    patch.setattr(ensemble.ClientEnsemble, "_stacked", stack)
    patch.setattr(torch.cuda, "get_rng_state", lambda device=None: torch.get_rng_state())
    patch.setattr(torch.cuda, "set_rng_state", lambda state, device=None: None)
    patch.setattr(torch.cuda, "manual_seed", lambda seed: None)
    patch.setattr(torch.cuda, "device", lambda device: nullcontext())
    patch.setattr(torch.cuda, "get_device_name", lambda device=None: "none at all")
    patch.setattr(torch.cuda, "max_memory_allocated", lambda device=None: 0)
    with PretendCuda():
        yield
