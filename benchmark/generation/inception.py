"""pytorch-fid's Inception network: for colour images, where its weights can be had.

One rule for all images: unit range, grey copied to three channels, bilinear resize to
299×299 and scaling to [-1, 1], the last two by pytorch-fid itself.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn

from benchmark.errors import UserError
from benchmark.generation.extractors import Features

INCEPTION = "inception"
WEIGHTS_NAME = "pt_inception-2015-12-05-6726825d.pth"
WEIGHTS_VARIABLE = "ONESHOT_FL_INCEPTION"
"""Environment variable that names the weights' file."""

PUBLISHED = "6726825d"
"""What the SHA-256 of the published file begins with."""

_BATCH = 50
_ADVICE = (
    "give them with --inception-weights FILE, or leave the network out: --extractors classifier"
)


class WeightsMissingError(UserError):
    """Inception's weights are nowhere to be had; the message names the places tried."""


class InceptionExtractor:
    """2,048 pooled features of the Inception network that published FID values rest on.

    Parameters
    ----------
    state : mapping of str to Tensor
        Its weights.
    warning : str, optional
        What a reader of its numbers should know of them.
    """

    name = INCEPTION
    accuracy: float | None = None

    def __init__(self, state: Mapping[str, Tensor], warning: str | None = None) -> None:
        with _weights(state):
            library = _pytorch_fid()
            self._head: nn.Linear = library.fid_inception_v3().fc
            self._body: nn.Module = library.InceptionV3([3]).eval()
        self._device = torch.device("cpu")
        self.key = _digest(state)
        self.warning = warning

    def to(self, device: torch.device) -> InceptionExtractor:
        """Move it to a device, and return it."""
        self._head, self._body = self._head.to(device), self._body.to(device)
        self._device = device
        return self

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Features:
        """Return the features of images uint8 [n, 1 or 3, H, W]."""
        vectors, logits = [], []
        for part in torch.split(images, _BATCH):
            with torch.autocast(self._device.type, enabled=False):
                unit = part.to(self._device).float() / 255
                if unit.shape[1] == 1:
                    unit = unit.expand(-1, 3, -1, -1)
                pooled = self._body(unit)[0].flatten(1)
                # Without the bias, as in the original Inception score.
                logits.append((pooled @ self._head.weight.T).cpu())
                vectors.append(pooled.cpu())
        return Features(torch.cat(vectors), torch.cat(logits))


def _pytorch_fid() -> ModuleType:
    """Return pytorch-fid's module, imported when it is first needed.

    It brings torchvision and torch's compiler, which few commands need.
    """
    from pytorch_fid import inception

    return inception


def _digest(state: Mapping[str, Tensor]) -> str:
    """Return 16 hexadecimal digits that name these weights, all of them."""
    made = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        made.update(name.encode())
        made.update(tensor.contiguous().numpy().tobytes())
    return made.hexdigest()[:16]


def load_inception(given: Path | None, device: torch.device) -> InceptionExtractor:
    """Return the extractor with weights from a file, torch's cache, or a download.

    Parameters
    ----------
    given : Path, optional
        The weights' file; else the one that ``ONESHOT_FL_INCEPTION`` names, else torch's cache.
    device : torch.device
        Where it runs.

    Raises
    ------
    WeightsMissingError
        If they can't be had or are no weights of this network.
    """
    path = find_weights(given)
    _pytorch_fid()  # if it is not installed, that is not the file's fault
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        extractor = InceptionExtractor(state, _unpublished(path))
    except Exception as error:  # noqa: BLE001 - whatever is in a foreign file, say which one
        reason = " ".join(str(error).split())
        raise WeightsMissingError(f"{path} holds no Inception weights: {reason}") from None
    return extractor.to(device)


def _unpublished(path: Path) -> str | None:
    """Return a warning if a file is not the one that published values rest on."""
    with path.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if found.startswith(PUBLISHED):
        return None
    return (
        f"Inception weights {path.name} are not the published ones (sha256 {found[:8]}, not "
        f"{PUBLISHED}): distances and scores don't compare with published values"
    )


def find_weights(given: Path | None, *, download: bool = True) -> Path:
    """Return where the weights' file is, downloading it as the last resort.

    Parameters
    ----------
    given : Path, optional
        Where it is said to be.
    download : bool
        Whether it may be downloaded.

    Raises
    ------
    WeightsMissingError
        If it is nowhere; the message names all places tried.
    """
    variable = os.environ.get(WEIGHTS_VARIABLE)
    named = given or (Path(variable) if variable else None)
    if named is not None:
        if not named.is_file():
            raise WeightsMissingError(f"Inception weights: there is no file {named}; {_ADVICE}")
        return named
    cached = Path(torch.hub.get_dir()) / "checkpoints" / WEIGHTS_NAME
    if cached.is_file():
        return cached
    places = f"{WEIGHTS_VARIABLE} is not set, {cached} is not there"
    if not download:
        raise WeightsMissingError(f"Inception weights are not here yet ({places})")
    url: str = _pytorch_fid().FID_WEIGHTS_URL
    try:
        cached.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(cached), hash_prefix=PUBLISHED, progress=False)
    except Exception as error:  # noqa: BLE001 - no network, no room, a wrong hash: not there
        raise WeightsMissingError(
            f"Inception weights can't be had ({places}, download of {url} failed: {error}); "
            f"{_ADVICE}"
        ) from None
    return cached


@contextmanager
def _weights(state: Mapping[str, Tensor]) -> Iterator[None]:
    """Make pytorch-fid take these weights: its constructor knows a download only."""

    def given(*_: Any, **__: Any) -> Mapping[str, Tensor]:
        return state

    with patch.object(_pytorch_fid(), "load_state_dict_from_url", given):
        yield
