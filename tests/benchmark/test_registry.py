"""Plugins: found, described, cached by their source, and refused with a reason."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import plugin_lab
import pytest

from benchmark.errors import UserError
from benchmark.experiment import plan, resolve
from benchmark.registry import PluginError, discover, load
from benchmark.registry.sources import part_files, part_versions, plugin_digest
from benchmark.specs import ComputeSpec, RunSpec

HEAD = "from benchmark.contract import GlobalModel, Method, MethodConfig, Upload\n"
BODY = """
    def client_update(self, client, broadcast):
        return Upload()

    def server_update(self, uploads, server):
        return GlobalModel(server.global_model)
"""


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder on the path, into which plugins are installed, and a cache of its own."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.setenv("ONESHOT_FL_CACHE", str(tmp_path / "cache"))
    monkeypatch.syspath_prepend(folder)
    # A module written twice within a second may otherwise be taken from its first bytecode.
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    before = set(sys.modules)
    yield folder
    for name in set(sys.modules) - before:
        file = getattr(sys.modules[name], "__file__", None) or ""
        if file.startswith(str(folder)):
            del sys.modules[name]


def forget(*names: str) -> None:
    for name in names:
        sys.modules.pop(name, None)


def test_an_installed_plugin_is_found_and_described(lab: Path) -> None:
    path = plugin_lab.install(lab)
    registry = discover()
    info = registry.info("probe")
    assert registry.broken == {}
    assert {"fedavg", "probe"} <= set(registry.methods)
    assert (info.module, info.path, info.attribute) == ("probe_plugin", str(path), "Probe")
    assert info.kind == "method"
    assert info.uses == ("weights",)
    (parameter,) = info.parameters
    assert (parameter.name, parameter.default, parameter.source) == ("scale", 1.0, "ours")
    assert parameter.meaning == "factor on the average"
    assert info.for_record()["name"] == "probe"
    assert load(info).name == "probe"


USES = {
    "best_client": {"weights", "validation data"},
    "centralized": {"all data"},
    "class_share": {"weights", "label counts"},
    "co_boosting": {"weights"},
    "compose": {"weights", "all data"},
    "dense": {"weights"},
    "dense_cb": {"weights"},
    "ensemble": {"weights"},
    "fedavg": {"weights", "sample counts"},
    "federated_dropout": {"weights", "label sets"},
    "fedrolex": {"weights", "label sets"},
    "heterofl": {"weights", "label sets"},
    "mosaic": {"weights", "sample counts", "label counts", "prototypes", "generators"},
}
"""What each method reads beyond its config: tables group by it, so it is not to change unseen."""


def test_built_in_methods_declare_what_they_use() -> None:
    assert {name: set(info.uses) for name, info in discover().methods.items()} == USES


def test_an_entry_point_may_name_the_class(lab: Path) -> None:
    source = plugin_lab.SOURCE + "\n\nclass Other(Probe):\n    name = 'other'\n"
    plugin_lab.install(lab, source, point="x = probe_plugin:Other")
    assert load(discover().info("other")).__name__ == "Other"


def listing(lab: Path, cache: Path) -> tuple[set[str], set[str]]:
    """Return the methods that a fresh process lists, and which watched modules it imported."""
    code = (
        "import os, sys; os.environ['ONESHOT_FL_CACHE'] = sys.argv[1];"
        "from benchmark.registry import discover; found = discover();"
        "print(' '.join(found.methods)); print(' '.join(found.broken));"
        "print(' '.join(m for m in ('torch', 'probe_plugin', 'methods.fedavg')"
        " if m in sys.modules))"
    )
    done = plugin_lab.python(lab, "-c", code, str(cache))
    assert done.returncode == 0, done.stderr
    methods, broken, imported = (set(line.split()) for line in done.stdout.split("\n")[:3])
    assert broken == set()
    return methods, imported


@pytest.mark.long
def test_the_second_listing_imports_nothing(lab: Path, tmp_path: Path) -> None:
    path = plugin_lab.install(lab)
    cache = tmp_path / "plugins"
    methods, imported = listing(lab, cache)
    assert "probe" in methods
    assert imported == {"torch", "probe_plugin", "methods.fedavg"}
    assert listing(lab, cache) == (methods, set())
    path.write_text(path.read_text() + "\n# a change\n")
    again, imported = listing(lab, cache)
    assert again == methods
    assert "probe_plugin" in imported
    assert "methods.fedavg" not in imported  # only what changed
    assert listing(lab, cache) == (methods, set())


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"version": -1, "plugins": {}}'])
def test_a_damaged_metadata_cache_is_written_anew(lab: Path, tmp_path: Path, damage: str) -> None:
    plugin_lab.install(lab)
    first = discover()
    file = tmp_path / "cache" / "plugins.json"
    sound = file.read_text()
    file.write_text(damage)
    assert discover() == first
    assert file.read_text() == sound


def test_an_edited_plugin_has_another_digest(lab: Path) -> None:
    path = plugin_lab.install(lab)
    old = discover().info("probe")
    text = path.read_text()
    path.write_text(text.replace("scale: float = parameter(1.0", "scale: float = parameter(2.0"))
    with pytest.raises(PluginError, match=r"'probe': .* changed while it was being used"):
        load(old)
    forget("probe_plugin")
    new = discover().info("probe")
    assert new.plugin != old.plugin
    assert new.parameters[0].default == 2.0
    path.write_bytes(text.replace("\n", "\r\n").encode())
    assert plugin_digest(path) == old.plugin, "line endings don't count"


def test_what_a_plugin_says_is_new_at_once_and_its_runs_are_not_stale(lab: Path) -> None:
    path = plugin_lab.install(lab)
    old = discover().info("probe")
    path.write_text(path.read_text().replace(f'summary = "{old.summary}"', 'summary = "new"'))
    forget("probe_plugin")
    new = discover().info("probe")
    assert (new.summary, new.plugin) == ("new", old.plugin)


def test_a_plugin_is_loaded_from_where_it_lies_on_this_node(lab: Path, tmp_path: Path) -> None:
    path = plugin_lab.install(lab)
    here = discover().info("probe")
    planned = here.model_copy(update={"path": str(tmp_path / "elsewhere" / path.name)})
    assert load(planned).name == "probe"
    path.write_text(path.read_text() + "\nANOTHER = True\n")
    with pytest.raises(
        PluginError, match=r"'probe': .*same version of both on every node"
    ) as error:
        load(planned)
    assert str(path) in str(error.value)
    assert planned.path in str(error.value)


def test_a_folder_is_digested_whole(tmp_path: Path) -> None:
    folder = tmp_path / "method"
    (folder / "deep").mkdir(parents=True)
    (folder / "__init__.py").write_text("from method.deep import x\n")
    (folder / "deep" / "x.py").write_text("A = 1\n")
    before = plugin_digest(folder / "__init__.py")
    (folder / "__pycache__").mkdir()
    (folder / "__pycache__" / "junk.py").write_text("")
    assert plugin_digest(folder / "__init__.py") == before
    (folder / "deep" / "x.py").write_text("A = 2\n")
    assert plugin_digest(folder / "__init__.py") != before
    (folder / "prior.json").write_text("[0.5, 0.5]")
    data = plugin_digest(folder / "__init__.py")
    (folder / "prior.json").write_text("[0.4, 0.6]")
    assert plugin_digest(folder / "__init__.py") != data, "a table decides numbers, too"


def package(lab: Path) -> Path:
    """Install a package whose plugin takes helpers in every way there is."""
    top = lab / "acme_fl"
    (top / "tools").mkdir(parents=True)
    (top / "__init__.py").write_text('"""Nothing but words."""\n')
    (top / "tools" / "__init__.py").write_text("LIMIT = 3\n")
    (top / "tools" / "near.py").write_text("from .. import far\n")
    (top / "tools" / "unused.py").write_text("B = 1\n")
    (top / "plain.py").write_text("C = 1\n")
    (top / "acme.py").write_text(
        "import acme_fl.plain\n"
        "from .tools import near\n"
        + HEAD
        + "class Acme(Method[MethodConfig]):\n    name = 'acme'\n    summary = 's'\n"
        + BODY
    )
    (top / "far.py").write_text("VERSION = '7'\nimport methods.blocks.schedule\n")
    plugin_lab.add_metadata(lab, "acme_fl", "acme = acme_fl.acme:Acme")
    return top


def test_parts_are_what_a_plugin_imports_near_and_far(lab: Path) -> None:
    top = package(lab)
    parts = discover().info("acme").parts
    assert set(parts) == {
        "acme_fl.far",
        "acme_fl.plain",
        "acme_fl.tools",
        "acme_fl.tools.near",
        "methods.blocks.schedule",
    }
    assert parts["acme_fl.far"] == "7"
    for name in ("plain.py", "tools/near.py", "tools/__init__.py"):
        before = discover().info("acme")
        (top / name).write_text((top / name).read_text() + "changed = 1\n")
        after = discover().info("acme")
        assert after.plugin == before.plugin
        assert after.parts != before.parts, f"{name} is a part"
        with pytest.raises(PluginError, match="or a part of it changed"):
            load(before)
    before = discover().info("acme")
    (top / "far.py").write_text((top / "far.py").read_text() + "D = 1\n")
    (top / "tools" / "unused.py").write_text("B = 2\n")
    assert discover().info("acme").parts == before.parts
    (top / "far.py").write_text("VERSION = '8'\nimport methods.blocks.schedule\n")
    assert discover().info("acme").parts["acme_fl.far"] == "8"


def test_a_run_of_an_edited_part_is_another_run_of_the_same_cell(lab: Path) -> None:
    """Or a record that older code made would be taken for the new code's."""
    top = package(lab)

    def planned() -> RunSpec:
        forget("acme_fl", "acme_fl.acme", "acme_fl.far", "acme_fl.tools", "acme_fl.tools.near")
        experiment = resolve({"profile": "smoke", "methods": ["acme"]}, {}, "test")
        runs, _ = plan(experiment, discover(), ComputeSpec())
        return runs[0].spec

    before = planned()
    (top / "far.py").write_text("VERSION = '8'\nimport methods.blocks.schedule\n")
    after = planned()
    assert after.run_id != before.run_id
    assert after.cell_id == before.cell_id


@pytest.mark.parametrize("installed", ["top_level.txt", "RECORD", None])
def test_a_module_that_comes_with_the_plugin_is_a_part(
    lab: Path, monkeypatch: pytest.MonkeyPatch, installed: str | None
) -> None:
    path = plugin_lab.install(lab)
    path.write_text("import probe_tools\nimport stranger\n" + path.read_text())
    (lab / "probe_tools.py").write_text("A = 1\n")
    (lab / "stranger.py").write_text("B = 1\n")
    (info,) = lab.glob("*.dist-info")
    if installed:
        (info / installed).write_text(
            "probe_plugin\nprobe_tools\n"
            if installed == "top_level.txt"
            else "probe_plugin.py,sha256=x,1\nprobe_tools.py,,\nprobe-1.0.dist-info/RECORD,,\n"
        )
        assert set(discover().info("probe").parts) == {"probe_tools"}
    else:
        folder = lab.parent / "elsewhere"  # a checkout, of which metadata lie apart
        folder.mkdir()
        info.rename(folder / info.name)
        monkeypatch.syspath_prepend(folder)
        assert set(discover().info("probe").parts) == {"probe_tools", "stranger"}
    before = discover().info("probe")
    (lab / "probe_tools.py").write_text("A = 2\n")
    assert discover().info("probe").parts != before.parts


def test_metadata_that_lies_in_a_part_is_read_anew(lab: Path) -> None:
    top = package(lab)
    (top / "plain.py").write_text("VERSION = '1'\nSUMMARY = 'old'\n")
    text = (top / "acme.py").read_text()
    (top / "acme.py").write_text(text.replace("summary = 's'", "summary = acme_fl.plain.SUMMARY"))
    assert discover().info("acme").summary == "old"
    (top / "plain.py").write_text("VERSION = '1'\nSUMMARY = 'new'\n")
    forget("acme_fl.plain", "acme_fl.acme", "acme_fl")
    assert discover().info("acme").summary == "new"


def test_built_in_parts_have_versions() -> None:
    folder = Path(__file__).resolve().parents[2] / "methods"
    versions = part_versions(folder / "ensemble.py", {"methods": folder})
    files = part_files(folder / "ensemble.py", {"methods": folder})
    assert versions.keys() == files.keys()
    assert "methods.blocks.ensemble" in versions
    assert all(versions.values())
    assert part_versions(folder / "centralized.py", {"methods": folder}) == {}


GOOD = f"class A(Method[MethodConfig]):\n    name = 'bad'\n    summary = 's'\n{BODY}"
BROKEN = {
    "raises on import": ("raise RuntimeError('no such\\nluck')", "RuntimeError: no such luck"),
    "leaves on import": ("import sys; sys.exit(3)", "SystemExit: 3"),
    "misses a module": ("import no_such_module_at_all", "ModuleNotFoundError"),
    "syntax error": ("def broken(:", "SyntaxError"),
    "not a method": ("A = 1", "expected one public subclass of Method, found none"),
    "two methods": (
        HEAD + GOOD + GOOD.replace("class A", "class B"),
        "found A, B",
    ),
    "no name": (HEAD + GOOD.replace("    name = 'bad'\n", ""), "A has no name"),
    "odd name": (HEAD + GOOD.replace("'bad'", "'my method'"), "'my method' can't be a method's"),
    "called all": (HEAD + GOOD.replace("'bad'", "'all'"), "'all' can't be a method's name"),
    "no summary": (HEAD + GOOD.replace("    summary = 's'\n", ""), "'bad' .* has no summary"),
    "no server": (
        HEAD + GOOD.partition("    def server_update")[0],
        "'bad' .* does not define server_update",
    ),
    "odd config": (
        HEAD + GOOD.replace("summary = 's'", "summary = 's'; Config = dict"),
        "Config must be a subclass of MethodConfig",
    ),
    "forgotten config": (
        f"{HEAD}class MyConfig(MethodConfig):\n    pass\n\n"
        + GOOD.replace("Method[MethodConfig]", "Method[MyConfig]"),
        r"is a Method\[MyConfig\] and has Config = MethodConfig; set `Config = MyConfig`",
    ),
    "odd use": (
        HEAD + GOOD.replace("summary = 's'", "summary = 's'; uses = frozenset({'magic'})"),
        "'uses' has 'magic', which is not among Information: weights, sample counts",
    ),
    "one deviation": (
        HEAD + GOOD.replace("summary = 's'", "summary = 's'; deviations = ('one')"),
        "deviations and uses hold several items",
    ),
    "odd source": (
        HEAD + GOOD.replace("summary = 's'", "summary = 's'; source = 'arXiv'"),
        r"source must be a Source\(title, year, link\)",
    ),
    "a built-in's name": (HEAD + GOOD.replace("'bad'", "'fedavg'"), "duplicates the name of"),
}


@pytest.mark.parametrize("kind", list(BROKEN))
def test_a_broken_plugin_is_named_and_stops_no_other(kind: str, lab: Path) -> None:
    source, says = BROKEN[kind]
    plugin_lab.install(lab, source, module="bad_plugin")
    registry = discover()
    (broken,) = registry.broken.values()
    assert "\n" not in broken.reason
    assert "bad_plugin" in broken.path
    with pytest.raises(UserError, match=f"method '{broken.name}' can't be used: .*{says}"):
        registry.info(broken.name)
    assert len(registry.methods) >= 5
    assert "ensemble" in registry.methods


@pytest.mark.parametrize(
    ("point", "says"),
    [
        ("gone = no_such_plugin_module", "no module named 'no_such_plugin_module'"),
        ("gone = bad_plugin:Missing", "'Missing' is no subclass of Method"),
        ("gone = bad_plugin:HEAD", "'HEAD' is no subclass of Method"),
        ("gone = no_such_package.module:A", "ModuleNotFoundError"),
    ],
)
def test_an_entry_point_to_nowhere(point: str, says: str, lab: Path) -> None:
    plugin_lab.install(lab, "HEAD = 1\n", module="bad_plugin", point=point)
    registry = discover()
    assert says in registry.broken["gone"].reason
    assert "fedavg" in registry.methods


@pytest.mark.parametrize("point", ["fedavg = no_such_plugin_module", "fedavg = bad_plugin:Missing"])
def test_a_broken_one_of_a_built_ins_name_hides_it_from_nobody(point: str, lab: Path) -> None:
    plugin_lab.install(lab, "HEAD = 1\n", module="bad_plugin", point=point)
    registry = discover()
    assert registry.info("fedavg").module == "methods.fedavg"
    (broken,) = registry.broken.values()
    assert broken.name.startswith("fedavg (")


def test_a_class_that_was_only_imported_is_no_plugin(lab: Path) -> None:
    plugin_lab.install(lab)
    source = "from probe_plugin import Probe\n" + HEAD + GOOD
    # Its name begins with that of the module that it imports from.
    plugin_lab.install(lab, source, module="probe_plugin_too")
    registry = discover()
    assert registry.broken == {}
    assert {"probe", "bad"} <= set(registry.methods)


def test_an_unknown_method_names_the_closest() -> None:
    with pytest.raises(UserError, match="unknown method 'fedagv'; did you mean 'fedavg'"):
        discover().info("fedagv")


def test_a_cache_that_cant_be_written_does_no_harm(
    lab: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("ONESHOT_FL_CACHE", str(tmp_path / "file"))
    assert "fedavg" in discover().methods
