"""Runs that another experiment of the same results folder has finished already.

A run's id is the hash of everything that determines it, the code included: a run of the same id in
another experiment is the same run.
"""

from __future__ import annotations

from benchmark.store.experiments import ExperimentStore
from benchmark.store.records import Record
from benchmark.store.results import Store
from benchmark.store.status import Status


class Elsewhere:
    """The other experiments of a results folder.

    Parameters
    ----------
    store : Store
        The results folder.
    name : str
        The experiment that is being worked on.
    """

    def __init__(self, store: Store, name: str) -> None:
        self._others = {
            other: store.experiment(other) for other in store.experiments() if other != name
        }

    def holder(self, run_id: str) -> str | None:
        """Return an experiment that holds a sound record of the run, done; ``None`` if none does.

        A damaged one is reported by a warning and set aside there.
        """
        for name, other in self._others.items():
            if not (other.folder / run_id).is_dir():
                continue
            record = other.find(run_id)
            if record is not None and record.status is Status.DONE:
                return name
        return None

    def find(self, run_id: str) -> Record | None:
        """Return the record that another experiment holds of a run, done; else ``None``."""
        source = self.holder(run_id)
        return None if source is None else self._others[source].find(run_id)

    def take_over(
        self, run_id: str, source: str, target: ExperimentStore, label: str
    ) -> Record | None:
        """Copy a run with its files to another experiment, under that one's label.

        The caller holds the run's lock in ``target``.

        Returns
        -------
        Record or None
            The copy; ``None`` if the source was removed or damaged meanwhile.

        Raises
        ------
        StoreError
            If it can't be written.
        """
        other = self._others[source]
        record = other.find(run_id)
        if record is None:
            return None
        attempt = target.begin(run_id)
        for name in record.files:
            path = other.folder / run_id / name
            if path.is_file():  # pictures may have been removed to save space
                attempt.write_bytes(name, path.read_bytes())
        attempt.publish(record.changed(label=label))
        return target.find(run_id)
