"""The parties of a rehearsal: throwaway keys under the real names, who all sign the contract over invented data.

So the enclave's own code runs unchanged: it gets an agreement like any other, only that no real party had a part in it. Nothing
of it leaves this process.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, replace

from kakoi.contract.approve import Agreement, ContractBundle, agree
from kakoi.contract.model import Analysis, Approval, DatasetManifest, PartyCard, SealedFile
from kakoi.contract.sign import Signed, open_card, seal
from kakoi.core import crypto
from kakoi.core.crypto import SealingKey, SigningKey
from kakoi.core.dsse import Envelope
from kakoi.core.ids import ObjectId, PartyId
from kakoi.dataset.format import ciphertext_size
from kakoi.sdk.terms import Terms

_NO_FILE = SealedFile(name="part-0", blob=ObjectId("0" * 64), size=ciphertext_size(0), segment_digests=bytes(32))

_GRAIN = 100
"""Milliseconds: invented people's secrets need no waiting."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stand:
    """Somebody who stands in for a party."""

    signing: SigningKey
    card: Signed[PartyCard]

    @classmethod
    def for_party(cls, card: PartyCard) -> _Stand:
        signing = SigningKey(secrets.token_bytes(crypto.SIGNING_SECRET))
        sealing = SealingKey(secrets.token_bytes(crypto.SEALING_SECRET))
        record = replace(
            card,
            ed25519=signing.verifying_key.ed25519,
            mldsa65=signing.verifying_key.mldsa65,
            sealing=sealing.sealing_public,
            people=(),
            approvals_required=0,
            relying_party="",
        )
        return cls(signing=signing, card=open_card(seal(record, signing)))

    @property
    def id(self) -> PartyId:
        return PartyId(self.card.id)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """A contract that everybody on the stage has signed, and which of its objects stands for which real one."""

    agreement: Agreement
    manifests: dict[str, str]
    """Ids on the stage by real ids."""
    analyses: dict[str, str]


def stage(terms: Terms, *, accept: tuple[str, ...] = ()) -> Stage:
    """The contract of ``terms`` among stand-ins. ``accept``: layers that this machine may lack besides those of the contract.

    Analyses with sealed code are left out: nobody here can open it. Raises Refused for what no party could sign, such as an
    analysis that reads a column that nobody declares.
    """
    stands = {identity: _Stand.for_party(card.record) for identity, card in terms.cards.items()}
    manifests = {i: _manifest(signed.record, stands) for i, signed in terms.manifests.items()}
    analyses = {i: _analysis(s.record, stands) for i, s in terms.analyses.items() if s.record.sealed_code is None}
    real = terms.contract
    contract = replace(
        real,
        version=1,
        supersedes=None,
        drafter=stands[real.drafter].id,
        parties=tuple(replace(entry, party=stands[entry.party].id) for entry in real.parties),
        data=tuple(
            replace(entry, manifest=manifests[entry.manifest].payload_id, owner=stands[entry.owner].id)
            for entry in real.data
        ),
        analyses=tuple(
            replace(entry, analysis=analyses[entry.analysis].payload_id)
            for entry in real.analyses
            if entry.analysis in analyses
        ),
        code=(),
        limits=replace(real.limits, grain_milliseconds=_GRAIN),
        recipients=tuple(stands[party].id for party in real.recipients),
        accepted_weaknesses=tuple(dict.fromkeys((*real.accepted_weaknesses, *accept))),
    )
    envelope = seal(contract, stands[real.drafter].signing)
    approvals = tuple(
        seal(
            Approval(contract=envelope.payload_id, party=stand.id, assertions=(), approved_at=real.not_before),
            stand.signing,
        )
        for stand in stands.values()
    )
    bundle = ContractBundle(
        contract=envelope,
        cards=tuple(stand.card.envelope for stand in stands.values()),
        manifests=tuple(manifests.values()),
        analyses=tuple(analyses.values()),
        code=(),
        reviews=(),
        approvals=approvals,
    )
    return Stage(
        agreement=agree(bundle),
        manifests={real_id: made.payload_id for real_id, made in manifests.items()},
        analyses={real_id: made.payload_id for real_id, made in analyses.items()},
    )


def _manifest(manifest: DatasetManifest, stands: dict[str, _Stand]) -> Envelope:
    owner = stands[manifest.owner]
    return seal(replace(manifest, owner=owner.id, files=(_NO_FILE,)), owner.signing)


def _analysis(analysis: Analysis, stands: dict[str, _Stand]) -> Envelope:
    author = stands[analysis.author]
    return seal(replace(analysis, author=author.id), author.signing)
