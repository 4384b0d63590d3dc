"""Releases: a session asks to let its result go; this owner holds it against its budgets, writes it down, and says yes or no."""

from __future__ import annotations

from typing import Any

from kakoi.broker.decide import decide_release
from kakoi.broker.desk import Desk
from kakoi.broker.ledger import Answer
from kakoi.broker.releases import Entry
from kakoi.contract.sign import Signed, open_signed
from kakoi.core.dsse import Envelope
from kakoi.core.errors import Malformed, Refused
from kakoi.core.ids import ObjectId
from kakoi.wire.analyst_run import open_session
from kakoi.wire.broker_run import JudgeRelease, ReleaseWanted
from kakoi.wire.messages import EarlierCohorts, KeyGrant, Release, ReleaseRequest, RunRequest
from kakoi.wire.release import data_id, open_release_request
from kakoi.wire.request import setting_of


class LettingGo:
    """The part of a broker that answers release requests."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def arrived(self, envelope: Envelope, contract: ObjectId, request: Envelope) -> None:
        """Judge a release request. Raises Malformed or Refused for what is none of a session of this owner."""
        claimed = ReleaseRequest.decode(envelope.payload)
        session = open_session(self._desk.hub.get_object(claimed.session))
        asked = open_release_request(envelope, session)
        for instruction in self._desk.machine(claimed.run).handle(ReleaseWanted(request=asked)):
            if isinstance(instruction, JudgeRelease):
                self._judge(contract, request, asked)

    def _judge(self, contract: ObjectId, request: Envelope, asked: Signed[ReleaseRequest]) -> None:
        now, record = self._desk.clock.now(), asked.record
        try:
            self._release(contract, request, asked, now)
        except (Malformed, Refused) as error:
            self._desk.say_no(record.run, contract, record.attempt, asked.id, error, now)

    def _release(self, contract: ObjectId, request: Envelope, asked: Signed[ReleaseRequest], now: int) -> None:
        desk, record = self._desk, asked.record
        agreement, me, wanted = desk.agreement(contract), desk.me(contract), RunRequest.decode(request.payload)
        desk.require_unwarned(agreement)
        datasets = tuple(sorted(agreement.manifests[e.manifest].record.dataset for e in agreement.data_of(me)))
        releases = desk.ledger.releases
        setting = setting_of(wanted, self._lists(asked))
        decide_release(
            agreement=agreement,
            owner=me,
            request=wanted,
            setting=setting,
            asked=record,
            facts=desk.facts(request),
            spent=releases.spent(datasets, wanted.analysis, besides=record.run),
            now=now,
        )
        data = data_id(agreement, wanted.analysis)
        said: dict[str, Any] = {
            "run": record.run,
            "attempt": record.attempt,
            "contract": contract,
            "session": record.session,
            "owner": me,
            "request": asked.id,
        }
        earlier = desk.sign(EarlierCohorts(**said, cohorts=releases.earlier(data, besides=record.run)))
        entry = Entry(
            at=now,
            run=record.run,
            attempt=record.attempt,
            contract=contract,
            analysis=wanted.analysis,
            setting=setting,
            data=data,
            datasets=datasets,
            kilobytes=record.output_kilobytes,
            epsilon=record.epsilon,
            noise=record.noise or "",
            cohorts=record.cohorts,
        )
        place = releases.place().after(entry)
        yes = Release(
            **said,
            earlier=earlier.payload_id,
            position=place.position,
            head=ObjectId(place.head.hex()),
            released_at=now,
        )
        answers = (
            Answer(run=record.run, attempt=record.attempt, stage="earlier", about=asked.id, envelope=earlier),
            Answer(run=record.run, attempt=record.attempt, stage="release", about=asked.id, envelope=desk.sign(yes)),
        )
        desk.release(answers, entry, place)

    def _lists(self, asked: Signed[ReleaseRequest]) -> list[str]:
        """Names of this owner's lists of opt-outs that the session was given, by this owner's own record of its grant."""
        said = self._desk.ledger.answers(asked.record.run)
        grants = [a.envelope for a in said if (a.stage, a.about) == ("grant", asked.record.session)]
        return [item.name for envelope in grants for item in KeyGrant.decode(envelope.payload).opt_outs]

    def own(self, envelope: Envelope) -> None:
        """A release that came back through the hub. Raises Fatal if this owner signed it and its ledger does not know it."""
        claimed = Release.decode(envelope.payload)
        if claimed.owner not in self._desk.home.ids:
            return
        try:
            release = open_signed(Release, envelope, self._desk.home.card).record
        except Refused:
            return  # somebody else's word about this owner
        self._desk.ledger.releases.require(release.position, release.head)
