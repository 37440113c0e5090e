"""Data of a grid: opened before its runs, and decoded only into a cache."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from grids import planned
from PIL import Image

from benchmark.cli.checks import load_data
from benchmark.grid import Options
from datasets import DataError, building
from datasets.progress import silent


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Write five pictures for each of two classes."""
    for label, name in enumerate("ab"):
        (tmp_path / "tree" / name).mkdir(parents=True)
        for number in range(5):
            shade = 20 * label + number
            Image.new("L", (8, 8), shade).save(tmp_path / "tree" / name / f"{number}.png")
    return tmp_path / "tree"


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Return what is decoded, picture by picture."""
    seen: list[Any] = []
    original = building.decode_picture

    def noted(*args: Any) -> Any:
        seen.append(args)
        return original(*args)

    monkeypatch.setattr(building, "decode_picture", noted)
    return seen


def opened(tree: Path, *, cache: bool) -> None:
    _, runs = planned(
        datasets=[f"folder:{tree}"], methods=["fedavg"], train_samples=None, min_samples=1
    )
    load_data(runs, Options(results=tree.parent / "results", cache=cache), silent)


def test_pictures_are_decoded_into_a_cache_alone(tree: Path, decoded: list[Any]) -> None:
    opened(tree, cache=False)
    assert not decoded
    opened(tree, cache=True)
    assert len(decoded) == 10


def test_damage_is_told_before_the_first_run_without_a_cache(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, runs = planned(datasets=[f"folder:{tree}"], methods=["fedavg"], train_samples=None)
    for picture in (tree / "b").iterdir():
        picture.unlink()
    with pytest.raises(DataError, match="holds no pictures"):
        load_data(runs, Options(results=tree.parent / "results", cache=False), silent)
