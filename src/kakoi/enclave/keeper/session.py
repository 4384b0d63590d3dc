"""One attempt's keys, and the session object with the evidence that binds them."""

from __future__ import annotations

import secrets
from typing import Protocol

from kakoi.attest.report import Evidence
from kakoi.contract.sign import seal
from kakoi.core import crypto
from kakoi.core.crypto import SealingKey, SigningKey
from kakoi.core.dsse import Envelope
from kakoi.core.ids import ObjectId
from kakoi.wire.messages import Session, report_data


class Producer(Protocol):
    """Whoever asks the hardware."""

    def evidence(self, report_data: bytes) -> Evidence:
        """Evidence whose report data is exactly these 64 bytes. Raises Unavailable if the hardware does not answer."""
        ...


class SessionKeys:
    """Fresh keys of one attempt. They exist in this process only and end with it."""

    __slots__ = ("sealing", "signing")

    def __init__(self) -> None:
        self.signing = SigningKey(secrets.token_bytes(crypto.SIGNING_SECRET))
        self.sealing = SealingKey(secrets.token_bytes(crypto.SEALING_SECRET))

    def session(
        self,
        producer: Producer,
        *,
        run: ObjectId,
        attempt: int,
        contract: ObjectId,
        challenges: tuple[ObjectId, ...],
        missing_layers: tuple[str, ...],
    ) -> Envelope:
        """The signed session object, with evidence over everything in it."""
        public = self.signing.verifying_key
        bound = report_data(
            run=run,
            attempt=attempt,
            contract=contract,
            challenges=challenges,
            signing=public,
            sealing=self.sealing.sealing_public,
            missing_layers=missing_layers,
        )
        record = Session(
            run=run,
            attempt=attempt,
            contract=contract,
            challenges=challenges,
            signing_ed25519=public.ed25519,
            signing_mldsa65=public.mldsa65,
            sealing=self.sealing.sealing_public,
            missing_layers=missing_layers,
            evidence=producer.evidence(bound),
        )
        return seal(record, self.signing)
