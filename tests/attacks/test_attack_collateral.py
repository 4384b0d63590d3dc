"""Attacks on what brokers learn from vendors, each really tried on a whole broker. THREAT_MODEL.md T70–T74.

The broker, its decision, its judge and its way of asking are the product's; vendor, server and hub are pretended, and
play the attacker where the attack needs one of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

import pytest

from kakoi.attest.draft import draft
from kakoi.attest.policy import AttestationPolicy, PlatformPolicy
from kakoi.attest.registry import Verifier
from kakoi.attest.report import Evidence, PlatformKind
from kakoi.attest.sgx.verify import SgxVerifier
from kakoi.broker.collateral import KeptCollateral, KeptPieces
from kakoi.broker.collateral_pieces import Anchors, Services
from kakoi.broker.ledger import Ledger
from kakoi.broker.service import COLLATERAL_SECONDS, Broker
from kakoi.cli.serve import judge_with
from kakoi.contract.approve import Agreement
from kakoi.contract.sign import open_signed, seal
from kakoi.core import crypto
from kakoi.core.crypto import SealingKey, SigningKey
from kakoi.core.dsse import Envelope
from kakoi.testing.collateral_servers import Canned, VendorServer, intel_routes, listed_nitro
from kakoi.testing.dcap_vendor import DAY, Vendor, level, sgx_body
from kakoi.testing.dcap_vendor_corpus import verify
from kakoi.testing.world import NOW, seeded
from kakoi.wire.messages import Challenge, Denial, KeyGrant, Session, report_data
from support.broker_setting import Setting
from support.collateral import GET

TCB = "/sgx/certification/v4/tcb?fmspc="


def vendor(**changes: object) -> Vendor:
    """The pretended Intel on the day of this world."""
    fields: dict[str, object] = {
        "issued": NOW - DAY,
        "next_update": NOW + 29 * DAY,
        "crl_window": (NOW - DAY, NOW + 29 * DAY),
        **changes,
    }
    return Vendor(**fields)  # type: ignore[arg-type]


def words(intel: Vendor, **changes: object) -> dict[str, Canned]:
    """What the same vendor, with the same keys, says when these things are different."""
    before = {name: getattr(intel, name) for name in changes}
    for name, value in changes.items():
        setattr(intel, name, value)
    routes = intel_routes(intel)
    for name, value in before.items():
        setattr(intel, name, value)
    return routes


@dataclass
class Case:
    """One owner's broker that asks ``server``, and an enclave on a machine of ``intel``."""

    setting: Setting
    server: VendorServer
    intel: Vendor
    told: list[str] = field(default_factory=list)
    agreement: Agreement = field(init=False)

    def contract(self, change: Mapping[str, object] | None = None) -> None:
        """A contract that accepts exactly this machine while it is up to date."""
        good = vendor(root=self.intel.root, ppid=self.intel.ppid)
        entry: PlatformPolicy = draft(verify(good, now=NOW), collateral_max_age=30 * DAY)
        entry = replace(entry, minimum_tcb_evaluation_number=1, **(change or {}))  # type: ignore[arg-type]
        self.setting.world.change_contract = lambda c: replace(c, platforms=AttestationPolicy(accepted=(entry,)))
        self.agreement = self.setting.publish()

    def broker(self) -> Broker:
        roots = self.intel.roots
        kept = KeptCollateral(
            KeptPieces(self.setting.path / "collateral"),
            services=Services(intel=self.server.url, aws=self.server.url),
            get=GET,
            tell=lambda error: self.told.append(error.code),
            anchors=Anchors(intel=roots),
        )
        verifiers: dict[PlatformKind, Verifier] = {"sgx": SgxVerifier(roots)}
        return Broker(
            home=self.setting.home,
            ledger=Ledger(self.setting.path / "ledger.sqlite"),
            hub=self.setting.hub,
            collateral=kept,
            judge=judge_with(lambda policy: verifiers),
            clock=self.setting.clock,
            tell=self.setting.told.append,
        )

    def session(self, request: Envelope, evidence: Evidence | None = None) -> Envelope:
        """A genuine session on this machine; ``evidence`` replaces its own."""
        signing = SigningKey(seeded("session/signing", crypto.SIGNING_SECRET))
        sealing = SealingKey(seeded("session/sealing", crypto.SEALING_SECRET))
        challenges = tuple(
            sorted(
                envelope.payload_id
                for envelope in self.setting.hub.of_kind(Challenge.KIND)
                if Challenge.decode(envelope.payload).run == request.payload_id
            )
        )
        bound = report_data(
            run=request.payload_id,
            attempt=1,
            contract=self.agreement.id,
            challenges=challenges,
            signing=signing.verifying_key,
            sealing=sealing.sealing_public,
            missing_layers=(),
        )
        record = Session(
            run=request.payload_id,
            attempt=1,
            contract=self.agreement.id,
            challenges=challenges,
            signing_ed25519=signing.verifying_key.ed25519,
            signing_mldsa65=signing.verifying_key.mldsa65,
            sealing=sealing.sealing_public,
            missing_layers=(),
            evidence=evidence or self.intel.evidence(sgx_body(report_data=bound)),
        )
        return seal(record, signing)

    def attempt(self, nonce: str = "1", evidence: Evidence | None = None) -> Broker:
        """A run up to the broker's answer to its session, if it gives one."""
        request = self.setting.world.request(self.agreement, nonce=nonce)
        self.setting.hub.put_object(request)
        broker = self.broker()
        broker.step(wait=0)
        self.setting.hub.put_object(self.session(request, evidence))
        broker.step(wait=0)
        return broker

    @property
    def grants(self) -> int:
        return len(self.setting.hub.of_kind(KeyGrant.KIND))

    def denials(self) -> list[Denial]:
        found = self.setting.hub.of_kind(Denial.KIND)
        return [open_signed(Denial, envelope, self.setting.home.card).record for envelope in found]

    def log(self) -> list[str]:
        return [decision.code for decision in self.setting.told if decision.outcome == "no"]


@pytest.fixture
def case(setting: Setting) -> Iterator[Case]:
    intel = vendor()
    with VendorServer(intel_routes(intel)) as server:
        yield Case(setting, server, intel)


def test_the_honest_case(case: Case) -> None:
    """Without an attack the key is given: what refuses below is the attack."""
    case.contract()
    case.attempt()
    assert case.grants == 1
    assert not case.log()
    assert Ledger(case.setting.path / "ledger.sqlite").floors("sgx") == {"00906ed50000": 17}


def test_a_service_that_calls_an_old_machine_up_to_date(case: Case) -> None:
    """T70: whoever controls the service or the way to it, and rewrites one word of the vendor's."""
    levels = [level(9, 13, "UpToDate"), level(4, 13, "OutOfDate")]
    case.server.routes.update(words(case.intel, tcb_levels=levels))
    (path,) = [path for path in case.server.routes if path.startswith(TCB)]
    forged = case.server.routes[path].body.replace(b"OutOfDate", b"UpToDate")
    case.server.routes[path] = replace(case.server.routes[path], body=forged)
    case.contract()
    broker = case.attempt()
    assert (case.grants, case.log()) == (0, ["collateral.not-genuine"])
    case.setting.clock.time += COLLATERAL_SECONDS + 1
    broker.step(wait=0)
    assert [denial.code for denial in case.denials()] == ["collateral.not-genuine"]
    assert case.grants == 0


def test_endorsements_from_before_an_advisory(case: Case) -> None:
    """T71: genuine, still in their window, and from a time when this machine was up to date."""
    case.contract()
    news = words(
        case.intel,
        issued=NOW - 3600,
        evaluation_number=18,
        qe_evaluation_number=18,
        tcb_levels=[level(9, 13, "UpToDate"), level(5, 13, "OutOfDate", advisories=("INTEL-SA-00999",))],
    )
    # The news is here: the older answer is dropped, and the machine is refused by the news.
    case.server.routes.update(news)
    case.attempt("1")
    assert {"tcb-status", "advisories"} <= {check.name for check in case.denials()[0].checks}
    case.server.routes.update(intel_routes(case.intel))
    case.setting.clock.time += DAY // 2
    case.attempt("2")
    assert case.told == ["collateral.older"]
    assert len(case.denials()) == 2
    # The news is gone, as on a new disk, but this owner has accepted something under it: the number does not go back.
    for path in (case.setting.path / "collateral").iterdir():
        path.unlink()
    Ledger(case.setting.path / "ledger.sqlite").raise_floor("sgx", "00906ed50000", 18)
    case.attempt("3")
    assert [check.name for check in case.denials()[-1].checks] == ["tcb-evaluation-number.rollback"]
    assert case.grants == 0


def test_a_revocation_is_withheld(case: Case) -> None:
    """T72: the list with this machine on it never arrives. What is kept serves until its window or the contract ends it."""
    case.contract({"collateral_max_age": DAY + 3600})
    case.attempt("1")
    assert case.grants == 1
    case.server.routes.clear()
    case.setting.clock.time += DAY // 2
    case.attempt("2")
    assert [check.name for check in case.denials()[-1].checks] == ["collateral-age"]
    assert case.grants == 1
    assert "collateral.answer" in case.told


def test_a_revocation_that_arrives_is_not_taken_for_a_lie(case: Case) -> None:
    """T72: the newest list revokes the machine's own certificate authority; the older, kinder list must not win."""
    case.contract()
    case.attempt("1")
    assert case.grants == 1
    case.intel.root.revoked.append(case.intel.ca.certificate.serial)
    case.server.routes.update(words(case.intel, crl_window=(NOW, NOW + 29 * DAY)))
    case.setting.clock.time += DAY // 2
    case.attempt("2")
    assert [denial.code for denial in case.denials()] == ["x509.revoked"]
    assert case.grants == 1


@pytest.mark.parametrize("canned", [Canned(body=b"", silent=True), Canned(body=b"x" * 10**6, drip=0.2)])
def test_a_service_that_never_ends_its_answer(case: Case, canned: Canned) -> None:
    """T73: the broker goes on; the session waits, and others are answered."""
    case.contract()
    for path in list(case.server.routes):
        case.server.routes[path] = replace(canned, media="application/json" if "tcb?" in path else canned.media)
    broker = case.attempt()
    assert case.log() == ["collateral.timeout"]
    asked = len(case.server.asked)
    request = case.setting.world.request(case.agreement, nonce="another")
    case.setting.hub.put_object(request)
    broker.step(wait=0)
    assert len(case.setting.hub.of_kind(Challenge.KIND)) == 2
    assert len(case.server.asked) == asked


def test_evidence_that_names_a_host(case: Case) -> None:
    """T74: a Nitro document of the attacker's own making says where its lists are: inside the hospital's network."""
    nitro = listed_nitro(f"{case.server.url}/crl/ab4960cc-7d63-42bd-9e9f-59338cb67f84.crl", "")
    case.contract()
    case.attempt("1", Evidence(platform="nitro", statement=nitro.document(), parts=()))
    assert case.denials()[-1].code == "appraisal.platform-not-accepted"
    kept = KeptCollateral(
        KeptPieces(case.setting.path / "collateral"),
        services=Services(aws=""),
        get=GET,
        tell=lambda error: None,
        anchors=Anchors(aws=nitro.roots),
    )
    assert kept.collateral(Evidence(platform="nitro", statement=nitro.document(), parts=()), NOW).parts == ()
    assert not case.server.asked
