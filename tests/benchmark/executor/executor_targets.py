"""Functions that executor tests run in child processes."""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

from benchmark.errors import DivergedError, UserError
from benchmark.executor import EventSender

Payload = dict[str, Any]


def double(payload: Payload, events: EventSender) -> int:
    return 2 * int(payload["number"])


def talk(payload: Payload, events: EventSender) -> None:
    for step in range(500):
        events.send("progress", step=step)
    logging.getLogger("plugin").warning("careful with %s", "this")
    warnings.warn("deprecated", UserWarning, stacklevel=1)
    sys.stdout.write("noise of a plugin\n")
    sys.stdout.flush()


def fail(payload: Payload, events: EventSender) -> None:
    raise ValueError("wrong\nshape")


def user_error_of_a_method(payload: Payload, events: EventSender) -> None:
    def server_update() -> None:
        raise UserError("all 10 weights are zero")

    server_update()


def user_error(payload: Payload, events: EventSender) -> None:
    raise UserError("alpha must be positive, got -1")


def diverge(payload: Payload, events: EventSender) -> None:
    raise DivergedError("client 3", 17, "loss is nan")


def not_json(payload: Payload, events: EventSender) -> object:
    return object()


def leave(payload: Payload, events: EventSender) -> None:
    sys.exit(3)


def vanish(payload: Payload, events: EventSender) -> None:
    os._exit(7)


def killed(payload: Payload, events: EventSender) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def crash(payload: Payload, events: EventSender) -> None:
    ctypes.string_at(0)


def sleep(payload: Payload, events: EventSender) -> None:
    """Sleep with a child of its own, deaf to polite requests if asked; note all pids."""
    if payload.get("deaf"):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(100)"])
    Path(payload["pids"]).write_text(f"{os.getpid()} {child.pid}")
    events.send("progress", phase="sleeping")
    time.sleep(100)


def leave_child_behind(payload: Payload, events: EventSender) -> int:
    return subprocess.Popen([sys.executable, "-c", "import time; time.sleep(100)"]).pid


def hang_at_exit(payload: Payload, events: EventSender) -> int:
    import threading

    threading.Thread(target=time.sleep, args=(100,)).start()
    return 1


def setup(payload: Payload, events: EventSender) -> dict[str, Any]:
    import psutil
    import torch

    torch.ones(400, 400) @ torch.ones(400, 400)
    return {
        "threads": torch.get_num_threads(),
        "variable": os.environ["OMP_NUM_THREADS"],
        "server_threads": psutil.Process().parent().num_threads(),
        "path": sys.path[0],
        "main": getattr(sys.modules["__main__"], "__file__", None),
    }


def span(payload: Payload, events: EventSender) -> list[float]:
    began = time.monotonic()  # of the machine, the same in all processes
    time.sleep(payload["seconds"])
    return [began, time.monotonic()]


def killed_while_large(payload: Payload, events: EventSender) -> None:
    held = b"x" * 2**29
    while held:  # until it was looked at
        events.send("progress", phase="growing")
        time.sleep(0.2)
        if Path(payload["seen"]).exists():
            os.kill(os.getpid(), signal.SIGKILL)


def talk_after_pipe_broke(payload: Payload, events: EventSender) -> None:
    events._connection.close()
    for step in range(10):
        events.send("progress", step=step)
    Path(payload["file"]).write_text("survived")


def meet(payload: Payload, events: EventSender) -> float:
    """Wait for another job to arrive; return the time of arrival."""
    folder = Path(payload["folder"])
    (folder / payload["name"]).touch()
    arrived = time.monotonic()
    while len(list(folder.iterdir())) < payload["others"]:
        if time.monotonic() - arrived > 20:
            raise TimeoutError("nobody came")
        time.sleep(0.01)
    return arrived


def visible_gpus(payload: Payload, events: EventSender) -> str | None:
    time.sleep(payload.get("seconds", 0.0))
    return os.environ.get("CUDA_VISIBLE_DEVICES")


def note_and_wait(payload: Payload, events: EventSender) -> None:
    Path(payload["pids"]).write_text(str(os.getpid()))
    time.sleep(payload["seconds"])


def by_name(payload: Payload, events: EventSender) -> Any:
    return globals()[payload["function"]](payload, events)
