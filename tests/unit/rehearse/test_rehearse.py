"""A contract rehearsed before anybody signs: the real sandbox, engine and gate, whose rules bite as they would."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from kakoi.contract.approve import ContractBundle
from kakoi.contract.model import Analysis, Code, Contract, DatasetManifest, Output, OutputColumn
from kakoi.contract.sign import open_card, open_signed, seal
from kakoi.core.dsse import Envelope
from kakoi.core.errors import Misuse, Refused
from kakoi.core.ids import ObjectId
from kakoi.enclave import machine
from kakoi.net.answers import FeedItem, FeedPage
from kakoi.rehearse.noise import require_noise_possible
from kakoi.rehearse.run import rehearse
from kakoi.sdk.preview import outputs_shown, stored_previews
from kakoi.sdk.terms import Terms, fetch_terms
from kakoi.testing.world import NOW, TestParty, World, column
from kakoi.wire.messages import Binding
from kakoi.wire.preview import Preview
from kakoi.wire.released import ReleasedTable
from support.clinic import shared_engine
from support.vendor import VendorWorld, make_vendor


class Hub:
    """Objects by id, as a hub gives them."""

    def __init__(self, *envelopes: Envelope) -> None:
        self.kept = {envelope.payload_id: envelope for envelope in envelopes}
        self.order = list(self.kept)

    def get_object(self, object_id: ObjectId) -> Envelope:
        return self.kept[object_id]

    def feed(self, **query: object) -> FeedPage:
        after = int(str(query.get("after", 0)))
        items = [
            FeedItem(seq=place, id=identity, kind=Preview.KIND)
            for place, identity in enumerate(self.order, start=1)
            if place > after
        ]
        return FeedPage(items=tuple(items), next=len(self.order))


class Clinics(World):
    """North keeps to three people in a cell, South wants twelve; sex has codes, so that cells are few."""

    def manifest(self, owner: TestParty) -> Envelope:
        made = super().manifest(owner)
        record = DatasetManifest.decode(made.payload)
        sex = replace(column("sex", "string"), codes=tuple(Code(value=c, label="") for c in "FMX"), missing=())
        age = replace(column("age"), minimum="0", maximum="100", missing=())
        return seal(replace(record, columns=(age, sex, column("days"))), owner.signing)


def everything(bundle: ContractBundle) -> Hub:
    return Hub(bundle.contract, *bundle.cards, *bundle.manifests, *bundle.analyses)


def stricter_south(contract: Contract) -> Contract:
    data = list(contract.data)
    data[2] = replace(data[2], rules=replace(data[2].rules, minimum_contributors=12, minimum_cell=12))
    return replace(contract, data=tuple(data))


@cache
def terms() -> Terms:
    bundle = Clinics(change_contract=stricter_south, silent=("North", "East", "South", "Analyst")).bundle()
    return fetch_terms(everything(bundle), bundle.contract.payload_id)


def preview(found: Terms, **options: object) -> Preview:
    party = found.contract.drafter
    return rehearse(found, party=party, now=NOW, engine=shared_engine(), accept=machine.missing(), **options)  # type: ignore[arg-type]


def test_a_contract_that_nobody_signed_is_rehearsed_in_three_sizes() -> None:
    made = preview(terms())
    (counts,) = made.analyses
    assert counts.parameters == (Binding(name="minimum_age", value=60),)
    assert [item.people for item in counts.rehearsals] == [30, 300, 3000]
    assert all(isinstance(output, ReleasedTable) for item in counts.rehearsals for output in item.outputs)
    small, middle, large = counts.rehearsals
    assert [(bite.rule, bite.owners) for bite in small.bites] == [("minimum-cell-and-contributors", ("South",))]
    assert small.bites[0].cells > 0
    assert (middle.bites, large.bites) == ((), ())
    (shown,) = outputs_shown(large)
    assert [row[0] for row in shown.rows] == ["F", "M", "X"]
    assert Preview.decode(made.encode()) == made


def test_the_same_contract_gives_the_same_preview() -> None:
    assert preview(terms(), sizes=(30,)) == preview(terms(), sizes=(30,))


def test_chosen_parameters_are_held_against_the_contract() -> None:
    (counts,) = preview(terms(), values=(Binding(name="minimum_age", value=0),), sizes=(30,), only="counts").analyses
    assert counts.rehearsals[0].bites == ()
    with pytest.raises(Refused) as caught:
        preview(terms(), values=(Binding(name="minimum_age", value=500),), sizes=(30,))
    assert caught.value.code == "request.parameter-range"
    with pytest.raises(Misuse) as missed:
        preview(terms(), only="other")
    assert missed.value.code == "run.analysis"


def with_source(engine: str, source: str, *outputs: Output) -> Terms:
    """The same contract with another analysis."""
    world = Clinics()
    found = terms()
    record = next(iter(found.analyses.values())).record
    analysis = replace(record, engine=engine, source=source, outputs=outputs or record.outputs, parameters=())  # type: ignore[arg-type]
    envelope = seal(analysis, world.analyst.signing)
    entry = replace(found.contract.analyses[0], analysis=envelope.payload_id)
    signed = open_signed(Analysis, envelope, world.analyst.card)
    contract = replace(found.contract, analyses=(entry,))
    return replace(found, contract=contract, analyses={envelope.payload_id: signed})


MODEL = Output(
    name="model", shape="statistics", columns=(OutputColumn(name="mean", role="value"),), parameters=40, max_rows=1
)
PYTHON = """
def analyse(tables, parameters):
    ages = tables["trial"]["age"]
    return {"model": {"mean": float(ages.mean()), "basis": len(ages)}}
"""


def test_a_denial_says_whose_rule_and_where_it_ends() -> None:
    """Forty parameters: too many for the ninety invented people of the small size, not for nine hundred."""
    (model,) = preview(with_source("python", PYTHON, MODEL), sizes=(30, 300)).analyses
    denied, released = model.rehearsals
    assert denied.refused is not None
    assert denied.refused.code == "gate.statistics-parameters"
    assert denied.bites[0].owners == ("North", "East", "South")
    assert (released.refused, len(released.outputs)) == (None, 1)


def test_an_analysis_that_fails_is_said_to_fail() -> None:
    (item,) = preview(
        with_source(
            "sql",
            "SELECT age, count(*) AS people FROM trial",
        ),
        sizes=(30,),
    ).analyses
    assert item.rehearsals[0].refused is not None
    assert item.rehearsals[0].refused.code.startswith("sql.")


def test_the_code_runs_in_the_sandbox() -> None:
    """Nobody has approved this code: on the machine of whoever rehearses it, it must reach nothing."""
    source = 'def analyse(tables, parameters):\n    open("/etc/passwd").read()\n    return {}\n'
    (item,) = preview(with_source("python", source, MODEL), sizes=(30,)).analyses
    assert item.rehearsals[0].refused is not None
    assert item.rehearsals[0].refused.code == "python.failed"


def test_a_stored_preview_is_found_and_a_strangers_is_not() -> None:
    world = Clinics()
    made = preview(terms(), sizes=(30,))
    mine = seal(made, world.analyst.signing)
    forged = seal(replace(made, made_at=NOW + 5), world.owners[0].signing)
    other = seal(replace(made, contract=ObjectId("0" * 64)), world.analyst.signing)
    found = stored_previews(Hub(mine, forged, other), terms().id, terms().cards)
    assert [(item.by, item.preview) for item in found] == [("Analyst", made)]
    assert found[0].of(made.analyses[0].analysis) == made.analyses[0]
    assert found[0].of("0" * 64) is None


def test_terms_are_checked() -> None:
    bundle = Clinics(silent=("North", "East", "South", "Analyst")).bundle()
    stolen = seal(Contract.decode(bundle.contract.payload), World().owners[0].signing)
    hub = everything(bundle)
    hub.kept[stolen.payload_id] = stolen
    with pytest.raises(Refused):
        fetch_terms(hub, stolen.payload_id)
    assert open_card(bundle.cards[0]).record.name == "North"


def test_sealed_code_is_left_out_and_named(tmp_path: Path) -> None:
    """Nobody here can open it: the others are rehearsed, and whoever asks for it alone is told."""
    world = VendorWorld(vendor=make_vendor(tmp_path / "v"))
    bundle = world.bundle()
    found = fetch_terms(everything(bundle), bundle.contract.payload_id)
    made = preview(found, sizes=(30,))
    assert [item.name for item in made.analyses] == ["counts"]
    assert made.not_rehearsed == (world.sealed_analysis().payload_id,)
    with pytest.raises(Refused) as caught:
        preview(found, only="risk")
    assert caught.value.code == "preview.sealed"


def noisy_south(contract: Contract) -> Contract:
    data = list(contract.data)
    data[2] = replace(data[2], rules=replace(data[2].rules, epsilon_per_run="0.5", epsilon_budget="5"))
    return replace(contract, data=tuple(data))


class Unbounded(Clinics):
    """Its query asks for margins, too."""

    def analysis(self) -> Envelope:
        record = Analysis.decode(super().analysis().payload)
        return seal(
            replace(record, source=record.source.replace("GROUP BY sex", "GROUP BY ROLLUP (sex)")), self.analyst.signing
        )


def noisy_terms(world: type[Clinics]) -> Terms:
    bundle = world(change_contract=noisy_south, silent=("North", "East", "South", "Analyst")).bundle()
    return fetch_terms(everything(bundle), bundle.contract.payload_id)


def test_where_an_owner_demands_noise_the_preview_shows_how_far_numbers_will_be_off() -> None:
    made = preview(noisy_terms(Clinics), sizes=(300,))
    ((shown,),) = (outputs_shown(item) for item in made.analyses[0].rehearsals)
    assert [noise.column for noise in shown.noise]
    assert all(item.at_most is not None for item in shown.noise if item.off_by == "number" and "avg" not in item.column)
    assert f"{shown.noise[0].column} 95 %" in shown.columns
    assert not any(any(row) for row in shown.held_back)


def test_a_query_without_bounds_is_refused_before_anybody_signs() -> None:
    require_noise_possible(noisy_terms(Clinics))
    require_noise_possible(terms())
    with pytest.raises(Refused) as refused:
        require_noise_possible(noisy_terms(Unbounded))
    assert refused.value.code == "sql.noise-margins"
