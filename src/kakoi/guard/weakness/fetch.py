"""A feed of advisories over HTTPS, within limits: it may be slow, huge or lying, and nothing of it is believed but its records."""

from __future__ import annotations

import time
from typing import Final

import httpx

from kakoi.core.errors import Malformed, Misuse, Unavailable
from kakoi.guard.weakness.snapshot import MAX_BYTES
from kakoi.guard.web import encrypted

_SECONDS: Final = 300.0


def download(url: str, *, most: int = MAX_BYTES, seconds: float = _SECONDS) -> bytes:
    """The bytes behind an address. No redirects. Raises Misuse for an unencrypted one, Unavailable, Malformed if there are too many."""
    encrypted(
        url,
        Misuse(
            "advisory.url", "expected an https address (http on loopback only), got another", hint="--url https://…"
        ),
    )
    deadline, found = time.monotonic() + seconds, bytearray()
    try:
        with httpx.stream("GET", url, timeout=min(30.0, seconds), follow_redirects=False) as answer:
            if answer.status_code != 200:
                raise Unavailable(
                    "advisory.feed", f"expected 200 from the feed, got {answer.status_code}", hint="check the address"
                )
            for piece in answer.iter_bytes():
                found += piece
                if len(found) > most:
                    raise Malformed("advisory.size", f"expected at most {most >> 20} MiB of advisories, got more")
                if time.monotonic() > deadline:
                    raise Unavailable(
                        "advisory.feed", "expected the feed within its time, it is slower", hint="try again later"
                    )
    except (httpx.HTTPError, OSError):
        raise Unavailable("advisory.feed", "expected an answer of the feed, got none", hint="try again later") from None
    return bytes(found)
