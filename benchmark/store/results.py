"""The results folder: all experiments in one place."""

from __future__ import annotations

import re
from pathlib import Path

from benchmark.errors import UserError
from benchmark.store.experiments import ExperimentStore
from benchmark.store.files import StoreError, make_folder, temporary_name, write_bytes

_EXPERIMENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class Store:
    """All experiments in one results folder.

    Parameters
    ----------
    root : Path
        The results folder; it need not be there before something is written.
    read_only : bool
        Whether its experiments are only looked at: then damaged records stay where they are.
    """

    def __init__(self, root: Path, *, read_only: bool = False) -> None:
        self.root = root
        self._read_only = read_only

    def experiment(self, name: str) -> ExperimentStore:
        """Return the store of one experiment, there or not.

        Raises
        ------
        UserError
            If the name can't be a folder's.
        """
        if not _EXPERIMENT.fullmatch(name):
            raise UserError(
                f"experiment '{name}': a name starts with a letter or digit and holds only "
                "letters, digits, '.', '_' and '-'"
            )
        return ExperimentStore(self.root / name, read_only=self._read_only)

    def experiments(self) -> list[str]:
        """Return the names of all experiments that hold a manifest or a run."""
        try:
            folders = sorted(path for path in self.root.iterdir() if path.is_dir())
        except OSError:
            return []
        named = [path for path in folders if _EXPERIMENT.fullmatch(path.name)]
        return [path.name for path in named if ExperimentStore(path).exists()]

    def check_writable(self) -> None:
        """Write and remove a small file in the results folder.

        Raises
        ------
        StoreError
            If that fails: better now than after the first run.
        """
        probe = make_folder(self.root) / temporary_name("probe")
        try:
            write_bytes(probe, b"probe")
        except StoreError as error:
            raise StoreError(str(error).replace(str(probe), str(self.root))) from error
        probe.unlink(missing_ok=True)
