"""The grid: each cell gets one record, whatever happens to runs, files, disks and commands."""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import plugin_lab
import pytest
from grids import (
    TINY,
    attempts_of,
    command,
    finish,
    metrics_of,
    planned,
    records_of,
    run_grid,
)

from benchmark.cli.main import main
from benchmark.grid import Options
from benchmark.preview import preview
from benchmark.store import Status, Store, StoreError

PROBE = {**TINY, "methods": ["probe"]}


@pytest.fixture
def mode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The file that tells the installed probe how to misbehave."""
    folder = tmp_path / "site"
    plugin_lab.install(folder)
    monkeypatch.syspath_prepend(folder)
    yield folder / "mode.txt"
    sys.modules.pop(plugin_lab.MODULE, None)


# --- what becomes of runs ----------------------------------------------------------------


def test_what_is_done_is_not_done_again(results: Path) -> None:
    result, listener = run_grid(results, **TINY)
    assert (result.done, result.already, result.failed) == (0, 1, 0)
    assert listener.ended == []
    assert attempts_of(results) == set()


def test_preview_says_what_would_run(results: Path) -> None:
    experiment, runs = planned(**{**TINY, "methods": ["fedavg", "ensemble"], "seeds": [0, 1]})
    before = sorted(results.rglob("*"))
    states = [state for _, state in preview(experiment, runs, Options(results))]
    assert states == ["done", "to run", "to run", "to run"]
    forced = preview(experiment, runs, Options(results, force=frozenset({"fedavg"})))
    assert [state for _, state in forced] == ["to run"] * 4
    assert sorted(results.rglob("*")) == before
    experiment, runs = planned(**{**TINY, "widths": "1/4,1/8"})
    ((_, state),) = preview(experiment, runs, Options(results))
    assert state.startswith("skipped: averaging needs")


def test_what_another_experiment_has_finished_is_taken_from_there(results: Path) -> None:
    (source,) = records_of(results)
    there = results / "main" / source.run_id
    settings = {**TINY, "methods": ["ensemble"], "variants": {"mine": {"method": "fedavg"}}}
    experiment, runs = planned(experiment="other", **settings)
    states = [state for _, state in preview(experiment, runs, Options(results))]
    assert states == ["to run", "done: in experiment 'main'"]
    result, listener = run_grid(results, experiment="other", **settings)
    assert (result.done, result.already) == (1, 1)
    assert listener.notes == ["runs that experiment 'main' has finished are taken from there"]
    copy = Store(results).experiment("other").find(source.run_id)
    assert copy is not None
    assert copy.changed(label=source.label) == source
    assert copy.label == "mine"
    here = results / "other" / source.run_id
    assert {path.name for path in here.iterdir()} == {path.name for path in there.iterdir()}
    shutil.rmtree(there)
    assert run_grid(results, experiment="other", **settings)[0].already == 2


@pytest.mark.parametrize(
    ("options", "spoil"),
    [
        ({"force": frozenset({"fedavg"})}, False),
        ({"cache": False}, False),
        ({}, True),
    ],
)
def test_what_is_forced_or_damaged_elsewhere_is_run(
    results: Path, options: dict[str, Any], spoil: bool
) -> None:
    (source,) = records_of(results)
    if spoil:
        path = results / "main" / source.run_id / "record.json"
        path.write_text(path.read_text().replace("fedavg", "fedavh"))
    result, _ = run_grid(results, options=options, experiment="other", **TINY)
    assert (result.done, result.already) == (1, 0)


def test_a_diverged_run_is_final_unless_forced(tmp_path: Path) -> None:
    wild = {**TINY, "lr": 1e6, "epochs": 3}
    result, listener = run_grid(tmp_path, **wild)
    assert (result.done, result.failed, result.user_error) == (0, 1, False)
    (record,) = records_of(tmp_path)
    assert record.status is Status.DIVERGED
    assert "client 0 diverged at step " in str(record.reason)
    assert record.metrics == {}
    again, listener = run_grid(tmp_path, **wild)
    assert (again.failed, listener.ended) == (1, [])
    assert "--force" in listener.notes[-1]
    forced, listener = run_grid(tmp_path, options={"force": frozenset({"fedavg"})}, **wild)
    assert forced.failed == len(listener.ended) == 1
    (second,) = records_of(tmp_path)
    assert second.reason == record.reason


def test_a_diverged_run_makes_the_command_end_with_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--methods", "fedavg", "--profile", "smoke", "--lr", "1e6", "--precision", "fp32"]
    assert main([*arguments, "--results", str(tmp_path)]) == 1
    out, err = capsys.readouterr()
    assert "diverged at step" in err
    assert "Traceback" not in err
    assert "diverged" in out


def test_a_failed_run_is_tried_again(tmp_path: Path, mode: Path) -> None:
    mode.write_text("raise")
    result, listener = run_grid(tmp_path, **{**PROBE, "methods": ["probe", "fedavg"]})
    assert (result.done, result.failed) == (1, 1), "the others go on"
    (failed,) = [record for label, record in listener.ended if label == "probe"]
    assert failed.status is Status.FAILED
    assert failed.reason == "RuntimeError: the probe was told to fail"
    (name,) = attempts_of(tmp_path)
    traceback = tmp_path / "main" / "attempts" / name / "traceback.txt"
    assert "in client_update" in traceback.read_text()
    mode.unlink()
    again, _ = run_grid(tmp_path, **{**PROBE, "methods": ["probe", "fedavg"]})
    assert (again.done, again.already, again.failed) == (1, 1, 0)
    attempt = {record.label: record.attempt for record in records_of(tmp_path)}
    assert attempt == {"fedavg": 1, "probe": 2}
    assert attempts_of(tmp_path) == {name}, "the failed attempt stays as evidence"


@pytest.mark.long
def test_a_run_out_of_time_is_ended_and_tried_again(tmp_path: Path, mode: Path) -> None:
    mode.write_text("sleep")
    result, listener = run_grid(tmp_path, options={"timeout": 1.0}, **PROBE)
    assert result.failed == 1
    ((_, record),) = listener.ended
    assert record.status is Status.TIMED_OUT
    assert "1 s" in str(record.reason)
    assert record.timing["total_seconds"] < 60
    mode.unlink()
    again, _ = run_grid(tmp_path, options={"timeout": 120.0}, **PROBE)
    assert again.done == 1


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("wrong upload", "method 'probe': client_update returned a dict, expected Upload"),
        ("batch statistics", "statistics of test batches are refused"),
        ("wrong part", "upload of client 0 in round 0: 'model/weight' must be a tensor, got"),
    ],
)
def test_a_wrong_type_is_the_plugins_fault_in_one_line(
    tmp_path: Path, mode: Path, kind: str, says: str
) -> None:
    mode.write_text(kind)
    result, listener = run_grid(tmp_path, **PROBE)
    assert (result.failed, result.user_error) == (1, True)
    ((_, record),) = listener.ended
    assert says in str(record.reason)


def test_what_a_method_cant_do_is_skipped_with_its_reason(tmp_path: Path) -> None:
    mixed = {**TINY, "methods": ["fedavg", "ensemble"], "widths": "1/4,1/8"}
    result, _ = run_grid(tmp_path, **mixed)
    assert (result.done, result.skipped, result.failed) == (1, 1, 0)
    reasons = {record.label: (record.status, record.reason) for record in records_of(tmp_path)}
    assert reasons["fedavg"] == (Status.SKIPPED, "averaging needs clients of equal width")
    assert reasons["ensemble"] == (Status.DONE, None)
    again, listener = run_grid(tmp_path, **mixed)
    assert (again.done, again.already, again.skipped) == (0, 1, 1)
    assert listener.ended == []


def test_variants_have_records_of_their_own(tmp_path: Path) -> None:
    variants = {"often": {"method": "fedavg", "rounds": 2}}
    result, _ = run_grid(tmp_path, **{**TINY, "variants": variants})
    assert result.done == 2
    assert {record.label for record in records_of(tmp_path)} == {"fedavg", "often"}


def test_the_manifest_keeps_what_a_method_has_by_itself(tmp_path: Path) -> None:
    run_grid(tmp_path, **{**TINY, "methods": ["fedavg"], "set": {"fedavg": {"rounds": 2}}})
    [name] = Store(tmp_path).experiments()
    manifest = Store(tmp_path).experiment(name).manifest()
    [cell] = manifest.cells.values()
    assert cell.config is not None
    assert (manifest.defaults["fedavg"]["rounds"], cell.config["rounds"]) == (1, 2)
    assert manifest.defaults["fedavg"].keys() == cell.config.keys()


# --- commands at once --------------------------------------------------------------------


@pytest.mark.long
def test_two_commands_at_once_share_the_work(tmp_path: Path) -> None:
    arguments = [
        "--methods", "fedavg", "ensemble", "--profile", "smoke", "--precision", "fp32",
        "--device", "cpu",
        "--train-samples", "100", "--epochs", "1", "--clients", "2", "--history-points", "0",
        "--results", str(tmp_path), "--no-report",
    ]  # fmt: skip
    commands = [command(*arguments) for _ in range(2)]
    ends = [finish(process) for process in commands]
    assert [status for status, _, _ in ends] == [0, 0], ends
    records = records_of(tmp_path)
    assert {record.label: record.attempt for record in records} == {"fedavg": 1, "ensemble": 1}
    assert attempts_of(tmp_path) == set()
    assert len(list((tmp_path / ".cache" / "client").rglob("manifest.json"))) == 2
    alone = tmp_path / "alone"
    run_grid(alone, **{**TINY, "methods": ["fedavg", "ensemble"]})
    assert metrics_of(alone) == metrics_of(tmp_path)


# --- damage ------------------------------------------------------------------------------


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x10
    path.write_bytes(bytes(data))


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


@pytest.mark.parametrize("harm", [flip, truncate])
def test_a_damaged_record_is_found_and_made_again(
    results: Path, harm: Any, caplog: pytest.LogCaptureFixture
) -> None:
    before = metrics_of(results)
    (path,) = (results / "main").glob("*/record.json")
    harm(path)
    with caplog.at_level(logging.WARNING):
        result, _ = run_grid(results, **TINY)
    assert result.done == 1
    assert "damaged" in caplog.text
    assert metrics_of(results) == before
    assert len(attempts_of(results)) == 1


def test_who_only_looks_leaves_a_damaged_record_where_it_is(
    results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (path,) = (results / "main").glob("*/record.json")
    flip(path)
    before = sorted(results.rglob("*"))
    for name in ("main", "other"):  # here, and as what another experiment would take over
        experiment, runs = planned(experiment=name, **TINY)
        assert [state for _, state in preview(experiment, runs, Options(results))] == ["to run"]
    assert sorted(results.rglob("*")) == before
    shutil.copytree(results / "main", results / "paper_meta")
    before = sorted(results.rglob("*"))
    assert main(["list", "experiments", "--results", str(results)]) == 0
    assert main(["paper", "--results", str(results)]) == 0
    assert "0 of 1 runs done" in capsys.readouterr().out
    assert sorted(results.rglob("*")) == before


@pytest.mark.parametrize("harm", [flip, truncate])
def test_a_damaged_cache_entry_is_found_and_made_again(
    results: Path, harm: Any, caplog: pytest.LogCaptureFixture
) -> None:
    before = metrics_of(results)
    path = sorted((results / ".cache" / "client").rglob("data.safetensors"))[0]
    sound = path.read_bytes()
    harm(path)
    with caplog.at_level(logging.WARNING):
        result, _ = run_grid(results, options={"force": frozenset({"all"})}, **TINY)
    assert result.done == 1
    assert "damaged" in caplog.text
    assert str(path.parent) in caplog.text
    assert metrics_of(results) == before
    assert path.read_bytes() == sound


def test_a_damaged_manifest_is_rebuilt(results: Path, caplog: pytest.LogCaptureFixture) -> None:
    (results / "main" / "experiment.json").write_text("{")
    with caplog.at_level(logging.WARNING):
        result, _ = run_grid(results, **TINY)
    assert (result.done, result.already) == (0, 1)
    assert "damaged" in caplog.text
    cells = json.loads((results / "main" / "experiment.json").read_text())["cells"]
    assert len(cells) == 1


# --- a full disk -------------------------------------------------------------------------


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small file system of its own."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = shutil.which("mount")
    options = ["-t", "tmpfs", "-o", "size=6m", "tmpfs", str(place)]
    if (
        mount is None
        or subprocess.run([mount, *options], capture_output=True, check=False).returncode
    ):
        pytest.skip("no right to mount a small file system here")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def fill(disk: Path, leave: int) -> Path:
    """Write a file that leaves about ``leave`` bytes free."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file:
        while shutil.disk_usage(disk).free >= 4096:
            file.write(b"x" * 4096)
        with pytest.raises(OSError, match="No space left"):
            file.write(b"x" * 4096)
        file.truncate(max(file.tell() - leave, 0))
    return filler


@pytest.mark.long
def test_a_full_disk_does_no_damage(disk: Path) -> None:
    run_grid(disk, **TINY)
    before = metrics_of(disk)
    both = {**TINY, "methods": ["fedavg", "ensemble"], "seeds": [0, 1]}
    filler = fill(disk, leave=0)
    with pytest.raises(StoreError) as caught:
        run_grid(disk, **both)
    assert "the disk is full; free some space" in str(caught.value)
    assert "\n" not in str(caught.value)
    filler.unlink()
    filler = fill(disk, leave=72 * 1024)  # enough to begin, too little for the models
    try:
        result, listener = run_grid(disk, **both)
        assert result.user_error
        said = [str(record.reason) for _, record in listener.ended if record.reason]
    except StoreError as error:
        said = [str(error)]
    assert any("the disk is full" in text for text in said), said
    assert all("\n" not in text for text in said)
    assert before.items() <= metrics_of(disk).items(), "what was finished is whole"
    filler.unlink()
    result, _ = run_grid(disk, **both)
    assert result.failed == 0
    assert before.items() <= metrics_of(disk).items()
    assert len(metrics_of(disk)) == 4
    leftovers = [path for folder in disk.rglob(".tmp") for path in folder.iterdir()]
    assert leftovers == []


def test_a_results_folder_that_cant_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError) as caught:
        run_grid(tmp_path / "file" / "results", **TINY)
    assert "\n" not in str(caught.value)
    assert os.fspath(tmp_path / "file") in str(caught.value)
