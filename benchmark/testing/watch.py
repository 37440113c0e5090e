"""Probes that a run carries: what a method could reach, what it changed, and what it sent."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from benchmark.contract import Broadcast, Client, GlobalModel, Method, Reference, Upload
from benchmark.testing.caching import undescribed
from benchmark.testing.declared import undeclared
from benchmark.testing.opened import noting_opened_data
from benchmark.testing.reach import Secret, reachable_tensors

if TYPE_CHECKING:
    from benchmark.federation.data import ScenarioData
    from benchmark.federation.federation import Federation


@dataclass
class Watch:
    """Put into a run, notes what each check of the contract asks about; stops nothing.

    Parameters
    ----------
    data : ScenarioData
        The scenario's data, of which a method may see a part alone.
    kept : Path
        The folder where decoded data is kept.
    """

    data: ScenarioData
    kept: Path
    reached: list[str] = field(default_factory=list)
    """Data in reach of who may not see it."""
    changed: list[str] = field(default_factory=list)
    """A client's data that its update changed."""
    undeclared: list[str] = field(default_factory=list)
    """What uploads tell of labels, and the method does not say that it uses."""
    shared: list[str] = field(default_factory=list)
    """Parameters that what a client keeps depends on, and its description doesn't name."""
    sent: dict[tuple[str, int, int], dict[str, int]] = field(default_factory=dict)
    """Bytes of every part by way, round and client."""

    def __call__(self, method: Method[Any], federation: Federation) -> None:
        """Watch the calls of ``method``."""
        cpu = torch.device("cpu")
        normalization = self.data.task.normalization
        pictures = self.data.everybody(cpu).images
        test = Secret(self.data.test(cpu).images, normalization)
        everybody = Secret(pictures, normalization)

        def look(who: str, roots: tuple[object, ...], *secrets: tuple[Secret, str]) -> None:
            for found in reachable_tensors(*roots):
                self.reached += [f"{who} {what}" for secret, what in secrets if secret.is_in(found)]

        def opening(who: str) -> AbstractContextManager[None]:
            def note(path: str) -> None:
                self.reached.append(f"{who} opens {path}: a method's data is what it is given")

            return noting_opened_data(note, self.kept)

        def client_update(client: Client, broadcast: Broadcast) -> Upload:
            who = f"client {client.info.index}"
            own = {row.numpy().tobytes() for row in client.images.cpu()}
            rest = [row for row in pictures if row.numpy().tobytes() not in own]
            # Who holds everything, alone or in copies, has nobody to spy on.
            others = Secret(torch.stack(rest) if rest else pictures[:0], normalization)
            secrets = ((test, "reaches the test set"), (others, "reaches others' data"))
            look(who, (client, broadcast), *secrets)
            images, labels = client.images.clone(), client.labels.clone()
            with opening(who), self._caching(method, client):
                upload = original_update(client, broadcast)
            # A local model that is trained later would be trained on them.
            if not (torch.equal(images, client.images) and torch.equal(labels, client.labels)):
                self.changed.append(f"{who}: images or labels were changed")
            self.undeclared += undeclared(client, upload, method.uses)
            for way, message in (("uploads", upload), ("broadcasts", broadcast)):
                self.sent[way, client.round, client.info.index] = {
                    part: sum(value.nbytes for value in tensors.values())
                    for part, tensors in message.parts.items()
                }
            return upload

        def server_update(uploads: Mapping[int, Upload], server: Any, *rest: Any) -> GlobalModel:
            secrets = ((test, "reaches the test set"), (everybody, "reaches client data"))
            look("the server", (server, uploads), *secrets)
            if not privileged:
                kept = {key: value for key, value in vars(method).items() if key not in replaced}
                look("the method", (kept,), (everybody, "keeps client data in self"))
            look("the oracle", rest, (test, "reaches the test set"))
            with opening("the server"):
                made: GlobalModel = original_server(uploads, server, *rest)
            return made

        original_update = method.client_update
        privileged = isinstance(method, Reference)
        server_name = "reference_update" if privileged else "server_update"
        replaced = {"client_update", server_name}
        original_server = getattr(method, server_name)
        method.client_update = client_update  # type: ignore[method-assign]
        setattr(method, server_name, server_update)

    @contextmanager
    def _caching(self, method: Method[Any], client: Client) -> Iterator[None]:
        """Note what a client makes by parameters that it doesn't describe."""

        def note(kind: str, name: str) -> None:
            said = (
                f"client {client.info.index}: '{kind}' is made by parameter '{name}', which its "
                "description for client.cached doesn't name: runs with another one would share it"
            )
            if said not in self.shared:
                self.shared.append(said)

        client.cached = undescribed(method, client.cached, note)  # type: ignore[assignment]
        try:
            yield
        finally:
            del client.cached  # the class's own again
