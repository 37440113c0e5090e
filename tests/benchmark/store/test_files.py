from __future__ import annotations

import errno
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from benchmark.errors import UserError
from benchmark.store import Status, files
from benchmark.store.files import (
    DamagedError,
    StoreError,
    is_abandoned,
    plain,
    read_json,
    restore_non_finite,
    sweep,
    temporary_name,
    write_bytes,
    write_json,
)

ROOT = Path(__file__).parents[3]


def test_the_store_imports_no_torch() -> None:
    code = "import sys, benchmark.store; print('torch' in sys.modules)"
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == "False"


def test_final_statuses_and_their_words() -> None:
    assert {status for status in Status if status.is_final} == {"done", "skipped", "diverged"}
    assert str(Status.TIMED_OUT) == "timed out"
    assert Status("not run yet") is Status.NOT_RUN


def test_a_written_file_is_whole_and_alone(tmp_path: Path) -> None:
    write_bytes(tmp_path / "a", b"old")
    write_bytes(tmp_path / "a", b"new")
    assert (tmp_path / "a").read_bytes() == b"new"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize(
    ("number", "says"),
    [(errno.ENOSPC, "the disk is full"), (errno.EROFS, "Read-only file system")],
)
def test_a_failing_disk_is_one_line_and_no_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, says: str
) -> None:
    path = tmp_path / "a"
    write_bytes(path, b"old")

    def fail(handle: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(files.os, "fsync", fail)
    with pytest.raises(StoreError) as caught:
        write_bytes(path, b"new")
    assert str(path) in str(caught.value)
    assert says in str(caught.value)
    assert isinstance(caught.value, UserError)
    assert path.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_folder_that_cant_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(StoreError, match=r"can't write .*file/a: Not a directory"):
        write_bytes(tmp_path / "file" / "a", b"x")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=8,
)


@settings(max_examples=25, deadline=None)
@given(st.dictionaries(st.text(max_size=3).filter(lambda key: key != "checksum"), json_values))
def test_json_round_trip_knows_no_bare_nan(
    tmp_path_factory: pytest.TempPathFactory, document: dict[str, object]
) -> None:
    path = tmp_path_factory.mktemp("json") / "a.json"
    write_json(path, document)

    def refuse(name: str) -> None:
        raise AssertionError(f"bare {name}")

    json.loads(path.read_text(), parse_constant=refuse)
    assert read_json(path) == plain(document)


def test_non_finite_numbers_come_back() -> None:
    values = {"a": [math.inf, -math.inf], "b": {"c": math.nan}, "d": "text"}
    back = restore_non_finite(plain(values))
    assert back["a"] == values["a"]
    assert math.isnan(back["b"]["c"])
    assert back["d"] == "text"


@pytest.mark.parametrize("value", [{1: 2}, {"a": object()}, {"a": [{"b": {1, 2}}]}])
def test_what_is_no_json_is_named(value: object) -> None:
    with pytest.raises(TypeError, match="spec"):
        plain(value, "spec")


@pytest.mark.parametrize("seed", range(12))
def test_a_bit_flip_or_a_cut_anywhere_is_found(tmp_path: Path, seed: int) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"metrics": {"accuracy": 0.912345}, "name": "x" * 30, "list": [1, 2, 3]})
    data = bytearray(path.read_bytes())
    place = (seed * 7919) % (len(data) - 2)
    if seed % 2:
        data[place] ^= 1 << (seed % 8)
        path.write_bytes(data)
    else:
        path.write_bytes(data[:place])
    before = {"metrics": {"accuracy": 0.912345}, "name": "x" * 30, "list": [1, 2, 3]}
    try:
        found = read_json(path)
    except DamagedError:
        return
    # Harmless: blank space of the layout.
    assert found == before


def test_files_of_dead_writers_are_swept_and_of_living_ones_kept(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    mine = tmp_path / temporary_name("a")
    dead = tmp_path / mine.name.replace(f"-{os.getpid()}-", f"-{process.pid}-")
    foreign = tmp_path / ".a.tmp-elsewhere-1-0-0123abcd"
    old = tmp_path / ".a.tmp-elsewhere-1-1-0123abcd"
    for path in (mine, dead, foreign, old):
        path.write_text("part")
    os.utime(old, (0, 0))
    (tmp_path / "record.json").write_text("{}")
    assert is_abandoned(dead)
    assert set(sweep(tmp_path)) == {dead, old}
    assert {path.name for path in tmp_path.iterdir()} == {mine.name, foreign.name, "record.json"}


def test_temporary_names_differ() -> None:
    assert len({temporary_name("a") for _ in range(100)}) == 100
