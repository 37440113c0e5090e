"""``new-method`` writes a plugin that works, and a test that passes."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from benchmark.contract import Method
from benchmark.errors import UserError
from benchmark.scaffold import write_method, writing
from benchmark.testing.checks import draws_each_stream_once
from reports.measures import _spent


@pytest.mark.parametrize("kind", ["method", "distil"])
def test_package_of_its_own_keeps_the_contract(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = write_method("scaffold_sample", tmp_path / "pkg", kind=kind)
    assert written.project is not None
    # What `pip install -e` would leave behind: an entry point on the path.
    about = tmp_path / "pkg" / "scaffold_sample-0.1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: scaffold-sample\nVersion: 0.1\n")
    (about / "entry_points.txt").write_text(
        "[oneshot_fl.methods]\nscaffold_sample = scaffold_sample:ScaffoldSample\n"
    )
    monkeypatch.syspath_prepend(tmp_path / "pkg")
    importlib.invalidate_caches()
    from benchmark.testing import Bench, check_method

    check_method("scaffold_sample")
    # Another start and rule for its student, and unequal widths: a distilling one follows.
    if kind == "distil":
        rules = {"student_init": "aggregate", "student_batch_norm": "reestimate"}
        bench = Bench("scaffold_sample", {**rules, "widths": ["1/4,1/8"], "train_samples": 90})
        budget, clients = bench.spec.budget, bench.spec.scenario.partition.clients
        work = bench.method().workload(bench.spec.scenario, 90, budget)
        assert work == budget.distilled_images * (1 + clients / 3)
        draws_each_stream_once(bench)
        result = bench.first.result
        # Progress counts images, as that of built-in methods does: figures share an axis.
        assert result.server.snapshots[-1].step == budget.distilled_images
        spent = _spent({"details": result.output.details})
        assert spent["distilled_images"] == budget.distilled_images
        assert spent["student_steps"] == budget.distilled_images // 64
    sys.modules.pop("scaffold_sample")


def test_pyproject_declares_the_entry_point(tmp_path: Path) -> None:
    import tomllib

    written = write_method("my_method", tmp_path / "pkg")
    assert written.project is not None
    project = tomllib.loads(written.project.read_text(encoding="utf-8"))["project"]
    assert project["name"] == "oneshot-fl-my-method"
    assert project["entry-points"] == {"oneshot_fl.methods": {"my_method": "my_method:MyMethod"}}


def test_inside_the_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "project_root", lambda: tmp_path)
    written = write_method("my_method")
    assert written.plugin == tmp_path / "methods" / "my_method.py"
    assert written.test == tmp_path / "tests" / "methods" / "test_my_method.py"
    assert written.project is None
    assert "from methods.my_method import MyMethod" in written.test.read_text(encoding="utf-8")
    for path in (written.plugin, written.test):
        compile(path.read_text(encoding="utf-8"), str(path), "exec")
    with pytest.raises(UserError, match="exists already"):
        write_method("my_method")


@pytest.mark.parametrize("name", ["upload", "global_model", "validation_error", "method"])
def test_a_method_may_be_called_as_what_its_file_imports(name: str, tmp_path: Path) -> None:
    written = write_method(name, tmp_path / "pkg")
    names: dict[str, object] = {"__name__": "written"}
    exec(compile(written.plugin.read_text(encoding="utf-8"), "written", "exec"), names)
    camel = "".join(part.capitalize() for part in name.split("_"))
    assert issubclass(names[f"{camel}Method"], Method)  # type: ignore[arg-type]
    test = written.test.read_text(encoding="utf-8")
    assert f"import {camel}Method, {camel}MethodConfig" in test
    assert test.count("from pydantic import ValidationError\n") == 1


@pytest.mark.parametrize("kind", ["method", "distil"])
def test_written_files_pass_the_linter(kind: str, tmp_path: Path) -> None:
    pytest.importorskip("ruff")
    written = write_method("a_rather_long_name_for_a_method", tmp_path / "pkg", kind=kind)
    config = Path(__file__).resolve().parents[3] / "pyproject.toml"
    for command in ("check", "format"):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", command, "--config", str(config)]
            + (["--check"] if command == "format" else [])
            + [str(written.plugin)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    "name", ["", "My", "my-method", "1st", "class", "all", "blocks", "datasets", "x_", "a.b", "é"]
)
def test_bad_names(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match="name"):
        write_method(name, tmp_path)
    assert not list(tmp_path.iterdir())


def test_taken_names_and_files(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="method named 'fedavg' is there already"):
        write_method("fedavg", tmp_path)
    with pytest.raises(UserError, match="module of Python"):
        write_method("json", tmp_path)
    (tmp_path / "test_mine.py").write_text("", encoding="utf-8")
    with pytest.raises(UserError, match=r"test_mine\.py exists already"):
        write_method("mine", tmp_path)
    assert not (tmp_path / "mine.py").exists()


def test_command(cli, tmp_path: Path) -> None:
    answer = cli("new-method", "some_method", "--output", "pkg")
    assert answer.status == 0
    assert (tmp_path / "pkg" / "some_method.py").is_file()
    assert "pip install --no-deps -e pkg" in answer.out
    assert answer.err == ""
