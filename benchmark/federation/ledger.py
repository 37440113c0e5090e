"""What a client's work costs: the same whoever did it, in this run or in an earlier one."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from benchmark.contract import Made
from benchmark.flops import FlopMeter
from benchmark.store import Entry

MADE_ON = "made_on"
"""Value of a cache entry: the processors that made it and what it was made of, a list.

Entries of earlier versions lack it.
"""


@dataclass
class Cost:
    """What a client's work took, beside the wall time of this run.

    Parameters
    ----------
    cached_seconds : float
        Seconds of work that was taken from the cache, as measured when it was done.
    idle_seconds : float
        Seconds of reading the cache, and of waiting for what another run made.
    entries : list of (str, str)
        Kind and key of the cache entries that were used or made.
    other_processors : set of str
        Other processors that made entries, as far as these say it.
    """

    cached_seconds: float = 0.0
    idle_seconds: float = 0.0
    entries: list[tuple[str, str]] = field(default_factory=list)
    other_processors: set[str] = field(default_factory=set)

    @property
    def cache_ids(self) -> list[str]:
        """Keys of the entries."""
        return [key for _, key in self.entries]


def makers_of(entry: Entry) -> set[str]:
    """Return the processors that made a cache entry, as far as it says it."""
    return set(map(str, entry.info.get(MADE_ON, ())))


class Price(NamedTuple):
    """What an artefact took, without those that it was made with.

    ``flops`` is ``None`` where nobody counted them.
    """

    kind: str
    key: str
    seconds: float
    flops: int | None


class Ledger:
    """Books what a client's artefacts took: each once, whoever made it and whoever asks for it.

    An artefact made with others (a generator under the guide of the client's model) has a price
    of its own beside theirs. So it costs the same whether they had been asked for before.

    Parameters
    ----------
    flops : FlopMeter
        Counts the client's operations.
    processor : str
        The name of what computes here; written down with what is made.

    Attributes
    ----------
    cost : Cost
        What was booked so far.
    """

    def __init__(self, flops: FlopMeter, processor: str) -> None:
        self.cost = Cost()
        self._flops = flops
        self._processor = processor
        self._asked: list[Price] = []
        self._makers: dict[tuple[str, str], set[str]] = {}
        # What artefacts took, for the price of one that they are made in the midst of.
        self._seconds = 0.0
        self._operations = 0

    def entry(
        self,
        get_or_make: Callable[[Callable[[], Made]], Entry],
        make: Callable[[], Made],
        name: str,
    ) -> Entry:
        """Return an artefact, made or taken from the cache, and book it.

        Parameters
        ----------
        get_or_make : callable
            Returns the entry, and calls what it is given if there is none.
        make : callable
            Returns tensors by name, and JSON values about them. Its price joins these.
        name : str
            The value that holds its operations.
        """
        worked: float | None = None

        def priced() -> Made:
            nonlocal worked
            began = time.perf_counter()
            try:
                return self._priced(make, name)
            finally:
                worked = time.perf_counter() - began

        with self._flops.apart():
            began = time.perf_counter()
            found = get_or_make(priced)
            self.cost.idle_seconds += time.perf_counter() - began - (worked or 0.0)
            for used in found.info.get("used", ()):
                self._book(Price(*used), made_now=False)
            price = Price(found.kind, found.key, float(found.info["seconds"]), found.info.get(name))
            self._book(price, made_now=worked is not None)
        makers = makers_of(found)
        self._makers[found.kind, found.key] = makers
        self.cost.other_processors |= makers - {self._processor}
        return found

    def _priced(self, make: Callable[[], Made], name: str) -> Made:
        first, idle = len(self._asked), self.cost.idle_seconds
        seconds, operations = self._seconds, self._operations
        began, before = time.perf_counter(), self._flops.total
        tensors, info = make()
        took = time.perf_counter() - began - (self.cost.idle_seconds - idle)
        own: dict[str, float | None] = {
            "seconds": took - (self._seconds - seconds),
            name: None,
        }
        if self._flops.counting:
            own[name] = self._flops.total - before - (self._operations - operations)
        used = {price[:2]: list(price) for price in self._asked[first:]}
        makers = {self._processor}.union(*(self._makers.get(key, set()) for key in used))
        own_info = {**own, MADE_ON: sorted(makers)}
        return tensors, {**info, **own_info, **({"used": [*used.values()]} if used else {})}

    def _book(self, price: Price, *, made_now: bool) -> None:
        self._asked.append(price)
        if price[:2] in self.cost.entries:
            return  # asked for twice, but made once
        self.cost.entries.append(price[:2])
        self._operations += price.flops or 0
        if made_now:
            self._seconds += price.seconds
        else:
            self.cost.cached_seconds += price.seconds
            self._flops.add(price.flops)

    def snapshot(self) -> tuple[Cost, Any]:
        """Return what was booked so far, for :meth:`restore`."""
        entries, others = list(self.cost.entries), set(self.cost.other_processors)
        cost = replace(self.cost, entries=entries, other_processors=others)
        return cost, self._flops.snapshot()

    def restore(self, before: tuple[Cost, Any]) -> None:
        """Forget what was booked since; the snapshot can't be restored twice."""
        self.cost, flops = before
        self._flops.restore(flops)
