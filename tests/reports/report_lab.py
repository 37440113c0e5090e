"""Fabricated experiments, written through the store as the engine does."""

from __future__ import annotations

import copy
import hashlib
import io
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from benchmark.store import Cell, ExperimentStore, Record, Status
from reports.api import Report
from reports.comparisons import rank_methods
from reports.figures import plots
from reports.grid import build_grid
from reports.load import load

USES = {
    "averaging": ["sample counts", "weights"],
    "distilling": ["weights"],
    "counting": ["label counts", "weights"],
    "everything": ["all data"],
}

SPEC: dict[str, Any] = {
    "scenario": {
        "dataset": "digits",
        "image_size": 32,
        "train_samples": None,
        "holdout": 0.0,
        "partition": {
            "scheme": "dirichlet",
            "clients": 2,
            "alpha": 0.1,
            "classes_per_client": None,
            "min_samples": 10,
        },
        "model": {"family": "cnn", "norm": "batch"},
        "widths": ["1", "1/2"],
        "recipe": {"epochs": 2, "lr": 0.01},
        "warmup": {"rounds": 0, "steps": 10, "lr": 0.01, "local": "recipe"},
        "split_seed": 0,
        "seed": 0,
    },
    "method": {"name": "averaging", "config": {}},
    "budget": {"generator_steps": 10, "history_points": 2},
    "measure": {"extractors": []},
    "compute": {"device": "cpu", "precision": "fp32", "threads": 1},
    "code": {"engine": "1", "recipe": "1", "plugin": "aaaa", "parts": {}},
}


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


@contextmanager
def undrawn() -> Iterator[None]:
    """Make blank files of all figures, as wide as a page: most of their time goes into pixels."""
    buffer = io.BytesIO()
    Image.new("L", (1400, 500), 255).save(buffer, format="PNG")
    files = {"pdf": b"%PDF", "png": buffer.getvalue()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("reports.figures.rendered", lambda figure: files)
        yield


class Lab:
    """Writes experiments: ``add`` plans a run and, unless told otherwise, finishes it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = ExperimentStore(folder)
        self.cells: dict[str, Cell] = {}
        # The engine writes the manifest before the first record; the grid's order is its.
        self.store.update_manifest({})
        self._rng = np.random.default_rng(7)

    def spec(self, method: str, seed: int = 0, **changes: Any) -> dict[str, Any]:
        """Return a spec; ``changes`` are dotted keys with ``__`` for the dot."""
        spec = copy.deepcopy(SPEC)
        spec["method"]["name"] = method
        spec["scenario"]["seed"] = spec["scenario"]["split_seed"] = seed
        for key, value in changes.items():
            *path, last = key.split("__")
            target = spec if path and path[0] in spec else spec["scenario"]
            for part in path:
                target = target.setdefault(part, {})
            target[last] = value
        return spec

    def add(
        self,
        method: str,
        seed: int = 0,
        accuracy: float = 0.5,
        *,
        status: Status = Status.DONE,
        reason: str | None = None,
        label: str | None = None,
        planned: bool = True,
        teacher: float | None = None,
        history: Sequence[float] = (),
        versions: dict[str, str] | None = None,
        up: int = 1000,
        warnings: Sequence[str] = (),
        warmup_up: int = 0,
        generation: Sequence[dict[str, Any]] = (),
        details: dict[str, Any] | None = None,
        grids: dict[str, bytes] | None = None,
        flops: dict[str, Any] | None = None,
        hardware: dict[str, Any] | None = None,
        warmup_seconds: float = 0.0,
        facts: dict[str, Any] | None = None,
        rounds: int = 1,
        **changes: Any,
    ) -> Record | None:
        """Add one run to the grid."""
        spec = self.spec(method, seed, **changes)
        run_id = _digest(spec)
        cell_id = _digest({key: value for key, value in spec.items() if key != "code"})
        if planned:
            kind = "reference" if method == "everything" else "method"
            order = len(self.cells)
            uses = USES.get(method, ["weights"])
            self.cells[cell_id] = Cell.of(run_id, label or method, spec, order, kind, uses=uses)
        if status is Status.NOT_RUN:
            return None
        done = status is Status.DONE
        record = Record(
            run_id=run_id,
            cell_id=cell_id,
            status=status,
            reason=reason,
            label=label or method,
            spec=spec,
            method={
                "kind": "reference" if method == "everything" else "method",
                "uses": USES.get(method, ["weights"]),
                "summary": "made up",
            },
            metrics=(
                {
                    **self._metrics(accuracy, teacher),
                    "generation": list(generation),
                    "details": details or {},
                    **(facts or {}),
                }
                if done
                else {}
            ),
            communication=_communication(up, warmup_up) | {"rounds": rounds} if done else {},
            timing=(
                {**_timing(), "warmup_seconds": warmup_seconds, "flops": flops} if done else {}
            ),
            environment={
                "versions": versions or {"python": "3.11", "torch": "2.14"},
                "git": {"commit": "abc", "dirty": False},
                "hardware": hardware or {"cpu": "made up"},
                "peak_memory_bytes": 250_000_000,
            },
            warnings=list(warnings),
        )
        attempt = self.store.begin(run_id)
        if history:
            rows = [
                {"round": 0, "step": 10 * (n + 1), "accuracy": value}
                for n, value in enumerate(history)
            ]
            attempt.write_history(rows)
        for name, data in (grids or {}).items():
            attempt.write_bytes(name, data)
        if status.is_final:
            attempt.publish(record)
        else:
            attempt.fail(record)
        return record

    def plan(self, **not_installed: str) -> Path:
        """Write the manifest; return the experiment's folder."""
        self.store.update_manifest(self.cells, not_installed)
        return self.folder

    def _metrics(self, accuracy: float, teacher: float | None) -> dict[str, Any]:
        confusion = self._rng.integers(0, 4, (3, 3)) + 9 * np.eye(3, dtype=int)
        numbers = {
            "accuracy": accuracy,
            "loss": 1 - accuracy,
            "per_class_accuracy": [accuracy, min(1.0, accuracy + 0.1), None],
            "confusion": confusion.tolist(),
            "test_samples": 36,
        }
        return {
            "selection": "last",
            **numbers,
            "teacher": None if teacher is None else {**numbers, "accuracy": teacher},
            "details": {},
            "split": {
                "digest": "d" * 64,
                "id": "d" * 16,
                "topped_up": [0, 0],
                "counts": [[5, 0, 9], [1, 7, 0]],
                "widths": ["1", "1/2"],
            },
            "class_names": ["shirt", "shoe", "bag"],
            "dataset_fingerprint": "f00d",
        }


def judged(
    extractor: str = "classifier", fid: float = 12.5, key: str | None = "a" * 16, **pooled: Any
) -> dict[str, Any]:
    """Return what the harness says of generated images with one extractor."""
    values = {
        **{"images": 200, "enough": True, "fid": fid, "fid_over_real": fid / 0.5, "kid": 1.5},
        **{"inception_score": 4.5, "inception_score_split_sd": 0.25},
        **{"precision": 0.5, "recall": 0.25},
    }
    return {
        # Older records don't name the network's weights.
        **({} if key is None else {"extractor_key": key}),
        "extractor": extractor,
        "extractor_accuracy": 0.9 if extractor == "classifier" else None,
        "feature_size": 64,
        "real": {"fid": 0.5, "kid": 0.0, "inception_score": 8.0, "train": 900, "test": 300},
        "pooled": {**values, **pooled},
        "clients": {},
        "classes": [],
        "usefulness": {"accuracy": 0.625, "coverage": 0.9, "labeller": "classifier"},
    }


def judged_by_client(*ratios: float | None) -> dict[str, Any]:
    """Return what the harness says of generators, one a client, and of their classes."""
    side = [{"fid": None if one is None else one / 2, "fid_over_real": one} for one in ratios]
    return {
        **judged(),
        "labeller": "classifier",
        "clients": {
            str(index): {"images": 100, "own": one, "pooled": one} for index, one in enumerate(side)
        },
        "classes": [{"images": 9, **one} for one in side] + [None] * (3 - len(side)),
    }


def _communication(up: int, warmup_up: int) -> dict[str, Any]:
    # Numbers of 4 bytes each, as far as they go.
    model = up - 64 if up else 0
    return {
        "rounds": 1,
        "up": up,
        "down": 0,
        "per_client": [
            {
                **{"client": 0, "up": up - up // 4, "down": 0},
                "parts": {"up": {"header": 32, "model": up - up // 4 - 32} if up else {}},
            },
            {
                **{"client": 1, "up": up // 4, "down": 0},
                "parts": {"up": {"header": 32, "model": up // 4 - 32} if up else {}},
            },
        ],
        "per_round": [{"round": 0, "up": {"model": model, "header": 64} if up else {}, "down": {}}],
        "elements": {
            "up": {"model": {"float32": model // 4, "uint8": model % 4}} if up else {},
            "down": {},
        },
        "warmup": _warmup(warmup_up),
        "total_up": up + warmup_up,
        "total_down": warmup_up,
    }


def _warmup(count: int) -> dict[str, Any]:
    """Two rounds, as many bytes down as up, three quarters of them client 0's."""
    if not count:
        return {"rounds": 0, "up": 0, "down": 0, "per_client": [], "per_round": []}
    shares = (count - count // 4, count // 4)
    model = {"model": count // 2}
    return {
        "rounds": 2,
        **{"up": count, "down": count},
        "per_client": [
            {
                **{"client": client, "up": share, "down": share},
                "parts": {"up": {"model": share}, "down": {"model": share}},
            }
            for client, share in enumerate(shares)
        ],
        "per_round": [{"round": index, "up": model, "down": model} for index in range(2)],
    }


def _timing() -> dict[str, Any]:
    return {
        "client_seconds": {"sum": 4.0, "max": 2.5, "per_client": {"0": 2.5, "1": 1.5}},
        "cached_client_seconds": 4.0,
        "warmup_seconds": 0.0,
        "server_seconds": 1.25,
        "total_seconds": 6.0,
        "engine_seconds": 0.1,
        "data_seconds": 0.2,
        "evaluation_seconds": 0.3,
    }


def png(grey: int = 90) -> bytes:
    """Return a small picture of one grey."""
    buffer = io.BytesIO()
    Image.fromarray(np.full((8, 8), grey, dtype=np.uint8)).save(buffer, format="PNG")
    return buffer.getvalue()


def texts_of(report: Report, name: str = "accuracy") -> dict[str, list[str]]:
    """Return the texts of a printed table's cells by row."""
    return {row.label: [cell.text for cell in row.cells] for row in report.rendered[name].rows}


def plots_of(folder: Path) -> dict[str, object]:
    """Return the figures of an experiment by name, not drawn."""
    results = load(folder)
    grid = build_grid(results)
    return {plot.name: plot for plot in plots(results, grid, rank_methods(grid))}


def filled(lab: Lab) -> Path:
    """Plan two methods and a reference at two alphas on two seeds; return the folder."""
    for alpha in (0.1, 1.0):
        for seed in range(2):
            lab.add("averaging", seed, 0.65 + alpha / 10, partition__alpha=alpha, up=2_000_000)
            lab.add("distilling", seed, 0.6, partition__alpha=alpha, history=[0.2, 0.4, 0.6])
            lab.add("everything", seed, 0.9, partition__alpha=alpha, up=0)
    return lab.plan()
