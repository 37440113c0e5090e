"""What tests of the command line ask of an answer."""

from __future__ import annotations


def check(answer: object, parts: list[str]) -> None:
    status, err = answer.status, answer.err  # type: ignore[attr-defined]
    assert status == 2, err
    assert len(err.splitlines()) == 1, err
    assert err.startswith("error: ")
    assert "Traceback" not in err
    for part in parts:
        assert part in err
