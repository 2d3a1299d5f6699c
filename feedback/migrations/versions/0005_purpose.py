"""Matchups by state and purpose: how many are open work is read from an index alone."""

from alembic import op

revision = "0005_purpose"
down_revision = "0004_benchmarks"


def upgrade() -> None:
    with op.batch_alter_table("matchup") as batch_op:
        batch_op.create_index("ix_matchup_open_work", ["state", "purpose"], unique=False)
