"""Pull indicators from, and push sightings to, a TAXII 2.1 collection, with OASIS' own client library and limits around it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

import requests
from taxii2client.common import TokenAuth
from taxii2client.exceptions import TAXIIServiceException
from taxii2client.v21 import Collection, as_pages

from kakoi.core.errors import Malformed, Misuse, Unavailable
from kakoi.guard.web import encrypted

PAGE: Final = 500
MOST: Final = 100_000


def collection(url: str, *, user: str = "", password: str = "", token: str = "") -> Collection:
    """A collection by its address. Raises Misuse for an unencrypted one beyond loopback."""
    encrypted(
        url,
        Misuse(
            "intel.url",
            "expected an https address (http on loopback only), got another",
            hint="--url https://…/collections/ID/",
        ),
    )
    place = url if url.endswith("/") else f"{url}/"
    if token:
        return Collection(place, auth=TokenAuth(token))
    return Collection(place, user=user or None, password=password or None)


def pull(source: Collection, *, added_after: str = "") -> Iterator[Any]:
    """All objects, a page at a time. Raises Unavailable, Malformed if there are too many or they are no STIX objects."""
    count = 0
    try:
        filters = {"added_after": added_after} if added_after else {}
        for page in as_pages(source.get_objects, per_request=PAGE, **filters):
            for item in page.get("objects", ()):
                count += 1
                if count > MOST:
                    raise Malformed("intel.size", f"expected at most {MOST} objects in a collection, got more")
                yield item
    except (TAXIIServiceException, requests.RequestException, OSError):
        raise _unavailable() from None
    except (ValueError, AttributeError, TypeError):
        raise Malformed("intel.object", "expected pages of STIX objects, got something else") from None


def push(target: Collection, objects: Sequence[dict[str, Any]]) -> int:
    """Add objects; returns how many the server took. Raises Unavailable, Malformed if it refused some."""
    if not objects:
        return 0
    try:
        status = target.add_objects({"objects": list(objects)}, wait_for_completion=True, timeout=60)
    except (TAXIIServiceException, requests.RequestException, OSError):
        raise _unavailable() from None
    if status.failure_count or status.success_count != len(objects):
        raise Malformed(
            "intel.refused",
            "expected the collection to take every object, it refused some",
            hint="its operator sees why; sightings that were taken stay",
        )
    return int(status.success_count)


def _unavailable() -> Unavailable:
    return Unavailable(
        "intel.server",
        "expected an answer of the TAXII server, got none or a refusal",
        hint="check address and credentials",
    )
