"""Matchups by state and purpose, so that open work is counted from an index; pairs by prompt, which nothing reads, go."""

from alembic import op

revision = "0005_purpose"
down_revision = "0004_benchmarks"


def upgrade() -> None:
    with op.batch_alter_table("matchup") as batch_op:
        batch_op.create_index("ix_matchup_open_work", ["state", "purpose"], unique=False)
    op.drop_index("ix_dataset_pair_prompt", "dataset_pair")
