"""Generations: what a model that reasons wrote before its reply."""

import sqlalchemy as sa
from alembic import op

revision = "0009_reasoning"
down_revision = "0008_retired_prompts"


def upgrade() -> None:
    op.add_column("generation", sa.Column("reasoning", sa.String(), nullable=True))
