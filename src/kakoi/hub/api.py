"""The hub's addresses (docs/formats/hub-api.md). Thin: what happens is in ``objects``, ``runs``, ``blobs`` and ``log``."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractContextManager
from functools import partial
from typing import Final, TypeVar

from fastapi import FastAPI, Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from kakoi.core.errors import Malformed, Refused, Unavailable
from kakoi.core.ids import BlobId, parse_id
from kakoi.hub.blobs import not_found
from kakoi.hub.gate import principal
from kakoi.hub.http import Budget, Query, announced, answer, chunks, path_id, read_body, who_asks
from kakoi.hub.hub import Hub
from kakoi.hub.notify import Listener
from kakoi.net.answers import BlobStored, ClaimRequest, ClaimUpdate, Health, PartHeld

T = TypeVar("T")
_RANGE: Final = re.compile(r"bytes=([0-9]{1,16})-([0-9]{0,16})\Z")
_REFERENCE: Final = re.compile(r"([A-Za-z_][A-Za-z0-9_.-]{0,63}):([0-9a-f]{64})\Z")
_MOST_REFERENCES: Final = 4
_MOST_KINDS: Final = 32
_OCTETS: Final = "application/octet-stream"


class _Download(StreamingResponse):
    """A streamed answer that holds one place of a budget while it lasts, and begins when the storage has answered."""

    def __init__(
        self,
        budget: Budget,
        blocks: Callable[[], Awaitable[AsyncIterator[bytes]]],
        status: int,
        headers: dict[str, str],
        *,
        vital: bool,
    ) -> None:
        super().__init__((), status, headers, _OCTETS)
        self._budget, self._blocks, self._vital = budget, blocks, vital

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._budget.take(vital=self._vital):
            self.body_iterator = await self._blocks()
            await super().__call__(scope, receive, send)


class Api:
    """The addresses of one hub."""

    def __init__(self, hub: Hub) -> None:
        self._hub, self._limits = hub, hub.settings.limits

    def add_to(self, app: FastAPI) -> None:
        """Give the application all addresses. They read their requests themselves, strictly, so they are plain routes."""
        for method, path, endpoint in (
            ("GET", "/health", self.health),
            ("PUT", "/objects/{identity}", self.put_object),
            ("GET", "/objects/{identity}", self.get_object),
            ("GET", "/feed", self.feed),
            ("PUT", "/blobs/{identity}", self.put_blob),
            ("HEAD", "/blobs/{identity}", self.head_blob),  # before GET, which would answer HEAD too
            ("GET", "/blobs/{identity}", self.get_blob),
            ("GET", "/blobs/{identity}/parts", self.parts_held),
            ("PUT", "/blobs/{identity}/parts/{number}", self.put_part),
            ("POST", "/blobs/{identity}/parts", self.join_parts),
            ("POST", "/claims", self.claim),
            ("POST", "/claims/{identity}", self.update_claim),
            ("GET", "/runs", self.list_runs),
            ("GET", "/runs/{identity}", self.run),
            ("GET", "/log/checkpoint", self.checkpoint),
            ("GET", "/log/inclusion", self.inclusion),
            ("GET", "/log/consistency", self.consistency),
            ("GET", "/log/entries", self.entries),
        ):
            app.add_route(f"/v1{path}", endpoint, methods=[method])

    async def health(self, request: Request) -> Response:
        """Does the database answer?"""
        Query(request)
        await self._hub.health()
        return answer(Health(status="ok"))

    # -- objects

    async def put_object(self, request: Request) -> Response:
        """Take an object."""
        Query(request)
        self._hub.blobs.require_space(0)  # the database is on the same disk
        self._hub.budgets.body(who_asks(request), announced(request, self._limits.object_bytes))
        body = await read_body(request, self._limits.object_bytes, self._limits, self._hub.memory)
        token = request.headers.get("kakoi-claim", "")
        taken = await self._hub.objects.put(path_id(request), body, token, who_asks(request), principal(request))
        if taken.helps:
            self._give_ticket(request, taken.helps)
        return answer(taken.item, status=201 if taken.new else 200)

    def _give_ticket(self, request: Request, holder: str) -> None:
        request.state.ticket = self._hub.tickets.give(holder, who_asks(request).prefix)

    async def get_object(self, request: Request) -> Response:
        """Give an object."""
        Query(request)
        return Response(
            await self._hub.objects.get(path_id(request), principal(request)), media_type="application/json"
        )

    async def feed(self, request: Request) -> Response:
        """Objects behind a place, now or as soon as there are any."""
        query = Query(request, "after", "wait", "limit", repeatable=("kind", "ref"))
        kinds = frozenset(query.all("kind", _MOST_KINDS))
        references = frozenset(map(_reference, query.all("ref", _MOST_REFERENCES)))
        after, limit = query.integer("after", default=0), self._limit(query)
        reader, vital = self._hub.policies.permits_everything(principal(request)), who_asks(request).vital
        look = partial(self._hub.objects.page, after=after, kinds=kinds, references=references, limit=limit)
        page = await self._wait(
            request,
            query.integer("wait", default=0, most=self._limits.wait_seconds),
            lambda: self._hub.notifier.objects(kinds, references, vital=vital),
            lambda: look(reader=reader, vital=vital),
            lambda found: bool(found.items),
        )
        return answer(page)

    # -- blobs

    async def put_blob(self, request: Request) -> Response:
        """Take a blob."""
        Query(request)
        blob = BlobId(path_id(request))
        length = announced(request, self._limits.blob_bytes)
        if await self._hub.blobs.size(blob, renew=True) is not None:
            return answer(BlobStored(blob=blob))
        with self._hub.uploads.take(vital=who_asks(request).vital):
            await self._hub.parts.whole(who_asks(request), blob, length, chunks(request, length, self._limits))
        return answer(BlobStored(blob=blob), status=201)

    async def parts_held(self, request: Request) -> Response:
        """Which parts of a large blob are here?"""
        query = Query(request, "size")
        return answer(await self._hub.parts.held(who_asks(request), BlobId(path_id(request)), query.integer("size")))

    async def put_part(self, request: Request) -> Response:
        """Take one part of a large blob."""
        query = Query(request, "size", "sha256")
        blob, size, digest = BlobId(path_id(request)), query.integer("size"), parse_id(query.text("sha256"))
        number = Query.number(str(request.path_params["number"]), "the part")
        length = announced(request, self._hub.parts.part_length(size, number))
        with self._hub.uploads.take(vital=who_asks(request).vital):
            data = bytearray()  # not pieces that are joined: they would be in memory twice
            async for chunk in chunks(request, length, self._limits):
                data += chunk
            await self._hub.parts.part(who_asks(request), blob, size, number, digest, data)
        return answer(PartHeld(number=number, digest=digest), status=201)

    async def join_parts(self, request: Request) -> Response:
        """Make a large blob of its parts."""
        query = Query(request, "size")
        blob = BlobId(path_id(request))
        with self._hub.uploads.take(vital=who_asks(request).vital):
            joined = await self._hub.parts.join(who_asks(request), blob, query.integer("size"))
        return answer(BlobStored(blob=blob), status=201) if joined else Response(status_code=202)

    async def head_blob(self, request: Request) -> Response:
        """How large is a blob?"""
        Query(request)
        size = await self._size(request)
        return Response(headers={"Content-Length": str(size), "Accept-Ranges": "bytes"}, media_type=_OCTETS)

    async def get_blob(self, request: Request) -> Response:
        """Give a blob, or a range of it."""
        Query(request)
        size, blob = await self._size(request), BlobId(path_id(request))
        start, end = _range(request.headers.get("range", ""), size)
        headers = {"Content-Length": str(end - start), "Accept-Ranges": "bytes", "Cache-Control": "no-store"}
        if "range" in request.headers:
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
        blocks = partial(self._hub.blobs.open, blob, start, end)
        status = 206 if "range" in request.headers else 200
        return _Download(self._hub.downloads, blocks, status, headers, vital=who_asks(request).vital)

    async def _size(self, request: Request) -> int:
        size = await self._hub.blobs.size(BlobId(path_id(request)), renew=True)
        if size is None:
            raise not_found()
        return size

    # -- runs

    async def claim(self, request: Request) -> Response:
        """A run for an enclave, now or as soon as there is one."""
        Query(request)
        wanted = ClaimRequest.decode(await read_body(request, ClaimRequest.MAX_BYTES, self._limits, self._hub.memory))
        found = await self._wait(
            request,
            min(wanted.wait, self._limits.wait_seconds),
            self._hub.notifier.queue,
            lambda: self._hub.runs.claim(wanted),
            lambda claim: claim is not None,
        )
        self._give_ticket(request, "enclave")
        return Response(status_code=204) if found is None else answer(found)

    async def update_claim(self, request: Request) -> Response:
        """Renew or end a claim."""
        Query(request)
        body = await read_body(request, ClaimUpdate.MAX_BYTES, self._limits, self._hub.memory)
        return answer(await self._hub.runs.update(path_id(request), ClaimUpdate.decode(body)))

    async def run(self, request: Request) -> Response:
        """State of a run."""
        Query(request)
        return answer(await self._hub.runs.state(path_id(request)))

    async def list_runs(self, request: Request) -> Response:
        """Runs that changed behind a change, now or as soon as one does."""
        query = Query(request, "after", "wait", "limit", "contract")
        contract = query.identity("contract", default="")
        reader, vital = self._hub.policies.permits_everything(principal(request)), who_asks(request).vital
        after, limit = query.integer("after", default=0), self._limit(query)
        page = await self._wait(
            request,
            query.integer("wait", default=0, most=self._limits.wait_seconds),
            lambda: self._hub.notifier.runs(contract, vital=vital),
            lambda: self._hub.runs.page(after=after, contract=contract, limit=limit, reader=reader, vital=vital),
            lambda found: bool(found.items),
        )
        return answer(page)

    # -- log

    async def checkpoint(self, request: Request) -> Response:
        """The newest checkpoint."""
        Query(request)
        return Response(await self._hub.log.checkpoint(), media_type="text/plain; charset=utf-8")

    async def inclusion(self, request: Request) -> Response:
        """Index and path of a leaf hash."""
        query = Query(request, "leaf", "size")
        leaf, size, vital = bytes.fromhex(query.identity("leaf")), query.integer("size"), who_asks(request).vital
        return answer(await self._hub.log.inclusion(leaf, size, vital=vital))

    async def consistency(self, request: Request) -> Response:
        """Path between two sizes."""
        query = Query(request, "old", "new")
        old, new, vital = query.integer("old"), query.integer("new"), who_asks(request).vital
        return answer(await self._hub.log.consistency(old, new, vital=vital))

    async def entries(self, request: Request) -> Response:
        """Entries of the log."""
        query = Query(request, "start", "end")
        start, end, vital = query.integer("start"), query.integer("end"), who_asks(request).vital
        return answer(await self._hub.log.entries(start, end, self._limits.page, vital=vital))

    # -- waiting

    def _limit(self, query: Query) -> int:
        return max(1, query.integer("limit", default=100, most=self._limits.page))

    async def _wait(
        self,
        request: Request,
        seconds: float,
        listen: Callable[[], AbstractContextManager[Listener]],
        look: Callable[[], Awaitable[T]],
        enough: Callable[[T], bool],
    ) -> T:
        """What ``look`` finds, as soon as it is ``enough``, or after ``seconds``."""
        if seconds == 0:
            return await look()
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        with listen() as listener:
            gone = asyncio.ensure_future(_disconnected(request))
            try:
                while True:
                    found = await look()
                    left = deadline - loop.time()
                    if enough(found) or left <= 0 or self._hub.notifier.closed:
                        return found
                    waiting = asyncio.ensure_future(listener.wait(left))
                    with self._hub.requests.give_back():
                        await asyncio.wait({waiting, gone}, return_when=asyncio.FIRST_COMPLETED)
                    waiting.cancel()
                    if gone.done():  # before looking again: nobody is there to take what would be found
                        raise Unavailable("hub.disconnected", "expected somebody to wait for the answer, got nobody")
            finally:
                gone.cancel()


async def _disconnected(request: Request) -> None:
    """Returns when the client has hung up."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _reference(text: str) -> tuple[str, str]:
    match = _REFERENCE.match(text)
    if match is None:
        raise Malformed("hub.query", "expected ref as member:id, got something else")
    return match[1], parse_id(match[2])


def _range(text: str, size: int) -> tuple[int, int]:
    """Start and end (exclusive) of the one range that is asked for; all of it if none is."""
    if not text:
        return 0, size
    match = _RANGE.match(text)
    start, end = (int(match[1]), int(match[2] or size - 1)) if match else (size, 0)
    if not start <= end or start >= size:
        raise Refused("hub.range", "expected one range of bytes that the blob has, got another")
    return start, min(end + 1, size)
