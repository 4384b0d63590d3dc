"""SGX enclaves under Gramine: the pseudo files of /dev/attestation.

Source: Gramine's documentation "Attestation and Secret Provisioning". Write 64 bytes to ``user_report_data``, read ``quote``. The
files belong to the process, so only our own threads could disturb: a lock, and a look at the answer.
"""

from __future__ import annotations

import threading
from typing import Final

from kakoi.attest.report import Evidence
from kakoi.core.errors import Refused
from kakoi.evidence.devices import MAX_ANSWER, Tree, disturbed, no_answer, require_report_data, too_long

ROOT: Final = "/dev/attestation"
_REPORT_DATA: Final = slice(48 + 320, 48 + 384)
"""Where the report data lies in an SGX quote: 48 bytes of header, then the last 64 of the report body."""
_WHAT: Final = "/dev/attestation"


class GramineProducer:
    """Asks Gramine for a DCAP quote."""

    def __init__(self, tree: Tree, *, root: str = ROOT) -> None:
        self._tree, self._root = tree, root
        self._lock = threading.Lock()

    def evidence(self, report_data: bytes) -> Evidence:
        """A quote over exactly these 64 bytes. Raises Unavailable, or Refused if this is no enclave with DCAP."""
        require_report_data(report_data)
        with self._lock:
            try:
                kind = self._tree.read(f"{self._root}/attestation_type", 16).strip()
                if kind != b"dcap":
                    raise Refused(
                        "evidence.gramine",
                        "expected attestation of type dcap, got another",
                        hint='the manifest needs sgx.remote_attestation = "dcap", and gramine-sgx has to run it',
                    )
                self._tree.write(f"{self._root}/user_report_data", report_data)
                quote = self._tree.read(f"{self._root}/quote", MAX_ANSWER)
            except OSError as error:
                raise no_answer(_WHAT, error) from error
        if len(quote) > MAX_ANSWER:
            raise too_long(_WHAT)
        if quote[_REPORT_DATA] != report_data:
            raise disturbed(_WHAT)
        return Evidence(platform="sgx", statement=quote, parts=())
