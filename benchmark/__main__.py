"""Entry points: ``python -m benchmark``, and the console script ``oneshot-fl``."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

from benchmark.import_path import prepare_path


def _interrupt(signum: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


@contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """Take SIGTERM for Ctrl-C: a batch system ends a job with it, which shall go on later.

    What it meant before counts again afterwards: a second one, while Python ends, then ends the
    process instead of raising an exception in whatever runs at exit.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield
    finally:
        # None: set by something other than Python, which can't be set again from here.
        signal.signal(signal.SIGTERM, before or signal.SIG_DFL)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments without the program's name; those of the process if not given.

    Returns
    -------
    int
        Exit status: 0 done, 1 a run failed, 2 a mistake to mend, 70 a defect of the suite,
        130 interrupted.
    """
    problem = prepare_path()
    if problem is not None:
        sys.stderr.write(f"error: {problem}\n")
        return 2
    with _ended_by_sigterm():
        try:
            from benchmark.cli.main import main as run
        except ModuleNotFoundError as error:
            # Said here with the standard library alone: nothing else may be installed.
            from benchmark.errors import missing_package

            missing = missing_package(error)
            if missing is None:
                raise
            sys.stderr.write(f"error: {missing}\n")
            return 2

        return run(sys.argv[1:] if argv is None else argv)


def console() -> None:
    """Run one command and end the process with its exit status."""
    sys.exit(main())


if __name__ == "__main__":
    console()
