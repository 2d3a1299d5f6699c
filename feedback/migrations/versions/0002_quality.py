"""Trustworthy labeling: batches, gold and repeats, third opinions, adjudication, reviews, weights."""

import sqlalchemy as sa
from alembic import op

revision = "0002_quality"
down_revision = "0002_adapters"

_MOMENT = sa.DateTime(timezone=True)
_LIVE = sa.text("state = 'leased'")


def upgrade() -> None:
    _widen_tables()
    op.create_table(
        "batch",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("created_at", _MOMENT, nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("purpose", sa.String(), nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("required", sa.Integer(), nullable=False),
        sa.Column("max_required", sa.Integer(), nullable=False),
        sa.Column("note", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("name"),
    )
    op.create_index("ix_batch_created_at", "batch", ["created_at"])
    op.create_table(
        "matchup_author",
        sa.Column("matchup_id", sa.String(), sa.ForeignKey("matchup.id"), nullable=False),
        sa.Column("annotator", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("matchup_id", "annotator"),
    )
    op.create_table(
        "review",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("created_at", _MOMENT, nullable=False),
        sa.Column("act", sa.String(), nullable=False),
        sa.Column("actor", sa.String(), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("judgment_id", sa.String(), sa.ForeignKey("judgment.id")),
        sa.Column("matchup_id", sa.String(), sa.ForeignKey("matchup.id")),
        sa.Column("annotator", sa.String()),
        sa.PrimaryKeyConstraint("id"),
    )
    for name in ("created_at", "judgment_id", "matchup_id", "annotator"):
        op.create_index(f"ix_review_{name}", "review", [name])


def _widen_tables() -> None:
    # Columns are added in place: rebuilding "matchup" would lose its index over an expression.
    op.add_column("generation", sa.Column("author", sa.String()))
    op.add_column("matchup", sa.Column("max_required", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("matchup", sa.Column("gold", sa.JSON()))
    if op.get_bind().dialect.name == "sqlite":
        op.execute("ALTER TABLE matchup ADD COLUMN repeat_of VARCHAR REFERENCES matchup (id)")
    else:
        op.add_column("matchup", sa.Column("repeat_of", sa.String(), sa.ForeignKey("matchup.id")))
    op.add_column("matchup", sa.Column("reserved_for", sa.String()))
    op.add_column("matchup", sa.Column("batch_id", sa.String()))
    for name in ("repeat_of", "reserved_for", "batch_id"):
        op.create_index(f"ix_matchup_{name}", "matchup", [name])
    op.add_column("lease", sa.Column("heartbeat_at", _MOMENT))
    op.add_column("lease", sa.Column("part", sa.String(), nullable=False, server_default="annotator"))
    op.create_index("ix_lease_live", "lease", ["expires_at"], sqlite_where=_LIVE, postgresql_where=_LIVE)
    op.add_column("judgment", sa.Column("part", sa.String(), nullable=False, server_default="annotator"))
    op.create_index("ix_judgment_by_person", "judgment", ["annotator", "created_at"])
    op.add_column("dataset_pair", sa.Column("weight", sa.Float(), nullable=False, server_default="1"))
