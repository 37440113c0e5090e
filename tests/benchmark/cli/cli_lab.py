"""What a command answers, and what tests ask of a refusal."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Answer:
    """What a command said."""

    status: int
    out: str
    err: str

    @property
    def err_lines(self) -> list[str]:
        return self.err.splitlines()


def check(answer: Answer, parts: list[str]) -> None:
    """Check that a command refused its input in one line that names all parts."""
    assert answer.status == 2, answer.err
    assert len(answer.err_lines) == 1, answer.err
    assert answer.err.startswith("error: ")
    assert "Traceback" not in answer.err
    for part in parts:
        assert part in answer.err
