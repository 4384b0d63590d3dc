"""One attempt's keys, and the session object with the evidence that binds them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, Protocol

from kakoi.attest.report import Evidence
from kakoi.contract.sign import seal
from kakoi.core import crypto
from kakoi.core.crypto import SealingKey, Signature, SigningKey, VerifyingKey
from kakoi.core.dsse import Envelope
from kakoi.core.ids import ObjectId
from kakoi.enclave.keeper.secret import SecretMemory
from kakoi.wire.messages import Session, SessionRenewal, renewal_report_data, report_data

_SIGNING: Final = (0, crypto.SIGNING_SECRET)
_SEALING: Final = (crypto.SIGNING_SECRET, crypto.SEALING_SECRET)
"""Start and length in secret memory."""
_END: Final = crypto.SIGNING_SECRET + crypto.SEALING_SECRET


class Producer(Protocol):
    """Whoever asks the hardware."""

    def evidence(self, report_data: bytes) -> Evidence:
        """Evidence whose report data is exactly these 64 bytes. Raises Unavailable if the hardware does not answer."""
        ...


class SessionKeys:
    """Fresh keys of one attempt: a ``Signer`` and an ``Opener`` over secret memory. Wipe them when the attempt ends.

    A key object of the library exists only while a call lasts; the library clears its own copy when the object goes.
    """

    __slots__ = ("_memory", "sealing_public", "verifying_key")

    def __init__(self) -> None:
        self._memory = SecretMemory(_END)
        self._memory.draw(0, _END)
        with self._signing() as signing:
            self.verifying_key: VerifyingKey = signing.verifying_key
        with self._memory.part(*_SEALING) as secret:
            self.sealing_public: bytes = SealingKey(secret).sealing_public

    @contextmanager
    def _signing(self) -> Iterator[SigningKey]:
        with self._memory.part(*_SIGNING) as secret:
            yield SigningKey(secret)

    def sign(self, message: bytes) -> Signature:
        """A hybrid signature over ``message``. Raises Misuse after ``wipe``."""
        with self._signing() as signing:
            return signing.sign(message)

    def open(self, sealed: bytes, *, info: bytes) -> bytes:
        """Plaintext of an HPKE ciphertext; raises the opaque ``crypto.cannot-open``, and Misuse after ``wipe``."""
        with self._memory.part(*_SEALING) as secret:
            return SealingKey(secret).open(sealed, info=info)

    def forget_sealing(self) -> None:
        """Zero the sealing key: nothing more is to be opened."""
        self._memory.clear(*_SEALING)

    def wipe(self) -> None:
        """Zero everything. Nothing can be signed or opened afterwards."""
        self._memory.wipe()

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
        public = self.verifying_key
        bound = report_data(
            run=run,
            attempt=attempt,
            contract=contract,
            challenges=challenges,
            signing=public,
            sealing=self.sealing_public,
            missing_layers=missing_layers,
        )
        record = Session(
            run=run,
            attempt=attempt,
            contract=contract,
            challenges=challenges,
            signing_ed25519=public.ed25519,
            signing_mldsa65=public.mldsa65,
            sealing=self.sealing_public,
            missing_layers=missing_layers,
            evidence=producer.evidence(bound),
        )
        return seal(record, self)

    def renewal(
        self,
        producer: Producer,
        *,
        run: ObjectId,
        attempt: int,
        renewal: int,
        contract: ObjectId,
        session: ObjectId,
        challenges: tuple[ObjectId, ...],
    ) -> Envelope:
        """The signed renewal of a session, with fresh evidence over everything in it."""
        bound = renewal_report_data(
            run=run, attempt=attempt, renewal=renewal, contract=contract, session=session, challenges=challenges
        )
        record = SessionRenewal(
            run=run,
            attempt=attempt,
            renewal=renewal,
            contract=contract,
            session=session,
            challenges=challenges,
            evidence=producer.evidence(bound),
        )
        return seal(record, self)
