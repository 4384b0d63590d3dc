"""The first draft of a contract in the console, the analyst's editor, and rehearsals in the review."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from html import unescape
from pathlib import Path

import pytest

from kakoi.console.first_draft import offer
from kakoi.contract.approve import ContractBundle
from kakoi.contract.model import Analysis, Contract, DatasetManifest
from kakoi.contract.sign import open_card, open_signed, seal
from kakoi.core.ids import ObjectId
from kakoi.core.records import to_value
from kakoi.testing.world import NOW, TestParty, policy
from kakoi.wire.messages import Binding
from kakoi.wire.preview import AnalysisPreview, Bite, NoOutput, Preview, Rehearsal
from kakoi.wire.released import ReleasedColumn, ReleasedTable
from support.console_desk import Desk, Visitor, open_desk

Fields = dict[str, str | list[str]]


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    with open_desk(tmp_path) as made:
        yield made


@pytest.fixture
def aoki(desk: Desk) -> Visitor:
    made = desk.enrol("Dr. Aoki")
    desk.card_with(1)
    return made


def form(desk: Desk, bundle: ContractBundle, **changes: str | list[str]) -> Fields:
    """What a person fills in: everybody's data, the analyst's code, the machines of the contract that exists."""
    manifests: list[str] = [envelope.payload_id for envelope in bundle.manifests]
    analysis, analyst = bundle.analyses[0].payload_id, desk.setting.world.analyst.id
    fields: Fields = {
        "title": "A second question",
        "purpose": "To know more.",
        "begins": "2027-01-15",
        "expires": "2027-06-30",
        "data": manifests,
        "analysis": [analysis],
        f"runs-{analysis}": "7",
        f"role-{analyst}": ["analyst"],
        "recipient": [analyst],
        "machines": bundle.contract.payload_id,
        "policy": "",
        "log": "",
        "weaknesses": "",
        "wall_seconds": "600",
        "memory_megabytes": "1024",
        "lease_seconds": "300",
        "grain_milliseconds": "1000",
        "grace_days": "14",
    }
    for identity in manifests:
        fields |= {
            f"minimum_cell-{identity}": "3",
            f"minimum_contributors-{identity}": "3",
            f"max_digits-{identity}": "6",
            f"max_output_bytes-{identity}": "250000",
            f"parameters_per_person-{identity}": "0.1",
            f"epsilon_per_run-{identity}": "0.5",
            f"epsilon_budget-{identity}": "4",
            f"rows_per_person-{identity}": "2",
        }
    for name, value in changes.items():
        rule = name.removeprefix("every ")
        fields |= {name: value} if rule == name else {f"{rule}-{identity}": value for identity in manifests}
    return fields


def drafted(desk: Desk) -> Contract:
    """The contract that this party drafted last."""
    made = desk.hub.of_kind(Contract.KIND)
    card = open_card(desk.setting.home.card.envelope)
    return open_signed(Contract, made[-1], card).record


def test_a_contract_from_nothing_but_the_form(desk: Desk, aoki: Visitor) -> None:
    bundle = desk.publish()
    page = aoki.page("/contracts/new")
    for text in ("Trial at East", "People by sex", "A trial in three hospitals"):
        assert text in page
    assert "no contract with you yet" not in page
    own = bundle.manifests[0].payload_id
    done = aoki.post("/contracts/new", **form(desk, bundle, **{f"minimum_cell-{own}": "11"}))
    assert done.status_code == 303, done.text
    made = drafted(desk)
    assert done.headers["location"] == f"/contracts/{made.id}"
    assert (made.title, made.version, made.supersedes) == ("A second question", 1, None)
    assert made.drafter == desk.setting.home.ids[0]
    assert {p.party: p.roles for p in made.parties} == {
        **{owner.id: ("owner",) for owner in desk.setting.world.owners},
        desk.setting.world.analyst.id: ("analyst",),
    }
    assert [entry.rules.minimum_cell for entry in made.data if entry.manifest == own] == [11]
    assert [(r.epsilon_per_run, r.epsilon_budget, r.rows_per_person) for r in (e.rules for e in made.data)] == [
        ("0.5", "4", 2)
    ] * len(made.data)
    assert {(r.parameters_per_person, r.max_output_bytes) for r in (e.rules for e in made.data)} == {("0.1", 250_000)}
    assert [entry.max_runs for entry in made.analyses] == [7]
    before = Contract.decode(bundle.contract.payload)
    assert (made.platforms, made.log, made.limits.wall_seconds) == (before.platforms, before.log, 600)
    assert made.expires == 1814399999
    review = aoki.page(f"/contracts/{made.id}")
    assert "A second question" in review
    assert "Approve with my passkey" in review
    assert "factor of e^0.5 in one run, and e^4 in all runs together" in review
    assert desk.console.store.rows("select what, about from event order by seq desc limit 1") == [("drafted", made.id)]


def test_machines_by_hand(desk: Desk, aoki: Visitor) -> None:
    bundle = desk.publish()
    before = Contract.decode(bundle.contract.payload)
    by_hand = {
        "machines": "paste",
        "policy": json.dumps(to_value(policy())),
        "log": json.dumps(to_value(before.log)),
        "weaknesses": "sandbox.seccomp, keeper.secret-memory",
    }
    done = aoki.post("/contracts/new", **form(desk, bundle, **by_hand))
    assert done.status_code == 303, done.text
    made = drafted(desk)
    assert made.platforms == policy()
    assert made.accepted_weaknesses == ("sandbox.seccomp", "keeper.secret-memory")


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"data": ""}, "draft.incomplete"),
        ({"analysis": ""}, "draft.incomplete"),
        ({"recipient": ""}, "draft.incomplete"),
        ({"data": "0" * 64, "minimum_cell-" + "0" * 64: "3"}, "console.form"),
        ({"analysis": "0" * 64, "runs-" + "0" * 64: "3"}, "draft.gone"),
        ({"recipient": "0" * 64}, "draft.gone"),
        ({"title": ""}, "record"),
        ({"expires": "2020-01-01"}, "contract.dates"),
        ({"expires": "soon"}, "console.form"),
        ({"machines": "paste"}, "draft.json"),
        ({"machines": "paste", "policy": "{}", "log": "{}"}, "record"),
        ({"lease_seconds": "5"}, "console.form"),
        ({"every max_output_bytes": "0"}, "console.form"),
        ({"every parameters_per_person": "1.5"}, "rules.share"),
        ({"every parameters_per_person": "many"}, "record"),
        ({"wall_seconds": "604800", "lease_seconds": "10"}, "limits.lease"),
    ],
)
def test_what_is_wrong_is_said_and_nothing_typed_is_lost(desk: Desk, aoki: Visitor, changes: Fields, code: str) -> None:
    bundle = desk.publish()
    before = len(desk.hub.of_kind(Contract.KIND))
    done = aoki.post("/contracts/new", **form(desk, bundle, **{"purpose": "Typed with <care> & love.", **changes}))
    assert done.status_code == 400
    page = unescape(done.text)
    assert f'<p class="mono">{code}' in page
    assert "Typed with <care> & love." in page
    assert "<care>" not in done.text
    assert len(desk.hub.of_kind(Contract.KIND)) == before


def test_strangers_are_marked_and_what_they_did_not_sign_is_not_offered(desk: Desk, aoki: Visitor) -> None:
    desk.publish()
    stranger = TestParty.named("Stranger <b>")
    desk.hub.put_object(stranger.card.envelope)
    manifest = DatasetManifest.decode(desk.setting.world.manifest(desk.setting.world.owners[1]).payload)
    forged = seal(replace(manifest, version=9, title="Forged"), stranger.signing)
    desk.hub.put_object(forged)
    desk.console.library.look_again()
    offered = offer(desk.console.library, desk.setting.home)
    assert stranger.id not in offered.known
    assert "Forged" not in {signed.record.title for signed in offered.data}
    page = aoki.get("/contracts/new").text
    assert "no contract with you yet" in page
    assert "<b>" not in page


def test_a_newer_version_of_a_data_set_takes_the_place_of_the_older(desk: Desk, aoki: Visitor) -> None:
    bundle = desk.publish()
    east = desk.setting.world.owners[1]
    old = bundle.manifests[1]
    newer = seal(replace(DatasetManifest.decode(old.payload), version=2), east.signing)
    desk.hub.put_object(newer)
    desk.console.library.look_again()
    offered = {signed.id for signed in offer(desk.console.library, desk.setting.home).data}
    assert newer.payload_id in offered
    assert old.payload_id not in offered
    done = aoki.post("/contracts/new", **form(desk, bundle))
    assert "draft.gone" in done.text


def test_the_next_version_keeps_what_was_typed_too(desk: Desk, aoki: Visitor) -> None:
    bundle = desk.publish()
    path = f"/contracts/{bundle.contract.payload_id}/amend"
    typed: Fields = {
        "title": "Another title",
        "purpose": "Typed.",
        "expires": "2020-01-01",
        "minimum_cell": "9",
        "minimum_contributors": "9",
        "max_digits": "4",
        "dominance_percent": "70",
        "p_percent": "0",
        "rounding_base": "5",
        "max_output_bytes": "4096",
        "parameters_per_person": "0.05",
    }
    wrong = aoki.post(path, **typed)
    assert wrong.status_code == 400
    for text in ('role="alert"', 'value="Another title"', "Typed.", 'value="2020-01-01"', 'value="9"'):
        assert text in wrong.text
    analysis: str = bundle.analyses[0].payload_id
    done = aoki.post(path, **{**typed, "expires": "2027-03-31", "analysis": [analysis], f"runs-{analysis}": "5"})
    assert done.status_code == 303, done.text
    made = drafted(desk)
    assert (made.title, made.version, made.supersedes) == ("Another title", 2, bundle.contract.payload_id)
    rules = next(entry.rules for entry in made.data if entry.rules.minimum_cell == 9)
    assert (rules.dominance_percent, rules.p_percent, rules.rounding_base) == (70, 0, 5)
    assert (rules.max_output_bytes, rules.parameters_per_person) == (4096, "0.05")


# The analyst's editor ---------------------------------------------------------------------------------------------------

DECLARED = """[[outputs]]
name = "people"
shape = "table"
max_rows = 10
columns = [{ name = "sex", role = "group" }, { name = "people", role = "count" }]
"""


def test_an_analysis_is_written_without_a_contract_and_goes_into_a_new_one(desk: Desk, aoki: Visitor) -> None:
    bundle = desk.publish()
    for envelope in bundle.manifests:
        desk.hub.put_object(envelope)
    page = aoki.page("/analyst")
    assert 'value="trial/age"' in page
    assert "def analyse(tables, parameters):" in page
    written: Fields = {
        "name": "by_sex",
        "title": "By sex",
        "engine": "python",
        "source": "def analyse(tables, parameters):\n    return {}",
        "declared": DECLARED,
        "column": ["trial/sex", "trial/site"],
        "contract": "new",
    }
    wrong = aoki.post("/analyst/publish", **{**written, "declared": "= ="})
    assert wrong.status_code == 400
    assert "draft.toml" in wrong.text
    assert "def analyse(tables, parameters):\n    return {}" in unescape(wrong.text)
    assert 'value="trial/sex" checked' in wrong.text
    done = aoki.post("/analyst/publish", **written)
    identity = desk.hub.of_kind(Analysis.KIND)[-1].payload_id
    assert done.headers["location"] == f"/contracts/new?with={identity}"
    assert f'value="{identity}" checked' in aoki.page(f"/contracts/new?with={identity}")
    more = form(desk, bundle, analysis=[identity], **{f"runs-{identity}": "2"})
    assert aoki.post("/contracts/new", **more).status_code == 303
    assert [entry.analysis for entry in drafted(desk).analyses] == [identity]


# Rehearsals -------------------------------------------------------------------------------------------------------------


def rehearsal(desk: Desk, bundle: ContractBundle, party: TestParty, *, title: str = "People by sex") -> Preview:
    table = ReleasedTable(
        name="counts",
        columns=(
            ReleasedColumn(name="sex", role="group", cells=("F", "M"), held_back=()),
            ReleasedColumn(name="people", role="count", cells=("31", None), held_back=(1,)),
        ),
        margins=(),
        rows_withheld=True,
    )
    bite = Bite(
        output="counts", rule="minimum-cell-and-contributors", action="suppressed-cells", cells=1, owners=("South",)
    )
    small = Rehearsal(
        people=10,
        outputs=(),
        rows=(),
        bites=(),
        refused=NoOutput(code="gate.cell", message="expected more", hint="ask"),
    )
    made = AnalysisPreview(
        analysis=bundle.analyses[0].payload_id,
        name="counts",
        title=title,
        parameters=(Binding(name="minimum_age", value=60),),
        rehearsals=(small, Rehearsal(people=100, outputs=(table,), rows=(5,), refused=None, bites=(bite,))),
    )
    return Preview(
        contract=ObjectId(bundle.contract.payload_id), party=party.id, analyses=(made,), not_rehearsed=(), made_at=NOW
    )


def test_a_rehearsal_is_shown_in_the_review_as_the_claim_that_it_is(desk: Desk, aoki: Visitor) -> None:
    bundle = desk.publish()
    path = f"/contracts/{bundle.contract.payload_id}"
    assert "No party has rehearsed this contract yet." in aoki.page(path)
    analyst, thief = desk.setting.world.analyst, TestParty.named("Thief")
    good = rehearsal(desk, bundle, analyst, title="<script>People")
    desk.hub.put_object(seal(good, analyst.signing))
    desk.hub.put_object(seal(rehearsal(desk, bundle, desk.setting.world.owners[1], title="Forged"), thief.signing))
    desk.console.library.look_again()
    page = aoki.page(path)
    assert "INVENTED DATA" in page
    assert "By Analyst, " in page
    assert "counts: 1 numbers held back: too few rows or people behind a number (South)" in page
    assert "… and 3 more rows" in page
    assert "gate.cell" in page
    assert "<script>People" not in aoki.get(path).text
    assert "Forged" not in page
