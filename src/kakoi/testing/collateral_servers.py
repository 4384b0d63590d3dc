"""Local servers that answer like Intel's PCS, a PCCS, AMD's KDS and AWS's lists, from pretended vendors, and that lie.

``routes`` is a plain mapping from path and query to an answer: an attack is written as an edit of it.
"""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Final, Self
from urllib.parse import quote

from kakoi.attest.dcap.parse import BodyKind
from kakoi.attest.snp.endorsement import TCB_LAYOUT
from kakoi.attest.snp.parse import SigningKey
from kakoi.core import der
from kakoi.core.encoding import dumps
from kakoi.core.x509_fields import to_pem
from kakoi.evidence import mint
from kakoi.testing import nitro_vendor
from kakoi.testing import x509_kit as kit
from kakoi.testing.amd_vendor import AmdVendor, Chip
from kakoi.testing.dcap_vendor import Vendor
from kakoi.testing.nitro_vendor import REGION, NitroVendor

BINARY: Final = "application/octet-stream"
JSON: Final = "application/json"
_SPL: Final = {"fmc": "fmcSPL", "boot-loader": "blSPL", "tee": "teeSPL", "snp": "snpSPL", "microcode": "ucodeSPL"}
ROOT_LIST: Final = "ab4960cc-7d63-42bd-9e9f-59338cb67f84"
REGION_LIST: Final = "e7f1198f-2766-4ca0-85e5-7a75f05d9614"
_SLOW_SECONDS: Final = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Canned:
    """One answer, and how it misbehaves."""

    body: bytes
    media: str = BINARY
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    chunked: bool = False
    silent: bool = False
    """Take the request and say nothing."""
    drip: float = 0.0
    """Seconds between single bytes of the body."""
    drop: int = 0
    """Leave out this many bytes at the end, and hang up."""
    length: str | None = None
    """Content-Length to announce instead of the true one; empty: none."""


class _Handler(BaseHTTPRequestHandler):
    """Answers from its server's ``routes``."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        server = self.server
        assert isinstance(server, _Server)  # noqa: S101 - a fake for tests
        server.asked.append(self.path)
        canned = server.routes.get(self.path, Canned(body=b"Not Found", media="text/plain", status=404))
        self.close_connection = True
        try:
            self._answer(canned, server)
        except OSError:
            return  # the client had enough

    def _answer(self, canned: Canned, server: _Server) -> None:
        if canned.silent:
            server.stopped.wait(_SLOW_SECONDS)
            return
        self.send_response(canned.status)
        if canned.media:
            self.send_header("Content-Type", canned.media)
        for name, value in canned.headers.items():
            self.send_header(name, value)
        if canned.chunked:
            self.send_header("Transfer-Encoding", "chunked")
        elif canned.length != "":
            self.send_header("Content-Length", canned.length or str(len(canned.body)))
        self.end_headers()
        body = canned.body
        if canned.chunked:
            half = len(body) // 2
            chunks = [part for part in (body[:half], body[half:]) if part]
            body = b"".join(f"{len(part):x}\r\n".encode() + part + b"\r\n" for part in chunks) + b"0\r\n\r\n"
        body = body[: len(body) - canned.drop]
        if not canned.drip:
            self.wfile.write(body)
            return
        for at in range(len(body)):
            if server.stopped.is_set():
                return
            self.wfile.write(body[at : at + 1])
            self.wfile.flush()
            time.sleep(canned.drip)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's name
        """Say nothing."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.routes: dict[str, Canned] = {}
        self.asked: list[str] = []
        self.stopped = threading.Event()

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up is no news."""


class VendorServer:
    """A server on loopback. As a context manager it ends its threads."""

    def __init__(self, routes: Mapping[str, Canned] | None = None, *, tls: ssl.SSLContext | None = None) -> None:
        self._server = _Server()
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self._server.routes.update(routes or {})
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)

    @property
    def url(self) -> str:
        """``http://127.0.0.1:PORT``."""
        return f"http://127.0.0.1:{self._server.server_port}"

    @property
    def routes(self) -> dict[str, Canned]:
        """Answers by path and query. Others are answered 404."""
        return self._server.routes

    @property
    def asked(self) -> list[str]:
        """Every path that was asked for, in order."""
        return self._server.asked

    def change(self, part: str, **changes: object) -> None:
        """Change every answer whose path contains ``part``. Raises KeyError if there is none."""
        found = [path for path in self.routes if part in path]
        if not found:
            raise KeyError(part)
        for path in found:
            self.routes[path] = replace(self.routes[path], **changes)  # type: ignore[arg-type]

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.stopped.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def intel_routes(
    vendor: Vendor, kind: BodyKind = "sgx", *, hex_lists: bool = False, fmspc: str = ""
) -> dict[str, Canned]:
    """PCS v4, with the root's list where a PCCS has it. ``hex_lists``: as a PCCS writes that list."""
    parts, tee = vendor.parts(kind), "sgx" if kind == "sgx" else "tdx"
    fmspc = fmspc or vendor.fmspc.hex().upper()

    def signed(name: str, member: str, header: str) -> Canned:
        signature = parts[f"{name}_signature"].hex().encode()
        body = b'{"' + member.encode() + b'":' + parts[name] + b',"signature":"' + signature + b'"}'
        return Canned(body=body, media=JSON, headers={header: quote(parts[f"{name}_issuer_chain"].decode())})

    root_list = parts["root_ca_crl"]
    return {
        "/sgx/certification/v4/pckcrl?ca=platform&encoding=der": Canned(
            body=parts["pck_crl"],
            media="application/pkix-crl",
            headers={"SGX-PCK-CRL-Issuer-Chain": quote(parts["pck_crl_issuer_chain"].decode())},
        ),
        "/sgx/certification/v4/rootcacrl": Canned(body=root_list.hex().encode() if hex_lists else root_list),
        f"/{tee}/certification/v4/tcb?fmspc={fmspc}": signed("tcb_info", "tcbInfo", "TCB-Info-Issuer-Chain"),
        f"/{tee}/certification/v4/qe/identity": signed(
            "qe_identity", "enclaveIdentity", "SGX-Enclave-Identity-Issuer-Chain"
        ),
    }


def amd_routes(vendor: AmdVendor, *chips: Chip, kind: SigningKey = "VCEK") -> dict[str, Canned]:
    """KDS: chain, list, and the certificates of these chips."""
    key, product = kind.lower(), vendor.product
    chain = to_pem(vendor.intermediate(kind).der, vendor.ark.der)
    routes = {
        f"/{key}/v1/{product}/cert_chain": Canned(body=chain, media="application/x-pem-file"),
        f"/{key}/v1/{product}/crl": Canned(body=vendor.crl(), media="application/pkix-crl"),
    }
    for chip in chips:
        query = "&".join(f"{_SPL[name]}={chip.tcb[name]}" for name in TCB_LAYOUT[product])
        path = f"/vcek/v1/{product}/{chip.hwid.hex()}?{query}"
        routes[path] = Canned(body=chip.certificate, media="application/pkix-cert")
    return routes


def crl_point(url: str) -> mint.ExtensionSpec:
    """CRLDistributionPoints with one address."""
    body = url.encode()
    for tag in (0x86, 0xA0, 0xA0, der.SEQUENCE, der.SEQUENCE):
        body = der.write(tag, body)
    return ("2.5.29.31", False, body)


@lru_cache(maxsize=8)
def listed_nitro(root_url: str = "", region_url: str = "") -> NitroVendor:
    """A pretended AWS whose certificates say where their lists are, as genuine ones do."""
    root_url = root_url or f"http://aws-nitro-enclaves-crl.s3.amazonaws.com/crl/{ROOT_LIST}.crl"
    host = f"crl-{REGION}-aws-nitro-enclaves.s3.{REGION}.amazonaws.com"
    region_url = region_url or f"http://{host}/crl/{REGION_LIST}.crl"
    root = nitro_vendor.vendor().root

    def child(above: kit.Authority, name: str, path_length: int, *more: mint.ExtensionSpec) -> kit.Authority:
        key = mint.EcKey.generate("P-384")
        extensions = [*mint.ca_extensions(key.public, above.key.public, path_length), *more]
        subject = mint.name(c="US", o="Amazon", ou="AWS", cn=f"{name}{REGION}.aws.nitro-enclaves")
        return above.child("", key=key, extensions=extensions, name=subject)

    regional = child(root, "0123.", 2, crl_point(root_url))
    zonal = child(regional, "4567.zonal.", 1, crl_point(region_url))
    instance = child(zonal, "i-0123456789abcdef0.", 0)
    return NitroVendor(root=root, regional=regional, zonal=zonal, instance=instance)


def aws_routes(vendor: NitroVendor) -> dict[str, Canned]:
    """A mirror of both hosts."""
    lists = vendor.lists()
    return {
        f"/crl/{ROOT_LIST}.crl": Canned(body=lists["crl-root"], media="application/pkix-crl"),
        f"/crl/{REGION_LIST}.crl": Canned(body=lists["crl-region"], media="binary/octet-stream"),
    }


def signed_answer(vendor: Vendor, name: str, member: str, value: object) -> bytes:
    """The body of a changed TCB information or identity, signed anew by this vendor."""
    parts = vendor.sign(name, value)  # type: ignore[arg-type]
    return dumps({member: value, "signature": parts[f"{name}_signature"].hex()})
