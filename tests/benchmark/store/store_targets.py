"""Functions that store tests run in other processes."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from benchmark.executor import EventSender
from benchmark.store import Cache, ExperimentStore


def begin_many(payload: dict[str, Any], events: EventSender) -> list[int]:
    store = ExperimentStore(Path(payload["folder"]))
    return [store.begin("0123456789abcdef").number for _ in range(payload["times"])]


def make_cached(payload: dict[str, Any], events: EventSender) -> dict[str, Any]:
    import torch

    def make() -> Any:
        with Path(payload["log"]).open("a") as file:
            file.write("made\n")
        time.sleep(0.3)
        return {"x": torch.arange(4.0)}, {"seconds": 0.3}

    entry = Cache(Path(payload["root"])).get_or_make("models", {"a": 1}, make)
    return {"sum": float(entry.load()["x"].sum()), "info": entry.info}
