"""Recipes and rounds: the loop as a record that outlives every process."""

import sqlalchemy as sa
from alembic import op

revision = "0010_rounds"
down_revision = "0009_reasoning"

_MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "recipe",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("created_at", _MOMENT, nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("settings", sa.JSON(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("forked_from", sa.String(), sa.ForeignKey("recipe.id")),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("name"),
    )
    op.create_index("ix_recipe_created_at", "recipe", ["created_at"])
    op.create_table(
        "recipe_round",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("created_at", _MOMENT, nullable=False),
        sa.Column("recipe_id", sa.String(), sa.ForeignKey("recipe.id"), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("champion_id", sa.String(), sa.ForeignKey("policy.id"), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("waits_for", sa.String(), nullable=False),
        sa.Column("since", _MOMENT, nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("evidence", sa.JSON(), nullable=False),
        sa.Column("history", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("recipe_id", "number"),
    )
    for name in ("created_at", "recipe_id"):
        op.create_index(f"ix_recipe_round_{name}", "recipe_round", [name])
    op.add_column("batch", sa.Column("reserved_for", sa.String()))
