"""The server's memory does not grow with the number of uploads, as measured in a fresh process."""

from __future__ import annotations

import mmap
import time

import pytest

from benchmark.errors import UserError
from benchmark.speed import scale_memory
from benchmark.speed.peaks import INTERVAL, PeakMemory, in_child, memory_now
from benchmark.speed.upload_probe import SERVERS, Case, Found, measure

MEBI = 2**20


@pytest.mark.long
def test_uploads_that_wait_on_the_disk_take_no_memory() -> None:
    found: Found = in_child(measure, Case("fedavg", 24, widths="1/2", in_memory=0))
    assert found.uploads > 250 * MEBI
    # One upload on its way (11 MiB, four times), sums in float64, and the new model.
    assert found.peak.private - found.before.private < found.uploads / 2.5
    assert 0 < found.before.private <= found.peak.private <= found.peak.total


def test_what_fails_in_the_child_fails_here() -> None:
    with pytest.raises(UserError, match="divmod failed: ZeroDivisionError"):
        in_child(divmod, 1, 0)


def test_a_peak_is_seen_after_it_has_passed() -> None:
    # Straight from the system: after a training in this process the C library would serve the
    # block from freed memory that it has kept, and nothing would rise.
    block = mmap.mmap(-1, 128 * MEBI, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with PeakMemory() as memory:
        block[::4096] = b"x" * len(block[::4096])
        # The watching thread may not have been let in before: this one holds the interpreter.
        deadline = time.monotonic() + 30
        while memory.peak.private < memory.before.private + 64 * MEBI:
            assert time.monotonic() < deadline, "nobody looked"
            time.sleep(INTERVAL)
        block.close()
    assert memory.peak.private < memory.before.private + 192 * MEBI
    assert memory_now().private < memory.peak.private - 64 * MEBI


@pytest.mark.parametrize(("bound", "status"), [("4", 0), ("0.001", 1)])
def test_the_script_prints_a_table_and_keeps_its_bound(
    bound: str, status: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = Found(100 * MEBI, *[scale_memory_memory(n) for n in (500, 900)], 3.0)
    monkeypatch.setattr(scale_memory, "in_child", lambda *_: found)
    assert scale_memory.main(["--clients", "3", "--bound", bound]) == status
    out = capsys.readouterr().out
    assert all(f"| {name} | 1 |" in out for name in SERVERS)
    assert "| fedavg | 1,1/2" not in out
    assert f"largest peak 0.98 GiB (bound {float(bound):g} GiB)" in out


def scale_memory_memory(mebi: int) -> object:
    from benchmark.speed.peaks import Memory

    return Memory(mebi * MEBI, (mebi + 100) * MEBI)
