"""What parties keep here: their usage, and whose each blob is. Counted from this version on."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

_BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """From the first tables."""
    op.create_table(
        "usage",
        sa.Column("identity", sa.String(100), primary_key=True),
        sa.Column("blobs", _BIG, nullable=False),
        sa.Column("blob_bytes", _BIG, nullable=False),
        sa.Column("objects", _BIG, nullable=False),
        sa.Column("object_bytes", _BIG, nullable=False),
        sa.Column("most_bytes", _BIG, nullable=True),
    )
    op.create_table(
        "blobs",
        sa.Column("blob", sa.String(64), primary_key=True),
        sa.Column("identity", sa.String(100), primary_key=True),
        sa.Column("size", _BIG, nullable=False),
        sa.Column("stored", sa.SmallInteger(), nullable=False),
        sa.Column("since", _BIG, nullable=False),
    )
    op.create_index("blobs_pending", "blobs", ["stored", "since"])


def downgrade() -> None:
    """Take a backup before an upgrade instead."""
    raise NotImplementedError
