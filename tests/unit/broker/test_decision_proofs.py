"""Inclusion proofs of single decisions: they hold, and no twin of one does."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from kakoi.broker import decisions
from kakoi.broker.decisions import DecisionProof
from kakoi.broker.ledger import Decision, Ledger
from kakoi.cli.main import app
from kakoi.contract.sign import open_card
from kakoi.core.errors import KakoiError, Malformed, Refused
from kakoi.core.ids import ObjectId
from kakoi.testing.world import NOW, TestParty
from support.broker_setting import Setting


def decided(ledger: Ledger, count: int) -> None:
    for number in range(count):
        ledger.note(
            Decision(
                at=NOW + number,
                run="",
                attempt=0,
                step="read",
                outcome="no",
                code="x.y",
                message=f"no. {number}",
                hint="",
            )
        )


@pytest.fixture
def ledger(setting: Setting) -> Iterator[Ledger]:
    made = Ledger(setting.path / "ledger.sqlite")
    yield made
    made.close()


@pytest.mark.parametrize("count", [1, 2, 3, 7, 8, 13])
def test_every_decision_has_a_proof_that_holds(setting: Setting, ledger: Ledger, count: int) -> None:
    decided(ledger, count)
    roots = set()
    for number in range(1, count + 1):
        proof = decisions.prove(setting.home, ledger, number, now=NOW)
        proven = decisions.verify(proof.encode(), setting.home.card)
        assert (proven.number, proven.at, proven.body["message"]) == (number, NOW + number - 1, f"no. {number - 1}")
        assert DecisionProof.decode(proof.encode()) == proof
        roots.add(proven.head.root)
    assert roots == {decisions.head(setting.home, ledger, now=NOW).record.root}


def test_there_is_no_proof_of_nothing(setting: Setting, ledger: Ledger) -> None:
    for number in (0, 1, -1):
        with pytest.raises(Refused):
            decisions.prove(setting.home, ledger, number, now=NOW)
    with pytest.raises(Refused) as caught:
        decisions.head(setting.home, ledger, now=NOW)
    assert caught.value.code == "decision.none"


def test_twins_do_not_hold(setting: Setting, ledger: Ledger) -> None:
    decided(ledger, 6)
    card = setting.home.card
    good = decisions.prove(setting.home, ledger, 3, now=NOW)
    other = decisions.prove(setting.home, ledger, 4, now=NOW)
    decided(ledger, 1)
    later = decisions.prove(setting.home, ledger, 3, now=NOW)
    twins = [
        replace(good, body=other.body),
        replace(good, at=good.at + 1),
        replace(good, index=3),
        replace(good, path=other.path),
        replace(good, path=good.path[:-1]),
        replace(good, path=(*good.path, ObjectId("0" * 64))),
        replace(good, path=()),
        replace(good, head=later.head),
        replace(later, head=good.head),
    ]
    for twin in twins:
        with pytest.raises(Refused) as caught:
            decisions.verify(twin.encode(), card)
        assert caught.value.code == "log.inclusion"
    stranger = open_card(TestParty.named("Stranger").card.envelope)
    with pytest.raises(Refused):
        decisions.verify(good.encode(), stranger)
    with pytest.raises(Malformed):
        replace(good, index=6)


def test_no_flipped_byte_holds(setting: Setting, ledger: Ledger) -> None:
    decided(ledger, 3)
    data = decisions.prove(setting.home, ledger, 2, now=NOW).encode()
    for place in range(0, len(data), max(1, len(data) // 150)):
        with pytest.raises(KakoiError):
            decisions.verify(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :], setting.home.card)
    for cut in (data[:-1], data + b" ", data[1:], b""):
        with pytest.raises(KakoiError):
            decisions.verify(cut, setting.home.card)


CARD = open_card(TestParty.named("North").card.envelope)


@given(st.binary(max_size=300))
def test_any_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(KakoiError):
        decisions.verify(data, CARD)


def test_by_command(setting: Setting, ledger: Ledger, tmp_path: Path) -> None:
    decided(ledger, 4)
    run, file = CliRunner(), tmp_path / "proof.json"
    keys = ["--key-file", str(setting.path.parent / "key")]
    made = run.invoke(
        app, ["broker", "prove", "--party", str(setting.path), "--number", "2", "--out", str(file), *keys]
    )
    assert made.exit_code == 0, made.output
    checked = run.invoke(app, ["broker", "check-proof", str(file), "--card", str(setting.path / "card.dsse")])
    assert checked.exit_code == 0, checked.output
    assert '"message": "no. 1"' in checked.output
    assert "Decision 2 of 4" in checked.output
    none = run.invoke(
        app, ["broker", "prove", "--party", str(setting.path), "--number", "5", "--out", str(file), *keys]
    )
    assert none.exit_code == 4
