"""Fixtures of the report tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from report_lab import Lab, undrawn


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    """An empty experiment to fill."""
    return Lab(tmp_path / "results" / "made-up")


@pytest.fixture
def page() -> Callable[[Path, str], str]:
    """Reads a file of an experiment's report."""

    def read(folder: Path, name: str) -> str:
        return (folder / "report" / name).read_text(encoding="utf-8")

    return read


@pytest.fixture
def no_pictures() -> Iterator[None]:
    """Draw every figure, but make files of none: for tests that look at no picture."""
    with undrawn():
        yield
