"""What anybody tries with many, slow or large requests. Bounded and short: it must show that a limit is there, and press nobody out.

The budgets that these attacks use up are those of the red team's own address prefix, and fill again within seconds; each attack waits until
an honest request of the same prefix is answered. Where the red team sits behind the same address as others, they wait as long.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from contextlib import ExitStack, closing, suppress
from typing import Final

from kakoi.cli.redteam.attack import Attack, NotTried, Through
from kakoi.cli.redteam.ground import Ground
from kakoi.cli.redteam.request_attacks import answered, connected, identity_of, refused, signed

SLOW: Final = 24
"""Connections that are held with half a head."""
SLOW_SECONDS: Final = 40
"""A hub that has not ended them by then does not end them: its own limit is ten seconds."""
WRONG: Final = 220
"""Signatures that do not verify; the hub lets a hundred of a prefix through at once."""
RESTORED_SECONDS: Final = 90
_RUBBISH: Final = 512 * 1024


def slow_heads(ground: Ground) -> str:
    """Connections that send half a request and then nothing. Others are answered meanwhile, and the hub ends them."""
    with ExitStack() as stack:
        held = [stack.enter_context(closing(connected(ground))) for _ in range(SLOW)]
        for connection in held:
            with suppress(OSError):
                connection.sendall(b"GET /v1/feed HTTP/1.1\r\nHost: hub\r\nX-Slow: ")
        if answered(ground, signed(ground))[0] != 200:
            raise Through(f"{SLOW} slow connections kept an honest request from being answered")
        deadline = time.monotonic() + SLOW_SECONDS
        for connection in held:
            if not _ended(connection, deadline):
                raise Through(f"a connection with half a head is open after {SLOW_SECONDS} seconds")
    return f"{SLOW} slow connections ended"


def _ended(connection: object, deadline: float) -> bool:
    connection.settimeout(max(0.1, deadline - time.monotonic()))  # type: ignore[attr-defined]
    try:
        while connection.recv(4096):  # type: ignore[attr-defined]
            pass
    except TimeoutError:
        return False
    except OSError:
        return True
    return True


def rubbish(ground: Ground) -> str:
    """Half a megabyte that is no envelope, under a signature of the red team's own."""
    body = secrets.token_bytes(_RUBBISH)
    data = signed(ground, "PUT", f"/v1/objects/{'0' * 64}", body=body)
    return refused(ground, data, "hub.envelope")


def wrong_signatures(ground: Ground) -> str:
    """Many signatures that do not verify: they are counted, and whoever sends them has to wait."""
    victim, found = identity_of(ground.owner).keyid, ""
    for _ in range(WRONG):
        status, code = answered(ground, signed(ground, claimed=victim))
        if status < 400:
            raise Through(f"answered {status}")
        if status == 429:
            found = code
            break
    _restored(lambda: answered(ground, signed(ground))[0] == 200)
    if not found:
        raise Through(f"{WRONG} wrong signatures in a row were all looked at")
    return found


def _restored(good: Callable[[], bool]) -> None:
    deadline = time.monotonic() + RESTORED_SECONDS
    while not good():
        if time.monotonic() > deadline:
            raise NotTried(f"the hub did not answer an honest request again within {RESTORED_SECONDS} seconds")
        time.sleep(0.5)


ATTACKS: Final = (
    Attack(name="slow-heads", role="network", threat="T144", also=("T146",), carry_out=slow_heads),
    Attack(name="rubbish", role="outsider", threat="T145", carry_out=rubbish),
    Attack(name="wrong-signatures", role="network", threat="T143", carry_out=wrong_signatures),
)
