"""The wire: messages as bytes, and what each part of them costs.

Uploads and broadcasts are the only way information crosses between client and server, and
their cost is the length of these bytes. Tensors travel as ``part/name`` in a safetensors
container; values and everything else are one JSON text in its metadata, so that the same
message always makes the same bytes. An empty message is no bytes at all.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeVar

from benchmark.contract import Message
from benchmark.errors import UserError
from benchmark.spool import InMemory, Place, Source, StoredTensors

if TYPE_CHECKING:
    import torch
    from torch import Tensor

VALUES = "values"
"""Under this name :func:`account` books the JSON values."""

HEADER = "header"
"""Under this name :func:`account` books the container: names, shapes, padding."""

_METADATA_KEY = "message"
_LENGTH = 8

MessageT = TypeVar("MessageT", bound=Message)


class WireError(UserError, TypeError):
    """A message holds something that can't cross the wire, or bytes are no message."""


def encode(message: Message, where: str = "message") -> bytes:
    """Return a message as bytes: the same message makes the same bytes in every process.

    Parameters
    ----------
    message : Message
        Tensors may be on any device, non-contiguous, 0-dimensional, or share memory.
    where : str
        What the message is, for errors, such as ``"upload of client 3 (fedavg)"``.

    Raises
    ------
    WireError
        If it is no message, a part or tensor is misnamed or no dense tensor of numbers, or
        a value is no JSON value (NaN is none).
    """
    from safetensors.torch import save

    tensors = _tensors(message, where)
    text = _metadata(message, where)
    if not tensors and not text:
        return b""
    # A copy each: safetensors refuses tensors that share memory.
    flat = {
        name: tensor.detach().resolve_neg().cpu().contiguous().clone()
        for name, tensor in tensors.items()
    }
    return save(flat, {_METADATA_KEY: text} if text else None)


def decode(data: bytes, cls: type[MessageT], where: str = "message") -> MessageT:
    """Return the message that :func:`encode` made bytes of.

    Parameters
    ----------
    data : bytes
        The bytes.
    cls : type
        ``Upload``, ``Broadcast`` or ``Message``.
    where : str
        What the message is, for errors.

    Returns
    -------
    Message
        Parts and tensors in order of name; tensors are fresh, contiguous, on the CPU, and
        share no memory with the sender's or with ``data``.

    Raises
    ------
    WireError
        If the bytes are no message.
    """
    seen = view(InMemory(data), cls, where)
    return cls(parts={part: dict(seen.parts[part]) for part in seen.parts}, values=seen.values)


def view(source: Source, cls: type[MessageT], where: str = "message") -> MessageT:
    """Return the message of bytes at rest; its tensors are read when they are looked at.

    Parameters
    ----------
    source : Source
        Where what :func:`encode` made is kept.
    cls : type
        ``Upload``, ``Broadcast`` or ``Message``.
    where : str
        What the message is, for errors.

    Returns
    -------
    Message
        As :func:`decode` returns it, but with :class:`~benchmark.spool.StoredTensors` as
        parts: every look at a tensor gives a fresh one, with the same bits.

    Raises
    ------
    WireError
        If the bytes are no message.
    """
    if not len(source):
        return cls()
    try:
        length = int.from_bytes(_bytes(source, 0, _LENGTH), "little")
        start = _LENGTH + length
        header = _parsed(_bytes(source, _LENGTH, start))
        about = json.loads(header.pop("__metadata__", {}).get(_METADATA_KEY, "{}"))
        parts: dict[str, dict[str, Place]] = {part: {} for part in about.get("empty", ())}
        for name, entry in header.items():
            part, _, tensor = name.partition("/")
            parts.setdefault(part, {})[tensor] = _place(entry, start)
        places = (place for tensors in parts.values() for place in tensors.values())
        _check_places(places, start, len(source))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise WireError(f"{where}: these {len(source)} bytes are no message: {error}") from None
    ordered = {
        part: StoredTensors(source, dict(sorted(parts[part].items()))) for part in sorted(parts)
    }
    return cls(parts=ordered, values=about.get(VALUES, {}))


def account(message: Message, data: bytes) -> dict[str, int]:
    """Return how many of the bytes each part of a message takes, as the container has it.

    Parameters
    ----------
    message : Message
        The message.
    data : bytes
        What :func:`encode` made of it.

    Returns
    -------
    dict of str to int
        Bytes by part, of the values' JSON text (``"values"``), and of the container
        (``"header"``). They add up to ``len(data)``.
    """
    booked = dict.fromkeys(sorted(message.parts), 0)
    for name, entry in (_header(data) if data else {}).items():
        if name != "__metadata__":
            begin, end = entry["data_offsets"]
            booked[name.partition("/")[0]] += end - begin
    booked[VALUES] = len(_metadata(message, "message").encode())
    booked[HEADER] = len(data) - sum(booked.values())
    return booked


def elements(message: Message) -> dict[str, dict[str, int]]:
    """Return how many numbers of each type the parts of a message hold.

    Times the bytes of a number they are the closed form of :func:`account`, which reads the
    bytes themselves.

    Returns
    -------
    dict of str to (dict of str to int)
        Numbers by part and type, such as ``{"model": {"float32": 1200, "int64": 3}}``.
    """
    counts: dict[str, dict[str, int]] = {}
    for part, tensors in sorted(message.parts.items()):
        of_part = counts.setdefault(part, {})
        for tensor in tensors.values():
            kind = str(tensor.dtype).removeprefix("torch.")
            of_part[kind] = of_part.get(kind, 0) + tensor.numel()
    return counts


def _tensors(message: Message, where: str) -> dict[str, Tensor]:
    """Return the message's tensors by full name, checked."""
    if not isinstance(message, Message):
        raise WireError(f"{where}: expected an Upload or a Broadcast, got {_kind(message)}")
    if not isinstance(message.parts, Mapping):
        raise WireError(f"{where}: parts must be a mapping, got {_kind(message.parts)}")
    found: dict[str, Tensor] = {}
    for part, tensors in sorted(message.parts.items(), key=lambda item: str(item[0])):
        _check_part(part, where)
        if not isinstance(tensors, Mapping):
            raise WireError(
                f"{where}: part '{part}' must map names to tensors, got {_kind(tensors)}"
            )
        for name, tensor in tensors.items():
            if not isinstance(name, str) or not name:
                raise WireError(f"{where}: part '{part}': {name!r} is no name of a tensor")
            _check_tensor(tensor, f"{where}: '{part}/{name}'")
            found[f"{part}/{name}"] = tensor
    return found


def _check_part(part: object, where: str) -> None:
    if not isinstance(part, str) or not part:
        raise WireError(f"{where}: {part!r} is no name of a part; use text")
    if "/" in part:
        raise WireError(f"{where}: the name of part '{part}' must not contain a slash")
    if part in (VALUES, HEADER):
        raise WireError(f"{where}: a part can't be called '{part}'; bytes are booked by that name")


def _check_tensor(tensor: object, where: str) -> None:
    import torch

    if not isinstance(tensor, torch.Tensor):
        raise WireError(f"{where} must be a tensor, got {_kind(tensor)}")
    if tensor.layout != torch.strided or tensor.device.type == "meta" or tensor.is_quantized:
        raise WireError(f"{where} must be a dense tensor, got {tensor.layout} on {tensor.device}")
    if tensor.is_complex():
        raise WireError(f"{where} must hold real numbers, got {tensor.dtype}")


def _metadata(message: Message, where: str) -> str:
    """Return what crosses beside the tensors as canonical JSON, empty if nothing does."""
    if not isinstance(message.values, Mapping):
        raise WireError(f"{where}: values must be a mapping, got {_kind(message.values)}")
    _check_json(message.values, where, VALUES)
    about: dict[str, Any] = {}
    if message.values:
        about[VALUES] = dict(message.values)
    empty = sorted(part for part, tensors in message.parts.items() if not tensors)
    if empty:
        about["empty"] = empty
    if not about:
        return ""
    return json.dumps(about, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _check_json(value: object, where: str, place: str) -> None:
    if value is None or isinstance(value, bool | int | str):
        return
    if isinstance(value, float):
        if not math.isfinite(value):
            raise WireError(f"{where}: {place} is {value}, which JSON does not know")
    elif isinstance(value, Mapping):
        for key, item in value.items():
            if not isinstance(key, str):
                raise WireError(f"{where}: {place}: keys must be text, got {key!r}")
            _check_json(item, where, f"{place}.{key}")
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            _check_json(item, where, f"{place}[{index}]")
    else:
        raise WireError(
            f"{where}: {place} must be a JSON value, got {_kind(value)}; put arrays into parts"
        )


def _header(data: bytes) -> dict[str, Any]:
    """Return the container's header: safetensors' loader does not hand out its metadata."""
    length = int.from_bytes(data[:_LENGTH], "little")
    return _parsed(data[_LENGTH : _LENGTH + length])


def _parsed(text: bytes) -> dict[str, Any]:
    header = json.loads(text)
    if not isinstance(header, dict):
        raise ValueError("the header is no JSON object")
    return header


def _bytes(source: Source, start: int, stop: int) -> bytes:
    if stop > len(source):
        raise ValueError("they are cut off")
    return source.read(start, stop).numpy().tobytes()


def _place(entry: Mapping[str, Any], start: int) -> Place:
    """Return where a tensor is, from its entry in the header of a container."""
    dtype, shape = _dtypes().get(entry["dtype"]), tuple(entry["shape"])
    if dtype is None:
        raise ValueError(f"there is no type '{entry['dtype']}'")
    first, last = (start + offset for offset in entry["data_offsets"])
    whole = all(isinstance(number, int) for number in (*shape, first, last))
    if not whole or min(shape, default=0) < 0 or last - first != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"{shape} of {dtype} is not at {first} to {last}")
    return Place(first, last, dtype, shape)


def _check_places(places: Iterable[Place], start: int, end: int) -> None:
    """Check that tensors lie side by side, as they are written, and that nothing follows."""
    reached = start
    for place in sorted(places, key=lambda place: (place.start, place.stop)):
        if place.start != reached:
            raise ValueError(f"a tensor begins at {place.start}, expected is {reached}")
        reached = place.stop
    if reached != end:
        raise ValueError(f"the last tensor ends at {reached} of {end} bytes")


@lru_cache(maxsize=1)
def _dtypes() -> dict[str, torch.dtype]:
    """Return torch's types by the names that a container gives them: those `encode` can send."""
    import torch

    floats = {"F16": "float16", "BF16": "bfloat16", "F32": "float32", "F64": "float64"}
    eights = {"F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2", "BOOL": "bool"}
    eights |= {"F8_E4M3FNUZ": "float8_e4m3fnuz", "F8_E5M2FNUZ": "float8_e5m2fnuz"}
    signed = {f"I{bits}": f"int{bits}" for bits in (8, 16, 32, 64)}
    unsigned = {f"U{bits}": f"uint{bits}" for bits in (8, 16, 32, 64)}
    names = floats | eights | signed | unsigned
    return {name: getattr(torch, dtype) for name, dtype in names.items()}


def _kind(value: object) -> str:
    kind = type(value)
    return f"{kind.__module__}.{kind.__qualname__}".removeprefix("builtins.")
