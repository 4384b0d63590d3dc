"""Whose turn it is, and who is at work, is read from one index, however many runs have ended."""

from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """From the tables with usage."""
    op.create_index("runs_turn", "runs", ["state", "contract", "seq"])


def downgrade() -> None:
    """Take a backup before an upgrade instead."""
    raise NotImplementedError
