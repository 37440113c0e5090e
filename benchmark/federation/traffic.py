"""Communication cost: the length of the bytes that crossed the wire, by round, client and part."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

from benchmark.contract import Broadcast, Message, Upload
from benchmark.spool import Spool
from benchmark.wire import account, decode, elements, encode, view

Book = dict[tuple[int, int], dict[str, int]]
Elements = dict[tuple[int, int], dict[str, dict[str, int]]]


@dataclass
class Traffic:
    """The bytes of all messages.

    Parameters
    ----------
    spool : Spool
        Where uploads wait for the server.

    Attributes
    ----------
    uploads, broadcasts : dict of (round, client) to (dict of part to bytes)
        What was sent in each direction.
    upload_elements, broadcast_elements : dict of (round, client) to (dict by part and type)
        How many numbers that was: the closed form of the bytes.
    """

    spool: Spool = field(default_factory=Spool, compare=False, repr=False)
    uploads: Book = field(default_factory=dict)
    broadcasts: Book = field(default_factory=dict)
    upload_elements: Elements = field(default_factory=dict)
    broadcast_elements: Elements = field(default_factory=dict)

    def up(self, round_index: int, client: int, message: Upload) -> Upload:
        """Send an upload over the wire: book its bytes, return what arrives.

        Its tensors are read when the server looks at them: all clients' together may be
        more than fits into memory.
        """
        where = f"upload of client {client} in round {round_index}"
        data = encode(message, where)
        self.upload_elements[round_index, client] = elements(message)
        self.uploads[round_index, client] = account(message, data)
        return view(self.spool.put(data, round_index), Upload, where)

    def down(self, round_index: int, client: int, message: Broadcast) -> Broadcast:
        """Send a broadcast over the wire: book its bytes, return what arrives.

        An empty broadcast is not sent at all.
        """
        if not message.parts and not message.values:
            return message
        where = f"broadcast to client {client} in round {round_index}"
        data = encode(message, where)
        self.broadcast_elements[round_index, client] = elements(message)
        self.broadcasts[round_index, client] = account(message, data)
        return decode(data, Broadcast, where)

    def totals(self) -> tuple[int, int]:
        """Return all bytes up and down."""
        return _total(self.uploads), _total(self.broadcasts)

    def summary(self, clients: int) -> dict[str, Any]:
        """Return the record's account: totals, by client and part, by round and part, and numbers.

        Rounds, clients and parts all at once would make the record grow with their product.
        """
        up, down = self.totals()
        rounds = sorted({key[0] for key in (*self.uploads, *self.broadcasts)})
        return {
            "up": up,
            "down": down,
            "per_client": [
                {
                    "client": client,
                    "up": _total(self.uploads, client=client),
                    "down": _total(self.broadcasts, client=client),
                    "parts": {
                        "up": _parts(self.uploads, client=client),
                        "down": _parts(self.broadcasts, client=client),
                    },
                }
                for client in range(clients)
            ],
            "per_round": [
                {
                    "round": index,
                    "up": _parts(self.uploads, round_index=index),
                    "down": _parts(self.broadcasts, round_index=index),
                }
                for index in rounds
            ],
            "elements": {
                "up": _elements(self.upload_elements),
                "down": _elements(self.broadcast_elements),
            },
        }


def account_for(message: Message) -> dict[str, int]:
    """Return the bytes of a message by part, without sending it."""
    return account(message, encode(message))


def _total(book: Book, client: int | None = None) -> int:
    return sum(
        sum(parts.values()) for (_, who), parts in book.items() if client is None or who == client
    )


def _parts(
    book: Book, *, round_index: int | None = None, client: int | None = None
) -> dict[str, int]:
    """Return bytes by part, of one round or of one client."""
    sums: dict[str, int] = defaultdict(int)
    for (index, who), parts in book.items():
        if round_index in (None, index) and client in (None, who):
            for part, count in parts.items():
                sums[part] += count
    return dict(sorted(sums.items()))


def _elements(counts: Elements) -> dict[str, dict[str, int]]:
    """Return numbers by part and type, over all clients and rounds."""
    sums: dict[str, dict[str, int]] = {}
    for parts in counts.values():
        for part, kinds in parts.items():
            of_part = sums.setdefault(part, {})
            for kind, count in kinds.items():
                of_part[kind] = of_part.get(kind, 0) + count
    return {part: dict(sorted(kinds.items())) for part, kinds in sorted(sums.items())}
