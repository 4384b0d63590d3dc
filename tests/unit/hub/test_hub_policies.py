"""Every shipped policy: what it permits, what it does not, and that each of its permits is needed."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import cedarpy
import pytest

from kakoi.core.errors import KakoiError, Refused
from kakoi.hub.identify import Principal
from kakoi.hub.policy import SCHEMA, SHIPPED, Demands, Policies, demands_of, read, zone_of
from kakoi.hub.settings import Settings
from kakoi.net.posture import UNDECLARED, Posture

CARD, CONTRACT, GRANT = "kakoi/party-card/v1", "kakoi/contract/v1", "kakoi/key-grant/v1"
DENIAL, SESSION = "kakoi/denial/v1", "kakoi/session/v1"
BUNDLE = "kakoi/collateral-bundle/v1"
USE = ("send", "fetch", "list", "upload", "download", "watch", "audit", "unknown")


OPERATORS = ("viewer", "administrator")
ACTS = ("setQuota", "setNetworks", "collect")
NEW, OLD = Posture(version=(1, 2, 3), software=False), Posture(version=(1, 2, 2), software=False)
POSTURES = {"new": NEW, "old": OLD, "lax": replace(NEW, software=True), "strict": NEW, "": UNDECLARED}
DEMANDS = {
    "new": Demands(floor=NEW.number),
    "old": Demands(floor=NEW.number),
    "lax": Demands(hardware_only=True),
    "strict": Demands(hardware_only=True),
    "": Demands(),
}
"""Whom the policies are asked about is said as ``party``, ``old party`` (below the floor), and so on."""


def who(words: str, address: str = "127.0.0.1") -> Principal:
    posture, _, kind = words.rpartition(" ")
    named: Any = "operator" if kind in OPERATORS else kind
    return Principal(
        kind=named,
        id="a" * 64,
        public=bytes(32),
        card="c" * 64 if kind == "party" else "",
        address=address,
        posture=POSTURES[posture],
        role=kind if kind in OPERATORS else "",
    )


def thing(kind: str, state: str = "", **true: bool) -> dict[str, str | bool]:
    nothing = dict.fromkeys(("shared", "own", "concerned", "software"), False)
    return {"kind": kind, "state": state, **nothing, **true}


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
    ("party", "put", thing(GRANT, "abandoned", own=True), False),
    ("party", "put", thing(DENIAL, "abandoned", own=True), True),
    *((kind, "operate", None, kind in OPERATORS) for kind in (*OPERATORS, "party", "enclave", "newcomer")),
    *((kind, act, None, kind == "administrator") for kind in (*OPERATORS, "enclave") for act in ACTS),
    *(("administrator", action, None, False) for action in (*USE, "claim", "report", "listEverything", "introduce")),
    ("administrator", "get", thing(CONTRACT, shared=True), False),
    ("administrator", "put", thing(CARD, own=True), False),
    # what the operator demands: an old client, one that accepts the software platform, a contract or evidence that names it
    ("old party", "list", None, False),
    ("old enclave", "claim", None, False),
    ("old newcomer", "introduce", None, False),
    ("new party", "list", None, True),
    ("new viewer", "operate", None, True),
    ("lax party", "list", None, False),
    ("lax enclave", "claim", None, False),
    ("strict party", "list", None, True),
    ("strict party", "put", thing(CONTRACT, own=True, software=True), False),
    ("strict enclave", "put", thing(SESSION, software=True), False),
    ("strict enclave", "put", thing(SESSION), True),
]


def outcome(policies: Policies, kind: str, action: str, attributes: dict[str, str | bool] | None) -> bool:
    try:
        policies.require(who(kind), action, object_id="b" * 64 if attributes else "", attributes=attributes)
    except Refused:
        return False
    return True


def outcomes(folder: Path) -> list[bool]:
    hubs = {words: Policies(folder, lambda: 1_700_000_000, demands=demands) for words, demands in DEMANDS.items()}
    return [outcome(hubs[kind.rpartition(" ")[0]], kind, action, attributes) for kind, action, attributes, _ in CASES]


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


def test_every_policy_has_a_name() -> None:
    text = "\n" + read(SHIPPED)[1]
    files = len(list(SHIPPED.glob("*.cedar")))
    assert text.count("\npermit (") + text.count("\nforbid (") == text.count('@id("') == len(set(names())) - files


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


def test_demands_of_an_operator(tmp_path: Path) -> None:
    assert demands_of(Settings(directory=tmp_path)) == Demands()
    found = demands_of(Settings(directory=tmp_path, oldest_client="1.2.3", hardware_only=True))
    assert found == Demands(floor=NEW.number, hardware_only=True)
    for text in ("1.2", "v1.2.3", "01.2.3", "1.2.3 ", "1.2.12345"):
        with pytest.raises(KakoiError) as caught:
            demands_of(Settings(directory=tmp_path, oldest_client=text))
        assert caught.value.code == "hub.oldest-client"


def test_zones() -> None:
    assert [zone_of(a) for a in ("127.0.0.1", "::1", "10.0.0.1", "fd00::1", "8.8.8.8")] == [
        "loopback", "loopback", "private", "private", "public",
    ]  # fmt: skip


def test_the_library_denies_by_default() -> None:
    request = {"principal": 'Party::"a"', "action": 'Action::"list"', "resource": 'Hub::"hub"', "context": {}}
    assert not cedarpy.is_authorized(request, cedarpy.PolicySet.from_str(""), []).allowed
