"""The state of an installation: versions, hardware, data, plugins, and what is wrong with them."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from benchmark.environment import git_state, hardware, usable_cores, versions
from benchmark.import_path import project_root

CPU_FEATURES = ("amx_bf16", "amx_tile", "avx512_bf16", "avx512f", "avx2", "asimd", "bf16")
"""Flags of ``/proc/cpuinfo`` that decide how fast a CPU trains."""

MORE_PACKAGES = ("pandas", "matplotlib", "pydantic", "rich", "ray")
LOW_DISK_BYTES = 2_000_000_000


@dataclass(frozen=True)
class Finding:
    """One line of the examination.

    Parameters
    ----------
    name, value : str
        What was looked at, and what was found.
    problem : str
        What is wrong and how to mend it; empty if all is well.
    """

    name: str
    value: str
    problem: str = ""


@dataclass(frozen=True)
class Section:
    """Findings that belong together."""

    title: str
    findings: list[Finding] = field(default_factory=list)


def examine(results: Path, data_root: Path | None) -> list[Section]:
    """Look at everything that has to do with whether and how runs work.

    A part of the examination that itself fails is a finding, not an exception.

    Parameters
    ----------
    results : Path
        Where records are kept; it need not exist.
    data_root : Path or None
        Where data is looked for first.

    Returns
    -------
    list of Section
        In the order they are shown.
    """
    parts: dict[str, Callable[[], list[Finding]]] = {
        "software": _software,
        "hardware": _hardware,
        "torch": _torch,
        "packages of this project": _own_packages,
        "data": lambda: _data(data_root),
        "disk": lambda: _disk(results),
        "plugins": _plugins,
    }
    sections = []
    for title, look in parts.items():
        try:
            findings = look()
        except Exception as error:  # noqa: BLE001 - a broken installation may raise anything
            reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
            findings = [Finding(title, "can't be examined", reason)]
        sections.append(Section(title, findings))
    return sections


def problems(sections: list[Section]) -> list[str]:
    """Return all that is wrong, one line each."""
    return [
        f"{finding.name}: {finding.problem}"
        for section in sections
        for finding in section.findings
        if finding.problem
    ]


def _software() -> list[Finding]:
    found = versions()
    for package in MORE_PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    findings = [
        Finding(name, version, _missing(name) if version == "not installed" else "")
        for name, version in found.items()
    ]
    state = git_state()
    commit = "no git checkout" if state["commit"] is None else str(state["commit"])[:12]
    findings.append(Finding("suite", f"{commit}{' with changes' if state['dirty'] else ''}"))
    return findings


def _missing(package: str) -> str:
    return "" if package == "ray" else "missing; run `pip install -e .` in the project's folder"


def _hardware() -> list[Finding]:
    facts = hardware()
    threads = {name: os.environ[name] for name in _THREAD_VARIABLES if name in os.environ}
    shown = ", ".join(f"{name}={value}" for name, value in threads.items()) or "none set"
    usable, features = usable_cores(), cpu_features()
    return [
        Finding("CPU", str(facts["cpu"])),
        Finding("cores", f"{facts['cores']}, usable {usable}"),
        Finding("memory", f"{facts['memory_bytes'] / 1e9:.1f} GB"),
        Finding("system", str(facts["system"])),
        Finding("AMX", "yes" if any("amx" in name for name in features) else "no"),
        Finding("CPU features", ", ".join(features) or "unknown"),
        Finding("thread variables", shown),
    ]


_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def cpu_features(cpuinfo: Path = Path("/proc/cpuinfo")) -> list[str]:
    """Return those of :data:`CPU_FEATURES` that the processor has; empty where unknown."""
    try:
        lines = cpuinfo.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    flags: set[str] = set()
    for line in lines:
        name, _, values = line.partition(":")
        if name.strip().lower() in ("flags", "features"):
            flags.update(values.split())
    return [feature for feature in CPU_FEATURES if feature in flags]


def _torch() -> list[Finding]:
    import torch

    from benchmark.training.precision import resolve_device, resolve_precision

    device = resolve_device("auto")
    findings = [
        Finding("threads of torch", str(torch.get_num_threads())),
        Finding("default device", device.type),
        Finding("default precision", resolve_precision("auto", device)),
        Finding("CUDA of this build", str(torch.version.cuda or "none (CPU build)")),
        Finding("CUDA devices", str(torch.cuda.device_count())),
    ]
    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
        findings.append(Finding("GPUs", ", ".join(names)))
    return findings


def _own_packages() -> list[Finding]:
    findings = []
    for package in ("benchmark", "methods", "datasets", "reports"):
        found = importlib.util.find_spec(package)
        places = list(found.submodule_search_locations or []) if found else []
        place = places[0] if places else "not found"
        right = Path(place).resolve() == project_root() / package
        problem = (
            ""
            if right
            else f"expected {project_root() / package}; another package of that name comes first: "
            "use `python -m benchmark` in the project's folder, or a virtual environment of its own"
        )
        findings.append(Finding(package, place, problem))
    findings.append(Finding("installed 'datasets'", _foreign_datasets()))
    return findings


def _foreign_datasets() -> str:
    """Return whether the popular package of our data room's name is installed beside it."""
    try:
        version = importlib.metadata.version("datasets")
    except importlib.metadata.PackageNotFoundError:
        return "no other package of that name"
    return f"version {version} beside it; harmless as long as ours comes first"


def _data(data_root: Path | None) -> list[Finding]:
    from datasets.catalog import available
    from datasets.places import locate

    findings = []
    for info in available():
        found = locate(info.name, data_root)
        places = "; ".join(found.tried) or "nowhere"
        value = f"found in {found.place}" if found.found else f"not found, looked in {places}"
        findings.append(Finding(info.name, value))
    return findings


def _disk(results: Path) -> list[Finding]:
    where = results.absolute()
    there = next(place for place in (where, *where.parents) if place.exists())
    free = shutil.disk_usage(there).free
    problem = ""
    if not there.is_dir() or not os.access(there, os.W_OK):
        problem = f"{there} can't be written to; choose another folder with --results"
    elif free < LOW_DISK_BYTES:
        problem = f"only {free / 1e9:.1f} GB free; `python -m benchmark clean` shows what can go"
    return [
        Finding("results and cache", f"{where}, {free / 1e9:.1f} GB free", problem),
        Finding("plugin metadata", _plugin_cache()),
    ]


def _plugin_cache() -> str:
    named = os.environ.get("ONESHOT_FL_CACHE")
    return f"{named} (ONESHOT_FL_CACHE)" if named else "the user's cache folder"


def _plugins() -> list[Finding]:
    from benchmark.registry import discover

    registry = discover()
    usable = [name for name in registry.methods if name not in registry.broken]
    return [
        Finding("usable", ", ".join(usable) or "none"),
        *(
            Finding(plugin.name, f"broken ({plugin.path})", plugin.reason)
            for plugin in registry.broken.values()
        ),
    ]


def markdown(sections: list[Section]) -> str:
    """Return the examination as Markdown that can be pasted into a bug report.

    The home folder is written as ``~``, so that it names nobody.
    """
    lines = ["### oneshot-fl doctor", ""]
    for section in sections:
        lines += [f"**{section.title}**", ""]
        for finding in section.findings:
            wrong = f" **problem:** {finding.problem}" if finding.problem else ""
            lines.append(f"- {finding.name}: `{finding.value}`{wrong}")
        lines.append("")
    return shortened("\n".join(lines).rstrip()) + "\n"


def shortened(text: str) -> str:
    """Return ``text`` with the home folder replaced by ``~``."""
    home = str(Path.home())
    if home in ("", "/"):
        return text
    # Only whole names: "data2" is not below "data".
    return re.sub(rf"{re.escape(home)}(?![^\s/\\;,:`)'\"])", "~", text)
