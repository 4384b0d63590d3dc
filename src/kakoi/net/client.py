"""The hub as its users see it: objects, blobs, runs and log, with retries, and nothing taken on trust.

Failures are ``Unavailable`` (try again later; the client already did, for a while), ``Refused`` (the hub denies, or
what it gave is not what was asked for) or ``Malformed`` (what it gave is not in the format). Codes and texts of
the hub's own errors are passed on, bounded and without control characters. An object's id is computed again from its
bytes, a blob's digest while it streams; signatures and log proofs are for the caller to verify.
"""

from __future__ import annotations

import hashlib
import re
import ssl
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import BinaryIO, Final, Self, TypeVar
from urllib.parse import urlencode

from kakoi.core.dsse import Envelope
from kakoi.core.errors import Malformed, Refused, Unavailable
from kakoi.core.ids import BlobId, ObjectId, parse_id
from kakoi.net import answers
from kakoi.net.answers import Claim, ClaimRequest, ClaimUpdate, FeedItem, FeedPage, RunItem, RunPage, RunState
from kakoi.net.blobs import Progress, altered, download, nothing, upload
from kakoi.net.caller import Call, Caller, Patience, expect
from kakoi.net.identity import Identity
from kakoi.net.transport import BLOCK, Answer, Body, Stale

P = TypeVar("P", FeedPage, RunPage)
_RANGE: Final = re.compile(r"bytes ([0-9]{1,16})-([0-9]{1,16})/([0-9]{1,16})\Z")
_JSON: Final = {"Content-Type": "application/json"}
MAX_CHECKPOINT_BYTES: Final = 64 * 1024
PART: Final = 8 * 1024 * 1024
"""Larger blobs travel in parts."""


class HubClient:
    """A hub at ``base_url``; several addresses of hubs on one database are separated by commas. Safe to use from several threads; ``close`` ends waiting calls at their next pause."""

    def __init__(
        self,
        base_url: str,
        *,
        identity: Identity | None = None,
        patience: Patience | None = None,
        tls: ssl.SSLContext | None = None,
        insecure_plain_http: bool = False,
        pause: Callable[[float], object] | None = None,
        chance: Callable[[], float] | None = None,
        software: bool = False,
    ) -> None:
        """``identity`` signs every request: without it a hub answers ``health`` and nothing else. ``software``: this program runs on
        the software platform, or accepts it, and says so.

        ``pause(seconds)`` and ``chance()`` in [0, 1) are for tests; https is required beyond loopback.
        """
        self._keyid = "" if identity is None else identity.keyid
        self._caller = Caller(
            base_url,
            patience=patience or Patience(),
            tls=tls,
            insecure_plain_http=insecure_plain_http,
            pause=pause,
            chance=chance,
            identity=identity,
            software=software,
        )

    def close(self) -> None:
        """Give back connections; iterators end."""
        self._caller.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- objects ---------------------------------------------------------------------------------------------------

    def put_object(self, envelope: Envelope, *, claim: str = "") -> FeedItem:
        """Store an object; storing it again changes nothing. What a session signs needs the token of its ``claim``."""
        data = envelope.encode()
        headers = {**_JSON, **({"Kakoi-Claim": claim} if claim else {})}
        own = envelope.signatures[0].keyid == self._keyid
        target = f"/v1/objects/{envelope.payload_id}"
        call = Call(method="PUT", target=target, headers=headers, body=data, introduces=own)
        item = self._caller.record(call, FeedItem)
        if item.id != envelope.payload_id:
            raise Malformed("hub.answer", "expected the hub to confirm this object, got another's id")
        return item

    def get_object(self, object_id: ObjectId) -> Envelope:
        """The object with this id, its id computed again from its bytes. Signatures are the caller's to verify."""
        data = self._caller.read(Call(method="GET", target=f"/v1/objects/{parse_id(object_id)}"), Envelope.MAX_BYTES)
        envelope = Envelope.decode(data)
        if envelope.payload_id != object_id:
            raise Refused(
                "hub.object-altered",
                "expected the object with the id asked for, got another",
                hint="the hub or its storage altered it: ask the sender for the object itself",
            )
        return envelope

    def feed(
        self,
        *,
        after: int = 0,
        kinds: Sequence[str] = (),
        refs: Mapping[str, str] | None = None,
        wait: int = 0,
        limit: int = 100,
    ) -> FeedPage:
        """Objects that the hub received after ``after``, of any of ``kinds``, with all of ``refs`` (member: hex id).

        Waits up to ``wait`` seconds (at most 60) for the first one.
        """
        query = [("after", str(after)), ("limit", str(limit)), ("wait", str(wait))]
        query += [("kind", kind) for kind in kinds] + [("ref", f"{k}:{v}") for k, v in (refs or {}).items()]
        page = self._caller.record(Call(method="GET", target=f"/v1/feed?{urlencode(query)}", wait=wait), FeedPage)
        self._in_order([item.seq for item in page.items], after, page.next, limit)
        if kinds and any(item.kind not in kinds for item in page.items):
            raise Malformed("hub.feed", "expected only the kinds asked for, got another")
        return page

    def follow(
        self, *, after: int = 0, kinds: Sequence[str] = (), refs: Mapping[str, str] | None = None, wait: int = 25
    ) -> Iterator[FeedItem]:
        """All objects of a feed, those to come too, until ``close``. Raises what ``feed`` raises; go on at the last seq."""
        for page in self._follow(lambda place: self.feed(after=place, kinds=kinds, refs=refs, wait=wait), after):
            yield from page.items

    def _follow(self, fetch: Callable[[int], P], after: int) -> Iterator[P]:
        hurried = 0
        while not self._caller.closed.is_set():
            asked = time.monotonic()
            page = fetch(after)
            yield page
            # A hub that answers "nothing" at once, though it was asked to wait, must not make us spin.
            hurried = hurried + 1 if not page.items and time.monotonic() - asked < 1 else 0
            if hurried > 1:
                self._caller.pause(hurried)
            after = page.next

    @staticmethod
    def _in_order(numbers: list[int], after: int, following: int, limit: int) -> None:
        last = numbers[-1] if numbers else after
        if (
            len(numbers) > limit
            or numbers != sorted(set(numbers))
            or (numbers and numbers[0] <= after)
            or following < last
        ):
            raise Malformed("hub.feed", "expected items in order behind the one asked for, got others")

    # -- blobs -----------------------------------------------------------------------------------------------------

    def blob_size(self, blob: BlobId) -> int | None:
        """Bytes of a stored blob; None if the hub does not have it."""

        def size(answer: Answer) -> int | None:
            if answer.status == 404:
                return None
            expect(answer, 200)
            text = answer.header("Content-Length")
            if not re.fullmatch(r"[0-9]{1,16}", text):
                raise Malformed("hub.answer", "expected the size of a blob, got none")
            return int(text)

        return self._caller.retry(Call(method="HEAD", target=f"/v1/blobs/{parse_id(blob)}"), size)

    def put_blob(self, blob: BlobId, source: BinaryIO, length: int, *, progress: Progress = nothing) -> None:
        """Store ``length`` bytes from ``source`` (seekable) whose SHA-256 is ``blob``. A blob that is there is not sent.

        A large one goes in parts, several at a time; whoever calls again after an error sends only what is missing.
        """
        if self.blob_size(blob) == length:
            progress(length)
            return
        if length > PART:
            upload(self._caller, blob, source, length, progress)
            return
        body = Body(source=source, length=length)
        stored = self._caller.record(
            Call(method="PUT", target=f"/v1/blobs/{parse_id(blob)}", body=body, digest=bytes.fromhex(blob)),
            answers.BlobStored,
        )
        if stored.blob != blob:
            raise Malformed("hub.answer", "expected the hub to confirm this blob, got the digest of another")
        progress(length)

    def fetch_blob(self, blob: BlobId, path: Path, *, most: int, progress: Progress = nothing) -> None:
        """Write a blob of at most ``most`` bytes to ``path``, several parts at a time; called again, it goes on where it ended.

        Raises Refused if the hub has no such blob, or other bytes.
        """
        size = self.blob_size(blob)
        if size is None:
            raise Refused("hub.not-found", "expected the digest of a blob that is here, got another")
        if size > most:
            raise Malformed("hub.answer-size", f"expected a blob of at most {most} bytes, got another size")
        fetch = partial(self._unverified, blob)
        download(fetch, blob, size, path, part=PART, progress=progress)

    def _unverified(self, blob: BlobId, start: int, length: int) -> bytes:
        return self.unverified_range(blob, start=start, length=length)

    def stream_blob(self, blob: BlobId, *, most: int) -> Iterator[bytes]:
        """A blob of at most ``most`` bytes, in blocks of at most 256 KiB; broken downloads go on where they stopped.

        The blocks are not verified until the iterator has ended without an error: only then is SHA-256 known to be ``blob``.
        """
        digest, done, size, tries = hashlib.sha256(), 0, None, 0
        while size is None or done < size:
            begun = done
            try:
                with self._caller.once(self._range_call(blob, done, None, most)) as answer:
                    size = self._range(answer, done, size, most)
                    for block in answer.blocks():
                        digest.update(block)
                        done += len(block)
                        yield block
            except Unavailable as error:
                # A trickle of bytes is no progress, and a connection that died while nobody used it no failure.
                tries = 1 if done - begun >= BLOCK else tries + (not isinstance(error, Stale))
                self._caller.before_retry(error, tries)
        if digest.hexdigest() != blob:
            raise altered()

    def unverified_range(self, blob: BlobId, *, start: int, length: int) -> bytes:
        """``length`` bytes of a blob from ``start`` on, which the caller must check by other means."""

        def part(answer: Answer) -> bytes:
            self._range(answer, start, None, 2**53)
            return answer.read(length)

        data = self._caller.retry(self._range_call(blob, start, start + length, length), part)
        if len(data) != length:
            raise Malformed("hub.answer", "expected the range asked for, got another length")
        return data

    def _range_call(self, blob: BlobId, start: int, end: int | None, most: int) -> Call:
        headers = {"Range": f"bytes={start}-{'' if end is None else end - 1}"}
        return Call(
            method="GET",
            target=f"/v1/blobs/{parse_id(blob)}",
            headers=headers,
            extra=most / self._caller.patience.slowest,
        )

    def _range(self, answer: Answer, start: int, size: int | None, most: int) -> int:
        """The whole size that a partial answer announces, checked against what is known."""
        expect(answer, 206)
        match = _RANGE.match(answer.header("Content-Range"))
        if match is None or int(match[1]) != start or not 0 < answer.length == int(match[2]) - start + 1:
            raise Malformed("hub.answer", "expected the range asked for, got another")
        total = int(match[3])
        if total > most or (size is not None and total != size) or int(match[2]) >= total:
            raise Malformed("hub.answer-size", f"expected a blob of at most {most} bytes, got another size")
        return total

    # -- runs ------------------------------------------------------------------------------------------------------

    def claim(self, *, enclave: str, seconds: int, wait: int = 0) -> Claim | None:
        """A run to carry out, held for ``seconds`` and longer if renewed; None if there was none within ``wait`` seconds."""
        body = ClaimRequest(enclave=enclave, wait=wait, seconds=seconds).encode()
        call = Call(method="POST", target="/v1/claims", headers=_JSON, body=body, wait=wait, once=True)

        def claimed(answer: Answer) -> Claim | None:
            expect(answer, 200, 204)
            return None if answer.status == 204 else Claim.decode(answer.read(Claim.MAX_BYTES))

        return self._caller.retry(call, claimed)

    def renew(self, claim: Claim) -> RunState:
        """Hold a run for another lease. Raises Refused ``run.claim-lost`` if somebody else may have it by now."""
        return self._update(claim, ClaimUpdate(token=claim.token, action="renew"))

    def finish(self, claim: Claim) -> RunState:
        """The run is done. Saying so again changes nothing."""
        return self._update(claim, ClaimUpdate(token=claim.token, action="done"))

    def fail(self, claim: Claim) -> RunState:
        """The run failed for good. Saying so again changes nothing."""
        return self._update(claim, ClaimUpdate(token=claim.token, action="failed"))

    def _update(self, claim: Claim, update: ClaimUpdate) -> RunState:
        call = Call(method="POST", target=f"/v1/claims/{claim.run}", headers=_JSON, body=update.encode())
        return self._caller.record(call, RunState)

    def run(self, run: ObjectId) -> RunState:
        """State and attempt of a run."""
        return self._caller.record(Call(method="GET", target=f"/v1/runs/{parse_id(run)}"), RunState)

    def runs(self, *, after: int = 0, contract: str = "", wait: int = 0, limit: int = 100) -> RunPage:
        """Runs (of one contract) that changed after ``after``, each once with its present state; waits like ``feed``."""
        query = [("after", str(after)), ("limit", str(limit)), ("wait", str(wait))]
        query += [("contract", contract)] if contract else []
        page = self._caller.record(Call(method="GET", target=f"/v1/runs?{urlencode(query)}", wait=wait), RunPage)
        self._in_order([item.change for item in page.items], after, page.next, limit)
        return page

    def follow_runs(self, *, after: int = 0, contract: str = "", wait: int = 25) -> Iterator[RunItem]:
        """All changes of runs, those to come too, until ``close``. Raises what ``runs`` raises."""
        for page in self._follow(lambda place: self.runs(after=place, contract=contract, wait=wait), after):
            yield from page.items

    # -- log -------------------------------------------------------------------------------------------------------

    def log_checkpoint(self) -> bytes:
        """The newest signed checkpoint, not verified (``kakoi.net.log`` does that)."""
        return self._caller.read(Call(method="GET", target="/v1/log/checkpoint"), MAX_CHECKPOINT_BYTES)

    def log_inclusion(self, leaf: bytes, size: int) -> answers.Inclusion:
        """Index and path of a leaf hash in the log at ``size``. Raises Refused ``hub.not-found`` if it is not there."""
        target = f"/v1/log/inclusion?{urlencode({'leaf': leaf.hex(), 'size': size})}"
        return self._caller.record(Call(method="GET", target=target), answers.Inclusion)

    def log_consistency(self, old: int, new: int) -> tuple[bytes, ...]:
        """Path between two sizes of the log."""
        target = f"/v1/log/consistency?{urlencode({'old': old, 'new': new})}"
        return self._caller.record(Call(method="GET", target=target), answers.Consistency).hashes

    def log_entries(self, start: int, end: int) -> tuple[answers.LogEntry, ...]:
        """Entries ``[start, end)``, or the first of them."""
        target = f"/v1/log/entries?{urlencode({'start': start, 'end': end})}"
        page = self._caller.record(Call(method="GET", target=target), answers.LogEntries)
        if page.start != start or len(page.entries) > end - start:
            raise Malformed("hub.answer", "expected the entries asked for, got others")
        return page.entries

    def health(self) -> None:
        """Raise Unavailable unless the hub and its database answer."""
        self._caller.record(Call(method="GET", target="/v1/health"), answers.Health)
