"""Remarks on judgments, drafts, guidelines in versions, pairs that came of an edit."""

import sqlalchemy as sa
from alembic import op

revision = "0002_screen"
down_revision = "0002_people"


def upgrade() -> None:
    for column in (
        sa.Column("spans", sa.JSON(), nullable=True),
        sa.Column("criteria", sa.JSON(), nullable=True),
        sa.Column("flag", sa.String(), nullable=True),
        sa.Column("active_ms", sa.Integer(), nullable=True),
        sa.Column("guidelines", sa.Integer(), nullable=True),
    ):
        op.add_column("judgment", column)
    op.add_column("dataset_pair", sa.Column("edited_by", sa.String(), nullable=True))

    op.create_table(
        "draft",
        sa.Column("matchup_id", sa.String(), nullable=False),
        sa.Column("annotator", sa.String(), nullable=False),
        sa.Column("content", sa.JSON(), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["matchup_id"], ["matchup.id"]),
        sa.PrimaryKeyConstraint("matchup_id", "annotator"),
    )
    op.create_table(
        "guidelines",
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("text", sa.String(), nullable=False),
        sa.Column("criteria", sa.JSON(), nullable=False),
        sa.Column("asks_rationale", sa.Boolean(), nullable=False),
        sa.Column("author", sa.String(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("version"),
    )
    with op.batch_alter_table("guidelines") as batch_op:
        batch_op.create_index("ix_guidelines_created_at", ["created_at"], unique=False)
