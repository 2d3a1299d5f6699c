"""Checks: how many tasks are gold or repeats, in versions."""

import sqlalchemy as sa
from alembic import op

revision = "0003_people"
down_revision = "0002_quality"


def upgrade() -> None:
    op.create_table(
        "checks",
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("gold_share", sa.Float(), nullable=False),
        sa.Column("repeat_share", sa.Float(), nullable=False),
        sa.Column("repeat_after", sa.Float(), nullable=False),
        sa.Column("author", sa.String(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("version"),
    )
    with op.batch_alter_table("checks") as batch_op:
        batch_op.create_index("ix_checks_created_at", ["created_at"], unique=False)
