"""Bad plugins: one line that names plugin and reason; they stop no other."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from cli_lab import check

Plugin = Callable[[str, str, str], Path]

CLIENT = "def client_update(self, client, broadcast): ..."
SERVER = "def server_update(self, uploads, server): ..."


def source_of(*lines: str) -> str:
    """Return a plugin's source: one class of these lines."""
    body = "".join(f"    {line}\n" for line in lines)
    return f"from benchmark.contract import GlobalModel, Method\nclass Mine(Method):\n{body}"


BAD_PLUGINS = {
    "raises on import": ("raise RuntimeError('no such GPU')\n", "no such GPU"),
    "does not parse": ("def broken(:\n", "SyntaxError"),
    "lacks a module": ("import not_there_at_all\n", "not_there_at_all"),
    "has no method": ("x = 1\n", "expected one public subclass of Method"),
    "has no name": (
        source_of("summary = 'x'", CLIENT, SERVER),
        "has no name",
    ),
    "lacks a function": (
        source_of("name, summary = '{name}', 'x'", CLIENT),
        "does not define server_update",
    ),
    "has a wrong Config": (
        source_of("name, summary, Config = '{name}', 'x', dict", CLIENT, SERVER),
        "Config must be a subclass of MethodConfig",
    ),
    "has a parameter without default": (
        "from benchmark.contract import MethodConfig\nclass C(MethodConfig):\n    rate: float\n"
        + source_of("name, summary, Config = '{name}', 'x', C", CLIENT, SERVER),
        "parameter 'rate' has no default",
    ),
}


@pytest.mark.parametrize("case", BAD_PLUGINS)
def test_bad_plugins(cli, plugin: Plugin, monkeypatch: pytest.MonkeyPatch, case: str) -> None:
    source, reason = BAD_PLUGINS[case]
    name = f"bad_{case.replace(' ', '_')}".lower()
    folder = plugin(name, source.replace("{name}", name), name)
    monkeypatch.syspath_prepend(folder)
    check(cli("--methods", name), [name, reason])


ANSWERS = {
    "unsupported": "def unsupported(self, scenario): return {}[scenario.model.family]",
    "workload": "def workload(self, scenario, samples, budget): return samples // 0",
    "unsupported, by leaving": "def unsupported(self, scenario): raise SystemExit(3)",
    "rounds": "rounds = property(lambda self: self.config.not_there)",
    "__init__": "def __init__(self, config): raise RuntimeError('no such GPU')",
}


@pytest.mark.parametrize("what", ANSWERS)
def test_a_plugin_that_fails_while_runs_are_planned_stops_no_other(
    cli, plugin: Plugin, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    name = f"fails_in_{re.sub('[^a-z]', '', what)}"
    source = source_of(f"name, summary = '{name}', 'x'", CLIENT, SERVER, ANSWERS[what])
    monkeypatch.syspath_prepend(plugin(name, source, name))
    monkeypatch.setattr("benchmark.cli.dry_run._cost", lambda *_: "")
    check(cli("--methods", name, "--dry-run"), [f"method '{name}' can't be used: "])
    every = cli("--methods", "all", "--seeds", "0", "1", "--dry-run")
    assert every.status == 0, every.err
    assert f"not installed: {name}: method '{name}' can't be used: " in every.out
    assert every.out.count("mosaic (digits") == 2
    assert f"{name} (digits" not in every.out


def test_plugin_that_takes_a_name(cli, plugin: Plugin, monkeypatch: pytest.MonkeyPatch) -> None:
    source = source_of("name, summary = 'fedavg', 'x'", CLIENT, SERVER)
    monkeypatch.syspath_prepend(plugin("second_fedavg", source, "fedavg"))
    check(cli("--methods", "fedavg"), ["second_fedavg.py", "duplicates the name", "fedavg.py"])


def test_a_broken_plugin_that_a_profile_has_settings_for_stops_no_other(
    cli, plugin: Plugin, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = source_of("name, summary = 'dense', 'x'", CLIENT, SERVER)
    monkeypatch.syspath_prepend(plugin("second_dense", source, "dense"))
    monkeypatch.setattr("benchmark.cli.dry_run._cost", lambda *_: "")
    alone = cli("--methods", "fedavg", "--dry-run")
    assert alone.status == 0, alone.err
    assert "1 to run" in alone.out
    every = cli("--methods", "all", "--dry-run")
    assert every.status == 0, every.err
    assert "not installed: dense: " in every.out
    assert "mosaic (digits" in every.out
    assert "dense (digits" not in every.out
    # Who names it learns why it can't be had.
    check(cli("--methods", "fedavg", "--set", "dense.batch_norm=3"), ["dense", "duplicates"])


@pytest.mark.long
def test_plugin_that_returns_a_wrong_type(
    cli, plugin: Plugin, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = source_of(
        "name, summary = 'wrong_type', 'x'",
        "def client_update(self, client, broadcast): return {'model': 1}",
        "def server_update(self, uploads, server): return GlobalModel(server.global_model)",
    )
    monkeypatch.syspath_prepend(plugin("wrong_type", source, "wrong_type"))
    answer = cli("--methods", "wrong_type", "--profile", "smoke", "--quiet", "--results", "out")
    check(answer, ["wrong_type", "client_update returned a dict, expected Upload"])


@pytest.mark.long
def test_a_plugin_that_fails_at_work_says_where(
    cli, plugin: Plugin, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = source_of(
        "name, summary = 'fails_at_work', 'x'",
        "def client_update(self, client, broadcast): return model2",
        SERVER,
    )
    monkeypatch.syspath_prepend(plugin("fails_at_work", source, "fails_at_work"))
    run = ("--methods", "fails_at_work", "--profile", "smoke", "--quiet", "--no-report")
    answer = cli(*run)
    assert answer.status == 1
    (line,) = answer.err_lines
    assert "NameError: name 'model2' is not defined (fails_at_work.py:4, in client_update" in line
    file = line.partition("; traceback: ")[2].rstrip(")")
    assert "model2" in Path(file).read_text()
    assert Path(file).read_text() in cli(*run, "--log-level", "debug").err
