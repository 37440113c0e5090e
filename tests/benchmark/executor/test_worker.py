"""The worker's side of a job, called in this process."""

from __future__ import annotations

import logging
import multiprocessing
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from benchmark.errors import UserError
from benchmark.executor.worker import EventSender, _compute, _LogSender, load_target
from benchmark.store import Status


def test_a_foreign_datasets_package_on_a_node_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    foreign = types.ModuleType("datasets")
    foreign.__path__ = [str(tmp_path)]
    monkeypatch.setitem(sys.modules, "datasets", foreign)
    monkeypatch.setattr(sys, "path", list(sys.path))
    with multiprocessing.Pipe()[1] as connection:
        ending = _compute("executor_targets:double", '{"number": 4}', EventSender(connection))
    assert (ending["status"], ending["user_error"]) == (Status.FAILED, True)
    assert f"'datasets' was loaded from {tmp_path}" in ending["reason"]


@pytest.mark.parametrize("target", ["module", ":f", "m:", "os:no_such_thing"])
def test_a_wrong_target_is_named(target: str) -> None:
    with pytest.raises(UserError, match=f"target '{target}'"):
        load_target(target)


def test_a_wrong_call_of_logging_ends_no_run(capsys: pytest.CaptureFixture[str]) -> None:
    sent: list[str] = []

    class Sender:
        def send(self, kind: str, **data: Any) -> None:
            sent.append(data["text"])

    sender: Any = Sender()
    handler = _LogSender(sender)
    for text, values in (("%d done", ("x",)), ("%d done", (3,))):
        handler.handle(logging.LogRecord("plugin", logging.INFO, "", 1, text, values, None))
    assert sent == ["3 done"]
    assert "TypeError" in capsys.readouterr().err
