"""Sample grids of a run: what a method generated, with real images of the same clients beside."""

from __future__ import annotations

import io
import re

import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from benchmark.federation.data import ScenarioData, even_positions

COLUMNS = 8
"""Images a row."""
LIMIT = 64
"""Images of a grid, at most."""
GAP = 2
"""Pixels between two images."""

TITLE_KEY = "Title"
"""Text chunk of the PNG that says what it shows."""

_PAPER = 255
_CLIENT = re.compile(r"client (\d+)\b")


def grid_name(name: str) -> str:
    """Return the file name of a grid, such as ``grid-client-0-generated.png``."""
    return f"grid-{re.sub(r'[^A-Za-z0-9]+', '-', name).strip('-').lower()}.png"


def tile(images: Tensor) -> Tensor:
    """Lay images out in rows of eight on white.

    Parameters
    ----------
    images : Tensor
        uint8 [n, C, H, W], n ≥ 1, of 1 or 3 channels; those after the 64th are left out.

    Returns
    -------
    Tensor
        uint8 [C, rows · (H + 2) - 2, columns · (W + 2) - 2] on the CPU.

    Raises
    ------
    ValueError
        If type, shape or channels are others.
    """
    if images.dtype != torch.uint8 or images.dim() != 4 or images.shape[1] not in (1, 3):
        shape = list(images.shape)
        raise ValueError(f"a grid takes uint8 images [n, 1 or 3, H, W], not {images.dtype} {shape}")
    if not len(images):
        raise ValueError("a grid needs at least one image")
    images = images[:LIMIT].cpu()
    count, channels, height, width = images.shape
    columns = min(COLUMNS, count)
    rows = -(-count // columns)
    high, wide = rows * (height + GAP) - GAP, columns * (width + GAP) - GAP
    sheet = torch.full((channels, high, wide), _PAPER, dtype=torch.uint8)
    for index, image in enumerate(images):
        top, left = (index // columns) * (height + GAP), (index % columns) * (width + GAP)
        sheet[:, top : top + height, left : left + width] = image
    return sheet


def beside(left: Tensor, right: Tensor) -> Tensor:
    """Put two sheets [C, H, W] next to each other, with a broad white gap."""
    height = max(left.shape[1], right.shape[1])
    gap = torch.full((left.shape[0], height, 8 * GAP), _PAPER, dtype=torch.uint8)
    padded = []
    for sheet in (left, right):
        paper = torch.full((sheet.shape[0], height, sheet.shape[2]), _PAPER, dtype=torch.uint8)
        paper[:, : sheet.shape[1]] = sheet
        padded.append(paper)
    return torch.cat([padded[0], gap, padded[1]], dim=2)


def real_images(name: str, data: ScenarioData, count: int = LIMIT) -> Tensor | None:
    """Return ``count`` real images uint8 [n, C, H, W] of the client a grid's name starts with.

    Of all clients where it names none; fewer where they hold fewer; ``None`` where there is
    no such client. They are spread evenly over the data, so that no chance is spent on them.
    """
    found, cpu = _CLIENT.match(name), torch.device("cpu")
    if found is not None and int(found[1]) >= len(data.partition.sizes):
        return None
    held = data.pool if found is None else data.client_positions(int(found[1]))
    if not len(held):
        return None
    return data.at(held[even_positions(len(held), min(count, LIMIT))], cpu).images


def picture(name: str, images: Tensor, data: ScenarioData) -> bytes:
    """Return a grid as PNG: generated images on the left, real ones on the right.

    The file says in its title (a text chunk) what stands where.

    Parameters
    ----------
    name : str
        The grid's name.
    images : Tensor
        uint8 [n, C, H, W].
    data : ScenarioData
        Where real images come from.
    """
    sheet = tile(images)
    real = real_images(name, data, len(images))
    if real is not None:
        sheet = beside(sheet, tile(real))
    pixels = sheet[0] if sheet.shape[0] == 1 else sheet.permute(1, 2, 0)
    about = PngInfo()
    about.add_text(TITLE_KEY, f"{name} | real" if real is not None else name)
    buffer = io.BytesIO()
    Image.fromarray(pixels.contiguous().numpy()).save(buffer, format="PNG", pnginfo=about)
    return buffer.getvalue()
