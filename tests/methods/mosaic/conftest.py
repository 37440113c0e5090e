from __future__ import annotations

import json
from typing import Any

import pytest
from mosaic_lab import Done, Make, Sent, bench, uploads_of

from benchmark.registry import discover
from benchmark.testing import Bench


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Make:
    """Return a maker of benches that share one cache, as the runs of a grid do."""
    folder, registry = tmp_path_factory.mktemp("mosaic"), discover()

    def made(scenario: dict[str, Any] | None = None, **settings: Any) -> Bench:
        return bench(folder, registry, scenario or {}, settings)

    return made


@pytest.fixture(scope="module")
def done(make: Make) -> Done:
    """Return what came of undisturbed runs, and what clients sent, made once for all tests."""
    found: dict[str, Sent] = {}

    def done(scenario: dict[str, Any] | None = None, **settings: Any) -> Sent:
        key = json.dumps([scenario or {}, settings], sort_keys=True)
        if key not in found:
            found[key] = uploads_of(make(scenario, **settings))
        return found[key]

    return done
