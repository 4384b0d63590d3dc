"""What a source of indicators tries, and what the operator tries with code and machines that others have warned of."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from kakoi.broker.quarantine import OWNER, Entry
from kakoi.cli.redteam.attack import Attack, NotTried, Through
from kakoi.cli.redteam.ground import Ground, ledger, until
from kakoi.cli.ui import SystemClock
from kakoi.core.ids import ObjectId
from kakoi.guard.intel import store
from kakoi.guard.intel.indicator import stamp
from kakoi.guard.intel.store import Indicators, read_objects
from kakoi.party.files import write_private
from kakoi.wire.messages import Denial, KeyGrant


def _stix(pattern: str, now: int) -> dict[str, Any]:
    return {
        "type": "indicator",
        "spec_version": "2.1",
        "id": f"indicator--{secrets.token_hex(4)}-0000-4000-8000-{secrets.token_hex(6)}",
        "created": stamp(now - 60),
        "modified": stamp(now - 60),
        "pattern": pattern,
        "pattern_type": "stix",
        "valid_from": stamp(now - 60),
        "valid_until": stamp(now + 3600),
        "confidence": 100,
    }


@contextmanager
def _told(ground: Ground, *patterns: str, trust: int | None) -> Iterator[None]:
    """The red team's owner gets indicators of a source that it believes this far, or has never named; taken back afterwards."""
    now, path = SystemClock().now(), ground.owner.path / store.FILE
    found, _ = read_objects([_stix(pattern, now) for pattern in patterns], source="exercise")
    known = Indicators().merged(found, now=now)
    write_private(path, (known if trust is None else known.trusting("exercise", trust)).encode())
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def _answer(ground: Ground) -> str:
    """What the owner answers to an honest session: the code of its denial, or nothing for a key."""
    run = ground.request()
    claim = ground.claim(run)
    try:
        ground.session(run, claim, ground.quote)
        return until(lambda: _said(ground, run), "the owner's answer").removeprefix("granted")
    finally:
        ground.machine.fail(claim)


def _said(ground: Ground, run: ObjectId) -> str:
    denied = [Denial.decode(ground.client.get_object(item).payload) for item in ground.of_run(run, Denial.KIND)]
    if denied:
        return denied[0].code
    grants = (KeyGrant.decode(ground.client.get_object(item).payload) for item in ground.of_run(run, KeyGrant.KIND))
    return "granted" if any(str(grant.owner) == str(ground.owner.card.id) for grant in grants) else ""


def poisoned_feed(ground: Ground) -> str:
    """A source that nobody named warns of everybody: of the honest code, of every address, of every empty register."""
    ground.token()
    patterns = (
        f"[x-kakoi-measurement:value = '{ground.measurement.hex()}']",
        f"[x-kakoi-key:fingerprint = '{ground.analyst.keys.signer().verifying_key.ed25519_keyid}']",
        "[ipv4-addr:value ISSUBSET '0.0.0.0/1']",
        f"[x-kakoi-measurement:value = '{'0' * 64}']",
    )
    with _told(ground, *patterns, trust=None):
        code = _answer(ground)
    if code:
        raise Through(f"honest code was refused: {code}")
    return "believed in nothing: the honest run got its key"


def believed_feed(ground: Ground) -> str:
    """A source that is believed names every register that is empty on every machine, and half of the internet."""
    ground.token()
    patterns = (f"[x-kakoi-measurement:value = '{'0' * 64}']", f"[x-kakoi-measurement:value = '{'f' * 64}']")
    with _told(ground, *patterns, "[ipv6-addr:value ISSUBSET '::/0']", trust=100):
        code = _answer(ground)
    if code:
        raise Through(f"honest code was refused: {code}")
    return "set aside: the honest run got its key"


def warned_code(ground: Ground) -> str:
    """Run code that a source which the owner believes has warned of."""
    ground.token()
    with _told(ground, f"[x-kakoi-measurement:value = '{ground.measurement.hex()}']", trust=100):
        return _must(_answer(ground), "decision.indicator")


def warned_key(ground: Ground) -> str:
    """Ask with a key that a source which the owner believes has warned of."""
    fingerprint = ground.analyst.keys.signer().verifying_key.ed25519_keyid
    with _told(ground, f"[x-kakoi-key:fingerprint = '{fingerprint}']", trust=100):
        return _must(ground.denial(ground.request()), "decision.indicator")


def after_the_grace(ground: Ground) -> str:
    """Go on under a contract that a known weakness touches, once its grace is over."""
    contract, now = ground.publish(ground.another()), SystemClock().now()
    with ledger(ground.owner) as book:
        book.quarantine.begin(
            Entry(contract=contract, cause=f"{OWNER}exercise", reason="exercise", noticed=now, since=now)
        )
    return _must(ground.denial(ground.request(contract=contract)), "decision.quarantined")


def _must(code: str, wanted: str) -> str:
    if not code:
        raise Through("an owner's key was released")
    if code != wanted:
        raise NotTried(f"denied, but for another reason: {code}")
    return code


ATTACKS: Final = (
    Attack(name="poisoned-feed", role="outsider", threat="T164", carry_out=poisoned_feed),
    Attack(name="believed-feed", role="outsider", threat="T192", carry_out=believed_feed),
    Attack(name="warned-code", role="operator", threat="T162", carry_out=warned_code),
    Attack(name="warned-key", role="analyst", threat="T191", carry_out=warned_key),
    Attack(name="after-the-grace", role="operator", threat="T163", carry_out=after_the_grace),
)
