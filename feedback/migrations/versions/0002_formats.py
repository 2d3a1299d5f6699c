"""Exports that group by prompt: an index that finds a prompt's pairs in a dataset without reading all of them."""

from alembic import op

revision = "0002_formats"
down_revision = "0001"


def upgrade() -> None:
    op.create_index("ix_dataset_pair_prompt", "dataset_pair", ["dataset_id", "prompt_id"])
