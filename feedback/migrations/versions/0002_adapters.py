"""Runs that wait for another run; checkpoints whose weights were removed."""

import sqlalchemy as sa
from alembic import op

revision = "0002_adapters"
down_revision = "0002_screen"


def upgrade() -> None:
    with op.batch_alter_table("run") as batch_op:
        batch_op.add_column(sa.Column("after", sa.String(), nullable=True))
    with op.batch_alter_table("checkpoint") as batch_op:
        batch_op.add_column(sa.Column("removed_at", sa.DateTime(timezone=True), nullable=True))
