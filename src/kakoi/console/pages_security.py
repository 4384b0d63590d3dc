"""The security page: alerts, trends and the stream of events of one's own party."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from starlette.responses import Response

from kakoi.console.memory import Memory
from kakoi.console.trends import Bucket, trend
from kakoi.console.visit import Visit
from kakoi.core.errors import KakoiError
from kakoi.guard.happening import SEVERITY
from kakoi.guard.stream import FILE, Stream
from kakoi.say.catalogue import SHARED, read
from kakoi.say.locale import local

LEVELS: Final = {number: name for name, number in SEVERITY.items()}
CHECKED: Final = 20_000
"""A stream of at most so many events is verified whole each time the page is shown."""
HOURS: Final = 24
PAGE: Final = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain:
    """What is known about the chain: ``code`` is that of the refusal, empty if it is whole, None if it was not checked."""

    size: int
    signed: int
    code: str | None


@contextmanager
def _stream(visit: Visit) -> Iterator[Stream | None]:
    console = visit.console
    if console.watch is not None:
        console.watch.look()
        yield console.watch.stream
        return
    path = console.home.path / FILE
    if not path.exists():
        yield None
        return
    stream = Stream(path, name="", component="console", now=console.clock.now(), look=False)
    try:
        yield stream
    finally:
        stream.close()


def security_page(visit: Visit) -> Response:
    """Alerts of the last days first, then how much happened, then what."""
    before = visit.request.query_params.get("before", "")
    limit = int(before) if before.isascii() and before.isdigit() and len(before) < 16 else 2**62
    with _stream(visit) as stream:
        if stream is None:
            return visit.page("security.html", stream=None)
        now = visit.console.clock.now()
        events = stream.newest(before=limit, limit=PAGE)
        return visit.page(
            "security.html",
            stream=True,
            chain=_chain(visit, stream),
            quarantine=Memory(visit.console.home).quarantine(),
            titles={item.id: item.contract.title for item in visit.console.library.contracts()},
            now=now,
            alerts=stream.newest(what="guard.alert", limit=30),
            trend=trend(
                _buckets(stream, now),
                label=visit.text("security.trend"),
                words=[
                    visit.text("security.series.ordinary"),
                    visit.text("security.series.refused"),
                    visit.text("security.series.alerts"),
                ],
            ),
            events=events,
            more=events[-1]["metadata"]["sequence"] if len(events) == PAGE else 0,
            level=lambda event: LEVELS.get(event["severity_id"], "low"),
            rule=lambda event: _rule(visit, event),
            exports=visit.console.watch.exports if visit.console.watch is not None else (),
        )


def _rule(visit: Visit, event: Any) -> str:
    info = event["finding_info"]
    return read(SHARED, visit.language).get(f"alerts.rule.{info['analytic']['uid']}", info["title"])


def _chain(visit: Visit, stream: Stream) -> Chain:
    size, signed = stream.size, stream.last_head()[0]
    if size > CHECKED:
        return Chain(size=size, signed=signed, code=None)
    try:
        stream.verify(visit.console.home.card.record.verifying_key)
    except KakoiError as error:
        return Chain(size=size, signed=signed, code=error.code)
    return Chain(size=size, signed=signed, code="")


def _buckets(stream: Stream, now: int) -> list[Bucket]:
    """The last 24 hours, hour by hour."""
    begin = now // 3600 * 3600 - (HOURS - 1) * 3600
    counts = [[0, 0, 0] for _ in range(HOURS)]
    for event in stream.since(begin):
        place = (event["time"] // 1000 - begin) // 3600
        if 0 <= place < HOURS:
            alert = event["metadata"]["event_code"] == "guard.alert"
            counts[place][2 if alert else 1 if event["status_id"] == 2 else 0] += event.get("count", 1)
    return [
        Bucket(label=f"{local(begin + n * 3600):%H}", ordinary=a, refused=b, alerts=c)
        for n, (a, b, c) in enumerate(counts)
    ]
