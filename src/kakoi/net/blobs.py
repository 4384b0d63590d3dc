"""Large blobs in parts: several at a time, each checked by itself, and going on where an earlier try ended.

The whole is hashed besides, while it is read or given away in order: the hub is believed in nothing, and a file that changes
while it is sent is noticed here.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import BinaryIO, Final

from kakoi.core.errors import Malformed, Misuse, Refused
from kakoi.core.ids import BlobId, ObjectId
from kakoi.net.answers import BlobStored, PartHeld, PartsHeld
from kakoi.net.caller import Call, Caller, expect
from kakoi.net.transport import BLOCK, Answer

AT_ONCE: Final = 4
_LARGEST_PART: Final = 64 * 1024 * 1024
_JOIN_SECONDS: Final = 30
_JOIN_TRIES: Final = 1000
Progress = Callable[[int], object]
"""Called with the number of bytes that are done since the last call."""


def upload(caller: Caller, blob: BlobId, source: BinaryIO, length: int, progress: Progress) -> None:
    """Send ``length`` bytes whose SHA-256 is ``blob``, in parts; those that the hub has are not sent again.

    Memory: ``AT_ONCE`` + 1 parts. Raises Misuse if ``source`` is not what ``blob`` says, and what the hub says.
    """
    target = f"/v1/blobs/{blob}/parts"
    held = caller.record(Call(method="GET", target=f"{target}?size={length}"), PartsHeld)
    if held.part_bytes > _LARGEST_PART:
        raise Malformed("hub.answer", f"expected parts of at most {_LARGEST_PART} bytes, got larger ones")
    known = {part.number: part.digest for part in held.parts}
    whole = hashlib.sha256()
    with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="upload") as pool:
        sending: set[Future[int]] = set()
        try:
            for number in range(-(-length // held.part_bytes)):
                data = _read(source, min(held.part_bytes, length - number * held.part_bytes))
                whole.update(data)
                digest = hashlib.sha256(data).hexdigest()
                if known.get(number) == digest:
                    progress(len(data))
                    continue
                sending = _room(sending, progress)
                place = f"{target}/{number}?size={length}&sha256={digest}"
                sending.add(pool.submit(_send, caller, place, PartHeld(number=number, digest=ObjectId(digest)), data))
            if whole.hexdigest() != blob:
                raise Misuse(
                    "net.source", "expected to read the bytes of this blob, got others", hint="did the file change?"
                )
            while sending:
                sending = _room(sending, progress, most=0)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    _join(caller, blob, f"{target}?size={length}")


def _read(source: BinaryIO, length: int) -> bytes:
    try:
        data = source.read(length)
    except OSError as error:
        raise Misuse("net.source", f"expected to read what is to be sent, got: {error.strerror}") from None
    if len(data) != length:
        raise Misuse("net.source", "expected as many bytes to send as announced, got fewer")
    return data


def _room(sending: set[Future[int]], progress: Progress, most: int = AT_ONCE - 1) -> set[Future[int]]:
    """Wait until at most ``most`` parts are under way. Raises what one of them met."""
    while len(sending) > most:
        done, sending = wait(sending, return_when=FIRST_COMPLETED)
        for one in done:
            progress(one.result())
    return sending


def _send(caller: Caller, target: str, part: PartHeld, data: bytes) -> int:
    if caller.record(Call(method="PUT", target=target, body=data), PartHeld) != part:
        raise Malformed("hub.answer", "expected the hub to confirm this part, got another")
    return len(data)


def _join(caller: Caller, blob: BlobId, target: str) -> None:
    def joined(answer: Answer) -> bool:
        expect(answer, 201, 202)
        if answer.status == 202:
            return False
        if BlobStored.decode(answer.read(BlobStored.MAX_BYTES)).blob != blob:
            raise Malformed("hub.answer", "expected the hub to confirm this blob, got the digest of another")
        return True

    call = Call(method="POST", target=target, wait=_JOIN_SECONDS)
    for _ in range(_JOIN_TRIES):
        if caller.retry(call, joined):
            return
        caller.pause(1)
    raise Malformed("hub.answer", "expected the hub to finish joining a blob, got no end of it")


def in_order(fetch: Callable[[int, int], bytes], size: int, *, part: int, start: int = 0) -> Iterator[bytes]:
    """Bytes from ``start`` to ``size`` in order, fetched ``AT_ONCE`` parts at a time. Memory: so many parts."""
    with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="download") as pool:
        coming: deque[Future[bytes]] = deque()
        place = start
        try:
            while coming or place < size:
                while place < size and len(coming) < AT_ONCE:
                    length = min(part, size - place)
                    coming.append(pool.submit(fetch, place, length))
                    place += length
                data = coming.popleft().result()
                yield from (data[at : at + BLOCK] for at in range(0, len(data), BLOCK))
        finally:
            pool.shutdown(cancel_futures=True)


def download(
    fetch: Callable[[int, int], bytes], blob: BlobId, size: int, path: Path, *, part: int, progress: Progress
) -> None:
    """Write a blob to ``path``. What an earlier try left in ``path.part`` is hashed again, and not fetched again.

    Raises Refused if the bytes are not the blob's: then nothing is left.
    """
    coming = path.with_name(path.name + ".part")
    digest, done = hashlib.sha256(), 0
    with coming.open("a+b") as file:
        file.seek(0)
        while done < size and (block := file.read(min(BLOCK, size - done))):
            digest.update(block)
            done += len(block)
        progress(done)
        file.truncate(done)
        for block in in_order(fetch, size, part=part, start=done):
            file.write(block)
            digest.update(block)
            progress(len(block))
    if digest.hexdigest() != blob:
        coming.unlink()
        raise altered()
    coming.replace(path)


def altered() -> Refused:
    """The one error for a blob that is not what its name says."""
    return Refused(
        "hub.blob-altered",
        "expected the blob with the digest asked for, got other bytes",
        hint="the hub or its storage altered it: ask the owner to upload it again",
    )


def nothing(_: int) -> None:
    """No progress is shown."""
