"""``repeat``: equal to the bit or named where not; what differs else is said before."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cli_lab import check
from grids import TINY, run_grid

from benchmark.cli.differences import differing
from benchmark.store import Record, read_record
from benchmark.store.records import write_record


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a record on the smoke profile; return its run's folder."""
    results = tmp_path_factory.mktemp("made")
    run_grid(results, **TINY)
    (record,) = (results / "main").glob("*/record.json")
    return record.parent


@pytest.fixture
def edited(made: Path, tmp_path: Path) -> Callable[..., Path]:
    """Return a function that copies the record with other values, under a valid checksum."""

    def edit(**values: Any) -> Path:
        folder = tmp_path / "edited" / made.name
        shutil.copytree(made, folder)
        write_record(folder, read_record(folder).changed(**values))
        return folder

    return edit


def test_an_untouched_record_comes_out_again(cli, made: Path, tmp_path: Path) -> None:
    answer = cli("repeat", made / "record.json", "--results", "kept", "--quiet")
    assert answer.status == 0, answer.out + answer.err
    assert "code, versions and machine are the record's" in answer.out
    assert "  equal in every value (" in answer.out.splitlines()[-1]
    (new,) = (tmp_path / "kept" / "repeat").glob("*/record.json")
    assert new.parent.name == made.name
    assert read_record(new.parent).metrics == read_record(made).metrics
    assert not (tmp_path / "kept" / ".cache" / "client").exists()


def test_values_that_differ_are_named_and_so_is_other_code(cli, made: Path, edited: Any) -> None:
    record = read_record(made)
    spec = record.spec | {"code": record.spec["code"] | {"plugin": "0" * 16}}
    accuracy = record.metrics["accuracy"]
    wrong = edited(spec=spec, metrics=record.metrics | {"accuracy": 0.25, "teacher": 1.0})
    answer = cli("repeat", wrong, "--quiet")
    assert answer.status == 1, answer.err
    before, lines = answer.out.index("code.plugin"), answer.out.splitlines()
    assert f"  code.plugin: '{'0' * 16}' in the record, '{record.spec['code']['plugin']}' now" in (
        lines
    )
    assert "are the record's" not in answer.out
    assert before < answer.out.index("metrics.accuracy")
    assert f"  metrics.accuracy: 0.25 in the record, {accuracy!r} now" in lines
    assert "  metrics.teacher: 1.0 in the record, None now" in lines
    assert lines[-1].startswith("  2 of ")


def test_every_value_counts_to_the_bit() -> None:
    nan = float("nan")
    then = {"a": nan, "b": 0.0, "c": [1, {"d": 0.1}], "e": [], "f": None, "g": 2}
    assert differing(then, {**then, "a": float("nan")}) == []
    now = {**then, "b": -0.0, "c": [1, {"d": 0.1 + 2**-56}], "f": {"h": 1}}
    del now["g"]
    assert differing(then, now) == [
        "b: 0.0 in the record, -0.0 now",
        "c[1].d: 0.1 in the record, 0.10000000000000002 now",
        "f: None in the record, nothing now",
        "g: 2 in the record, nothing now",
        "f.h: nothing in the record, 1 now",
    ]


def test_what_can_not_be_repeated_is_one_line(cli, made: Path, edited: Any) -> None:
    check(cli("repeat", "nowhere"), ["nowhere", "there is no record.json"])
    Path("main", "0123456789abcdef").mkdir(parents=True)
    Path("main", "0123456789abcdef", "record.json").write_text("{}")
    check(cli("repeat", "main"), ["main: there is no", "such as main/0123456789abcdef"])
    record: Record = read_record(made)

    def refused(parts: list[str], **values: Any) -> None:
        folder = edited(**values)
        check(cli("repeat", folder), parts)
        shutil.rmtree(folder)

    spec = record.spec
    refused(["unknown method", "nosuch"], spec=spec | {"method": {"name": "nosuch"}})
    config = {"name": "fedavg", "config": {"round": 2}}
    refused(["'round'", "'rounds'"], spec=spec | {"method": config})
    refused(["spec", "scenario"], spec={"scenario": 3})
    gone = spec["scenario"] | {"dataset": "npz:gone.npz"}
    refused(["gone.npz"], spec=spec | {"scenario": gone})
    refused(["'failed'", "nothing to compare"], status="failed")
    compute = spec["compute"] | {"threads": 4096}
    refused(["threads 4096"], spec=spec | {"compute": compute})
    damaged = edited()
    text = (damaged / "record.json").read_text()
    (damaged / "record.json").write_text(text.replace('"attempt": 1', '"attempt": 2'))
    check(cli("repeat", damaged), ["does not match its checksum"])
