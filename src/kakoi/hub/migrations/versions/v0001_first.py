"""The first tables: feed, references, keys, runs, log."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

_BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_ID = sa.String(64)
_KIND = sa.String(80)


def upgrade() -> None:
    """From nothing."""
    op.create_table(
        "meta",
        sa.Column("name", sa.String(40), primary_key=True),
        sa.Column("value", sa.String(400), nullable=False),
    )
    op.create_table(
        "head",
        sa.Column("id", sa.SmallInteger(), primary_key=True, autoincrement=False),
        sa.Column("seq", _BIG, nullable=False),
        sa.Column("change", _BIG, nullable=False),
        sa.Column("size", _BIG, nullable=False),
    )
    op.bulk_insert(
        sa.table("head", *(sa.column(name) for name in ("id", "seq", "change", "size"))),
        [{"id": 1, "seq": 0, "change": 0, "size": 0}],
    )
    op.create_table(
        "objects",
        sa.Column("seq", _BIG, primary_key=True, autoincrement=False),
        sa.Column("id", _ID, nullable=False, unique=True),
        sa.Column("kind", _KIND, nullable=False),
        sa.Column("signer", _ID, nullable=False),
        sa.Column("received", _BIG, nullable=False),
        sa.Column("envelope", sa.LargeBinary(), nullable=False),
    )
    op.create_index("objects_kind", "objects", ["kind", "seq"])
    op.create_table(
        "refs",
        sa.Column("member", _ID, primary_key=True),
        sa.Column("value", _ID, primary_key=True),
        sa.Column("kind", _KIND, primary_key=True),
        sa.Column("seq", _BIG, primary_key=True, autoincrement=False),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "keys",
        sa.Column("ed25519_keyid", _ID, primary_key=True),
        sa.Column("mldsa65_keyid", _ID, primary_key=True),
        sa.Column("object", _ID, primary_key=True),
        sa.Column("ed25519", sa.LargeBinary(), nullable=False),
        sa.Column("mldsa65", sa.LargeBinary(), nullable=False),
        sa.Column("run", _ID, nullable=True),
        sa.Column("attempt", sa.SmallInteger(), nullable=True),
    )
    _queue_and_log()


def _queue_and_log() -> None:
    op.create_table(
        "runs",
        sa.Column("run", _ID, primary_key=True),
        sa.Column("contract", _ID, nullable=False),
        sa.Column("seq", _BIG, nullable=False),
        sa.Column("change", _BIG, nullable=False),
        sa.Column("state", sa.String(12), nullable=False),
        sa.Column("attempt", sa.SmallInteger(), nullable=False),
        sa.Column("enclave", sa.String(80), nullable=False),
        sa.Column("token", sa.LargeBinary(), nullable=False),
        sa.Column("lease_seconds", sa.Integer(), nullable=False),
        sa.Column("lease_until", _BIG, nullable=False),
    )
    op.create_index("runs_queue", "runs", ["state", "seq"])
    op.create_index("runs_change", "runs", ["change"])
    op.create_index("runs_contract", "runs", ["contract", "change"])
    op.create_table(
        "leaves",
        sa.Column("position", _BIG, primary_key=True, autoincrement=False),
        sa.Column("hash", sa.LargeBinary(32), nullable=False, unique=True),
        sa.Column("kind", _KIND, nullable=False),
        sa.Column("object", _ID, nullable=False),
    )
    op.create_table(
        "nodes",
        sa.Column("id", _BIG, primary_key=True, autoincrement=False),
        sa.Column("hash", sa.LargeBinary(32), nullable=False),
    )


def downgrade() -> None:
    """There is nothing to go back to."""
    raise NotImplementedError
