"""Benchmarks: what policies scored, item by item."""

import sqlalchemy as sa
from alembic import op

revision = "0004_benchmarks"
down_revision = "0003_people"


def upgrade() -> None:
    op.create_table(
        "benchmark",
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("task", sa.String(), nullable=False),
        sa.Column("n", sa.Integer(), nullable=False),
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("policy_id", sa.String(), nullable=False),
        sa.Column("run_id", sa.String(), nullable=True),
        sa.Column("means", sa.JSON(), nullable=False),
        sa.Column("higher_is_better", sa.JSON(), nullable=False),
        sa.Column("settings", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(["policy_id"], ["policy.id"]),
        sa.ForeignKeyConstraint(["run_id"], ["run.id"]),
        sa.PrimaryKeyConstraint("id"),
    )
    with op.batch_alter_table("benchmark") as batch_op:
        batch_op.create_index("ix_benchmark_created_at", ["created_at"], unique=False)
        batch_op.create_index("ix_benchmark_policy_id", ["policy_id"], unique=False)
    op.create_table(
        "benchmark_item",
        sa.Column("benchmark_id", sa.String(), nullable=False),
        sa.Column("item", sa.String(), nullable=False),
        sa.Column("scores", sa.JSON(), nullable=False),
        sa.Column("asked", sa.String(), nullable=False),
        sa.Column("answer", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(["benchmark_id"], ["benchmark.id"]),
        sa.PrimaryKeyConstraint("benchmark_id", "item"),
    )
