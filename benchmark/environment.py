"""Where a number was made: versions, hardware, git state. Imports no torch but for a GPU."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmark.import_path import project_root

if TYPE_CHECKING:
    from benchmark.specs import ComputeSpec

PACKAGES = ("torch", "torchvision", "timm", "numpy", "scikit-learn", "scipy", "safetensors")

CODE = ("benchmark", "datasets", "methods")
"""Folders in which a new file may decide a number before git knows of it: a method's, say."""


def computed_with(compute: ComputeSpec) -> dict[str, Any]:
    """Return where and with what this process computed a number: bytes, versions, names."""
    values: dict[str, Any] = {
        "versions": versions(),
        "git": git_state(),
        "hardware": hardware(),
        "device": compute.device,
        "precision": compute.precision,
        "threads": compute.threads,
        "peak_memory_bytes": peak_memory_bytes(),
    }
    if compute.device == "cuda":
        import torch

        values["gpu"] = torch.cuda.get_device_name()
        values["peak_gpu_memory_bytes"] = torch.cuda.max_memory_allocated()
    return values


def versions() -> dict[str, str]:
    """Return the versions of Python and of what computes."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


@lru_cache(maxsize=1)
def git_state() -> dict[str, Any]:
    """Return the commit of the suite, and whether files changed or came since; else nulls.

    It is asked once in a process and its children: what was loaded stays, whatever is committed
    or edited while a long grid runs.
    """
    commit = _git("rev-parse", "HEAD")
    # Installed into an environment inside another project's checkout, that commit is not ours.
    ours = _git("ls-files", "--error-unmatch", "benchmark/environment.py")
    if commit is None or ours is None:
        return {"commit": None, "dirty": None}
    # Records kept in the checkout are what runs write, not what they are made by.
    changes = _git("status", "--porcelain", "--untracked-files=no", "--", ":(exclude)results")
    added = _git("ls-files", "--others", "--exclude-standard", "--", *CODE)
    return {"commit": commit, "dirty": bool(changes or added)}


def _git(*arguments: str) -> str | None:
    # In a hook git names the repository that the hook is of, whatever folder is asked for.
    elsewhere = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR")
    try:
        done = subprocess.run(
            ["git", "-C", str(project_root()), *arguments],
            env={name: value for name, value in os.environ.items() if name not in elsewhere},
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


@lru_cache(maxsize=1)
def usable_cores() -> int:
    """Return the CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def hardware() -> dict[str, Any]:
    """Return processor, cores and memory."""
    import psutil

    return {
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "memory_bytes": psutil.virtual_memory().total,
        "system": f"{platform.system()} {platform.machine()}",
    }


def processor(device: str) -> str:
    """Return the name of what computes on ``"cpu"`` or ``"cuda"``; another may round otherwise."""
    if device == "cuda":
        import torch

        return str(torch.cuda.get_device_name())
    return _cpu_name()


@lru_cache(maxsize=1)
def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or "unknown"
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or "unknown"


def peak_memory_bytes() -> int:
    """Return the highest resident memory of this process so far, in bytes."""
    import resource

    # Linux: `getrusage` also counts the process that started this one, until its `exec`.
    try:
        status = Path("/proc/self/status").read_text(encoding="utf-8")
    except OSError:
        status = ""
    for line in status.splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak) if platform.system() == "Darwin" else int(peak) * 1024
