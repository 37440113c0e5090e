"""The script on Mosaic's costs: its bounds, and a measuring process that dies."""

from __future__ import annotations

import pytest

from benchmark.errors import UserError
from benchmark.speed import mosaic_cost
from benchmark.speed.teacher_probe import TeacherMemory

MEBI = 2**20


@pytest.mark.parametrize(
    ("grown", "seconds", "status"), [(60, 0.5, 0), (600, 0.5, 1), (60, 0.1, 1)]
)
def test_bounds(
    grown: int,
    seconds: float,
    status: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    found = {10: TeacherMemory(50 * MEBI, 4 * MEBI, 11 * MEBI)}
    found[200] = TeacherMemory(grown * MEBI, 260 * MEBI, 11 * MEBI)
    monkeypatch.setattr(mosaic_cost, "in_child", lambda work, classes: found[classes])
    monkeypatch.setattr(mosaic_cost, "measure_step", lambda *sizes: (0.55, seconds))
    assert mosaic_cost.main([]) == status
    out = capsys.readouterr().out
    assert "200 models would be 2200 MiB" in out
    assert f"ratio {0.55 / seconds:.3f}" in out


def test_a_measuring_process_that_dies_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def dead(*_: object) -> None:
        raise UserError("measure died with exit code -9")

    monkeypatch.setattr(mosaic_cost, "in_child", dead)
    assert mosaic_cost.main([]) == 1
    assert capsys.readouterr().err == "error: measure died with exit code -9\n"
