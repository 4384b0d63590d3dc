"""The watch of one's own programs, and reading a stream without keys."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from kakoi.broker.feed import has_history, ledger_feed
from kakoi.cli.i18n import catalogue, language, t
from kakoi.cli.ui import SystemClock, err
from kakoi.contract.sign import open_card
from kakoi.core.crypto import VerifyingKey
from kakoi.core.dsse import Envelope
from kakoi.core.errors import Misuse
from kakoi.guard import listeners
from kakoi.guard.chain import EventKey
from kakoi.guard.happening import Component, Finding
from kakoi.guard.settings import read_settings
from kakoi.guard.shipped import detector_of
from kakoi.guard.stream import FILE, Stream
from kakoi.guard.watch import Feed, Watch
from kakoi.party.files import read_limited
from kakoi.party.home import PartyHome

PUBLIC_FILE = "events.pub"
Where = Annotated[Path, typer.Option("--party", "--directory", help=t("help.events-where"))]
MetricsPort = Annotated[int | None, typer.Option("--metrics-port", help=t("help.metrics-port"))]


def rule_title(finding: Finding) -> str:
    """A finding's title in the user's language."""
    return catalogue(language()).get(f"alerts.rule.{finding.rule}", finding.title)


def _tell(finding: Finding) -> None:
    err.print(f"[bold red]{t('alerts.raised', level=t('alerts.level.' + finding.level), title=rule_title(finding))}[/]")


def party_stream(home: PartyHome, component: Component, now: int) -> Stream:
    """A party's stream, opened with its keys."""
    path = home.path / FILE
    late = not path.exists() and has_history(home.path / "ledger.sqlite")
    name, signer = home.card.record.name, home.keys.signer()
    return Stream(path, name=name, component=component, signer=signer, now=now, late=late)


@contextmanager
def watching(home: PartyHome, component: Component, *, metrics_port: int | None = None) -> Iterator[Watch]:
    """A party's watch while a program of it runs: broker or console, or both in one."""
    from kakoi.console.feed import people_feed

    settings, clock = read_settings(home.path), SystemClock().now
    stream = party_stream(home, component, clock())
    feeds: tuple[Feed, ...] = (
        ledger_feed(home.path / "ledger.sqlite", settings.hours),
        people_feed(home.path / "people.sqlite"),
    )
    detector = detector_of(stream, own=settings.rules, tell=_tell)
    watch = Watch(stream, component=component, clock=clock, feeds=feeds, detector=detector, exports=settings.exports)
    try:
        with metrics_of(watch, metrics_port, home.path):
            yield watch
    finally:
        watch.close()


@contextmanager
def metrics_of(watch: Watch, port: int | None, directory: Path) -> Iterator[None]:
    """Metrics and health of a program on a port of loopback, if one is given; the directory says so."""
    if port is None:
        yield
        return
    from kakoi.guard.metrics import Door, listening, openmetrics

    def metrics() -> bytes:
        return openmetrics(watch.stream, watch.clock, watch.exports)

    with listening(Door(port=port), metrics, {"events": watch.ready}) as server:
        address = server.server_address
        err.print(t("events.metrics", port=address[1]))
        door = listeners.Door(name="metrics", host=str(address[0]), port=int(address[1]))
        with listeners.declared(directory, f"{watch.component}-metrics", [door]):
            yield


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """A stream that is only read, and the key under which its heads must stand."""

    stream: Stream
    key: VerifyingKey


@contextmanager
def reading(directory: Path) -> Iterator[Reading]:
    """The stream of a party's, hub's or enclave host's directory. Needs no keys, and writes nothing."""
    path = directory / FILE
    if not path.exists():
        raise Misuse(
            "event.none",
            f"expected a stream of events in {directory}, found none",
            hint="a broker, console or hub that has run once leaves one in its directory",
        )
    stream = Stream(path, name="", component="client", now=SystemClock().now(), look=False)
    try:
        yield Reading(stream=stream, key=key_of(directory))
    finally:
        stream.close()


def key_of(path: Path) -> VerifyingKey:
    """The public key of a directory's stream, or of a card or key file."""
    if path.is_dir():
        path = path / ("card.dsse" if (path / "card.dsse").exists() else PUBLIC_FILE)
    data = read_limited(path, limit=1024 * 1024)
    if b'"payloadType"' in data:
        return open_card(Envelope.decode(data)).record.verifying_key
    return EventKey.decode(data).verifying_key
