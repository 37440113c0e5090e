"""Code that decides what records hold has a version: it can't change unnoticed."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from benchmark.registry.sources import code_of
from benchmark.specs import ENGINE_VERSION, RECIPE_VERSION

ROOT = Path(__file__).resolve().parents[2] / "benchmark"

ENGINE = (
    *("aggregation.py", "engine.py", "evaluation.py", "evaluator.py", "flops.py", "protocol.py"),
    *("wire.py", "federation/traffic.py", "generation"),
)
RECIPE = ("training", "federation", "models", "images.py", "seeds.py")


def digest(names: tuple[str, ...]) -> str:
    files = [
        file
        for name in names
        for file in (sorted((ROOT / name).glob("*.py")) if "." not in name else [ROOT / name])
    ]
    assert len(files) >= len(names)
    return hashlib.sha256(
        "\n".join(code_of(file.read_text("utf-8")) for file in files).encode()
    ).hexdigest()[:16]


@pytest.mark.parametrize(
    ("name", "version", "known", "files"),
    [
        ("ENGINE_VERSION", ENGINE_VERSION, ("2", "195a2afcb3653f07"), ENGINE),
        ("RECIPE_VERSION", RECIPE_VERSION, ("2", "0d085cf50fea06d7"), RECIPE),
    ],
)
def test_code_that_decides_a_number_has_a_version(
    name: str, version: str, known: tuple[str, str], files: tuple[str, ...]
) -> None:
    assert (version, digest(files)) == known, (
        f"if anything that a record holds comes out otherwise, raise {name}: records of the old "
        "code would be taken for those of the new; then write version and digest down here"
    )
