"""Azure's instance metadata service, as far as evidence needs it. Reachable from inside the VM only, over plain HTTP; not trusted.

Source: Microsoft Learn, "Azure confidential VM" (THIM: GET /metadata/THIM/amd/certification with header Metadata: true;
TD quotes: POST /acc/tdquote). What comes back is judged by the owners' verifiers like everything else.
"""

from __future__ import annotations

import base64
import binascii
import http.client
import json
from dataclasses import dataclass
from typing import Final

from kakoi.attest.report import Part
from kakoi.core.errors import Unavailable

HOST: Final = "169.254.169.254"
_MAX_ANSWER: Final = 256 * 1024
_SECONDS: Final = 10
_BEGIN, _END = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"


@dataclass(frozen=True, slots=True, kw_only=True)
class Metadata:
    """The service at ``host``:``port``."""

    host: str = HOST
    port: int = 80

    def certificates(self) -> tuple[Part, ...]:
        """VCEK, ASK and ARK of this host, DER. Raises Unavailable."""
        value = self._json("GET", "/metadata/THIM/amd/certification", {"Metadata": "true"}, b"")
        try:
            vcek, intermediate, root = _der(value["vcekCert"] + value["certificateChain"])
        except (KeyError, ValueError) as error:
            raise _wrong() from error
        parts = (("vcek", vcek), ("intermediate", intermediate), ("root", root))
        return tuple(Part(name=name, data=data) for name, data in parts)

    def td_quote(self, report: bytes) -> bytes:
        """A DCAP quote over a TDREPORT. Raises Unavailable."""
        text = base64.urlsafe_b64encode(report).rstrip(b"=").decode()
        body = json.dumps({"report": text}).encode()
        value = self._json("POST", "/acc/tdquote", {"Content-Type": "application/json"}, body)
        try:
            quote = value["quote"]
            return base64.b64decode(quote + "=" * (-len(quote) % 4), altchars=b"-_", validate=True)
        except (KeyError, ValueError) as error:
            raise _wrong() from error

    def _json(self, method: str, path: str, headers: dict[str, str], body: bytes) -> dict[str, str]:
        connection = http.client.HTTPConnection(self.host, self.port, timeout=_SECONDS)
        try:
            connection.request(method, path, body=body or None, headers=headers)
            with connection.getresponse() as response:
                data = response.read(_MAX_ANSWER + 1)
            if response.status != 200 or len(data) > _MAX_ANSWER:
                raise _wrong()
            value = json.loads(data)
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise _wrong() from error
        finally:
            connection.close()
        if not isinstance(value, dict):
            raise _wrong()
        return {name: text for name, text in value.items() if isinstance(text, str)}


def _der(text: str) -> list[bytes]:
    """Certificates in PEM text. Raises ValueError."""
    out = []
    for block in text.split(_BEGIN)[1:]:
        inner, separator, _ = block.partition(_END)
        if not separator:
            raise ValueError("unfinished PEM")
        try:
            out.append(base64.b64decode("".join(inner.split()), validate=True))
        except binascii.Error as error:
            raise ValueError("bad base64 in PEM") from error
    return out


def _wrong() -> Unavailable:
    return Unavailable(
        "evidence.metadata",
        "expected an answer of Azure's instance metadata service, got none that fits",
        hint="is this an Azure confidential VM? the service answers from inside the VM only",
    )
