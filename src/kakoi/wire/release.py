"""Asking the owners to let a result go: what both sides must agree on."""

from __future__ import annotations

from collections.abc import Iterable

from kakoi.contract.approve import Agreement
from kakoi.contract.rules import NO_EPSILON, strictest_epsilon
from kakoi.contract.sign import Signed, open_self_signed
from kakoi.core.dsse import Envelope
from kakoi.core.encoding import framed, sha256
from kakoi.core.errors import Malformed, Refused
from kakoi.core.ids import ObjectId
from kakoi.wire.messages import ReleaseRequest, RunRequest, Session
from kakoi.wire.request import setting_of


def open_release_request(envelope: Envelope, session: Signed[Session]) -> Signed[ReleaseRequest]:
    """A release request that the session's own key signed and that names it. Raises Malformed or Refused."""
    request = open_self_signed(ReleaseRequest, envelope, lambda _: session.record.verifying_key)
    record = request.record
    named = (record.session, record.run, record.attempt, record.contract)
    if named != (session.id, session.record.run, session.record.attempt, session.record.contract):
        raise Refused("session.replayed", "expected a release request of this session, got one of another")
    if (record.epsilon == NO_EPSILON) != (record.noise is None):
        raise Malformed(
            "release-request.noise",
            "expected noise with its epsilon, or neither",
            hint="the contract says whether an owner demands noise: kakoi contract show",
        )
    return request


def data_read(agreement: Agreement, analysis: str) -> tuple[str, ...]:
    """Manifests of the data sets that an analysis reads: those for which a run gets keys."""
    return tuple(
        identity
        for owner in agreement.owners_of(analysis)
        for identity in agreement.keys_of(owner, analysis)
        if identity in agreement.manifests
    )


def data_id(agreement: Agreement, analysis: str) -> ObjectId:
    """What stands for the data sets that an analysis reads: the same for every contract over exactly these versions of these data.

    A manifest that was only signed anew changes nothing. Cohorts of earlier releases are compared where this is equal.
    """
    found = [agreement.manifests[identity].record for identity in data_read(agreement, analysis)]
    parts = sorted(framed(bytes.fromhex(m.dataset), m.version.to_bytes(4, "big"), m.key_commitment) for m in found)
    return ObjectId(sha256(framed(b"kakoi/data/v1", *parts)).hex())


def epsilon_of(agreement: Agreement) -> str:
    """What a run under this contract may tell about one person: the strictest owner's bound, ``none`` if no owner demands noise."""
    return strictest_epsilon(entry.rules.epsilon_per_run for entry in agreement.contract.data)


def noise_id(agreement: Agreement, request: RunRequest, lists: Iterable[str]) -> ObjectId:
    """What the noise of a run belongs to: contract, analysis, parameters, versions of the data, and who is left out of them.

    Asked again, the same question gets the same noise and costs nothing new. ``lists``: names of all owners' lists of opt-outs. Another
    list is other data: with the same noise, the difference of two results would be one person's own numbers.
    """
    parts = (agreement.id, setting_of(request, lists), data_id(agreement, request.analysis))
    return ObjectId(sha256(framed(b"kakoi/noise/v1", *map(bytes.fromhex, parts))).hex())
