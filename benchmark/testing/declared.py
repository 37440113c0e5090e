"""What an upload tells of a client's labels: tables group methods by what they say they use."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

import torch
from torch import Tensor

from benchmark.contract import Client, Information, Upload

_COUNTS = {Information.LABEL_COUNTS, Information.ALL_DATA}
_COVERED = {
    Information.LABEL_COUNTS: _COUNTS,
    Information.LABEL_SETS: {Information.LABEL_SETS, *_COUNTS},
}


def undeclared(client: Client, upload: Upload, uses: Collection[Information]) -> Iterator[str]:
    """Yield what an upload tells of the client's labels that ``uses`` doesn't name.

    Label counts are recognised as they are or as shares, label sets as a mask of the classes or
    as a list of them, in parts and in values; what is encoded otherwise is not seen.
    """
    counts = client.label_counts.cpu()
    found = [
        (f"'{part}', '{name}'", value.cpu().flatten())
        for part, tensors in upload.parts.items()
        for name, value in tensors.items()
    ]
    for where, value in (*found, *_lists(upload.values, "values")):
        told = _told(value, counts)
        if told is not None and _COVERED[told].isdisjoint(uses):
            yield (
                f"client {client.info.index} uploads its {told} ({where}): "
                f"name Information.{told.name} in 'uses'"
            )


def _lists(value: object, name: str) -> Iterator[tuple[str, Tensor]]:
    """Yield the lists of numbers in JSON values, and where they are."""
    if isinstance(value, Mapping):
        if value and all(isinstance(one, int | float) for one in value.values()):
            yield f"'{name}'", torch.tensor(list(value.values()))
        for key, part in value.items():
            yield from _lists(part, str(key))
    elif isinstance(value, list | tuple):
        if value and all(isinstance(one, int | float) for one in value):
            yield f"'{name}'", torch.tensor(value)
        for part in value:
            yield from _lists(part, name)


def _told(value: Tensor, counts: Tensor) -> Information | None:
    """Return what a flat tensor says of a client's counts [classes], if anything."""
    held = counts > 0
    if value.numel() == len(counts):
        for known in (counts.double(), counts.double() / counts.sum()):
            if torch.allclose(value.double(), known, atol=1e-6):
                return Information.LABEL_COUNTS
    # That all classes are held, or a single one, is what a tensor of anything may seem to say.
    if value.is_floating_point() or bool(held.all()) or int(held.sum()) < 2:
        return None
    for known in (held.long(), held.nonzero().flatten()):
        if torch.equal(value.long(), known):
            return Information.LABEL_SETS
    return None
