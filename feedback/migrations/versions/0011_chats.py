"""Chats of the playground."""

import sqlalchemy as sa
from alembic import op

revision = "0011_chats"
down_revision = "0010_rounds"

_MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "chat",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("created_at", _MOMENT, nullable=False),
        sa.Column("person", sa.String(), nullable=False),
        sa.Column("left_id", sa.String(), sa.ForeignKey("policy.id"), nullable=False),
        sa.Column("right_id", sa.String(), sa.ForeignKey("policy.id")),
        sa.Column("title", sa.String(), nullable=False),
        sa.Column("system", sa.String(), nullable=False),
        sa.Column("blind", sa.Boolean(), nullable=False),
        sa.Column("revealed", sa.Boolean(), nullable=False),
        sa.Column("archived", sa.Boolean(), nullable=False),
        sa.Column("sampling", sa.JSON(), nullable=False),
        sa.Column("turns", sa.JSON(), nullable=False),
        sa.Column("words", sa.String(), nullable=False),
        sa.Column("updated_at", _MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    for name in ("created_at", "person"):
        op.create_index(f"ix_chat_{name}", "chat", [name])
