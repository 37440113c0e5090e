"""``run``: what is printed where, exit statuses, interruption, and going on afterwards."""

from __future__ import annotations

import json
import os
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from benchmark.grid import GridResult
from datasets import DataError, Location

ROOT = Path(__file__).resolve().parents[3]
FAST = ("--methods", "fedavg", "--profile", "smoke", "--train-samples", "120", "--epochs", "1")


@pytest.fixture
def no_data(monkeypatch: pytest.MonkeyPatch) -> None:
    """Open no dataset: for tests whose grid runs nothing."""
    monkeypatch.setattr("benchmark.cli.verb_run.load_data", lambda *_: None)


def result(**values: object) -> GridResult:
    numbers = {"done": 0, "already": 0, "skipped": 0, "failed": 0}
    return GridResult(**{**numbers, "user_error": False, "experiment": "main", **values})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"already": 3}, "nothing to do: all 3 runs are done"),
        ({"already": 3, "skipped": 1}, "nothing to do: all 3 runs are done, 1 skipped"),
        ({"already": 1}, "nothing to do: the run is done"),
        ({"done": 1, "already": 2}, "1 run done, 2 were done before, in 5 s"),
        ({"done": 2, "already": 1}, "2 runs done, 1 was done before, in 5 s"),
        ({"done": 2, "failed": 1, "skipped": 4}, "2 runs done, 1 failed, 4 skipped, in 5 s"),
    ],
)
def test_summary(values: dict[str, object], text: str) -> None:
    from benchmark.cli.verb_run import summary

    assert summary(result(**values), 5.2) == text


@pytest.mark.parametrize(
    ("outcome", "status"),
    [
        ({"done": 1}, 0),
        ({"already": 1}, 0),
        ({"failed": 1}, 1),
        ({"failed": 1, "user_error": True}, 2),
    ],
)
@pytest.mark.usefixtures("no_data")
def test_exit_status(
    cli, monkeypatch: pytest.MonkeyPatch, outcome: dict[str, object], status: int
) -> None:
    monkeypatch.setattr("benchmark.grid.execute", lambda *_, **__: result(**outcome))
    monkeypatch.setattr("benchmark.cli.verb_run.show_report", lambda *_: None)
    assert cli(*FAST).status == status


@pytest.mark.usefixtures("no_data")
def test_runs_that_diverged_before_are_named_however_quiet(
    cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmark.grid.execute", lambda *_, **__: result(already=1, failed=2))
    answer = cli(*FAST, "--quiet", "--no-report")
    assert answer.status == 1
    assert answer.err_lines == [
        "error: 2 runs diverged in an earlier command, not tried again; the report says why, "
        "--force METHOD tries once more"
    ]


@pytest.mark.parametrize("flags", [(), ("--no-report",)])
@pytest.mark.usefixtures("no_data")
def test_a_report_unless_told_otherwise(
    cli, monkeypatch: pytest.MonkeyPatch, flags: tuple[str, ...]
) -> None:
    written: list[Path] = []
    monkeypatch.setattr("benchmark.grid.execute", lambda *_, **__: result(done=1))
    monkeypatch.setattr("benchmark.cli.verb_run.show_report", lambda *told: written.append(told[0]))
    answer = cli(*FAST, *flags)
    assert "1 run done" in answer.err
    assert written == ([] if flags else [Path("results/main")])


@pytest.mark.usefixtures("no_data")
def test_interruption_says_how_to_go_on(cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("benchmark.grid.execute", interrupted)
    answer = cli(*FAST, "--quiet")
    assert answer.status == 130
    assert len(answer.err_lines) == 1
    assert "give the same command again" in answer.err
    assert answer.out == ""
    forced = cli(*FAST, "--quiet", "--force", "all")
    assert len(forced.err_lines) == 1
    assert "give the command without --force" in forced.err


@pytest.mark.usefixtures("no_data")
def test_defect_shows_a_traceback_and_the_way_to_report(
    cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("a defect")

    monkeypatch.setattr("benchmark.grid.execute", broken)
    answer = cli(*FAST)
    assert answer.status == 70
    assert "Traceback" in answer.err
    assert "doctor --report" in answer.err_lines[-1]


@pytest.mark.usefixtures("no_data")
def test_full_disk_is_one_line(cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device", "results/main/report")

    monkeypatch.setattr("benchmark.grid.execute", full)
    answer = cli(*FAST)
    assert answer.status == 2
    assert answer.err_lines == ["error: can't use results/main/report: No space left on device"]


def test_user_errors_have_tracebacks_only_when_debugging(cli) -> None:
    assert "Traceback" not in cli("--alpha", "0").err
    assert "Traceback" in cli("--alpha", "0", "--log-level", "debug").err


@pytest.mark.long
def test_runs_once_then_has_nothing_to_do(shell, cli, tmp_path: Path) -> None:
    first = shell(*FAST, "--results", "out")
    assert first.status == 0, first.err
    assert "[1/1] fedavg (digits, seed 0): done, accuracy 0." in first.err
    assert "fedavg" in first.out
    assert "error" not in first.err
    second = cli(*FAST, "--results", "out")
    assert second.status == 0
    assert second.err_lines == ["nothing to do: the run is done"]
    assert "fedavg" in second.out
    quiet = cli(*FAST, "--results", "out", "--quiet")
    assert quiet.err == ""
    assert quiet.out == second.out


def write_own(folder: Path, seed: int) -> None:
    chance = np.random.default_rng(seed)
    arrays = {}
    for part, count in (("train", 120), ("test", 40)):
        arrays[f"x_{part}"] = chance.integers(0, 256, (count, 32, 32), dtype=np.uint8)
        arrays[f"y_{part}"] = np.arange(count) % 4
    np.savez(folder / "mine.npz", **arrays)


def write_mnist(folder: Path, seed: int) -> None:
    """Write images of chance under a name of the catalogue, below a data root."""
    chance, place = np.random.default_rng(seed), folder / "data" / "mnist"
    place.mkdir(parents=True, exist_ok=True)
    for part, count in (("train", 120), ("t10k", 40)):
        images = chance.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        labels = (np.arange(count) % 10).astype(np.uint8)
        for kind, array in (("images-idx3", images), ("labels-idx1", labels)):
            head = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
            (place / f"{part}-{kind}-ubyte").write_bytes(head + array.tobytes())


@pytest.mark.parametrize("own", [True, False], ids=["own", "catalogue"])
def test_a_record_of_data_that_changed_meanwhile_is_made_again(
    cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own: bool
) -> None:
    # Nobody looks at the report's figures here.
    monkeypatch.setattr("reports.figures.rendered", lambda figure: {"pdf": b"", "png": b""})
    name = f"npz:{tmp_path / 'mine.npz'}" if own else "mnist"
    places = ("--results", "out", "--data-root", "data")

    def run(*more: str) -> tuple[int, str]:
        size = ("--train-samples", "100", "--epochs", "1", "--clients", "2")
        answer = cli(*FAST[:4], *size, "--datasets", name, *places, *more)
        return answer.status, answer.err

    def write(seed: int) -> None:
        (write_own if own else write_mnist)(tmp_path, seed)

    write(0)
    assert run()[0] == 0
    assert "nothing to do: the run is done" in run()[1]
    write(1)
    _, said = run("--dry-run")
    assert "data changed since 1 run was recorded" in said
    status, said = run()
    assert status == 0
    assert "1 run done" in said
    (old,) = (tmp_path / "out" / "main" / "attempts").iterdir()
    assert "made from other data" in (old / "moved.json").read_text()
    records = [*(tmp_path / "out" / "main").glob("*/record.json"), old / "record.json"]
    prints = {json.loads(path.read_text())["metrics"]["dataset_fingerprint"] for path in records}
    assert len(prints) == len(records) == 2


def test_data_of_the_catalogue_that_is_not_here_is_neither_fetched_nor_missed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Nor are pictures decoded only to compare them with records."""
    from benchmark.cli import checks
    from benchmark.grid import Options

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("data was opened")

    monkeypatch.setattr(checks, "load", refuse)
    options = Options(results=tmp_path)
    nowhere = Location("mnist", None, (), ("nowhere",))
    monkeypatch.setattr(checks, "locate", lambda *_: nowhere)
    assert checks._fingerprint("mnist", 32, options) is None
    there = Location("food101", tmp_path, (tmp_path,), ())
    monkeypatch.setattr(checks, "locate", lambda *_: there)
    monkeypatch.setattr(checks, "is_decoded", lambda *_: False)
    assert checks._fingerprint("food101", 32, options) is None


def test_dry_run_runs_nothing(cli, tmp_path: Path) -> None:
    answer = cli(*FAST, "--seeds", "0", "1", "--dry-run")
    assert answer.status == 0, answer.err
    assert "fedavg (digits, seed 1)" in answer.out
    assert "2 to run" in answer.out
    assert "estimated cost" in answer.out
    assert not list(tmp_path.rglob("record.json"))


def test_a_dry_run_names_what_counts_no_work_of_its_own(cli) -> None:
    methods = ("--methods", "fedavg", "centralized", "ensemble")
    answer = cli(*methods, *FAST[2:], "--dry-run")
    assert answer.out.rstrip().endswith("; counted with no work of their own: fedavg, ensemble")
    assert "no work" not in cli("--methods", "centralized", *FAST[2:], "--dry-run").out


def test_dry_run_downloads_nothing(cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []

    def load(name: str, **values: object) -> object:
        asked.append(bool(values["download"]))
        raise DataError(f"{name} is not here")

    monkeypatch.setattr("benchmark.federation.data.datasets.load", load)
    answer = cli(*FAST, "--dry-run")
    assert answer.status == 0, answer.err
    assert asked == [False]
    assert "1 to run" in answer.out
    assert "cost not estimated: digits is not here" in answer.out


def test_a_dry_run_for_a_clusters_gpus_needs_none_here(
    cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    cluster = ("--engine", "ray", "--device", "cuda", "--precision", "bf16")
    answer = cli(*FAST, *cluster, "--dry-run")
    assert answer.status == 0, answer.err
    assert "1 to run" in answer.out
    assert "cost not estimated: " in answer.out
    assert "'cuda' is not available" in answer.out


@pytest.mark.skipif(os.name == "nt", reason="no such signals there")
@pytest.mark.long
@pytest.mark.parametrize(
    "by_terminal", [pytest.param(True, id="Ctrl-C"), pytest.param(False, id="SIGTERM")]
)
def test_signals_end_it_with_a_sentence(tmp_path: Path, by_terminal: bool) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmark", *FAST[:4], "--epochs", "100000"],
        start_new_session=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 600
    attempts = tmp_path / "results" / "main" / "attempts"
    while not attempts.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.5)
    if by_terminal:  # a terminal signals the whole group, children included
        os.killpg(process.pid, signal.SIGINT)
    else:
        process.terminate()
    out, err = process.communicate(timeout=600)
    assert process.returncode == 130
    assert "give the same command again" in err.splitlines()[-1]
    assert "Traceback" not in err
    assert out == ""


def _python(*arguments: str, cwd: Path, path: Sequence[Path]) -> subprocess.CompletedProcess[str]:
    """Run Python in a process of its own."""
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, path))},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


@pytest.mark.skipif(os.name == "nt", reason="no such signals there")
def test_a_signal_after_the_end_raises_nothing(tmp_path: Path) -> None:
    program = (
        "import os, signal; from benchmark.__main__ import main; main(['list', 'profiles']); "
        "os.kill(os.getpid(), signal.SIGTERM)"
    )
    done = _python("-c", program, cwd=tmp_path, path=[ROOT])
    assert done.returncode == -signal.SIGTERM
    assert done.stderr == ""


def test_foreign_datasets_package_is_named(tmp_path: Path) -> None:
    package = tmp_path / "site" / "datasets"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("", encoding="utf-8")
    program = "import sys, datasets; from benchmark.__main__ import main; sys.exit(main(['list']))"
    done = _python("-c", program, cwd=tmp_path, path=[tmp_path / "site", ROOT])
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert str(package) in done.stderr
    assert "'datasets'" in done.stderr


def test_foreign_datasets_package_later_on_the_path_is_harmless(tmp_path: Path) -> None:
    package = tmp_path / "site" / "datasets"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('the foreign one')")
    done = _python("-m", "benchmark", "list", "datasets", cwd=ROOT, path=[tmp_path / "site"])
    assert done.returncode == 0, done.stderr
    assert "digits" in done.stdout


def test_a_reader_that_leaves_is_no_error(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmark", "list"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == ""
    assert process.wait(timeout=600) == 0


def test_a_cluster_with_gpus_needs_none_here(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from benchmark.cli.verb_run import compute_of
    from benchmark.errors import UserError
    from benchmark.experiment import ExperimentSpec

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    asked = ExperimentSpec(device="cuda", precision="bf16", compile=True)
    with pytest.raises(UserError, match="'cuda' is not available"):
        compute_of(asked)
    compute = compute_of(asked, elsewhere=True)
    assert (compute.device, compute.precision, compute.compile) == ("cuda", "bf16", True)
    with pytest.raises(UserError, match="add --precision"):
        compute_of(ExperimentSpec(device="cuda"), elsewhere=True)
    assert compute_of(ExperimentSpec(), elsewhere=True).device == "cpu"
