"""Reading pickles as data: nothing a file says is ever called.

The CIFAR files are pickles (protocol 2, written by Python 2), a format in which a file names
functions to call. Python's own unpickler, even when it is told to refuse names, follows the
sizes a damaged file states and can take all memory. Here the few instructions that such files
need are carried out on plain values, every size is checked against the bytes that are there,
and the four names that stand for NumPy arrays make records that only keep what they are
given. An array is made of a record afterwards, once its type and size are checked.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from datasets.errors import DataError

_NAMES = {
    "numpy.core.multiarray _reconstruct": "array",
    "numpy._core.multiarray _reconstruct": "array",
    "numpy ndarray": "ndarray",
    "numpy dtype": "dtype",
    "_codecs encode": "encode",
}
_LATIN = ("latin1", b"latin1")


class _RefusedError(ValueError):
    """The file holds something that data has no need of, or is cut short."""


class _Record:
    """What the file says about an object: which name, which arguments, which state."""

    __slots__ = ("args", "kind", "state")

    def __init__(self, kind: str, args: tuple[Any, ...] | None = None) -> None:
        self.kind, self.args, self.state = kind, args, None


class _Mark:
    """A place on the stack from which a list, tuple or dictionary is gathered."""


class _Machine:
    """Carries out a pickle's instructions on a stack of plain values."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._place = 0
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}

    def run(self) -> Any:
        """Return the value that the pickle describes."""
        while (code := self._take(1)) != b".":
            step = _STEPS.get(code)
            if step is None:
                raise _RefusedError(f"instruction {code!r} has no place in the published files")
            step(self)
        if len(self._stack) != 1 or isinstance(self._stack[0], _Mark):
            raise _RefusedError("it ends without one value")
        return self._stack[0]

    def _take(self, count: int) -> bytes:
        piece = self._content[self._place : self._place + count]
        if count < 0 or len(piece) < count:
            raise _RefusedError("cut short")
        self._place += count
        return piece

    def _number(self, form: str) -> int:
        (value,) = struct.unpack(f"<{form}", self._take(struct.calcsize(form)))
        return int(value)

    def _line(self) -> str:
        end = self._content.find(b"\n", self._place, self._place + 200)
        if end < 0:
            raise _RefusedError("cut short")
        text = self._take(end - self._place + 1)[:-1]
        return text.decode("ascii", "replace")

    def _pop(self) -> Any:
        if not self._stack or isinstance(self._stack[-1], _Mark):
            raise _RefusedError("an instruction without a value")
        return self._stack.pop()

    def _top(self, kind: type) -> Any:
        if not self._stack or not isinstance(self._stack[-1], kind):
            raise _RefusedError(f"an instruction without a {kind.__name__}")
        return self._stack[-1]

    def _since_mark(self) -> list[Any]:
        for depth in range(len(self._stack) - 1, -1, -1):
            if isinstance(self._stack[depth], _Mark):
                values = self._stack[depth + 1 :]
                del self._stack[depth:]
                return values
        raise _RefusedError("values without a beginning")

    # Each of these carries out one kind of instruction.

    def proto(self) -> None:
        """Take the protocol's number; what later protocols add is refused where it comes."""
        self._take(1)

    def push(self, make: Callable[[_Machine], Any]) -> None:
        """Put a value on the stack."""
        self._stack.append(make(self))

    def tuple_of(self, count: int) -> None:
        """Gather the last ``count`` values into a tuple."""
        values = [self._pop() for _ in range(count)]
        self._stack.append(tuple(reversed(values)))

    def marked_tuple(self) -> None:
        """Gather the values since the mark into a tuple."""
        self._stack.append(tuple(self._since_mark()))

    def append(self, many: bool) -> None:
        """Add one value, or all since the mark, to the list below."""
        values = self._since_mark() if many else [self._pop()]
        self._top(list).extend(values)

    def set_items(self, many: bool) -> None:
        """Add one pair, or all since the mark, to the dictionary below."""
        values = self._since_mark() if many else [self._pop(), self._pop()][::-1]
        target = self._top(dict)
        if len(values) % 2 or not all(isinstance(key, bytes | str) for key in values[::2]):
            raise _RefusedError("a dictionary whose keys are not text")
        target.update(zip(values[::2], values[1::2], strict=True))

    def name(self) -> None:
        """Take a name; only those of arrays are admitted."""
        module, name = self._line(), self._line()
        kind = _NAMES.get(f"{module} {name}")
        if kind is None:
            raise _RefusedError(f"it names {module}.{name}, which data has no need of")
        self._stack.append(_Record(kind))

    def call(self) -> None:
        """Note that the file wants a name called; nothing is."""
        args, target = self._pop(), self._pop()
        if not isinstance(target, _Record) or target.args is not None:
            raise _RefusedError("a call of what is no name")
        if not isinstance(args, tuple) or target.kind == "ndarray":
            raise _RefusedError(f"a call of {target.kind}")
        if target.kind != "encode":
            self._stack.append(_Record(target.kind, args))
        elif len(args) == 2 and isinstance(args[0], str) and args[1] in _LATIN:
            # Bytes, in the form in which Python 3 writes them for Python 2.
            self._stack.append(args[0].encode("latin1"))
        else:
            raise _RefusedError("an encoding other than latin1")

    def build(self) -> None:
        """Note an object's state."""
        state, target = self._pop(), self._top(_Record)
        if target.args is None or target.state is not None:
            raise _RefusedError(f"a state of {target.kind}")
        target.state = state

    def put(self, form: str) -> None:
        """Remember the last value."""
        self._memo[self._number(form)] = self._top(object)

    def get(self, form: str) -> None:
        """Put a remembered value on the stack."""
        number = self._number(form)
        if number not in self._memo:
            raise _RefusedError("a reference to nothing")
        self._stack.append(self._memo[number])

    def long(self) -> int:
        """Return a whole number of up to 255 bytes."""
        return int.from_bytes(self._take(self._number("B")), "little", signed=True)

    def text(self, form: str) -> bytes:
        """Return the bytes of a text or array, after their number."""
        return self._take(self._number(form))


_STEPS: dict[bytes, Callable[[_Machine], None]] = {
    b"\x80": _Machine.proto,
    b"(": lambda m: m.push(lambda _: _Mark()),
    b"}": lambda m: m.push(lambda _: {}),
    b"]": lambda m: m.push(lambda _: []),
    b")": lambda m: m.push(lambda _: ()),
    b"N": lambda m: m.push(lambda _: None),
    b"\x88": lambda m: m.push(lambda _: True),
    b"\x89": lambda m: m.push(lambda _: False),
    b"K": lambda m: m.push(lambda _: m._number("B")),
    b"M": lambda m: m.push(lambda _: m._number("H")),
    b"J": lambda m: m.push(lambda _: m._number("i")),
    b"\x8a": lambda m: m.push(_Machine.long),
    b"G": lambda m: m.push(lambda _: struct.unpack(">d", m._take(8))[0]),
    b"U": lambda m: m.push(lambda _: m.text("B")),
    b"T": lambda m: m.push(lambda _: m.text("i")),
    b"X": lambda m: m.push(lambda _: m.text("I").decode("utf-8")),
    b"\x85": lambda m: m.tuple_of(1),
    b"\x86": lambda m: m.tuple_of(2),
    b"\x87": lambda m: m.tuple_of(3),
    b"t": _Machine.marked_tuple,
    b"a": lambda m: m.append(many=False),
    b"e": lambda m: m.append(many=True),
    b"s": lambda m: m.set_items(many=False),
    b"u": lambda m: m.set_items(many=True),
    b"c": _Machine.name,
    b"R": _Machine.call,
    b"b": _Machine.build,
    b"q": lambda m: m.put("B"),
    b"r": lambda m: m.put("I"),
    b"h": lambda m: m.get("B"),
    b"j": lambda m: m.get("I"),
}
"""The instructions of protocol 2 that dictionaries of lists, texts and arrays need."""


def read_dict(content: bytes, path: Path) -> dict[str, Any]:
    """Read a pickled dictionary of plain values and byte arrays.

    Parameters
    ----------
    content : bytes
        The pickle, of protocol 2.
    path : Path
        Where it comes from, for messages.

    Returns
    -------
    dict
        By key as text. Arrays are records: see :func:`byte_array`.

    Raises
    ------
    DataError
        If it is no pickle, cut short, names anything but plain NumPy arrays, or holds
        something else than a dictionary.
    """
    try:
        value = _Machine(content).run()
    except ValueError as error:  # ours, and text that is not in its encoding
        reason = " ".join(str(error).split())
        raise DataError(
            f"{path}: not a readable data pickle ({reason}); delete it and fetch it again"
        ) from error
    if not isinstance(value, dict):
        raise DataError(f"{path}: holds a {type(value).__name__}, expected a dictionary")
    return {
        key.decode("latin1") if isinstance(key, bytes) else key: item for key, item in value.items()
    }


def byte_array(value: Any, what: str) -> npt.NDArray[np.uint8]:
    """Return the array that a record of :func:`read_dict` describes.

    Parameters
    ----------
    value : object
        The record.
    what : str
        File and key, for messages.

    Returns
    -------
    numpy.ndarray
        uint8, of the shape that the record states.

    Raises
    ------
    DataError
        If it is no array of unsigned bytes, or has fewer or more bytes than its shape.
    """
    if not isinstance(value, _Record) or value.kind != "array":
        raise DataError(f"{what}: expected an array of bytes")
    state = value.state
    if not isinstance(state, tuple) or len(state) != 5:
        raise DataError(f"{what}: an array without content")
    _, shape, dtype, fortran, raw = state
    kind = dtype.args[0] if isinstance(dtype, _Record) and dtype.args else None
    if kind not in ("u1", b"u1", "|u1", b"|u1") or not isinstance(raw, bytes):
        raise DataError(f"{what}: expected an array of unsigned bytes")
    sizes = shape if isinstance(shape, tuple) else ()
    if not sizes or not all(isinstance(size, int) and size >= 0 for size in sizes):
        raise DataError(f"{what}: an array without a shape")
    if math.prod(sizes) != len(raw):
        raise DataError(f"{what}: shape {sizes} needs {math.prod(sizes)} bytes, has {len(raw)}")
    flat = np.frombuffer(raw, dtype=np.uint8)
    return flat.reshape(sizes, order="F" if fortran else "C")
