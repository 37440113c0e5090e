"""What a record measured, as flat columns: raw values, never rounded."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from benchmark.store import FLOPS_ESTIMATE, Record

MEASURES: Mapping[str, str] = {
    "accuracy": "share of test samples classified right, by the selection rule",
    "loss": "mean cross-entropy on the test set, nats",
    "teacher_accuracy": "the same of the teacher that the model was distilled from",
    "up_per_client": "bytes a client uploads, warm-up included, mean over clients",
    "down_per_client": "bytes a client is sent, warm-up included, mean over clients",
    "up_total_bytes": "bytes that all clients upload, warm-up included",
    "fedavg_rounds": "rounds of federated averaging whose traffic, up and down, equals the run's",
    "client_seconds": "computing of all clients, cached training at its first price, seconds",
    "slowest_client_seconds": "computing of the slowest client, seconds",
    "server_seconds": "computing of the server, seconds",
    "total_seconds": "wall time of the run, seconds",
    "client_flops": "floating-point operations of all clients, estimated from a sample of steps",
    "server_flops": "the same of the server",
    "inference_flops": "floating-point operations of classifying one image with the model",
    "teacher_inference_flops": "the same with the teacher",
    "server_generator_steps": "optimiser steps of generators that the server spent",
    "generated_images": "synthetic images that were made for the student",
    "distilled_images": "images that the student learned from, repetitions counted",
    "student_steps": "optimiser steps of the student",
    "peak_memory_bytes": "highest resident memory of the run's process, bytes",
}
"""Columns of numbers that tables are made of, and what they mean."""


GRANTED: Mapping[str, str] = {
    "server_generator_steps": "budget.generator_steps",
    "generated_images": "budget.generated_images",
    "distilled_images": "budget.distilled_images",
}
"""What a run spent, and the setting that says what its profile granted."""


def measures(record: Record) -> dict[str, Any]:
    """Return a record's metrics, traffic, timing and provenance as columns."""
    return {
        **_scores(record.metrics),
        **_spent(record.metrics),
        **_generation(record.metrics),
        **_traffic(record.communication),
        **_seconds(record.timing),
        **_provenance(record.metrics, record.environment),
        "warnings": " | ".join(record.warnings),
    }


def _scores(metrics: Mapping[str, Any]) -> dict[str, Any]:
    teacher = metrics.get("teacher") or {}
    asked = metrics.get("inference_flops") or {}  # not in old records
    return {
        "selection": metrics.get("selection"),
        "accuracy": metrics.get("accuracy"),
        "loss": metrics.get("loss"),
        "teacher_accuracy": teacher.get("accuracy"),
        "teacher_loss": teacher.get("loss"),
        "inference_flops": asked.get("model"),
        "teacher_inference_flops": asked.get("teacher"),
        "details_label": (metrics.get("details") or {}).get("label"),
        "also_uses": ", ".join(_also_used(metrics.get("details") or {})),
        "not_for_tables": (metrics.get("details") or {}).get("not_for_tables"),
        "test_samples": metrics.get("test_samples"),
        "per_class_accuracy": _json(metrics.get("per_class_accuracy")),
        "confusion": _json(metrics.get("confusion")),
    }


def _spent(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a run spent of its budget, by its own count; nothing if it has no part in it."""
    counters = (metrics.get("details") or {}).get("counters") or {}
    return {
        name: counters.get(name.removeprefix("server_")) for name in (*GRANTED, "student_steps")
    }


def _also_used(details: Mapping[str, Any]) -> list[str]:
    """Return what a run read beyond what its method declares, by its own word and its start."""
    found = [str(word) for word in details.get("also_uses") or ()]
    if details.get("student_start") == "aggregate":  # the mean of clients by their sample counts
        found.append("sample counts")
    return found


GENERATION: Mapping[str, str] = {
    "fid": "squared Fréchet distance of generated to real images, in the extractor's features",
    "fid_over_real": "that distance over the one of as many real test images: 1 is as good",
    "fid_ratio": "in records without it: that distance over the one of all real test images",
    "kid": "kernel distance of generated to real images",
    "inception_score": "Inception score by the extractor's probabilities",
    "precision": "share of generated images within the real manifold",
    "recall": "share of real images within the generated manifold",
    "images": "generated images that were measured",
}
"""What is measured of a method's images with each extractor; columns ``<extractor>.<name>``."""


def _generation(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Return the pooled measures of each extractor, which share no column."""
    entries: Sequence[Mapping[str, Any]] = metrics.get("generation") or ()
    columns: dict[str, Any] = {}
    for entry in entries:
        pooled, useful = entry.get("pooled") or {}, entry.get("usefulness") or {}
        name = str(entry.get("extractor"))
        columns |= {f"{name}.{key}": pooled.get(key) for key in GENERATION}
        columns[f"{name}.enough"] = pooled.get("enough")
        columns[f"{name}.extractor_key"] = entry.get("extractor_key")  # not in old records
        columns[f"{name}.by_client"] = _json(entry.get("clients") or None)
        columns[f"{name}.by_class"] = _json(entry.get("classes") or None)
        columns |= {f"{name}.{key}": found for key, found in _judge_of(entry).items()}
        columns["usefulness"] = useful.get("accuracy")
        columns["coverage"] = useful.get("coverage")
        columns["labeller"] = useful.get("labeller")
    if columns:
        columns["extractors"] = ", ".join(str(entry.get("extractor")) for entry in entries)
    return columns


JUDGES: Mapping[str, str] = {
    "real_fid": "distance of real test images to real training images",
    "real_kid": "kernel distance of the same; about 0, of either sign: no ratio can be formed",
    "real_train": "real training images that distances are taken to",
    "real_test": "real test images that the scale is taken from",
    "extractor_accuracy": "test accuracy of the extractor, where it is a classifier of the suite's",
    "feature_size": "features of the extractor",
}
"""What is known of whoever measured; columns ``<extractor>.<name>``."""


def _judge_of(entry: Mapping[str, Any]) -> dict[str, Any]:
    real = entry.get("real") or {}
    return {
        **{f"real_{key}": real.get(key) for key in ("fid", "kid", "train", "test")},
        **{key: entry.get(key) for key in ("extractor_accuracy", "feature_size")},
    }


def _traffic(communication: Mapping[str, Any]) -> dict[str, Any]:
    if not communication:
        return {}
    warmup = communication.get("warmup") or {}
    clients: Sequence[Mapping[str, Any]] = communication.get("per_client") or ()
    up, down = int(communication.get("up", 0)), int(communication.get("down", 0))
    extra_up, extra_down = int(warmup.get("up", 0)), int(warmup.get("down", 0))
    columns: dict[str, Any] = {
        "rounds": communication.get("rounds"),
        "up_bytes": up,
        "down_bytes": down,
        "warmup_up_bytes": extra_up,
        "warmup_down_bytes": extra_down,
        "up_total_bytes": up + extra_up,
        "parts": _json(parts(communication)),
        "elements": _json(communication.get("elements")),
    }
    if clients:
        columns |= {
            "up_per_client": (up + extra_up) / len(clients),
            "down_per_client": (down + extra_down) / len(clients),
            **_extremes(clients, warmup),
        }
    model = parts(communication)["up"].get("model")
    if model:
        # A round of averaging sends the whole state up and down; what a round of this method
        # uploads as its model is that state (of the clients' own widths). Rounds that exchange
        # something else, such as batch statistics, are none of averaging.
        own = [one for one in communication.get("per_round") or () if one["up"].get("model")]
        whole = 2 * model / max(1, len(own))
        columns["fedavg_rounds"] = (up + down + extra_up + extra_down) / whole
    return columns


def _extremes(
    clients: Sequence[Mapping[str, Any]], warmup: Mapping[str, Any]
) -> dict[str, int | None]:
    """Return the bytes of the clients that send or get least and most, warm-up included."""
    warm: Sequence[Mapping[str, Any]] = warmup.get("per_client") or ()
    columns: dict[str, int | None] = {}
    for direction in ("up", "down"):
        booked = [int(client.get(direction, 0)) for client in clients]
        if warm:
            booked = [own + int(more[direction]) for own, more in zip(booked, warm, strict=True)]
        # Old records know the warm-up's sum alone, and not who sent how much of it.
        known = bool(warm) or not int(warmup.get(direction, 0))
        columns[f"{direction}_least"] = min(booked) if known else None
        columns[f"{direction}_most"] = max(booked) if known else None
    return columns


def parts(communication: Mapping[str, Any]) -> dict[str, dict[str, int]]:
    """Return a run's bytes by direction and part, over all its rounds, without warm-up."""
    sums: dict[str, dict[str, int]] = {"up": {}, "down": {}}
    for entry in communication.get("per_round") or ():
        for direction, booked in sums.items():
            for part, count in (entry.get(direction) or {}).items():
                booked[part] = booked.get(part, 0) + int(count)
    return sums


def _seconds(timing: Mapping[str, Any]) -> dict[str, Any]:
    if not timing:
        return {}
    clients = timing.get("client_seconds") or {}
    named = {
        key: timing.get(key)
        for key in (
            *("server_seconds", "evaluation_seconds", "data_seconds", "engine_seconds"),
            "generation_seconds",
            *("cached_client_seconds", "warmup_seconds", "total_seconds"),
        )
    }
    flops = timing.get("flops") or {}
    if flops.get("estimate") != FLOPS_ESTIMATE:
        flops = {}  # off by up to a factor of three where a method works in pieces
    return {
        "client_flops": flops.get("clients"),
        "server_flops": flops.get("server"),
        "client_seconds": clients.get("sum"),
        "slowest_client_seconds": clients.get("max"),
        **named,
    }


def _provenance(metrics: Mapping[str, Any], environment: Mapping[str, Any]) -> dict[str, Any]:
    split, git = metrics.get("split") or {}, environment.get("git") or {}
    versions = environment.get("versions") or {}
    return {
        "split_id": split.get("id") or split.get("digest"),
        "split_min_samples": split.get("min_samples"),
        "topped_up": _json(split.get("topped_up")),
        "split_counts": _json(split.get("counts")),
        "split_widths": _json(split.get("widths")),
        "class_names": _json(metrics.get("class_names")),
        "dataset_fingerprint": metrics.get("dataset_fingerprint"),
        "git_commit": git.get("commit"),
        "git_dirty": git.get("dirty"),
        **{f"version.{name}": version for name, version in versions.items()},
        "hardware": _json(environment.get("hardware")),
        "peak_memory_bytes": environment.get("peak_memory_bytes"),
    }


def _json(value: object) -> str | None:
    return None if value is None else json.dumps(value, sort_keys=True, ensure_ascii=False)
