"""Small federations for the tests of the Mosaic plugin."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from benchmark.contract import Method
from benchmark.federation.federation import Federation
from benchmark.protocol import ProtocolResult
from benchmark.registry import Registry
from benchmark.testing import Bench

Make = Callable[..., Bench]
Sent = tuple[dict[tuple[int, int], Any], ProtocolResult]
Done = Callable[..., Sent]


SMALL = {
    "generator_width": 2,
    "generator_discriminator_width": 2,
    "generator_batch_size": 8,
    "meta_steps": 4,
    "meta_feedforward": 16,
    "distillation_images_per_client": 8,
}


SCENARIO = {
    "widths": ["1/8"],
    "train_samples": 90,
    "epochs": 1,
    "generator_steps": 4,
    "generated_images": 48,
    "distilled_images": 96,
}


def bench(
    folder: Path, registry: Registry, scenario: dict[str, Any], settings: dict[str, Any]
) -> Bench:
    overrides = {**SCENARIO, **scenario, "set": {"mosaic": {**SMALL, **settings}}}
    return Bench("mosaic", overrides, folder, registry)


def uploads_of(bench: Bench) -> Sent:
    """Run, and return what clients sent by (round, client)."""
    seen: dict[tuple[int, int], Any] = {}

    def watch(method: Method[Any], federation: Federation) -> None:
        original = method.client_update

        def client_update(client: Any, broadcast: Any) -> Any:
            seen[client.round, client.info.index] = original(client, broadcast)
            return seen[client.round, client.info.index]

        method.client_update = client_update  # type: ignore[method-assign]

    return seen, bench.run(watch)


def buffers(model: nn.Module) -> list[torch.Tensor]:
    layers = [m for m in model.modules() if isinstance(m, _BatchNorm)]
    return [b for layer in layers for b in layer.buffers() if b.is_floating_point()]
