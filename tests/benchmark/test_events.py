"""Progress is thinned out within a phase; where one begins and ends is always told."""

from __future__ import annotations

from typing import Any

import pytest

from benchmark import events
from benchmark.events import INTERVAL, Events


class Heard:
    """A sink that keeps what it is sent."""

    def __init__(self) -> None:
        self.kinds: list[str] = []
        self.said: list[dict[str, Any]] = []

    def send(self, kind: str, **data: Any) -> None:
        self.kinds.append(kind)
        self.said.append(data)

    @property
    def places(self) -> list[tuple[str, int]]:
        return [(data["phase"], data["step"]) for data in self.said]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, which stands still until it is set."""
    now = [100.0]
    monkeypatch.setattr(events.time, "monotonic", lambda: now[0])
    return now


def test_within_a_phase_it_is_thinned_out(clock: list[float]) -> None:
    heard = Heard()
    progress = Events(heard)
    for step in range(1, 101):
        progress.progress("server", step, 1000, loss=step)
        clock[0] += INTERVAL / 9.5
    assert heard.places == [("server", step) for step in range(1, 101, 10)]
    assert set(heard.kinds) == {"progress"}
    assert heard.said[1] == {
        "phase": "server",
        "step": 11,
        "total": 1000,
        "scalars": {"loss": 11.0},
    }


def test_a_phase_that_begins_or_ends_is_told_at_once(clock: list[float]) -> None:
    """Helpers of a run listen for the client that it is at."""
    heard = Heard()
    progress = Events(heard)
    for phase in ("training client 0", "training client 1", "server"):
        for step in range(1, 4):
            progress.progress(phase, step, 3)
    phases = ("training client 0", "training client 1", "server")
    assert heard.places == [(phase, step) for phase in phases for step in (1, 3)]


def test_the_trainers_loss_is_left_alone() -> None:
    heard = Heard()
    report = Events(heard).on_step("training client 3")
    report(1, 5, object())
    assert heard.said == [{"phase": "training client 3", "step": 1, "total": 5, "scalars": {}}]


class Loss:
    """A loss on a device: each reading waits for it."""

    read = 0

    def __float__(self) -> float:
        self.read += 1
        return 0.5


def test_without_a_sink_no_loss_is_read() -> None:
    heard, loss = Heard(), Loss()
    Events().progress("server", 1, 2, loss=loss)
    assert loss.read == 0
    Events(heard).progress("server", 1, 2, loss=loss)
    assert loss.read == 1
    assert heard.said[0]["scalars"] == {"loss": 0.5}
