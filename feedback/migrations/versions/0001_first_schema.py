"""The first schema: prompts, policies, generations, matchups, leases, judgments, datasets, runs."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "dataset",
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("filters", sa.JSON(), nullable=False),
        sa.Column("hash", sa.String(), nullable=False),
        sa.Column("counts", sa.JSON(), nullable=False),
        sa.Column("dropped", sa.JSON(), nullable=False),
        sa.Column("id", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("name"),
    )
    with op.batch_alter_table("dataset") as batch_op:
        batch_op.create_index("ix_dataset_created_at", ["created_at"], unique=False)

    op.create_table(
        "prompt",
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("messages", sa.JSON(), nullable=False),
        sa.Column("tags", sa.JSON(), nullable=False),
        sa.Column("split", sa.String(), nullable=False),
        sa.Column("content_hash", sa.String(), nullable=False),
        sa.Column("id", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("content_hash"),
    )
    with op.batch_alter_table("prompt") as batch_op:
        batch_op.create_index("ix_prompt_created_at", ["created_at"], unique=False)
        batch_op.create_index("ix_prompt_split", ["split"], unique=False)

    op.create_table(
        "run",
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("method", sa.String(), nullable=False),
        sa.Column("config", sa.JSON(), nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("progress", sa.Float(), nullable=False),
        sa.Column("progress_text", sa.String(), nullable=False),
        sa.Column("error", sa.String(), nullable=True),
        sa.Column("result", sa.JSON(), nullable=False),
        sa.Column("pid", sa.Integer(), nullable=True),
        sa.Column("pid_started", sa.Float(), nullable=True),
        sa.Column("host", sa.String(), nullable=True),
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("heartbeat_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id"),
    )
    with op.batch_alter_table("run") as batch_op:
        batch_op.create_index("ix_run_created_at", ["created_at"], unique=False)
        batch_op.create_index("ix_run_queue", ["state", "priority", "created_at"], unique=False)

    op.create_table(
        "checkpoint",
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("path", sa.String(), nullable=False),
        sa.Column("base", sa.String(), nullable=False),
        sa.Column("run_id", sa.String(), nullable=True),
        sa.Column("dataset_id", sa.String(), nullable=True),
        sa.Column("parent_id", sa.String(), nullable=True),
        sa.Column("manifest", sa.JSON(), nullable=False),
        sa.Column("id", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(
            ["dataset_id"],
            ["dataset.id"],
        ),
        sa.ForeignKeyConstraint(
            ["parent_id"],
            ["checkpoint.id"],
        ),
        sa.ForeignKeyConstraint(
            ["run_id"],
            ["run.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("name"),
    )
    with op.batch_alter_table("checkpoint") as batch_op:
        batch_op.create_index("ix_checkpoint_created_at", ["created_at"], unique=False)
        batch_op.create_index("ix_checkpoint_kind", ["kind"], unique=False)

    op.create_table(
        "matchup",
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("prompt_id", sa.String(), nullable=False),
        sa.Column("generation_ids", sa.JSON(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("required", sa.Integer(), nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("purpose", sa.String(), nullable=False),
        sa.Column("id", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(
            ["prompt_id"],
            ["prompt.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
    )
    with op.batch_alter_table("matchup") as batch_op:
        batch_op.create_index("ix_matchup_created_at", ["created_at"], unique=False)
        batch_op.create_index("ix_matchup_pool", ["state", sa.text("priority DESC"), "created_at", "id"], unique=False)
        batch_op.create_index("ix_matchup_prompt_id", ["prompt_id"], unique=False)

    op.create_table(
        "metric",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("run_id", sa.String(), nullable=False),
        sa.Column("step", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("value", sa.Float(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["run_id"],
            ["run.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
    )
    with op.batch_alter_table("metric") as batch_op:
        batch_op.create_index("ix_metric_run", ["run_id", "id"], unique=False)

    op.create_table(
        "scorecard",
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("subject_id", sa.String(), nullable=False),
        sa.Column("against_id", sa.String(), nullable=True),
        sa.Column("run_id", sa.String(), nullable=True),
        sa.Column("settings", sa.JSON(), nullable=False),
        sa.Column("figures", sa.JSON(), nullable=False),
        sa.Column("id", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(
            ["run_id"],
            ["run.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
    )
    with op.batch_alter_table("scorecard") as batch_op:
        batch_op.create_index("ix_scorecard_created_at", ["created_at"], unique=False)
        batch_op.create_index("ix_scorecard_kind", ["kind"], unique=False)
        batch_op.create_index("ix_scorecard_subject_id", ["subject_id"], unique=False)

    op.create_table(
        "lease",
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("matchup_id", sa.String(), nullable=False),
        sa.Column("annotator", sa.String(), nullable=False),
        sa.Column("session", sa.String(), nullable=True),
        sa.Column("source", sa.String(), nullable=False),
        sa.Column("shown_order", sa.JSON(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["matchup_id"],
            ["matchup.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
    )
    with op.batch_alter_table("lease") as batch_op:
        batch_op.create_index("ix_lease_annotator", ["annotator"], unique=False)
        batch_op.create_index("ix_lease_created_at", ["created_at"], unique=False)
        batch_op.create_index("ix_lease_matchup_state", ["matchup_id", "state"], unique=False)
        batch_op.create_index("ix_lease_session", ["session"], unique=False)

    op.create_table(
        "policy",
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("base", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("checkpoint_id", sa.String(), nullable=True),
        sa.Column("parent_id", sa.String(), nullable=True),
        sa.Column("run_id", sa.String(), nullable=True),
        sa.Column("note", sa.String(), nullable=False),
        sa.Column("id", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(
            ["checkpoint_id"],
            ["checkpoint.id"],
        ),
        sa.ForeignKeyConstraint(
            ["parent_id"],
            ["policy.id"],
        ),
        sa.ForeignKeyConstraint(
            ["run_id"],
            ["run.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("name"),
    )
    with op.batch_alter_table("policy") as batch_op:
        batch_op.create_index("ix_policy_created_at", ["created_at"], unique=False)

    op.create_table(
        "generation",
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("prompt_id", sa.String(), nullable=False),
        sa.Column("policy_id", sa.String(), nullable=False),
        sa.Column("text", sa.String(), nullable=False),
        sa.Column("seed", sa.Integer(), nullable=False),
        sa.Column("sampling", sa.JSON(), nullable=False),
        sa.Column("finish_reason", sa.String(), nullable=False),
        sa.Column("tokens", sa.Integer(), nullable=False),
        sa.Column("run_id", sa.String(), nullable=True),
        sa.Column("id", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(
            ["policy_id"],
            ["policy.id"],
        ),
        sa.ForeignKeyConstraint(
            ["prompt_id"],
            ["prompt.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
    )
    with op.batch_alter_table("generation") as batch_op:
        batch_op.create_index("ix_generation_created_at", ["created_at"], unique=False)
        batch_op.create_index("ix_generation_policy_id", ["policy_id"], unique=False)
        batch_op.create_index("ix_generation_prompt_id", ["prompt_id"], unique=False)
        batch_op.create_index("ix_generation_run_id", ["run_id"], unique=False)

    op.create_table(
        "judgment",
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("matchup_id", sa.String(), nullable=False),
        sa.Column("lease_id", sa.String(), nullable=False),
        sa.Column("annotator", sa.String(), nullable=False),
        sa.Column("source", sa.String(), nullable=False),
        sa.Column("verdict", sa.String(), nullable=True),
        sa.Column("ranking", sa.JSON(), nullable=True),
        sa.Column("strength", sa.Integer(), nullable=True),
        sa.Column("shown_order", sa.JSON(), nullable=False),
        sa.Column("skip_reason", sa.String(), nullable=True),
        sa.Column("rationale", sa.String(), nullable=True),
        sa.Column("edited", sa.JSON(), nullable=True),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("supersedes", sa.String(), nullable=True),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("id", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(
            ["lease_id"],
            ["lease.id"],
        ),
        sa.ForeignKeyConstraint(
            ["matchup_id"],
            ["matchup.id"],
        ),
        sa.ForeignKeyConstraint(
            ["supersedes"],
            ["judgment.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("lease_id"),
    )
    with op.batch_alter_table("judgment") as batch_op:
        batch_op.create_index("ix_judgment_annotator", ["annotator"], unique=False)
        batch_op.create_index("ix_judgment_created_at", ["created_at"], unique=False)
        batch_op.create_index("ix_judgment_matchup_id", ["matchup_id"], unique=False)
        batch_op.create_index("ix_judgment_source", ["source"], unique=False)
        batch_op.create_index(
            "uq_judgment_current",
            ["matchup_id", "annotator"],
            unique=True,
            sqlite_where=sa.text("state = 'current'"),
            postgresql_where=sa.text("state = 'current'"),
        )

    op.create_table(
        "promotion",
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("policy_id", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(
            ["policy_id"],
            ["policy.id"],
        ),
        sa.PrimaryKeyConstraint("number"),
    )
    with op.batch_alter_table("promotion") as batch_op:
        batch_op.create_index("ix_promotion_created_at", ["created_at"], unique=False)

    op.create_table(
        "dataset_judgment",
        sa.Column("dataset_id", sa.String(), nullable=False),
        sa.Column("judgment_id", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(
            ["dataset_id"],
            ["dataset.id"],
        ),
        sa.ForeignKeyConstraint(
            ["judgment_id"],
            ["judgment.id"],
        ),
        sa.PrimaryKeyConstraint("dataset_id", "judgment_id"),
    )
    with op.batch_alter_table("dataset_judgment") as batch_op:
        batch_op.create_index("ix_dataset_judgment_judgment_id", ["judgment_id"], unique=False)

    op.create_table(
        "dataset_pair",
        sa.Column("dataset_id", sa.String(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("split", sa.String(), nullable=False),
        sa.Column("prompt_id", sa.String(), nullable=False),
        sa.Column("matchup_id", sa.String(), nullable=False),
        sa.Column("chosen_generation", sa.String(), nullable=False),
        sa.Column("rejected_generation", sa.String(), nullable=False),
        sa.Column("judgment_ids", sa.JSON(), nullable=False),
        sa.Column("margin", sa.Float(), nullable=False),
        sa.Column("agreement", sa.Float(), nullable=False),
        sa.ForeignKeyConstraint(
            ["chosen_generation"],
            ["generation.id"],
        ),
        sa.ForeignKeyConstraint(
            ["dataset_id"],
            ["dataset.id"],
        ),
        sa.ForeignKeyConstraint(
            ["matchup_id"],
            ["matchup.id"],
        ),
        sa.ForeignKeyConstraint(
            ["prompt_id"],
            ["prompt.id"],
        ),
        sa.ForeignKeyConstraint(
            ["rejected_generation"],
            ["generation.id"],
        ),
        sa.PrimaryKeyConstraint("dataset_id", "position"),
    )
