"""Uploads at rest: in memory while they are small, then in a file that nobody has to remove.

A hundred clients with a ResNet-18 send 4.5 GB. What a server makes of them it can make from a
stream, so their bytes wait on the disk and are mapped into memory for the moment in which a
tensor is read. The file has no name: its space is free again as soon as the last upload of its
round is forgotten, or its process is gone, whatever the reason, ``kill -9`` included.
"""

from __future__ import annotations

import mmap
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Protocol
from weakref import WeakSet

from benchmark.store.files import make_folder, writing

if TYPE_CHECKING:
    import torch
    from torch import Tensor

IN_MEMORY = 256 * 2**20
"""Bytes of uploads that are kept in memory, at most; what comes then goes to the disk."""


class Source(Protocol):
    """Bytes at rest."""

    def __len__(self) -> int:
        """Return how many bytes there are."""

    def read(self, start: int, stop: int) -> Tensor:
        """Return some of them as uint8 [stop - start], in fresh memory of torch's own."""


@dataclass(frozen=True, eq=False)
class InMemory:
    """Bytes in memory; a :class:`Source`."""

    data: bytes

    def __len__(self) -> int:
        return len(self.data)

    def read(self, start: int, stop: int) -> Tensor:
        """Return some of the bytes, copied."""
        return _copied(self.data, start, stop)


@dataclass(frozen=True, eq=False)
class OnDisk:
    """Bytes in a file, mapped into memory while they are read; a :class:`Source`.

    Parameters
    ----------
    file : file object
        Shared by all uploads of a round; closed when the last of them is forgotten.
    offset, length : int
        Where they are in it, bytes.
    """

    file: IO[bytes]
    offset: int
    length: int

    def __len__(self) -> int:
        return self.length

    def read(self, start: int, stop: int) -> Tensor:
        """Return some of the bytes, copied."""
        if start == stop:  # at the end of the file, there is no page to map
            return _copied(b"", 0, 0)
        begin = self.offset + start
        page = begin - begin % mmap.ALLOCATIONGRANULARITY
        size = self.offset + stop - page
        # Unmapped at once: pages that were read would count as this process's memory.
        with mmap.mmap(self.file.fileno(), size, access=mmap.ACCESS_READ, offset=page) as mapped:
            return _copied(mapped, begin - page, size)


class Spool:
    """Keeps the uploads of one run.

    Parameters
    ----------
    folder : Path, optional
        Where the file is, made when it is needed; the system's folder for temporary files if
        not given.
    in_memory : int
        Bytes of all living uploads that stay in memory.
    """

    def __init__(self, folder: Path | None = None, in_memory: int = IN_MEMORY) -> None:
        self.folder = folder or Path(tempfile.gettempdir())
        self._limit = in_memory
        self._held: WeakSet[InMemory] = WeakSet()
        self._file: IO[bytes] | None = None
        self._round: int | None = None

    def put(self, data: bytes, round_index: int = 0) -> Source:
        """Keep the bytes of a message for as long as what is returned lives.

        Raises
        ------
        StoreError
            If the disk is full or can't be written to.
        """
        if sum(len(source) for source in self._held) + len(data) <= self._limit:
            source = InMemory(data)
            self._held.add(source)
            return source
        if self._file is None or self._round != round_index:
            # A file a round: that of the last one goes when its uploads do.
            self._file, self._round = self._new_file(), round_index
        with writing(self.folder):
            offset = self._file.seek(0, 2)
            self._file.write(data)
            self._file.flush()
        return OnDisk(self._file, offset, len(data))

    def _new_file(self) -> IO[bytes]:
        make_folder(self.folder)
        with writing(self.folder):
            return tempfile.TemporaryFile(dir=self.folder)


@dataclass(frozen=True)
class Place:
    """Where a tensor's bytes are in a source, and how they are to be read."""

    start: int
    stop: int
    dtype: torch.dtype
    shape: tuple[int, ...]


class StoredTensors(Mapping[str, "Tensor"]):
    """Named tensors that are read when they are looked at, each time anew.

    Looking at one gives a fresh, contiguous tensor on the CPU. Writing into it changes
    nothing but itself: the next look finds what was sent.

    Parameters
    ----------
    source : Source
        The bytes.
    places : mapping of str to Place
        Where each tensor is.
    """

    def __init__(self, source: Source, places: Mapping[str, Place]) -> None:
        self._source = source
        self._places = dict(places)

    def __getitem__(self, name: str) -> Tensor:
        place = self._places[name]
        return self._source.read(place.start, place.stop).view(place.dtype).reshape(place.shape)

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, name: object) -> bool:
        return name in self._places

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(self._places)})"


def _copied(buffer: bytes | mmap.mmap, start: int, stop: int) -> Tensor:
    import numpy as np
    import torch

    # Torch's own memory is aligned, as the sender's was; a view of the buffer would not be.
    copy = torch.empty(stop - start, dtype=torch.uint8)
    if len(copy):
        copy.numpy()[:] = np.frombuffer(buffer, np.uint8, stop - start, start)
    return copy
