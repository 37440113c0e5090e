"""The store: run records, attempts and manifests of experiments, and the artifact cache.

Importing it costs no torch, so that reports can read records without.
"""

from benchmark.store.attempts import TRACEBACK_NAME, Attempt, AttemptInfo
from benchmark.store.cache import Cache, Entry
from benchmark.store.elsewhere import Elsewhere
from benchmark.store.experiments import CellState, ExperimentStore
from benchmark.store.files import DamagedError, StoreError
from benchmark.store.locks import BusyError
from benchmark.store.manifest import SECTIONS, Cell, Manifest, scenario_summary
from benchmark.store.records import FLOPS_ESTIMATE, Record, read_record
from benchmark.store.results import Store
from benchmark.store.status import Status

__all__ = [
    "FLOPS_ESTIMATE",
    "SECTIONS",
    "TRACEBACK_NAME",
    "Attempt",
    "AttemptInfo",
    "BusyError",
    "Cache",
    "Cell",
    "CellState",
    "DamagedError",
    "Elsewhere",
    "Entry",
    "ExperimentStore",
    "Manifest",
    "Record",
    "Status",
    "Store",
    "StoreError",
    "read_record",
    "scenario_summary",
]
