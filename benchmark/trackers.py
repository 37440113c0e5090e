"""Experiment trackers: scalars, images and configuration of runs, sent to a tool of the user's.

They hear what the grid's listener hears, in the parent process: nothing they do can reach
a run, and one that fails is switched off with a note. Each package is imported when used.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self

from benchmark.errors import UserError, unknown

if TYPE_CHECKING:
    from benchmark.experiment import PlannedRun
    from benchmark.grid import Listener
    from benchmark.store import Record

FOLDER = "trackers"
"""Where local trackers write, in the experiment's folder."""

PROJECT = "oneshot-fl"


class Tracker(Protocol):
    """A tool that keeps what runs report; runs are named by their ids."""

    def begin(self, run: str, name: str, config: Mapping[str, Any]) -> None:
        """Take note that a run starts, with its whole spec."""

    def scalars(self, run: str, step: int, values: Mapping[str, float]) -> None:
        """Keep values of one step, by tag."""

    def end(self, run: str, status: str, results: Mapping[str, float], images: list[Path]) -> None:
        """Keep how a run ended, and its sample grids (PNG)."""

    def close(self) -> None:
        """Send what is left."""


class TensorBoardTracker:
    """Event files below ``trackers/tensorboard``, one folder a run."""

    def __init__(self, folder: Path, experiment: str) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer: Any = SummaryWriter
        self._folder = folder / "tensorboard"
        self._open: dict[str, Any] = {}

    def begin(self, run: str, name: str, config: Mapping[str, Any]) -> None:
        """Open the run's event file, with the spec as text."""
        made = self._writer(str(self._folder / run))
        made.add_text("run", f"{name} ({run})")
        made.add_text("spec", f"```json\n{json.dumps(config, indent=1, sort_keys=True)}\n```")
        self._open[run] = made

    def scalars(self, run: str, step: int, values: Mapping[str, float]) -> None:
        """Add scalars."""
        for tag, value in values.items():
            self._open[run].add_scalar(tag, value, step)

    def end(self, run: str, status: str, results: Mapping[str, float], images: list[Path]) -> None:
        """Add results and sample grids, and close the file."""
        import numpy as np
        from PIL import Image

        made = self._open.pop(run)
        made.add_text("status", status)
        for tag, value in results.items():
            made.add_scalar(f"result/{tag}", value)
        for path in images:
            made.add_image(
                path.stem, np.asarray(Image.open(path).convert("RGB")), dataformats="HWC"
            )
        made.close()

    def close(self) -> None:
        """Close what is open."""
        for made in self._open.values():
            made.close()


class WandbTracker:
    """Runs of Weights & Biases, grouped by experiment; ``WANDB_MODE=offline`` needs no account."""

    def __init__(self, folder: Path, experiment: str) -> None:
        import wandb

        self._wandb: Any = wandb
        self._experiment, self._folder = experiment, folder
        self._open: dict[str, Any] = {}

    def begin(self, run: str, name: str, config: Mapping[str, Any]) -> None:
        """Start a run beside those that are open."""
        self._folder.mkdir(parents=True, exist_ok=True)
        self._open[run] = self._wandb.init(
            project=PROJECT,
            group=self._experiment,
            name=f"{name} {run}",
            config=dict(config),
            dir=str(self._folder),
            reinit="create_new",
        )

    def scalars(self, run: str, step: int, values: Mapping[str, float]) -> None:
        """Log values; the step is one of them, since phases count anew."""
        self._open[run].log({**values, "step": step})

    def end(self, run: str, status: str, results: Mapping[str, float], images: list[Path]) -> None:
        """Log results and sample grids, and finish."""
        made = self._open.pop(run)
        made.summary.update({"status": status, **results})
        if images:
            made.log({path.stem: self._wandb.Image(str(path)) for path in images})
        made.finish(exit_code=0 if status == "done" else 1)

    def close(self) -> None:
        """Finish what is open."""
        for made in self._open.values():
            made.finish(exit_code=1)


class MlflowTracker:
    """Runs of MLflow, at ``MLFLOW_TRACKING_URI`` or in a database of the experiment's folder."""

    def __init__(self, folder: Path, experiment: str) -> None:
        import os

        import mlflow

        folder.mkdir(parents=True, exist_ok=True)
        place = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{folder / 'mlflow.db'}"
        self._client: Any = mlflow.MlflowClient(tracking_uri=place)
        found = self._client.get_experiment_by_name(f"{PROJECT}/{experiment}")
        self._experiment = (
            found.experiment_id
            if found is not None
            else self._client.create_experiment(
                f"{PROJECT}/{experiment}", artifact_location=(folder / "mlflow").as_uri()
            )
        )
        self._open: dict[str, str] = {}

    def begin(self, run: str, name: str, config: Mapping[str, Any]) -> None:
        """Create a run, with the spec as an artifact."""
        made = self._client.create_run(self._experiment, run_name=name, tags={"run_id": run})
        self._open[run] = made.info.run_id
        self._client.log_dict(made.info.run_id, dict(config), "spec.json")

    def scalars(self, run: str, step: int, values: Mapping[str, float]) -> None:
        """Log metrics."""
        for tag, value in values.items():
            self._client.log_metric(self._open[run], tag, value, step=step)

    def end(self, run: str, status: str, results: Mapping[str, float], images: list[Path]) -> None:
        """Log results and sample grids, and end the run."""
        made = self._open.pop(run)
        self.scalars_of(made, results)
        self._client.set_tag(made, "status", status)
        for path in images:
            self._client.log_artifact(made, str(path), "images")
        self._client.set_terminated(made, "FINISHED" if status == "done" else "FAILED")

    def scalars_of(self, made: str, results: Mapping[str, float]) -> None:
        """Log a run's results."""
        for tag, value in results.items():
            self._client.log_metric(made, f"result/{tag}", value)

    def close(self) -> None:
        """End what is open."""
        for made in self._open.values():
            self._client.set_terminated(made, "KILLED")


_TRACKERS: dict[str, Callable[[Path, str], Tracker]] = {
    "tensorboard": TensorBoardTracker,
    "wandb": WandbTracker,
    "mlflow": MlflowTracker,
}
NAMES = tuple(_TRACKERS)


def check_tracker(name: str) -> None:
    """Check that a tracker's package is there, without importing it.

    Raises
    ------
    UserError
        If there is no such tracker, or its package is missing.
    """
    if name not in _TRACKERS:
        raise unknown("tracker", name, _TRACKERS)
    if importlib.util.find_spec(name) is None:
        raise UserError(
            f"--tracker {name}: its package is not installed; run `pip install -e '.[{name}]'` in "
            "the project's folder"
        )


def make_tracker(name: str, folder: Path, experiment: str) -> Tracker:
    """Return a tracker.

    Parameters
    ----------
    name : str
        ``tensorboard``, ``wandb`` or ``mlflow``.
    folder : Path
        The experiment's folder; local trackers write below it.
    experiment : str
        The experiment's name.
    """
    check_tracker(name)
    return _TRACKERS[name]((folder / FOLDER).resolve(), experiment)


class TrackedListener:
    """Passes everything on to another listener, and tells a tracker.

    Parameters
    ----------
    listener : Listener
        Who else listens.
    tracker : Tracker or None
        Who is told; nobody if ``None``.
    folder : Path
        The experiment's folder, where sample grids lie.

    Attributes
    ----------
    failure : str
        Why the tracker was switched off; empty if it was not.
    """

    def __init__(self, listener: Listener, tracker: Tracker | None, folder: Path) -> None:
        self._listener, self._folder = listener, folder
        self._tracker = tracker
        self.failure = ""
        self._open: set[str] = set()

    @classmethod
    def with_tracker(cls, listener: Listener, name: str, folder: Path, experiment: str) -> Self:
        """Return the listener with a new tracker; one that can't be reached is switched off.

        Takes what :func:`make_tracker` takes.

        Raises
        ------
        UserError
            If there is no such tracker, or its package is missing.
        """
        check_tracker(name)
        told = cls(listener, None, folder)
        try:
            told._tracker = make_tracker(name, folder, experiment)
        except Exception as error:  # noqa: BLE001 - a foreign tool must not keep a grid from running
            told._switched_off(error)
        return told

    def started(self, index: int, total: int, run: PlannedRun) -> None:
        """Pass on, and begin a run; one that is tried again goes on in the same one."""
        self._listener.started(index, total, run)
        if run.spec.run_id not in self._open:
            self._open.add(run.spec.run_id)
            self._tell("begin", run.spec.run_id, run.label, run.spec.canonical())

    def progress(
        self, run: PlannedRun, phase: str, step: int, total: int, scalars: dict[str, float]
    ) -> None:
        """Pass on, and keep the scalars."""
        self._listener.progress(run, phase, step, total, scalars)
        if scalars:
            tagged = {f"{phase}/{name}": value for name, value in scalars.items()}
            self._tell("scalars", run.spec.run_id, step, tagged)

    def finished(self, run: PlannedRun, record: Record, seconds: float) -> None:
        """Pass on, and end the run."""
        self._listener.finished(run, record, seconds)
        grids = sorted((self._folder / record.run_id).glob("grid-*.png"))
        self._open.discard(run.spec.run_id)
        self._tell("end", run.spec.run_id, str(record.status), results_of(record), grids)

    def note(self, text: str) -> None:
        """Pass on."""
        self._listener.note(text)

    def close(self) -> None:
        """Close the tracker."""
        self._tell("close")

    def _tell(self, what: str, *values: Any) -> None:
        """Tell the tracker; one that fails is switched off, whatever its reason."""
        if self._tracker is None:
            return
        try:
            getattr(self._tracker, what)(*values)
        except Exception as error:  # noqa: BLE001 - a foreign tool must not end a grid
            failed, self._tracker = self._tracker, None
            with suppress(Exception):
                failed.close()
            self._switched_off(error)

    def _switched_off(self, error: Exception) -> None:
        self.failure = f"the tracker failed and is switched off: {error}"
        self._listener.note(self.failure)


def results_of(record: Record) -> dict[str, float]:
    """Return a record's main numbers, by name."""
    teacher = record.metrics.get("teacher") or {}
    found = {
        "accuracy": record.metrics.get("accuracy"),
        "loss": record.metrics.get("loss"),
        "teacher_accuracy": teacher.get("accuracy"),
        "bytes_up": record.communication.get("total_up"),
        "bytes_down": record.communication.get("total_down"),
        "server_seconds": record.timing.get("server_seconds"),
    }
    return {name: float(value) for name, value in found.items() if value is not None}
