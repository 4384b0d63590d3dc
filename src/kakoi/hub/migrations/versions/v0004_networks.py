"""From where each party may ask. Without an entry: from everywhere, as before."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """From the third tables."""
    op.create_table(
        "networks",
        sa.Column("party", sa.String(64), primary_key=True),
        sa.Column("network", sa.String(50), primary_key=True),
    )


def downgrade() -> None:
    """Take a backup before an upgrade instead."""
    raise NotImplementedError
