"""The Ray engine on a real cluster of several nodes, one of which is killed on the way."""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))
from grids import ROOT, Silent, metrics_of, planned, run_grid  # noqa: E402

from benchmark.cli.main import main  # noqa: E402
from benchmark.executor import Job, ray_node  # noqa: E402
from benchmark.executor.ray_engine import RETRIES, RayExecutor  # noqa: E402
from benchmark.grid import PRELOAD, TARGET, Options, execute  # noqa: E402
from benchmark.store import Status, Store  # noqa: E402

# Runs of some seconds: one that is over when word of it arrives could not be killed any more.
LONG: dict[str, Any] = {"train_samples": 900, "epochs": 120}
GRID: dict[str, Any] = {"methods": ["fedavg", "ensemble"], "seeds": [0, 1], **LONG}


class Nodes:
    """A cluster of a head that computes nothing and two nodes of one CPU."""

    def __init__(self, cluster: Any) -> None:
        self.cluster = cluster
        self.nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
        cluster.wait_for_nodes()

    def kill_one(self) -> None:
        self.cluster.remove_node(self.nodes.pop(), allow_graceful=False)


@pytest.fixture
def nodes(monkeypatch: pytest.MonkeyPatch) -> Iterator[Nodes]:
    ray = pytest.importorskip("ray")
    cluster_utils = pytest.importorskip("ray.cluster_utils")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    paths = [str(HERE), str(HERE.parents[2])]
    monkeypatch.setenv("PYTHONPATH", ":".join(paths))
    small = {"num_cpus": 0, "object_store_memory": 80 * 1024**2, "include_dashboard": False}
    cluster = cluster_utils.Cluster(initialize_head=True, head_node_args=small)
    try:
        yield Nodes(cluster)
    finally:
        ray.shutdown()
        cluster.shutdown()


def executor(nodes: Nodes, target: str = TARGET, **options: Any) -> RayExecutor:
    options.setdefault("preload", PRELOAD if target == TARGET else ())
    return RayExecutor(target, address=nodes.cluster.address, **options)


def warm_up(nodes: Nodes) -> None:
    """Have processes ready on both nodes: else one has done all before the other begins."""
    warm = executor(nodes, "executor_targets:double", preload=PRELOAD)
    assert len(list(warm.run([Job(str(n) * 16, {"number": n}) for n in range(2)]))) == 2


class Killer(Silent):
    """Kills a node as soon as there is a run at work on each of them."""

    def __init__(self, nodes: Nodes) -> None:
        super().__init__()
        self.nodes = nodes
        self.at_work: set[str] = set()
        self.killed = False

    def progress(
        self, run: Any, phase: str, step: int, total: int, scalars: dict[str, float]
    ) -> None:
        self.at_work.add(run.spec.run_id)
        if len(self.at_work) == 2 and not self.killed:
            self.killed = True
            self.nodes.kill_one()

    def finished(self, run: Any, record: Any, seconds: float) -> None:
        super().finished(run, record, seconds)
        self.at_work.discard(run.spec.run_id)


@pytest.mark.long
def test_a_small_grid_on_two_nodes_is_that_of_one_machine(nodes: Nodes, tmp_path: Path) -> None:
    tiny = {"methods": ["fedavg", "ensemble"], "train_samples": 100, "epochs": 1, "clients": 2}
    experiment, runs = planned(**tiny)
    shared = tmp_path / "cluster"
    options = Options(shared, workers=2, retries=RETRIES, share_clients=False)
    far = executor(nodes, ship=True)
    result = execute(experiment, runs, [], options, Silent(), executor=far)
    assert (result.done, result.failed) == (2, 0)
    run_grid(tmp_path / "here", **tiny)
    assert metrics_of(shared) == metrics_of(tmp_path / "here")


@pytest.mark.slow
@pytest.mark.parametrize("ship", [False, True])
def test_a_killed_node_costs_no_record(nodes: Nodes, tmp_path: Path, ship: bool) -> None:
    serial = tmp_path / "serial"
    run_grid(serial, **GRID)
    results = tmp_path / "ray"
    experiment, runs = planned(**GRID)
    listener = Killer(nodes)
    warm_up(nodes)
    result = execute(
        experiment,
        runs,
        [],
        Options(results=results, workers=2, retries=RETRIES),
        listener,
        executor=executor(nodes, ship=ship),
    )
    assert listener.killed
    assert any("once more" in note for note in listener.notes), listener.notes
    assert (result.done, result.failed) == (4, 0)
    assert metrics_of(results) == metrics_of(serial)


@pytest.mark.slow
def test_clients_are_tasks_of_their_own(nodes: Nodes, tmp_path: Path) -> None:
    """One run on two nodes: the other node trains clients of it."""
    one = {"methods": ["fedavg"], "clients": 6, **LONG}
    warm_up(nodes)
    serial, results = tmp_path / "serial", tmp_path / "ray"
    run_grid(serial, **one)
    experiment, runs = planned(**one)
    options = Options(results=results, workers=2, retries=RETRIES)
    made = execute(experiment, runs, [], options, Silent(), executor=executor(nodes))
    assert (made.done, made.failed) == (1, 0)
    assert metrics_of(results) == metrics_of(serial)
    (record,) = Store(results).experiment("main").records()
    assert record.timing["cached_client_seconds"] > 0


@pytest.mark.slow
def test_jobs_end_as_on_one_machine(nodes: Nodes, tmp_path: Path) -> None:
    ways = {
        "double": Status.DONE,
        "fail": Status.FAILED,
        "killed": Status.FAILED,
        "diverge": Status.DIVERGED,
        "sleep": Status.TIMED_OUT,
    }
    jobs = [
        Job(
            f"{number:016x}",
            {"function": name, "number": 21, "pids": str(tmp_path / "pids")},
            timeout=8.0 if name == "sleep" else None,
        )
        for number, name in enumerate(ways)
    ]
    found = {o.run_id: o for o in executor(nodes, "executor_targets:by_name").run(jobs)}
    outcomes = {name: found[job.run_id] for name, job in zip(ways, jobs, strict=True)}
    assert {name: outcome.status for name, outcome in outcomes.items()} == ways
    assert outcomes["double"].result == 42
    assert outcomes["killed"].lost
    assert not outcomes["fail"].lost
    assert outcomes["diverge"].step == 17


@pytest.mark.slow
def test_ctrl_c_ends_the_tasks(nodes: Nodes, tmp_path: Path) -> None:
    import psutil

    pids = tmp_path / "pids"
    job = Job("0" * 16, {"pids": str(pids)})

    def interrupt(event: object) -> None:
        raise KeyboardInterrupt

    running = executor(nodes, "executor_targets:sleep").run([job], interrupt)
    assert next(running).status is Status.INTERRUPTED
    with pytest.raises(KeyboardInterrupt):
        next(running)
    noted = [int(pid) for pid in pids.read_text().split()]
    deadline = time.monotonic() + 10
    while any(psutil.pid_exists(pid) for pid in noted) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(psutil.pid_exists(pid) for pid in noted)


def test_what_a_killed_job_left_on_a_node_is_removed_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = (
        "import os, pathlib, sys, tempfile; tempfile.tempdir = sys.argv[1];"
        "from benchmark.executor.ray_node import working_place;"
        "(working_place() / 'model').touch(); os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, check=False)
    assert done.returncode == -signal.SIGKILL
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    folder = ray_node.own_folder()
    (folder / "cache").mkdir()
    (left,) = (path for path in folder.iterdir() if path.name != "cache")
    place, beside = ray_node.working_place(), ray_node.working_place()
    assert not left.exists()
    assert place.is_dir()
    assert beside.is_dir()
    assert (folder / "cache").is_dir()
    assert folder.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("flag", [["--address", "head:6379"], ["--ship"]])
def test_flags_of_ray_are_refused_beside_another_engine(
    flag: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", *flag, "--results", str(tmp_path)]) == 2
    assert f"{flag[0]} is for --engine ray only" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("127.0.0.1:1", "nobody answers"),
        ("head", "host:port"),
        ("ray://head:10001", "host:port"),
        ("127.0.0.1:99999", "nobody answers"),
    ],
)
def test_a_wrong_address_is_one_clear_line_at_once(address: str, says: str) -> None:
    from benchmark.errors import UserError

    pytest.importorskip("ray")
    began = time.monotonic()
    with pytest.raises(UserError, match=says):
        RayExecutor(TARGET, address=address)
    assert time.monotonic() - began < 15


def test_a_missing_ray_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmark.errors import UserError

    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match="Ray is not installed"):
        RayExecutor(TARGET)
