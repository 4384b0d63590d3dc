"""The whole table of what can be done to a signed request on its way, generated: each component, parameter, label and header in every wrong shape.

One request that has everything a request can have is taken once (the control); each line of the table is that request with one thing
wrong. Whatever the line, the hub refuses, says so with a code, and stores nothing.
"""

from __future__ import annotations

import base64
import re
import secrets
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Final

import pytest

from kakoi.core.encoding import b64
from kakoi.hub.serve import HubServer, running
from kakoi.hub.settings import Settings
from kakoi.net.identity import enclave_identity
from kakoi.net.signature import DERIVED, FIELDS, content_digest
from support.wire import EASY, Wire, code, everything, refused


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubServer]:
    settings = Settings(directory=tmp_path_factory.mktemp("table") / "hub", port=0, limits=EASY)
    with running(settings) as one:
        now = int(time.time())
        one.hub.authenticator.clock = lambda: now
        yield one


@pytest.fixture
def wire(server: HubServer) -> Wire:
    return everything(server)


def test_the_control_is_taken_once(server: HubServer, wire: Wire) -> None:
    assert set(wire.signature()[0].split('"')[1::2]) >= {*DERIVED, *FIELDS}, "it has every component that there is"
    data = wire.bytes()
    assert code(server, data) == ""
    assert code(server, data) == "hub.replay"


# -- components


def test_every_component_altered_behind_the_signature(server: HubServer, wire: Wire) -> None:
    given, made = wire.signature()
    other = {
        "@method": replace(wire, method="POST"),
        "@authority": replace(wire, host="localhost:" + wire.host.partition(":")[2]),
        "@path": replace(wire, target=wire.target.replace("/v1/", "/v1/%6f"[:4])),
        "@query": replace(wire, target=wire.target + "?a=1"),
        "content-length": replace(wire.with_field("content-length", str(len(wire.body) - 1)), body=wire.body[:-1]),
        "content-digest": wire.with_field("content-digest", content_digest(bytes(32))),
        "content-type": wire.with_field("content-type", "text/plain"),
        "kakoi-claim": wire.with_field("kakoi-claim", "e" * 64),
        "kakoi-key": wire.with_field("kakoi-key", f":{b64(bytes(32))}:"),
        "kakoi-posture": wire.with_field("kakoi-posture", 'version="9.9.9", software=?0'),
        "range": wire.with_field("range", "bytes=0-2"),
    }
    other["@path"] = replace(wire, target="/v1/objects/" + "0" * 64)
    assert set(other) == {*DERIVED, *FIELDS}
    for component, changed in other.items():
        head = changed.head()
        head[-3:-1] = [f"Signature-Input: {given}", f"Signature: {made}"]
        assert refused(server, wire, changed.bytes(head), component) == "signature.request", component


def test_every_component_left_out_doubled_or_moved(server: HubServer, wire: Wire) -> None:
    names = (*DERIVED, *FIELDS)
    for place, name in enumerate(names):
        without = tuple(n for n in names if n != name)
        moved = (*without[: (place + 1) % len(names)], name, *without[(place + 1) % len(names) :])
        for why, components in (
            ("left out", without),
            ("doubled", (*names, name)),
            ("doubled at once", (*names[:place], name, name, *names[place + 1 :])),
            ("moved", moved),
            ("in capitals", (*names[:place], name.upper(), *names[place + 1 :])),
        ):
            bad = replace(wire, components=components)
            assert refused(server, wire, bad.bytes(), f"{name} {why}") in ("hub.signature-covers", "hub.signature-form")
    for extra in (
        "@target-uri",
        "@request-target",
        "@scheme",
        "@status",
        "@query-param",
        "host",
        "date",
        "authorization",
    ):
        assert refused(server, wire, replace(wire, components=(*names, extra)).bytes(), extra).startswith(
            "hub.signature-"
        )
    assert refused(server, wire, replace(wire, components=("@method",)).bytes(), "one only") == "hub.signature-form"


@pytest.mark.parametrize("parameter", [";sf", ";bs", ";tr", ";req", ';key="a"', ";sf;bs", ";x"])
def test_no_component_has_parameters(server: HubServer, wire: Wire, parameter: str) -> None:
    """RFC 9421 §2.1: how a component is to be read is not the sender's choice here."""
    for name in (*DERIVED, *FIELDS):
        given, _ = wire.signature()
        head = wire.head()
        head[-3] = "Signature-Input: " + given.replace(f'"{name}"', f'"{name}"{parameter}')
        assert refused(server, wire, wire.bytes(head), f"{name}{parameter}") == "hub.signature-form"


def test_every_field_doubled_removed_or_hidden(server: HubServer, wire: Wire) -> None:
    for name, value in wire.fields:
        line = f"{name}: {value}"
        for why, change in (
            ("doubled", lambda head, line=line: [*head[:-3], line, *head[-3:]]),
            ("doubled, the other empty", lambda head, name=name: [*head[:-3], f"{name}:", *head[-3:]]),
            ("removed", lambda head, line=line: [x for x in head if x != line]),
            ("name before a blank", lambda head, line=line: [x.replace(": ", " : ") if x == line else x for x in head]),
            ("folded", lambda head, line=line: [x[:-3] + "\r\n " + x[-3:] if x == line else x for x in head]),
            ("with a tab in it", lambda head, line=line: [x[:-1] + "\t" + x[-1] if x == line else x for x in head]),
            ("not ASCII", lambda head, line=line: [x + "\xe9" if x == line else x for x in head]),
            ("list of two", lambda head, line=line, v=value: [f"{x}, {v}" if x == line else x for x in head]),
            (
                "under another name",
                lambda head, line=line, name=name: [
                    x.replace(name, name.replace("-", "_") + "_") if x == line else x for x in head
                ],
            ),
        ):
            if name == "Content-Length" and why in ("doubled", "list of two"):
                continue  # the same length said twice is one length (RFC 9110 §8.6); two lengths: test_attack_perimeter
            found = refused(server, wire, wire.bytes(change(wire.head())), f"{name} {why}")
            assert found != "hub.unsigned", (name, why)


# -- parameters


PARAMETERS: Final = ("created", "keyid", "alg", "expires", "nonce", "tag")


@pytest.mark.parametrize("name", PARAMETERS)
def test_every_parameter_left_out_doubled_moved_or_spelt_otherwise(server: HubServer, wire: Wire, name: str) -> None:
    """Signed in that shape by who holds the key: what is not in the one spelling is refused, whoever signed it."""
    whole = re.compile(rf'(.*);{name}=("[^"]*"|\d+)(.*)')
    for why, changed in (
        ("left out", r"\1\3"),
        ("doubled", rf"\1;{name}=\2\3;{name}=\2"),
        ("moved to the front", rf";{name}=\2\1\3"),
        ("moved to the end", rf"\1\3;{name}=\2"),
        ("in capitals", rf"\1;{name.upper()}=\2\3"),
        ("empty", rf'\1;{name}=""\3'),
        ("without a value", rf"\1;{name}\3"),
        ("as another type", rf"\1;{name}=:AAAA:\3"),
        ("with a blank", rf"\1; {name}=\2\3"),
        ("before an unknown one", rf"\1;{name}=\2\3;x=1"),
    ):
        if (name, why) in (("created", "moved to the front"), ("tag", "moved to the end")):
            continue  # where it stands anyway
        bad = replace(wire, parameters=partial(whole.sub, changed))
        assert refused(server, wire, bad.bytes(), f"{name} {why}") in ("hub.signature-form", "hub.signature-covers")


def test_every_parameter_altered_behind_the_signature(server: HubServer, wire: Wire) -> None:
    now, keyid = wire.created, wire.identity.keyid
    for name, old, new in (
        ("created", f"created={now}", f"created={now - 1}"),
        ("expires", f"expires={now + 60}", f"expires={now + 61}"),
        ("keyid", keyid, "enclave/another"),
        ("nonce", wire.nonce, secrets.token_urlsafe(16)),
        ("tag", "kakoi-hub-v1", "kakoi-hub-v2"),
        ("alg", '"ed25519"', '"rsa-pss-sha512"'),
    ):
        head = wire.head()
        head[-3] = head[-3].replace(old, new)
        assert refused(server, wire, wire.bytes(head), name) in ("signature.request", "hub.signature-form")


@pytest.mark.parametrize(
    "alg",
    [
        "rsa-pss-sha512",
        "rsa-v1_5-sha256",
        "hmac-sha256",
        "ecdsa-p256-sha256",
        "ecdsa-p384-sha384",
        "Ed25519",
        "none",
        "",
    ],
)
def test_other_algorithms(server: HubServer, wire: Wire, alg: str) -> None:
    bad = replace(wire, parameters=lambda text: text.replace('"ed25519"', f'"{alg}"'))
    assert refused(server, wire, bad.bytes(), alg) == "hub.signature-form"


@pytest.mark.parametrize(
    ("ahead", "seconds", "expected"),
    [
        (0, 60, ""), (0, 1, ""), (0, 300, ""), (30, 60, ""), (-59, 60, ""), (-299, 300, ""),
        (0, 301, "hub.signature-lifetime"), (0, 0, "hub.signature-lifetime"), (0, -60, "hub.signature-lifetime"),
        (0, 10**9, "hub.signature-lifetime"), (31, 60, "hub.signature-time"), (3600, 60, "hub.signature-time"),
        (-60, 60, "hub.signature-time"), (-3600, 60, "hub.signature-time"), (-300, 300, "hub.signature-time"),
        (10**10, 60, "hub.signature-time"),
    ],
)  # fmt: skip
def test_times_to_the_second(server: HubServer, wire: Wire, ahead: int, seconds: int, expected: str) -> None:
    moved = replace(wire, created=wire.created + ahead, seconds=seconds)
    assert code(server, moved.bytes()) == expected


@pytest.mark.parametrize("spelt", ["0{}", "+{}", "{}.0", '"{}"', "-{}", " {}", "{}000000000"])
def test_times_in_other_spellings(server: HubServer, wire: Wire, spelt: str) -> None:
    for name in ("created", "expires"):
        changed = partial(re.compile(rf"{name}=(\d+)").sub, f"{name}={spelt}".replace("{}", r"\g<1>"))
        bad = replace(wire, parameters=changed)
        assert refused(server, wire, bad.bytes(), f"{name} {spelt}") == "hub.signature-form"


# -- labels and signatures


def test_labels_and_second_signatures(server: HubServer, wire: Wire) -> None:
    other = replace(wire, identity=enclave_identity("other", "x" * 64))
    given, made = wire.signature()
    foreign_given, foreign = other.signature()
    foreign_given, foreign = foreign_given.replace("kakoi=", "proxy=", 1), foreign.replace("kakoi=", "proxy=", 1)
    raw = base64.b64decode(made[7:-1])
    for why, first, second in (
        ("another label", given.replace("kakoi=", "sig1=", 1), made.replace("kakoi=", "sig1=", 1)),
        ("label in capitals", given.replace("kakoi=", "KAKOI=", 1), made),
        ("labels that differ", given, made.replace("kakoi=", "sig1=", 1)),
        ("a second signature behind", f"{given}, {foreign_given}", f"{made}, {foreign}"),
        ("a second signature before", f"{foreign_given}, {given}", f"{foreign}, {made}"),
        ("a second input only", f"{given}, {foreign_given}", made),
        ("a second value only", given, f"{made}, {foreign}"),
        ("the same label twice", f"{given}, {given}", f"{made}, {made}"),
        ("no input", "", made),
        ("no value", given, ""),
        ("value as a text", given, made.replace(":", '"')),
        ("value as a token", given, "kakoi=" + made[7:-1]),
        ("value without padding", given, made.replace("==:", ":")),
        ("value with other last bits", given, re.sub(r".==:$", "B==:" if made[-4] != "B" else "C==:", made)),
        ("value one byte short", given, f"kakoi=:{b64(raw[:-1])}:"),
        ("value one byte long", given, f"kakoi=:{b64(raw + b'x')}:"),
        ("zeros", given, f"kakoi=:{b64(bytes(64))}:"),
        ("blank before the list", given.replace("=(", "= ("), made),
        ("blank in the list", given.replace('("', '( "'), made),
        ("not a list", given.replace("(", "").replace(")", ""), made),
        ("empty list", re.sub(r"\(.*\)", "()", given), made),
    ):
        head = wire.head()
        head[-3:-1] = [f"Signature-Input: {first}", f"Signature: {second}"]
        refused(server, wire, wire.bytes(head), why)
    for bit in range(0, 512, 37):
        flipped = bytearray(raw)
        flipped[bit // 8] ^= 1 << bit % 8
        head = wire.head()
        head[-2] = f"Signature: kakoi=:{b64(bytes(flipped))}:"
        assert refused(server, wire, wire.bytes(head), f"bit {bit}") == "signature.request"


def test_signature_fields_hidden_or_twice(server: HubServer, wire: Wire) -> None:
    head = wire.head()
    for line in head[-3:-1]:
        name = line.partition(":")[0]
        for why, lines_of in (
            ("twice", [*head, line]),
            ("twice, the first empty", [head[0], f"{name}:", *head[1:]]),
            ("gone", [one for one in head if one != line]),
            (
                "with an underscore",
                [one.replace(name + ":", name.replace("-", "_") + "_:") if one == line else one for one in head],
            ),
        ):
            refused(server, wire, wire.bytes(lines_of), f"{name} {why}")
