"""Runs of methods that are put together from parts."""

from __future__ import annotations

from report_lab import Lab

from benchmark.store import Status


def add(
    lab: Lab,
    parts: tuple[str, str, str],
    accuracy: float,
    seed: int = 0,
    status: Status = Status.DONE,
    *,
    start: str | None = None,
    taught_by: float | None = None,
    cpu: str = "made up",
    alpha: float | None = None,
    **more: float,
) -> None:
    """Add a run of a teacher, a source of images and a student; the teacher is 0.1 better."""
    config = {**dict(zip(("teacher", "images", "student"), parts, strict=True)), **more}
    label = ", ".join(map(str, config.values()))
    lab.add(
        *("joined", seed, accuracy),
        label=label,
        status=status,
        teacher=accuracy + 0.1 if taught_by is None else taught_by,
        method__config=config,
        hardware={"cpu": cpu},
        **({} if start is None else {"student__init": start}),
        **({} if alpha is None else {"partition__alpha": alpha}),
    )
