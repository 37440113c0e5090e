"""Steps of a history: where each round counts from its first one, they go on over the rounds."""

from __future__ import annotations


class RunningSteps:
    """Steps of one curve, told row after row as its history has them."""

    def __init__(self) -> None:
        self._start = 0.0
        self._last = 0.0
        self._round: object = None

    def at(self, round_: object, step: float) -> float:
        """Return a step counted from the beginning of the run.

        Parameters
        ----------
        round_ : object
            The row's round; whatever differs from the last one's is another.
        step : float
            The row's step, from 0, of the round or of the run.
        """
        if round_ != self._round:
            self._round = round_
            self._start += self._last if step <= self._last else 0.0
        self._last = step
        return self._start + step
