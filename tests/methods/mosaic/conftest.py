from __future__ import annotations

from typing import Any

import pytest
from mosaic_lab import Make, bench

from benchmark.registry import discover
from benchmark.testing import Bench


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Make:
    """Return a maker of benches that share one cache, as the runs of a grid do."""
    folder, registry = tmp_path_factory.mktemp("mosaic"), discover()

    def made(scenario: dict[str, Any] | None = None, **settings: Any) -> Bench:
        return bench(folder, registry, scenario or {}, settings)

    return made
