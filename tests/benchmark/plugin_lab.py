"""Third-party plugins made and "installed" by tests: a module and its metadata in a folder."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

MODULE = "probe_plugin"

SOURCE = '''\
"""A plugin that averages uniformly, and misbehaves if the file beside it says so."""

import os
import signal
import time
from pathlib import Path

import torch

from benchmark.contract import GlobalModel, Information, Method, MethodConfig, Upload, parameter

MODE = Path(__file__).with_name("mode.txt")


class ProbeConfig(MethodConfig):
    """One parameter."""

    scale: float = parameter(1.0, "factor on the average", unit="", gt=0)


class Probe(Method[ProbeConfig]):
    """Uniform average."""

    name = "probe"
    summary = "uniform average of the clients' models, times a factor"
    uses = frozenset({Information.WEIGHTS})
    uploads = "the model's state dict"
    Config = ProbeConfig

    def unsupported(self, scenario):
        """Refuse unequal widths."""
        return None if scenario.homogeneous else "the probe averages models of one shape"

    def client_update(self, client, broadcast):
        """Upload the local model."""
        mode = MODE.read_text() if MODE.exists() else ""
        if mode == "raise":
            raise RuntimeError("the probe was told to fail")
        if mode == "sleep":
            time.sleep(600)
        died = MODE.with_name("died.txt")
        if mode == "die" or (mode == "die once" and not died.exists()):
            died.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if mode == "wrong upload":
            return {"model": client.local_model().state_dict()}
        if mode == "wrong part":
            return Upload({"model": {"weight": [1.0, 2.0]}})
        return Upload({"model": client.local_model().state_dict()})

    def server_update(self, uploads, server):
        """Average."""
        mode = MODE.read_text() if MODE.exists() else ""
        if mode == "wrong model":
            return server.global_model
        model = server.initial_model()
        states = [upload.parts["model"] for upload in uploads.values()]
        mean = {
            name: torch.stack([state[name].double() for state in states]).mean(0)
            for name in states[0]
        }
        model.load_state_dict(
            {name: (value * self.config.scale).to(states[0][name]) for name, value in mean.items()}
        )
        if mode == "batch statistics":
            for layer in model.modules():
                if hasattr(layer, "running_mean"):
                    layer.track_running_stats = False
                    layer.running_mean = layer.running_var = None
        return GlobalModel(model)
'''


def install(
    folder: Path, source: str = SOURCE, module: str = MODULE, point: str | None = None
) -> Path:
    """Write a plugin's module and the metadata of its distribution; return the module's file."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{module}.py"
    path.write_text(source, encoding="utf-8")
    add_metadata(folder, module, point or f"{module} = {module}")
    return path


def add_metadata(folder: Path, module: str, point: str) -> None:
    """Write what an installer leaves behind: name, version and entry points."""
    about = folder / f"{module}-1.0.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {module.replace('_', '-')}\nVersion: 1.0\n"
    )
    (about / "entry_points.txt").write_text(f"[oneshot_fl.methods]\n{point}\n")


def python(folder: Path, *arguments: str, timeout: float = 600) -> subprocess.CompletedProcess[str]:
    """Run Python with the suite and an "installed" folder on its path."""
    places = os.pathsep.join([str(ROOT), str(folder)])
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": places},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
