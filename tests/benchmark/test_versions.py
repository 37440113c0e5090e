"""Code that decides what records hold has a version: it can't change unnoticed."""

from __future__ import annotations

import ast
import hashlib
from pathlib import Path

import pytest

from benchmark.specs import ENGINE_VERSION, RECIPE_VERSION

ROOT = Path(__file__).resolve().parents[2] / "benchmark"

ENGINE = (
    *("aggregation.py", "engine.py", "evaluation.py", "evaluator.py", "flops.py", "protocol.py"),
    *("wire.py", "federation/traffic.py", "generation"),
)
RECIPE = ("training", "federation/client.py")


def code_of(file: Path) -> str:
    """Return a module's code without docstrings, comments of their own line and empty lines."""
    text = file.read_text(encoding="utf-8")
    words: set[int] = set()
    for node in ast.walk(ast.parse(text)):
        if (
            isinstance(node, ast.Expr)
            and isinstance(node.value, ast.Constant)
            and isinstance(node.value.value, str)
        ):
            words |= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    lines = [
        line
        for number, line in enumerate(text.splitlines(), 1)
        if number not in words and line.strip() and not line.lstrip().startswith("#")
    ]
    return "\n".join(lines)


def digest(names: tuple[str, ...]) -> str:
    files = [
        file
        for name in names
        for file in (sorted((ROOT / name).glob("*.py")) if "." not in name else [ROOT / name])
    ]
    assert len(files) >= len(names)
    return hashlib.sha256("\n".join(map(code_of, files)).encode()).hexdigest()[:16]


@pytest.mark.parametrize(
    ("name", "version", "known", "files"),
    [
        ("ENGINE_VERSION", ENGINE_VERSION, ("2", "0a258ae0f7a9627f"), ENGINE),
        ("RECIPE_VERSION", RECIPE_VERSION, ("2", "45bf241f2236aba7"), RECIPE),
    ],
)
def test_code_that_decides_a_number_has_a_version(
    name: str, version: str, known: tuple[str, str], files: tuple[str, ...]
) -> None:
    assert (version, digest(files)) == known, (
        f"if anything that a record holds comes out otherwise, raise {name}: records of the old "
        "code would be taken for those of the new; then write version and digest down here"
    )


def test_words_are_no_code(tmp_path: Path) -> None:
    first, second = tmp_path / "a.py", tmp_path / "b.py"
    first.write_text('"""Words."""\n# more\nx = 1\n\n\ndef f():\n    """Of f."""\n    return x\n')
    second.write_text('x = 1\ndef f():\n    """Other words,\n    more of them."""\n    return x\n')
    assert code_of(first) == code_of(second)
    second.write_text("x = 2\ndef f():\n    return x\n")
    assert code_of(first) != code_of(second)
