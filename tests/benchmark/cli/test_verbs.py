"""What the verbs print, remove and return."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmark.doctor import Finding, Section, cpu_features, examine, markdown, problems, shortened
from benchmark.store import Store


def test_help_names_all_verbs(cli) -> None:
    for argv in ((), ("--help",), ("help",)):
        answer = cli(*argv)
        assert answer.status == 0
        for verb in (
            "run",
            "list",
            "datasets",
            "describe",
            "split",
            "report",
            "repeat",
            "clean",
            "doctor",
            "new-method",
        ):
            assert f"  {verb} " in answer.out
        assert answer.err == ""


@pytest.mark.parametrize(
    "verb",
    [
        *("run", "list", "datasets", "describe", "split", "report", "repeat", "clean", "doctor"),
        "new-method",
    ],
)
def test_help_of_each_verb(cli, verb: str) -> None:
    answer = cli(verb, "--help")
    assert answer.status == 0
    assert f"python -m benchmark {verb}" in answer.out
    assert "--log-level" in answer.out


def test_version(cli) -> None:
    import benchmark

    assert cli("--version").out == f"oneshot-fl {benchmark.__version__}\n"


def test_list_all(cli) -> None:
    answer = cli("list")
    assert answer.status == 0
    for name in ("fedavg", "digits", "fashion_mnist", "resnet18", "smoke", "paper"):
        assert name in answer.out


@pytest.mark.parametrize("argv", [("list", "datasets"), ("run", "--help")])
def test_own_data_is_told_of_where_datasets_are_looked_up(cli, argv: tuple[str, ...]) -> None:
    said = " ".join(cli(*argv).out.split())
    assert "folder:PATH" in said
    assert "npz:PATH" in said


def test_list_shows_broken_plugins(cli, plugin, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = plugin("listed_broken", "raise RuntimeError('out of order')\n", "listed_broken")
    monkeypatch.syspath_prepend(folder)
    answer = cli("list", "methods")
    assert answer.status == 0
    assert "not installed: listed_broken: RuntimeError: out of order" in answer.out
    assert "fedavg" in answer.out


def test_describe_shows_every_parameter(cli) -> None:
    from benchmark.registry import discover

    info = discover().info("fedavg")
    answer = cli("describe", "fedavg")
    assert answer.status == 0
    for part in (info.summary, info.link, info.uploads, info.plugin, *info.deviations):
        assert part is not None
        assert part in answer.out
    for item in info.parameters:
        row = next(line for line in answer.out.splitlines() if line.startswith(f"{item.name} "))
        assert json.dumps(item.default) in row
        assert item.source in row


@pytest.fixture
def filled(tmp_path: Path) -> Iterator[Path]:
    """Fill a results folder with two experiments, attempts and two kinds of cache."""
    for name in ("main", "other"):
        for part in ("0123456789abcdef", "attempts/0123456789abcdef-1"):
            folder = tmp_path / "results" / name / part
            folder.mkdir(parents=True)
            (folder / "record.json").write_bytes(bytes(2000))
    for kind in ("client", "data"):
        folder = tmp_path / "results" / ".cache" / kind
        folder.mkdir(parents=True)
        (folder / "x").write_bytes(bytes(5000))
    return tmp_path / "results"


def test_clean_shows_and_keeps(cli, filled: Path) -> None:
    answer = cli("clean")
    assert answer.status == 0
    for part in ("cache: client", "cache: data", "experiment: main", "attempts: other", "5.0 kB"):
        assert part in answer.out
    assert len(list(filled.rglob("record.json"))) == 4


def test_clean_removes_one_kind(cli, filled: Path) -> None:
    assert cli("clean", "--cache-kind", "client", "--yes").status == 0
    assert not (filled / ".cache" / "client").exists()
    assert (filled / ".cache" / "data" / "x").exists()


def test_clean_removes_the_cache(cli, filled: Path) -> None:
    answer = cli("clean", "--cache", "--yes")
    assert "removed 10.0 kB" in answer.out
    assert not list((filled / ".cache").glob("*/x"))
    assert len(list(filled.rglob("record.json"))) == 4


def test_clean_removes_an_experiment(cli, filled: Path) -> None:
    assert cli("clean", "--experiment", "other", "--yes").status == 0
    assert not (filled / "other").exists()
    assert (filled / "main" / "0123456789abcdef").exists()


def test_clean_attempts_of_an_experiment_keeps_its_records(cli, filled: Path) -> None:
    assert cli("clean", "--attempts", "--experiment", "other", "--yes").status == 0
    assert not (filled / "other" / "attempts").exists()
    assert (filled / "other" / "0123456789abcdef").exists()
    assert (filled / "main" / "attempts").exists()


def test_clean_leaves_an_experiment_that_is_worked_on(cli, filled: Path) -> None:
    from benchmark.store import Store

    command, run_id = Store(filled).experiment("other"), "f" * 16
    with command.lock(run_id):
        attempt = command.begin(run_id)
        answer = cli("clean", "--experiment", "other", "--yes")
        assert answer.status == 2
        assert "experiment 'other' is being worked on" in answer.err
        assert cli("clean", "--attempts", "--yes").status == 0
        assert list((filled / "other" / "attempts").iterdir()) == [attempt.path]
    assert not (filled / "main" / "attempts").exists()
    assert cli("clean", "--experiment", "other", "--yes").status == 0


@pytest.mark.parametrize("flags", [("--cache",), ("--cache-kind", "client")])
def test_clean_leaves_the_cache_of_runs_at_work(cli, filled: Path, flags: tuple[str, ...]) -> None:
    from benchmark.store import Store

    command, run_id = Store(filled).experiment("other"), "f" * 16
    with command.lock(run_id):
        command.begin(run_id)
        answer = cli("clean", *flags, "--yes")
        assert answer.status == 2
        assert "experiment 'other' is being worked on" in answer.err
        assert (filled / ".cache" / "client" / "x").exists()
    assert cli("clean", *flags, "--yes").status == 0


@pytest.mark.parametrize(("said", "kept"), [("n", True), ("", True), ("y", False)])
def test_clean_asks(
    cli, filled: Path, monkeypatch: pytest.MonkeyPatch, said: str, kept: bool
) -> None:
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", lambda _: said)
    assert cli("clean", "--cache").status == 0
    assert (filled / ".cache" / "data" / "x").exists() is kept


def test_doctor_looks_at_everything(tmp_path: Path) -> None:
    sections = {section.title: section for section in examine(tmp_path / "results", None)}
    assert {"software", "hardware", "torch", "data", "disk", "plugins"} <= set(sections)
    found = {finding.name: finding for part in sections.values() for finding in part.findings}
    assert found["digits"].value.startswith("found in")
    assert found["datasets"].problem == ""
    assert "fedavg" in found["usable"].value
    assert found["default precision"].value in ("fp32", "bf16")


def test_doctor_survives_a_broken_installation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> None:
        raise ImportError("libtorch.so: not found")

    monkeypatch.setattr("benchmark.doctor._torch", broken)
    sections = examine(tmp_path, None)
    assert "torch: ImportError: libtorch.so: not found" in problems(sections)


def test_doctor_finds_a_foreign_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.machinery
    import importlib.util

    find_spec = importlib.util.find_spec

    def foreign(name: str, package: str | None = None) -> object:
        if name != "datasets":
            return find_spec(name, package)
        spec = importlib.machinery.ModuleSpec(name, None, is_package=True)
        spec.submodule_search_locations = ["/usr/lib/python3/datasets"]
        return spec

    monkeypatch.setattr(importlib.util, "find_spec", foreign)
    wrong = [line for line in problems(examine(tmp_path, None)) if line.startswith("datasets:")]
    assert len(wrong) == 1
    assert "another package of that name comes first" in wrong[0]


def test_report_hides_the_home_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/anna")
    sections = [
        Section("x", [Finding("a", "/home/anna/data", "see /home/anna"), Finding("b", "c")])
    ]
    text = markdown(sections)
    assert "anna" not in text
    assert "- a: `~/data` **problem:** see ~" in text
    assert shortened("/home/annabel/x") == "/home/annabel/x"


def test_report_takes_a_name_or_a_folder(cli, tmp_path: Path) -> None:
    for root, name in (("results", "main"), ("elsewhere", "other")):
        Store(tmp_path / root).experiment(name).update_manifest({})
    answers = [cli("report", named) for named in ("main", "results/main", "elsewhere/other")]
    said = [answer.err.splitlines()[0] for answer in answers]
    assert said == ["report of results/main"] * 2 + ["report of elsewhere/other"]
    assert [answer.status for answer in answers] == [0, 0, 0]
    within = cli("report", "--results", "results/main")
    assert (within.status, "results/main is itself an experiment" in within.err) == (2, True)
    # A name is looked for in --results alone, whatever folder of that name lies around.
    Store(tmp_path).experiment("near").update_manifest({})
    assert "near" in cli("report", "near").err
    assert cli("report", "near").status == 2


@pytest.mark.parametrize(
    ("content", "features"),
    [
        ("flags\t\t: fpu avx2 avx512_bf16 amx_bf16\n", ["amx_bf16", "avx512_bf16", "avx2"]),
        ("Features\t: fp asimd bf16\n", ["asimd", "bf16"]),
        ("nothing\n", []),
    ],
)
def test_cpu_features(tmp_path: Path, content: str, features: list[str]) -> None:
    (tmp_path / "cpuinfo").write_text(content, encoding="utf-8")
    assert cpu_features(tmp_path / "cpuinfo") == features


def test_cpu_features_without_the_file(tmp_path: Path) -> None:
    assert cpu_features(tmp_path / "none") == []


def test_doctor_report_is_markdown(cli) -> None:
    answer = cli("doctor", "--report")
    assert answer.out.startswith("### oneshot-fl doctor\n")
    assert "- torch: `" in answer.out
    assert answer.err == ""
