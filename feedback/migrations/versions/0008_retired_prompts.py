"""Prompts: whether one is retired, so that nothing is drawn for it any more."""

import sqlalchemy as sa
from alembic import op

revision = "0008_retired_prompts"
down_revision = "0007_audit"


def upgrade() -> None:
    op.add_column("prompt", sa.Column("retired", sa.Boolean(), nullable=False, server_default=sa.false()))
