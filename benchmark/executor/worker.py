"""The worker's side: one process, one job, everything it says sent through one pipe."""

from __future__ import annotations

import importlib
import json
import logging
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from contextlib import suppress
from multiprocessing import parent_process
from multiprocessing.connection import Connection, wait
from typing import Any

from benchmark.errors import DivergedError, UserError
from benchmark.import_path import prepare_path
from benchmark.store.status import Status

END = "end"
"""Kind of a worker's last message: how the job ended."""

LOG = "log"
"""Kind of a message that is a log record, to be logged in the caller's process."""

LOOK = 0.5
"""Seconds between two looks at whether the fork server still lives."""

MAX_TEXT = 4000
"""Characters of a log message that are sent."""

METHOD_CALLS = frozenset({"broadcast", "client_update", "server_update", "reference_update"})
"""Functions of a method in which the protocol leaves the suite's own code."""

THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)
"""Environment variables by which libraries are told their number of threads."""


class EventSender:
    """Sends what a job reports to the process that waits for it.

    Events are sent at once: who reports progress thins it out. Once nobody listens any more,
    sending does nothing.

    Parameters
    ----------
    connection : Connection
        The writing end of the pipe.
    """

    def __init__(self, connection: Connection[Any, Any]) -> None:
        self._connection = connection
        self._lock = threading.RLock()
        self._broken = False

    def send(self, kind: str, **data: Any) -> None:
        """Send an event.

        Parameters
        ----------
        kind : str
            What it is.
        **data
            JSON values (others are sent as text); small ones.
        """
        with self._lock:
            if self._broken:
                return
            try:
                event = json.dumps({"kind": kind, "data": data}, default=str)
                self._connection.send_bytes(event.encode())
            except (OSError, ValueError):
                self._broken = True


class _LogSender(logging.Handler):
    """Passes log records on, so that one process alone writes to the terminal."""

    def __init__(self, events: EventSender) -> None:
        super().__init__()
        self._events = events

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = record.getMessage()
        except Exception:  # noqa: BLE001 - as logging does: a wrong call ends no run
            self.handleError(record)
            return
        if record.exc_info and record.exc_info[0] is not None:
            text += "\n" + "".join(traceback.format_exception(*record.exc_info))
        self._events.send(LOG, logger=record.name, level=record.levelno, text=text[:MAX_TEXT])


def main(
    target: str,
    payload: str,
    connection: Connection[Any, Any],
    *,
    threads: int,
    log_level: int,
    gpu: str | None = None,
) -> None:
    """Compute one job in this process and send how it ended; called by an executor."""
    watch_parent()
    if gpu is not None:
        # Read when CUDA is first used, which the fork server never does.
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu
    _set_up(threads)
    events = EventSender(connection)
    root = logging.getLogger()
    root.handlers = [_LogSender(events)]
    root.setLevel(log_level)
    logging.captureWarnings(True)
    ending = _compute(target, payload, events)
    events.send(END, **ending)
    connection.close()


def _compute(target: str, payload: str, events: EventSender) -> dict[str, Any]:
    """Call the target and return how that ended."""
    try:
        if (problem := prepare_path()) is not None:
            raise UserError(problem)
        result = load_target(target)(json.loads(payload), events)
        result = json.loads(json.dumps(result))
    except UserError as error:
        reason = _one_line(error, named=False)
        detail = _led_to_by_a_method(error)
        return {"status": Status.FAILED, "reason": reason, "detail": detail, "user_error": True}
    except DivergedError as error:
        reason = _one_line(error, named=False)
        detail = _led_to_by_a_method(error)
        return {"status": Status.DIVERGED, "reason": reason, "detail": detail, "step": error.step}
    except KeyboardInterrupt:
        return {"status": Status.INTERRUPTED, "reason": "interrupted"}
    except SystemExit as error:
        reason = f"the run called sys.exit({error.code!r})"
        return {"status": Status.FAILED, "reason": reason, "detail": traceback.format_exc()}
    # Whatever a plugin raises is the outcome of its run, not the end of the grid.
    except BaseException as error:  # noqa: BLE001
        reason = _one_line(error, named=True)
        return {"status": Status.FAILED, "reason": reason, "detail": traceback.format_exc()}
    return {"status": Status.DONE, "reason": "", "result": result}


def _led_to_by_a_method(error: BaseException) -> str:
    """Return the traceback of an error that speaks for itself, if a method's line led to it."""
    called = {frame.name for frame in traceback.extract_tb(error.__traceback__)}
    return "" if called.isdisjoint(METHOD_CALLS) else traceback.format_exc()


def _one_line(error: BaseException, *, named: bool) -> str:
    text = "".join(traceback.format_exception_only(error)) if named else str(error)
    return " ".join(text.split())[:MAX_TEXT]


def load_target(target: str) -> Callable[[dict[str, Any], EventSender], Any]:
    """Return the function that ``"module:function"`` names.

    Raises
    ------
    UserError
        If it is not written so, or there is none.
    """
    module, _, name = target.partition(":")
    if not module or not name:
        raise UserError(f"target '{target}': expected 'module:function'")
    function = getattr(importlib.import_module(module), name, None)
    if not callable(function):
        raise UserError(f"target '{target}': module {module} has no function '{name}'")
    return function  # type: ignore[no-any-return]


def _set_up(threads: int) -> None:
    """Give this process its own group, import path, threads and standard streams."""
    with suppress(OSError):
        # Out of the terminal's group: Ctrl-C is the caller's to handle, and killing the
        # group ends whatever the job has started.
        os.setsid()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    prepare_path()
    # Standard output is for the command's results; what a plugin prints is talk.
    with suppress(OSError):
        os.dup2(2, 1)
    for variable in THREAD_VARIABLES:
        os.environ[variable] = str(threads)
    if "torch" in sys.modules:
        # Imported by the fork server, before this job's number was known.
        sys.modules["torch"].set_num_threads(threads)


def watch_parent() -> None:
    """End this process, and all it started, as soon as its caller or its fork server is gone."""
    caller, server = parent_process(), os.getppid()
    if caller is None:
        return
    sentinel = caller.sentinel

    def watch() -> None:
        # Linux could kill this process by itself when the server ends (PR_SET_PDEATHSIG),
        # but then what the job has started would live on.
        while not wait([sentinel], timeout=LOOK) and os.getppid() == server:
            pass
        with suppress(OSError):
            if os.getpgrp() == os.getpid():
                os.killpg(os.getpid(), signal.SIGKILL)
        os._exit(1)

    threading.Thread(target=watch, name="watch-parent", daemon=True).start()
