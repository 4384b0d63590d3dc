"""How a hub is run. Every limit is a number with a unit, and every default is the safe one."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from kakoi.core.dsse import Envelope

LOOPBACK: Final = frozenset({"127.0.0.1", "::1", "localhost"})
KIB: Final = 1024
MIB: Final = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one hub lets its clients use."""

    connections: int = 1024
    """Open connections; more are answered 503 and closed."""
    prefix_connections: int = 256
    """Open connections from one address prefix; more are cut."""
    prefix_connections_new: float = 25
    """New connections a second from one address prefix, in the long run; twenty times as many at once."""
    penalty_seconds: float = 5
    """For so long a prefix that spent its budget of requests gets a sixteenth of its connections."""
    late_seconds: float = 0.1
    """Lateness of the hub's own timers, several times in a row, from which strangers are sent away, if they are many ..."""
    late_requests: float = 50
    """... as many as this a second."""
    reserve_requests: float = 0.75
    """Share of ``requests`` that only those can use who take part in runs at work."""
    reserve: float = 0.25
    """The same of uploads, downloads, memory, queue and waiting."""
    requests: int = 128
    """Requests carried out at the same time, not counting those that wait for news."""
    waiters: int = 1024
    """Requests that wait for news (long poll)."""
    uploads: int = 8
    """Blobs received at the same time."""
    downloads: int = 64
    """Blobs sent at the same time."""
    queue: int = 1024
    """Changes that wait for the database."""
    head_bytes: int = 16 * KIB
    """Request line and headers."""
    head_seconds: float = 10
    """Time for a request's line and headers to arrive."""
    stall_seconds: float = 20
    """Longest silence while a body arrives or an answer is taken away."""
    slowest: int = 4 * KIB
    """Bytes per second, on average over a body, below which a request is given up."""
    keep_alive_seconds: int = 15
    object_bytes: int = Envelope.MAX_BYTES
    object_bytes_in_flight: int = 96 * MIB
    """Memory for the objects that are arriving at one moment."""
    blob_bytes: int = 1024 * 1024 * MIB
    part_bytes: int = 8 * MIB
    """Of a blob that comes in parts."""
    free_bytes: int = 64 * MIB
    """Disk space that stays free: uploads are refused before the database is in need."""
    quota_bytes: int = 64 * 1024 * MIB
    """Blobs of one party, unless the operator allows it more (``kakoi hub quota``)."""
    quota_blobs: int = 100_000
    quota_objects: int = 1_000_000
    quota_object_bytes: int = 16 * 1024 * MIB
    stranger_bytes: int = 16 * 1024 * MIB
    """Blobs that came from one address prefix in nobody's verified name."""
    strangers_bytes: int = 64 * 1024 * MIB
    """The same, from all prefixes together."""
    prefix_requests: float = 400
    """Requests a second from one address prefix, in the long run; twenty times as many at once."""
    party_requests: float = 200
    """Requests a second from a party that takes part in runs, in the long run; twenty times as many at once."""
    newcomer_bytes: float = 8 * MIB
    """Bytes of objects a second by all that take part in no run yet, in the long run; eight times as many at once."""
    newcomer_objects: float = 20
    """Objects a second from one address prefix by parties that take part in no run yet; forty times as many at once."""
    party_objects: float = 50
    """Objects a second that one party may store, in the long run; twenty times as many at once."""
    prefix_cards: float = 0.05
    """Party cards a second from one address prefix (three a minute); a hundred at once."""
    cards: float = 1
    """Party cards a second in all; five hundred at once."""
    bad_signatures: float = 5
    """Signatures a second from one address prefix that turn out wrong; a hundred at once."""
    wait_seconds: int = 60
    page: int = 1000
    claim_seconds: int = 3600


@dataclass(frozen=True, slots=True, kw_only=True)
class Listener:
    """A door of its own beside the public API: where it is, who may knock, and under which certificate."""

    host: str = "127.0.0.1"
    port: int = 0
    """0: any free port; ``<directory>/listeners.json`` says which."""
    allow: tuple[str, ...] = ()
    """Networks that are answered at all; empty: every network that reaches it."""
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    tls_client_ca: Path | None = None
    """CA certificates (PEM); with them only clients with a certificate of one of these are connected."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """One hub. ``directory`` holds everything that it keeps, and nothing else."""

    directory: Path
    host: str = "127.0.0.1"
    port: int = 8440
    """0: any free port; ``<directory>/address`` says which."""
    names: tuple[str, ...] = ()
    """Names by which clients call the hub, as host or host:port; empty: host and port, on loopback also its other names."""
    allow: tuple[str, ...] = ()
    """Networks that are answered at all, as 192.0.2.0/24; empty: every network."""
    policies: Path | None = None
    """Folder of Cedar policies with their schema; none: those that Kakoi ships."""
    oldest_client: str = ""
    """Clients of an older version than this (1.2.3), and those that do not say theirs, are denied; empty: none is."""
    hardware_only: bool = False
    """Enclaves on the software platform, clients that accept it, and contracts and sessions that name it are denied."""
    operator_token_file: Path | None = None
    """File with the token that enclaves need to take runs; ``<directory>/operator.token`` by default, made if missing."""
    database_url: str = field(default="", repr=False)
    """SQLAlchemy URL; empty: SQLite in the directory."""
    blobs: str = ""
    """Where blobs are kept: ``s3://bucket/prefix``, ``az://container/prefix``, ``gs://bucket/prefix``; empty: in the directory, or
    where its file ``blobs.url`` says. Credentials come from the environment."""
    log_origin: str = ""
    """C2SP origin of the log, used when its key is made; empty: derived from the key."""
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    tls_client_ca: Path | None = None
    """CA certificates (PEM); with them only clients with a certificate of one of these are connected (mutual TLS)."""
    enclave_ca: Path | None = None
    """CA certificates (PEM) of the operator's enclaves; with them an enclave's requests count only over a connection with a
    certificate of one of these that names the enclave."""
    insecure_plain_http: bool = False
    """Listen beyond loopback without TLS (behind a proxy that adds it)."""
    metrics: Listener | None = None
    """Where metrics and health are read; None: nowhere."""
    operations: Listener | None = None
    """Where operators sign in and see how the hub does; None: nowhere."""
    operators: Path | None = None
    """Who they are and who vouches for them (docs/operations.md); ``<directory>/operators.toml`` by default."""
    operations_name: str = ""
    """The name in the operations pages' address, as host or host:port; empty: localhost and the port."""
    hubs: int = 1
    """Hubs on one database, this one included: each gives its part of the budgets."""
    limits: Limits = field(default_factory=Limits)
