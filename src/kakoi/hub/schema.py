"""The hub's tables. Plain types and no triggers, so that SQLite and PostgreSQL hold the same rows."""

from __future__ import annotations

from typing import Final

from sqlalchemy import BigInteger, Column, Index, Integer, LargeBinary, MetaData, SmallInteger, String, Table

VERSION: Final = "0004"
"""Of these tables: the newest file in ``migrations/versions``."""
metadata: Final = MetaData()
_ID: Final = String(64)
_KIND: Final = String(80)
_BIG: Final = BigInteger().with_variant(Integer, "sqlite")
"""64 bits on both; SQLite makes an INTEGER primary key the row's own address."""

version = Table("alembic_version", metadata, Column("version_num", String(32), primary_key=True))
"""One row, in the form that Alembic keeps."""

meta = Table(
    "meta", metadata, Column("name", String(40), primary_key=True), Column("value", String(400), nullable=False)
)
"""The identity of the log that this database belongs to."""

head = Table(
    "head",
    metadata,
    Column("id", SmallInteger, primary_key=True, autoincrement=False),
    Column("seq", _BIG, nullable=False),
    Column("change", _BIG, nullable=False),
    Column("size", _BIG, nullable=False),
)
"""One row: the last place in the feed, the last change of a run, the log's size. Whoever changes anything locks it
first, so places become visible in their order and no reader of a feed can miss one."""

objects = Table(
    "objects",
    metadata,
    Column("seq", _BIG, primary_key=True, autoincrement=False),
    Column("id", _ID, nullable=False, unique=True),
    Column("kind", _KIND, nullable=False),
    Column("signer", _ID, nullable=False),
    Column("received", _BIG, nullable=False),
    Column("envelope", LargeBinary, nullable=False),
    Index("objects_kind", "kind", "seq"),
)

refs = Table(
    "refs",
    metadata,
    Column("member", _ID, primary_key=True),
    Column("value", _ID, primary_key=True),
    Column("kind", _KIND, primary_key=True),
    Column("seq", _BIG, primary_key=True, autoincrement=False),
    sqlite_with_rowid=False,
)
"""What an object names. The key answers every filtered feed from one place in the index, in order."""

keys = Table(
    "keys",
    metadata,
    Column("ed25519_keyid", _ID, primary_key=True),
    Column("mldsa65_keyid", _ID, primary_key=True),
    Column("object", _ID, primary_key=True),
    Column("ed25519", LargeBinary, nullable=False),
    Column("mldsa65", LargeBinary, nullable=False),
    Column("run", _ID, nullable=True),
    Column("attempt", SmallInteger, nullable=True),
)
"""Keys by who introduced them: party cards (no run) and sessions."""

runs = Table(
    "runs",
    metadata,
    Column("run", _ID, primary_key=True),
    Column("contract", _ID, nullable=False),
    Column("seq", _BIG, nullable=False),
    Column("change", _BIG, nullable=False),
    Column("state", String(12), nullable=False),
    Column("attempt", SmallInteger, nullable=False),
    Column("enclave", String(80), nullable=False),
    Column("token", LargeBinary, nullable=False),
    Column("lease_seconds", Integer, nullable=False),
    Column("lease_until", _BIG, nullable=False),
    Index("runs_queue", "state", "seq"),
    Index("runs_change", "change"),
    Index("runs_contract", "contract", "change"),
    Index("runs_turn", "state", "contract", "seq"),
)
"""``token`` is the SHA-256 of the claim's token; it stays after the end, so that saying "done" again is the same."""

leaves = Table(
    "leaves",
    metadata,
    Column("position", _BIG, primary_key=True, autoincrement=False),
    Column("hash", LargeBinary(32), nullable=False, unique=True),
    Column("kind", _KIND, nullable=False),
    Column("object", _ID, nullable=False),
)

nodes = Table(
    "nodes",
    metadata,
    Column("id", _BIG, primary_key=True, autoincrement=False),
    Column("hash", LargeBinary(32), nullable=False),
)
"""Hashes of the log's complete subtrees, by position and level in one number; written once."""

usage = Table(
    "usage",
    metadata,
    Column("identity", String(100), primary_key=True),
    Column("blobs", _BIG, nullable=False),
    Column("blob_bytes", _BIG, nullable=False),
    Column("objects", _BIG, nullable=False),
    Column("object_bytes", _BIG, nullable=False),
    Column("most_bytes", _BIG, nullable=True),
)
"""What one party, or whoever came from one address prefix, keeps here. ``most_bytes``: what the operator allows it in blobs, if
not the usual."""

blobs = Table(
    "blobs",
    metadata,
    Column("blob", _ID, primary_key=True),
    Column("identity", String(100), primary_key=True),
    Column("size", _BIG, nullable=False),
    Column("stored", SmallInteger, nullable=False),
    Column("since", _BIG, nullable=False),
    Index("blobs_pending", "stored", "since"),
)
"""Who brought which blob: 0 while it arrives (its space is counted already), 1 once it is stored."""

networks = Table(
    "networks",
    metadata,
    Column("party", _ID, primary_key=True),
    Column("network", String(50), primary_key=True),
)
"""Networks (CIDR) from which a party, by the id of its first card, may ask; a party without a row from everywhere."""
