"""A hub's own stream of events: what it refused, whether it is overloaded, and that it stopped."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from kakoi.core import crypto
from kakoi.core.crypto import SigningKey
from kakoi.core.errors import Fatal, KakoiError, Unavailable
from kakoi.guard.chain import EventKey
from kakoi.guard.happening import Happening
from kakoi.guard.intel.index import Indicated
from kakoi.guard.settings import read_settings
from kakoi.guard.shipped import detector_of
from kakoi.guard.stream import FILE, Stream
from kakoi.guard.watch import Watch
from kakoi.hub.files import read_secret, write_whole

KEY_FILE: Final = "events.key"
PUBLIC_FILE: Final = "events.pub"
_EVERYDAY: Final = frozenset({"hub.not-found", "hub.disconnected", "hub.range", "run.claim-lost"})
"""What honest clients meet every day."""
_IDENTITY: Final = frozenset(
    {
        "hub.unsigned",
        "hub.key-unknown",
        "hub.replay",
        "hub.signature-time",
        "hub.authority",
        "hub.enclave-certificate",
        "hub.party-network",
        "signature.request",
    }
)
"""Nobody that the hub knows, or not them, or not now."""
_ADDRESS: Final = re.compile(r"[0-9a-f.:]{2,45}\Z")


def event_key(directory: Path) -> SigningKey:
    """The key under which a program without a party signs its stream; made, with its public half beside it, if missing."""
    path = directory / KEY_FILE
    if not path.exists():
        write_whole(path, secrets.token_bytes(crypto.SIGNING_SECRET), mode=0o600)
    key = SigningKey(read_secret(path, most=crypto.SIGNING_SECRET))
    public = key.verifying_key
    record = EventKey(ed25519=public.ed25519, mldsa65=public.mldsa65).encode()
    if not (directory / PUBLIC_FILE).exists():
        write_whole(directory / PUBLIC_FILE, record, mode=0o644)
    return key


def hub_watch(directory: Path, clock: Callable[[], int]) -> Watch:
    """The watch of a hub on its directory."""
    stream = Stream(directory / FILE, name="hub", component="hub", signer=event_key(directory), now=clock())
    settings = read_settings(directory)
    return Watch(
        stream,
        component="hub",
        clock=clock,
        detector=detector_of(stream, own=settings.rules),
        exports=settings.exports,
    )


@contextmanager
def fatal_on_record(directory: Path, clock: Callable[[], int]) -> Iterator[None]:
    """A hub that does not even start because it contradicts itself says so in its stream. The error is raised all the same."""
    try:
        yield
    except Fatal as error:
        happening = event_of(error, "", clock())
        with suppress(KakoiError):
            stream = Stream(directory / FILE, name="hub", component="hub", signer=event_key(directory), now=clock())
            if happening is not None:
                stream.append(happening)
            stream.close(clock())
        raise


def event_of(error: KakoiError, address: str, now: int) -> Happening | None:
    """An error that was answered, as an event; None for what happens every day."""
    if error.code in _EVERYDAY:
        return None
    if isinstance(error, Fatal):
        what = "hub.fatal"
    elif isinstance(error, Unavailable):
        what = "hub.overload"
    elif error.code == "hub.denied":
        what = "hub.access"
    elif isinstance(error, Indicated) or error.code == "intel.file":
        what = "hub.indicator"
    elif error.code in _IDENTITY:
        what = "hub.identity"
    else:
        what = "hub.refused"
    return Happening(
        what=what,
        at=now,
        component="hub",
        outcome="failure",
        code=error.code,
        operation="identify" if what == "hub.identity" else "request",
        about=error.indicator if isinstance(error, Indicated) else None,
        address=address if _ADDRESS.match(address) else None,
    )
