"""Probes that a run carries: what a method could reach, what it changed, and what it sent."""

from __future__ import annotations

import sys
import types
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from benchmark.contract import Broadcast, Client, GlobalModel, Made, Method, Reference, Upload
from benchmark.federation.client import state_digest
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
    repeated: list[str] = field(default_factory=list)
    """Streams that were asked for more than once in a round."""
    restarted: list[str] = field(default_factory=list)
    """Trainings that were given to a client in pieces, each of which begins anew."""
    fresh_students: int = 0
    """How often the server made a model of fresh weights under the name of a student."""
    starts_asked: int = 0
    """How often it asked the scenario how a student starts."""
    artefacts: set[str] = field(default_factory=set)
    """Kinds of what clients kept by ``client.cached``."""
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

        def original(self_: Any, name: str) -> Any:
            return getattr(super(seen, self_), name)

        def client_update(self_: Any, client: Client, broadcast: Broadcast) -> Upload:
            who = f"client {client.info.index}"
            others = Secret(_without(client, pictures), normalization)
            secrets = ((test, "reaches the test set"), (others, "reaches others' data"))
            look(who, (client, broadcast, vars(self_), _shared(self_)), *secrets)
            with (
                self._inputs(who, client),
                self._files(who),
                self._caching(self_, client),
                self._streams(who, client),
                self._trainings(who, client),
            ):
                upload: Upload = original(self_, "client_update")(client, broadcast)
            self.undeclared += undeclared(client, upload, method.uses)
            self._count(client, upload, broadcast)
            return upload

        def broadcast(self_: Any, client: Any, server: Any) -> Broadcast:
            with self._students(server):
                sent: Broadcast = original(self_, "broadcast")(client, server)
            return sent

        def server_update(
            self_: Any, uploads: Mapping[int, Upload], server: Any, *rest: Any
        ) -> GlobalModel:
            secrets = ((test, "reaches the test set"), (everybody, "reaches client data"))
            look("the server", (server, uploads), *secrets)
            if not privileged:
                kept = (vars(self_), _shared(self_))
                look("the method", kept, (everybody, "keeps client data where the server finds it"))
            look("the oracle", rest, (test, "reaches the test set"))
            with (
                self._files("the server"),
                self._streams("the server", server),
                self._students(server),
            ):
                made: GlobalModel = original(self_, server_name)(uploads, server, *rest)
            return made

        privileged = isinstance(method, Reference)
        server_name = "reference_update" if privileged else "server_update"
        watched = {
            "client_update": client_update,
            "broadcast": broadcast,
            server_name: server_update,
        }
        seen = self._replace(method, watched)

    def _replace(self, method: Method[Any], watched: Mapping[str, Any]) -> type:
        """Give a method a class with these calls; return it.

        A class of its own, for every client has a copy of the method: a function set on the
        instance would be copied as it is, and all clients share the `self` that it holds.
        """
        kind = type(method)
        seen: type = type(kind.__name__, (kind,), {**watched, "__module__": kind.__module__})
        self.reached += [
            f"the method sets self.{name}, which hides what its class defines from these checks"
            for name in watched.keys() & vars(method).keys()
        ]
        method.__class__ = seen
        return seen

    def _count(self, client: Client, upload: Upload, broadcast: Broadcast) -> None:
        """Note the bytes of every part that crossed."""
        for way, message in (("uploads", upload), ("broadcasts", broadcast)):
            self.sent[way, client.round, client.info.index] = {
                part: sum(value.nbytes for value in tensors.values())
                for part, tensors in message.parts.items()
            }

    @contextmanager
    def _inputs(self, who: str, client: Client) -> Iterator[None]:
        """Note where data is changed: a local model that is trained later would learn from it."""
        images, labels = client.images.clone(), client.labels.clone()
        yield
        if not (torch.equal(images, client.images) and torch.equal(labels, client.labels)):
            self.changed.append(f"{who}: images or labels were changed")

    def _files(self, who: str) -> AbstractContextManager[None]:
        """Note which files of data are opened."""

        def note(path: str) -> None:
            self.reached.append(f"{who} opens {path}: a method's data is what it is given")

        return noting_opened_data(note, self.kept)

    @contextmanager
    def _streams(self, who: str, holder: Any) -> Iterator[None]:
        """Note which streams are asked for more than once: each time they begin anew."""
        asked: Counter[str] = Counter()

        def generator(purpose: str) -> torch.Generator:
            asked[purpose] += 1
            made: torch.Generator = type(holder).generator(holder, purpose)
            return made

        holder.generator = generator
        try:
            yield
        finally:
            del holder.generator
            self.repeated += [
                f"{who} asks {times} times for the stream '{purpose}' in round {holder.round}, and "
                "gets the same numbers each time: ask once, before a loop, or for several purposes"
                for purpose, times in asked.items()
                if times > 1
            ]

    @property
    def unruled(self) -> list[str]:
        """Students that are made without a look at what the scenario says of students."""
        if not self.fresh_students or self.starts_asked:
            return []
        return [
            "the server makes a student by new_model() and never reads server.student, by which a "
            "scenario starts every method's student alike; for another model, name it: "
            "new_model('critic')"
        ]

    @contextmanager
    def _students(self, server: Any) -> Iterator[None]:
        """Note where a fresh student is made, and where the scenario is asked how it starts."""
        plain = type(server)
        rule = server.student
        watch = self

        class Asked(plain):  # type: ignore[misc, valid-type]
            @property
            def student(self) -> Any:
                watch.starts_asked += 1
                return rule

            def new_model(self, purpose: str = "student", *rest: Any, **how: Any) -> Any:
                watch.fresh_students += purpose == "student"
                return super().new_model(purpose, *rest, **how)

        server.__class__ = Asked
        try:
            yield
        finally:
            server.__class__ = plain

    @contextmanager
    def _trainings(self, who: str, client: Any) -> Iterator[None]:
        """Note where a training is given in pieces: three calls alike, each going on from the last.

        Another loss or rate, other layers that learn, or another start make it another training.
        """
        plain = type(client).train
        last: tuple[object, str] | None = None
        pieces = 0

        def train(model: torch.nn.Module, **how: Any) -> None:
            nonlocal last, pieces
            loss = how.get("loss")
            learning = tuple(one.requires_grad for one in model.parameters())
            # A lambda in a loop is another function each time, of the same code.
            same_loss = getattr(loss, "__code__", loss)
            kind = (how.get("lr"), how.get("label_masked"), same_loss, learning)
            pieces = pieces + 1 if last == (kind, state_digest(model.state_dict())) else 1
            if pieces == 3:
                self.restarted.append(
                    f"{who} trains a model in pieces in round {client.round}: each client.train "
                    "of a round begins the same batches, optimiser and schedule anew; give it "
                    "all steps at once"
                )
            plain(client, model, **how)
            last = kind, state_digest(model.state_dict())

        client.train = train
        try:
            yield
        finally:
            del client.train

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

        watched = undescribed(method, client.cached, note)

        def cached(kind: str, description: Mapping[str, Any], make: Callable[[], Made]) -> Any:
            self.artefacts.add(kind)
            return watched(kind, description, make)

        client.cached = cached  # type: ignore[method-assign]
        try:
            yield
        finally:
            del client.cached  # the class's own again


def _without(client: Client, pictures: torch.Tensor) -> torch.Tensor:
    """Return the pictures that a client doesn't hold: none if it holds all, alone or in copies."""
    own = {row.numpy().tobytes() for row in client.images.cpu()}
    rest = [row for row in pictures if row.numpy().tobytes() not in own]
    return torch.stack(rest) if rest else pictures[:0]


def _shared(method: Method[Any]) -> list[object]:
    """Return the attributes of a method's classes and modules: every copy of it sees them."""
    classes = [kind for kind in type(method).__mro__ if issubclass(kind, Method)]
    own = [kind for kind in classes if kind not in (Method, Reference)]
    places = [dict(vars(kind)) for kind in own]
    places += [dict(vars(sys.modules[name])) for name in {kind.__module__ for kind in own}]
    code = (type, types.FunctionType, types.ModuleType)
    return [value for place in places for value in place.values() if not isinstance(value, code)]
