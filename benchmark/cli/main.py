"""From arguments to an exit status: which verb is meant, and what its errors look like."""

from __future__ import annotations

import errno
import importlib
import os
import sys
import traceback
from collections.abc import Sequence
from types import MappingProxyType

from benchmark import __version__
from benchmark.cli import output
from benchmark.errors import UserError, missing_package, unknown

OK, RUN_FAILED, USER_ERROR, DEFECT, INTERRUPTED = 0, 1, 2, 70, 130
"""Exit statuses."""

VERBS = MappingProxyType(
    {
        "run": "run a grid of methods and scenarios (the default verb)",
        "paper": "run a table or figure of the Mosaic paper, or its CPU-sized twin",
        "list": "list methods, datasets, models, profiles or experiments",
        "datasets": "show what data is there; fetch and prepare what is missing",
        "describe": "say what a method does, takes and uploads",
        "split": "draw a partition: count table and bubble plot",
        "report": "make the tables of experiments anew from their records",
        "repeat": "make a record's run anew and compare it with the record, value by value",
        "clean": "show the sizes of cache and results, remove what is asked for",
        "doctor": "check the installation; --report prints it for a bug report",
        "new-method": "write a working plugin and its test",
    }
)

_MACHINE_ERRORS = frozenset(
    {
        errno.ENOSPC,
        errno.EDQUOT,
        errno.EACCES,
        errno.EPERM,
        errno.EROFS,
        errno.ENOTDIR,
        errno.EISDIR,
        errno.ENAMETOOLONG,
        errno.EMFILE,
    }
)


def main(argv: Sequence[str]) -> int:
    """Run one command.

    Parameters
    ----------
    argv : sequence of str
        Arguments without the program's name. A first argument that is a flag means
        ``run``; none at all, the help.

    Returns
    -------
    int
        Exit status. Mistakes of the user are one ``error:`` line on stderr and status 2.
    """
    arguments = list(argv)
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        sys.stdout.write(overview())
        return OK
    if arguments[0] == "--version":
        sys.stdout.write(f"oneshot-fl {__version__}\n")
        return OK
    try:
        return _dispatch(arguments)
    except SystemExit as end:  # argparse's --help
        return int(end.code or 0)
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - the last resort
        return _report(error)


def overview() -> str:
    """Return the help of the whole program."""
    width = max(map(len, VERBS))
    verbs = "\n".join(f"  {verb:<{width}}  {meaning}" for verb, meaning in VERBS.items())
    return (
        "usage: python -m benchmark [run] --methods all [flags]\n"
        "       python -m benchmark VERB --help\n\n"
        "Compares one-shot federated-learning methods on equal splits, models and budgets.\n\n"
        f"verbs:\n{verbs}\n\n"
        "examples:\n"
        "  python -m benchmark --methods all\n"
        "  python -m benchmark --methods all --datasets fashion_mnist --alpha 0.1 1.0 "
        "--profile cpu --seeds 0 1 2\n"
        "  python -m benchmark describe fedavg\n"
        "  python -m benchmark --methods all --dry-run\n"
    )


def _dispatch(arguments: list[str]) -> int:
    verb = "run" if arguments[0].startswith("-") else arguments.pop(0)
    if verb not in VERBS:
        raise unknown("command", verb, VERBS)
    module = importlib.import_module(f"benchmark.cli.verb_{verb.replace('-', '_')}")
    parser = module.parser()
    values = parser.read(arguments)
    talk = output.stderr()
    try:
        with output.logging_to(values.log_level, talk):
            status = int(module.execute(values, talk))
    except Exception:
        if values.log_level == "debug":
            sys.stderr.write(traceback.format_exc())
        raise
    sys.stdout.flush()
    return status


def _report(error: BaseException) -> int:
    """Say what went wrong; return the exit status."""
    if isinstance(error, KeyboardInterrupt):
        output.error_line(
            "interrupted; what is finished is kept: give the same command again to go on"
        )
        return INTERRUPTED
    if isinstance(error, BrokenPipeError):
        # The reader of a pipe (`| head`) left: not an error of ours. Python would complain
        # again when it flushes stdout at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK
    if isinstance(error, (UserError, *_data_errors())):
        output.error_line(error)
        return USER_ERROR
    if isinstance(error, OSError) and error.errno in _MACHINE_ERRORS:
        where = f" {error.filename}" if error.filename else ""
        output.error_line(f"can't use{where}: {error.strerror}")
        return USER_ERROR
    missing = missing_package(error) if isinstance(error, ModuleNotFoundError) else None
    if missing is not None:
        output.error_line(missing)
        return USER_ERROR
    sys.stderr.write("".join(traceback.format_exception(error)))
    output.error_line(
        f"defect of the suite ({type(error).__name__}); please report it with the traceback "
        "above and what `python -m benchmark doctor --report` prints"
    )
    return DEFECT


def _data_errors() -> tuple[type[Exception], ...]:
    # Only a verb that touched data can have raised one: no import just to look.
    module = sys.modules.get("datasets.errors")
    return (module.DataError, module.PartitionError) if module is not None else ()
