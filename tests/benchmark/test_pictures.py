"""Sample grids beside a run's record."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from benchmark.pictures import TITLE_KEY, beside, grid_name, picture, real_images, tile


@dataclass
class _Samples:
    images: Tensor


@dataclass
class _Partition:
    sizes: tuple[int, ...]


class _Data:
    """A hundred images, each of its number's grey; two clients, of three of them and of none."""

    partition = _Partition((3, 0))
    pool = np.arange(100)

    def __init__(self) -> None:
        self.asked: list[int] = []

    def client_positions(self, index: int) -> Any:
        return self.pool[9:12] if index == 0 else self.pool[:0]

    def at(self, positions: Any, device: torch.device) -> _Samples:
        self.asked.append(len(positions))
        values = torch.from_numpy(positions).to(torch.uint8)
        return _Samples(values[:, None, None, None].expand(-1, 1, 4, 4))


DATA = cast("Any", _Data())


def grey(count: int, value: int = 7) -> Tensor:
    return torch.full((count, 1, 4, 4), value, dtype=torch.uint8)


def test_rows_of_eight_on_white() -> None:
    sheet = tile(grey(10))
    assert sheet.shape == (1, 2 * 6 - 2, 8 * 6 - 2)
    assert int((sheet == 7).sum()) == 10 * 16
    assert int((sheet == 255).sum()) == sheet.numel() - 160
    assert tile(grey(100)).shape == tile(grey(64)).shape
    assert tile(grey(3)).shape == (1, 4, 3 * 6 - 2)


@pytest.mark.parametrize(
    "images", [grey(0), grey(2).float(), torch.zeros(2, 2, 4, 4, dtype=torch.uint8)]
)
def test_what_is_no_grid_is_refused(images: Tensor) -> None:
    with pytest.raises(ValueError, match="grid"):
        tile(images)


def test_real_images_stand_beside_a_clients_own() -> None:
    real = real_images("client 0 generated", DATA)
    assert real is not None
    assert real[:, 0, 0, 0].tolist() == [9, 10, 11]
    for name in ("client 1 generated", "client 2 generated"):
        assert real_images(name, DATA) is None
    for name in ("synthesised", "a client 0"):
        everybody = real_images(name, DATA, 4)
        assert everybody is not None
        assert everybody[:, 0, 0, 0].tolist() == [0, 25, 50, 75]
    fewer = real_images("client 0 generated", DATA, 2)
    assert fewer is not None
    assert len(fewer) == 2
    pixels = np.asarray(Image.open(io.BytesIO(picture("client 0 generated", grey(3), DATA))))
    assert pixels.shape == (4, 16 + 16 + 16)
    assert (pixels[:, :16] == 7).sum() == 48
    assert (pixels[:, 32:36] == 9).sum() == 16


def test_only_the_real_images_of_a_grid_are_gathered() -> None:
    data = cast("Any", _Data())
    assert real_images("synthesised", data) is not None
    assert data.asked == [64]


def test_a_picture_says_what_it_shows() -> None:
    titles = [
        Image.open(io.BytesIO(picture(name, grey(3), DATA))).info[TITLE_KEY]
        for name in ("client 0 generated", "synthesised", "client 1 generated")
    ]
    assert titles == ["client 0 generated | real", "synthesised | real", "client 1 generated"]


def test_sheets_of_unequal_height_and_colour() -> None:
    both = beside(tile(grey(9)), tile(grey(1)))
    assert both.shape[1] == 10
    colour = torch.randint(0, 256, (2, 3, 4, 4), dtype=torch.uint8)
    pixels = np.asarray(Image.open(io.BytesIO(picture("client 1 generated", colour, DATA))))
    assert np.array_equal(pixels[:4, :4], colour[0].permute(1, 2, 0).numpy())


def test_names_are_file_names() -> None:
    assert grid_name("client 0 generated") == "grid-client-0-generated.png"
    assert grid_name("../x/Y") == "grid-x-y.png"
