"""Every shipped policy: what it permits, what it does not, and that each of its permits is needed."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import cedarpy
import pytest

from kakoi.core.errors import KakoiError, Refused
from kakoi.hub.identify import Principal
from kakoi.hub.policy import SCHEMA, SHIPPED, Policies, read, zone_of

CARD, CONTRACT, GRANT = "kakoi/party-card/v1", "kakoi/contract/v1", "kakoi/key-grant/v1"
BUNDLE = "kakoi/collateral-bundle/v1"
USE = ("send", "fetch", "list", "upload", "download", "watch", "audit", "unknown")


def who(kind: Any, address: str = "127.0.0.1") -> Principal:
    return Principal(
        kind=kind, id="a" * 64, public=bytes(32), card="c" * 64 if kind == "party" else "", address=address
    )


def thing(kind: str, **true: bool) -> dict[str, str | bool]:
    return {"kind": kind, "shared": False, "own": False, "concerned": False, **true}


CASES: list[tuple[str, str, dict[str, str | bool] | None, bool]] = [
    *((kind, action, None, True) for kind in ("party", "enclave") for action in USE),
    *(("newcomer", action, None, False) for action in (*USE, "claim", "report", "listEverything")),
    ("newcomer", "introduce", None, True),
    ("party", "introduce", None, False),
    ("enclave", "introduce", None, False),
    *(("party", action, None, False) for action in ("claim", "report", "listEverything")),
    *(("enclave", action, None, True) for action in ("claim", "report", "listEverything")),
    *((kind, "noSuchAction", None, False) for kind in ("party", "enclave", "newcomer")),
    ("newcomer", "put", thing(CARD, own=True), True),
    ("newcomer", "put", thing(CARD), False),
    ("newcomer", "put", thing(CONTRACT, own=True), False),
    ("newcomer", "get", thing(CARD, shared=True, concerned=True), False),
    ("party", "put", thing(GRANT, own=True), True),
    ("party", "put", thing(GRANT, concerned=True), False),
    ("party", "put", thing(CARD), True),
    ("party", "put", thing(BUNDLE), True),
    ("party", "put", thing(CONTRACT, shared=True), False),
    ("party", "get", thing(CONTRACT, shared=True), True),
    ("party", "get", thing(GRANT, concerned=True), True),
    ("party", "get", thing(GRANT, own=True), False),
    ("party", "get", thing(GRANT), False),
    ("enclave", "get", thing(GRANT), True),
    ("enclave", "put", thing(GRANT), True),
]


def outcome(policies: Policies, kind: str, action: str, attributes: dict[str, str | bool] | None) -> bool:
    try:
        policies.require(who(kind), action, object_id="b" * 64 if attributes else "", attributes=attributes)
    except Refused:
        return False
    return True


def outcomes(folder: Path) -> list[bool]:
    policies = Policies(folder, lambda: 1_700_000_000)
    return [outcome(policies, kind, action, attributes) for kind, action, attributes, _ in CASES]


def test_every_case() -> None:
    assert outcomes(SHIPPED) == [expected for *_, expected in CASES]


def copy_without(tmp_path: Path, drop: str) -> Path:
    folder = tmp_path / drop
    folder.mkdir()
    shutil.copy(SHIPPED / SCHEMA, folder)
    for path in SHIPPED.glob("*.cedar"):
        parts = path.read_text("utf-8").split('@id("')
        kept = [part for part in parts[1:] if not part.startswith(f'{drop}"')]
        if path.stem != drop and kept:
            (folder / path.name).write_text(parts[0] + "".join(f'@id("{part}' for part in kept), "utf-8")
    return folder


def names() -> list[str]:
    found = [path.stem for path in sorted(SHIPPED.glob("*.cedar"))]
    for path in sorted(SHIPPED.glob("*.cedar")):
        found += [part.partition('"')[0] for part in path.read_text("utf-8").split('@id("')[1:]]
    return found


@pytest.mark.parametrize("drop", names())
def test_without_any_one_policy_some_case_fails(tmp_path: Path, drop: str) -> None:
    assert outcomes(copy_without(tmp_path, drop)) != [expected for *_, expected in CASES]


def test_every_permit_has_a_name() -> None:
    _, text = read(SHIPPED)
    assert text.count("\npermit (") + text.startswith("permit (") == text.count('@id("') == len(set(names())) - 3


def refused(folder: Path) -> str:
    with pytest.raises(KakoiError) as caught:
        Policies(folder, lambda: 0)
    return caught.value.code


def test_folders_that_cannot_be(tmp_path: Path) -> None:
    assert refused(tmp_path / "none") == "hub.policies"
    shutil.copy(SHIPPED / SCHEMA, tmp_path)
    assert refused(tmp_path) == "hub.policies"
    for text in (
        "permit (",
        "permit (principal is Nobody, action, resource);",
        'permit (principal, action == Action::"fly", resource);',
    ):
        (tmp_path / "a.cedar").write_text(text)
        assert refused(tmp_path) == "hub.policies", text


def test_an_operators_own_policies_by_network_and_time(tmp_path: Path) -> None:
    shutil.copytree(SHIPPED, tmp_path / "own")
    (tmp_path / "own" / "own.cedar").write_text(
        'forbid (principal is Party, action == Action::"upload", resource) unless { context.zone == "loopback" };\n'
        'forbid (principal, action == Action::"audit", resource) when { context.minute < 480 || context.weekday > 5 };\n'
        'forbid (principal, action, resource) when { context.address.isInRange(ip("192.0.2.0/24")) };\n'
    )
    now = [1_700_049_600]  # Wednesday, 12:00 UTC
    seen: list[dict[str, str]] = []
    policies = Policies(tmp_path / "own", lambda: now[0], lambda decision: seen.append(dict(decision)))

    def permitted(action: str, address: str) -> bool:
        try:
            policies.require(who("party", address), action)
        except KakoiError:
            return False
        return True

    assert permitted("upload", "127.0.0.1")
    assert not permitted("upload", "10.1.2.3")
    assert not permitted("list", "192.0.2.7")
    assert permitted("audit", "10.1.2.3")
    now[0] -= 6 * 3600
    assert not permitted("audit", "10.1.2.3")
    now[0] += 4 * 86400 + 6 * 3600
    assert not permitted("audit", "10.1.2.3")
    assert [item["decision"] for item in seen] == ["permit", "deny", "deny", "permit", "deny", "deny"]
    assert permitted("upload", "127.0.0.1")
    assert len(seen) == 7, "what is answered from memory is a decision too"


def test_a_policy_that_fails_permits_nothing(tmp_path: Path) -> None:
    shutil.copytree(SHIPPED, tmp_path / "own")
    (tmp_path / "own" / "own.cedar").write_text(
        'forbid (principal, action == Action::"list", resource) when { context.minute * 9223372036854775807 > 1 };\n'
    )
    policies = Policies(tmp_path / "own", lambda: 1_700_049_600)
    assert not outcome(policies, "party", "list", None)
    assert outcome(policies, "party", "fetch", None)


def test_zones() -> None:
    assert [zone_of(a) for a in ("127.0.0.1", "::1", "10.0.0.1", "fd00::1", "8.8.8.8")] == [
        "loopback", "loopback", "private", "private", "public",
    ]  # fmt: skip


def test_the_library_denies_by_default() -> None:
    request = {"principal": 'Party::"a"', "action": 'Action::"list"', "resource": 'Hub::"hub"', "context": {}}
    assert not cedarpy.is_authorized(request, cedarpy.PolicySet.from_str(""), []).allowed
