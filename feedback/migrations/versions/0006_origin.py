"""Judgments: what the file that an imported vote came from says of it and a judgment has no place for."""

import sqlalchemy as sa
from alembic import op

revision = "0006_origin"
down_revision = "0005_purpose"


def upgrade() -> None:
    op.add_column("judgment", sa.Column("origin", sa.JSON(), nullable=True))
