"""A hub in memory, for tests of what talks to one. It can be told to lie and to fail."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from kakoi.core import encoding
from kakoi.core.dsse import Envelope
from kakoi.core.errors import Refused, Unavailable
from kakoi.core.ids import ObjectId
from kakoi.net.answers import FeedItem, FeedPage, RunState


@dataclass(slots=True)
class MemoryHub:
    """Objects in order of arrival. ``states`` holds what the hub says about runs."""

    objects: list[tuple[str, Envelope]] = field(default_factory=list)
    states: dict[str, RunState] = field(default_factory=dict)
    before: Callable[[str], None] = lambda step: None
    """Called with the name of each request, before it is carried out; may raise."""
    after: Callable[[str], None] = lambda step: None
    """Called after it was carried out; raising here is a request that succeeded and said it failed."""

    def put_object(self, envelope: Envelope, *, claim: str = "") -> FeedItem:
        """Keep an object once, whoever holds the run's claim."""
        self.before("put_object")
        value = encoding.loads(envelope.payload, limit=16 * 1024 * 1024)
        kind = value.get("kind", "kakoi/passport/v1")
        ids = [item.payload_id for _, item in self.objects]
        if envelope.payload_id not in ids:
            self.objects.append((kind, envelope))
        self.after("put_object")
        seq = [item.payload_id for _, item in self.objects].index(envelope.payload_id) + 1
        return FeedItem(seq=seq, id=envelope.payload_id, kind=kind)

    def get_object(self, object_id: ObjectId) -> Envelope:
        """An object by id."""
        self.before("get_object")
        for _, envelope in self.objects:
            if envelope.payload_id == object_id:
                self.after("get_object")
                return envelope
        raise Refused("hub.not-found", "expected an object of the hub, got an unknown id")

    def feed(
        self,
        *,
        after: int = 0,
        kinds: Sequence[str] = (),
        refs: Mapping[str, str] | None = None,
        wait: int = 0,
        limit: int = 100,
    ) -> FeedPage:
        """Objects behind ``after``; never waits."""
        self.before("feed")
        items = [
            FeedItem(seq=seq, id=envelope.payload_id, kind=kind)
            for seq, (kind, envelope) in enumerate(self.objects, start=1)
            if seq > after and (not kinds or kind in kinds) and _refers(envelope, refs or {})
        ][:limit]
        self.after("feed")
        return FeedPage(items=tuple(items), next=items[-1].seq if items else max(after, 0))

    def run(self, run: ObjectId) -> RunState:
        """What the hub says about a run: queued, unless ``states`` says otherwise."""
        self.before("run")
        return self.states.get(run, RunState(state="queued", attempt=0))

    def of_kind(self, kind: str) -> list[Envelope]:
        """All objects of a kind."""
        return [envelope for found, envelope in self.objects if found == kind]


def _refers(envelope: Envelope, refs: Mapping[str, str]) -> bool:
    value = encoding.loads(envelope.payload, limit=16 * 1024 * 1024)
    return all(value.get(member) == wanted for member, wanted in refs.items())


def unavailable(step: str) -> None:
    """A hub that does not answer."""
    raise Unavailable("hub.unreachable", f"the test cut the hub off at {step}")
