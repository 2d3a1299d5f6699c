"""The nouns of ``types.py`` with identity: tables, keys, uniqueness and timestamps; nothing else.

A ``table=True`` class does not validate on construction, so rows are made only by ``Row.model_validate(value)``
in ``feedback.store``. Enumerations are stored as their value in a text column (``EnumText``), moments as UTC
(``Moment``), lists and dictionaries as JSON: the same schema on SQLite and PostgreSQL.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, Index, UniqueConstraint, false, text
from sqlmodel import Field, SQLModel

from feedback.column_types import EnumText, Moment, new_id
from feedback.types import (
    Act,
    AuditEvent,
    Batch,
    Benchmark,
    Checkpoint,
    Checks,
    Credential,
    CredentialKind,
    Dataset,
    Draft,
    Generation,
    Guidelines,
    Judgment,
    JudgmentState,
    LeaseState,
    Matchup,
    MatchupKind,
    MatchupState,
    Part,
    Policy,
    Prompt,
    Purpose,
    Review,
    Run,
    RunState,
    Scorecard,
    Source,
    Split,
    User,
    UserRole,
    UserStatus,
    Verdict,
    now,
)


class _Row(SQLModel):
    """What every row has beside its value: when it was written."""

    created_at: datetime = Field(default_factory=now, sa_type=Moment, nullable=False, index=True)  # type: ignore[call-overload]

    def model_dump(self, **options: Any) -> dict[str, Any]:
        """As everywhere, in the order of the fields: a row that was read holds them in that of a set of names."""
        fields = super().model_dump(**options)
        return {name: fields[name] for name in type(self).model_fields if name in fields}


class PromptRow(Prompt, _Row, table=True):
    __tablename__ = "prompt"

    id: str = Field(default_factory=lambda: new_id("prm"), primary_key=True)
    messages: list[dict[str, str]] = Field(sa_type=JSON)
    tags: list[str] = Field(default_factory=list, sa_type=JSON)
    split: Split = Field(default=Split.work, sa_type=EnumText(Split), index=True)  # type: ignore[call-overload]
    retired: bool = Field(default=False, sa_column_kwargs={"server_default": false()})
    content_hash: str = Field(default="", unique=True)


class PolicyRow(Policy, _Row, table=True):
    __tablename__ = "policy"

    id: str = Field(default_factory=lambda: new_id("pol"), primary_key=True)
    name: str = Field(unique=True)
    checkpoint_id: str | None = Field(default=None, foreign_key="checkpoint.id")
    parent_id: str | None = Field(default=None, foreign_key="policy.id")
    run_id: str | None = Field(default=None, foreign_key="run.id")


class PromotionRow(_Row, table=True):
    """One act of making a policy the champion; the newest names the present one. Nothing is overwritten."""

    __tablename__ = "promotion"

    number: int | None = Field(default=None, primary_key=True)
    policy_id: str = Field(foreign_key="policy.id")


class GenerationRow(Generation, _Row, table=True):
    __tablename__ = "generation"

    id: str = Field(default_factory=lambda: new_id("gen"), primary_key=True)
    prompt_id: str = Field(foreign_key="prompt.id", index=True)
    policy_id: str = Field(foreign_key="policy.id", index=True)
    # No foreign key: a generation imported from another studio names a run of that studio.
    run_id: str | None = Field(default=None, index=True)
    sampling: dict[str, Any] = Field(default_factory=dict, sa_type=JSON)


class MatchupRow(Matchup, _Row, table=True):
    __tablename__ = "matchup"
    # The pool is walked in this order by every lease; without the index each hand-out scans all matchups.
    __table_args__ = (
        Index("ix_matchup_pool", "state", text("priority DESC"), "created_at", "id"),
        # How many are open work is asked with every counter on the page. Both columns: an index of purpose alone
        # would tempt a planner that has statistics to sort the whole pool for every hand-out.
        Index("ix_matchup_open_work", "state", "purpose"),
    )

    id: str = Field(default_factory=lambda: new_id("mat"), primary_key=True)
    prompt_id: str = Field(foreign_key="prompt.id", index=True)
    generation_ids: list[str] = Field(sa_type=JSON)
    kind: MatchupKind = Field(default=MatchupKind.pair, sa_type=EnumText(MatchupKind))  # type: ignore[call-overload]
    state: MatchupState = Field(default=MatchupState.open, sa_type=EnumText(MatchupState))  # type: ignore[call-overload]
    purpose: Purpose = Field(default=Purpose.collect, sa_type=EnumText(Purpose))  # type: ignore[call-overload]
    max_required: int = Field(default=0, sa_column_kwargs={"server_default": "0"})
    gold: dict[str, Any] | None = Field(default=None, sa_type=JSON)
    repeat_of: str | None = Field(default=None, foreign_key="matchup.id", index=True)
    reserved_for: str | None = Field(default=None, index=True)
    # No foreign key: a matchup imported from another studio names a batch of that studio.
    batch_id: str | None = Field(default=None, index=True)


class MatchupAuthorRow(SQLModel, table=True):
    """Who wrote one of a matchup's replies: the pool passes these matchups over for them."""

    __tablename__ = "matchup_author"

    matchup_id: str = Field(foreign_key="matchup.id", primary_key=True)
    annotator: str = Field(primary_key=True)


class BatchRow(Batch, _Row, table=True):
    __tablename__ = "batch"

    id: str = Field(default_factory=lambda: new_id("bat"), primary_key=True)
    name: str = Field(unique=True)
    purpose: Purpose = Field(default=Purpose.collect, sa_type=EnumText(Purpose))  # type: ignore[call-overload]


class LeaseRow(_Row, table=True):
    """One person's exclusive, expiring right to judge one matchup. ``session`` names the browser that holds it."""

    __tablename__ = "lease"
    __table_args__ = (
        Index("ix_lease_matchup_state", "matchup_id", "state"),
        # Every hand-out first ends what has expired; among all leases ever given the live ones are few.
        Index(
            "ix_lease_live",
            "expires_at",
            sqlite_where=text("state = 'leased'"),
            postgresql_where=text("state = 'leased'"),
        ),
    )

    id: str = Field(default_factory=lambda: new_id("lea"), primary_key=True)
    matchup_id: str = Field(foreign_key="matchup.id")
    annotator: str = Field(index=True)
    session: str | None = Field(default=None, index=True)
    source: Source = Field(default=Source.human, sa_type=EnumText(Source))  # type: ignore[call-overload]
    shown_order: list[int] = Field(sa_type=JSON)
    state: LeaseState = Field(default=LeaseState.leased, sa_type=EnumText(LeaseState))  # type: ignore[call-overload]
    expires_at: datetime = Field(sa_type=Moment)  # type: ignore[call-overload]
    ended_at: datetime | None = Field(default=None, sa_type=Moment)  # type: ignore[call-overload]
    heartbeat_at: datetime | None = Field(default=None, sa_type=Moment)  # type: ignore[call-overload]
    part: Part = Field(default=Part.annotator, sa_type=EnumText(Part), sa_column_kwargs={"server_default": "annotator"})  # type: ignore[call-overload]


class JudgmentRow(Judgment, _Row, table=True):
    __tablename__ = "judgment"
    __table_args__ = (
        UniqueConstraint("lease_id"),
        Index("ix_judgment_by_person", "annotator", "created_at"),
        # The database itself refuses a second current judgment of one matchup by one person.
        Index(
            "uq_judgment_current",
            "matchup_id",
            "annotator",
            unique=True,
            sqlite_where=text("state = 'current'"),
            postgresql_where=text("state = 'current'"),
        ),
    )

    id: str = Field(default_factory=lambda: new_id("jud"), primary_key=True)
    matchup_id: str = Field(foreign_key="matchup.id", index=True)
    lease_id: str = Field(foreign_key="lease.id")
    annotator: str = Field(index=True)
    source: Source = Field(default=Source.human, sa_type=EnumText(Source), index=True)  # type: ignore[call-overload]
    verdict: Verdict | None = Field(default=None, sa_type=EnumText(Verdict))  # type: ignore[call-overload]
    ranking: list[int] | None = Field(default=None, sa_type=JSON)
    shown_order: list[int] = Field(default_factory=list, sa_type=JSON)
    edited: dict[str, Any] | None = Field(default=None, sa_type=JSON)
    spans: list[dict[str, Any]] | None = Field(default=None, sa_type=JSON)
    criteria: dict[str, list[int | None]] | None = Field(default=None, sa_type=JSON)
    origin: dict[str, Any] | None = Field(default=None, sa_type=JSON)
    supersedes: str | None = Field(default=None, foreign_key="judgment.id")
    state: JudgmentState = Field(default=JudgmentState.current, sa_type=EnumText(JudgmentState))  # type: ignore[call-overload]
    part: Part = Field(default=Part.annotator, sa_type=EnumText(Part), sa_column_kwargs={"server_default": "annotator"})  # type: ignore[call-overload]


class ReviewRow(Review, _Row, table=True):
    __tablename__ = "review"

    id: str = Field(default_factory=lambda: new_id("rev"), primary_key=True)
    act: Act = Field(sa_type=EnumText(Act))  # type: ignore[call-overload]
    judgment_id: str | None = Field(default=None, foreign_key="judgment.id", index=True)
    matchup_id: str | None = Field(default=None, foreign_key="matchup.id", index=True)
    annotator: str | None = Field(default=None, index=True)


class DraftRow(Draft, table=True):
    """One draft per person and matchup: it outlives the lease it was typed under."""

    __tablename__ = "draft"

    matchup_id: str = Field(foreign_key="matchup.id", primary_key=True)
    annotator: str = Field(primary_key=True)
    content: dict[str, Any] = Field(default_factory=dict, sa_type=JSON)
    updated_at: datetime = Field(default_factory=now, sa_type=Moment)  # type: ignore[call-overload]


class GuidelinesRow(Guidelines, _Row, table=True):
    """``version`` counts from 1; the newest is what annotators see."""

    __tablename__ = "guidelines"

    version: int | None = Field(default=None, primary_key=True)
    criteria: list[str] = Field(default_factory=list, sa_type=JSON)


class ChecksRow(Checks, _Row, table=True):
    """``version`` counts from 1; the newest is in force."""

    __tablename__ = "checks"

    version: int | None = Field(default=None, primary_key=True)


class DatasetRow(Dataset, _Row, table=True):
    __tablename__ = "dataset"

    id: str = Field(default_factory=lambda: new_id("dat"), primary_key=True)
    name: str = Field(unique=True)
    filters: dict[str, Any] = Field(default_factory=dict, sa_type=JSON)
    counts: dict[str, int] = Field(default_factory=dict, sa_type=JSON)
    dropped: dict[str, int] = Field(default_factory=dict, sa_type=JSON)


class DatasetJudgmentRow(SQLModel, table=True):
    """Which judgments a dataset was frozen from, in the order of their ids."""

    __tablename__ = "dataset_judgment"

    dataset_id: str = Field(foreign_key="dataset.id", primary_key=True)
    judgment_id: str = Field(foreign_key="judgment.id", primary_key=True, index=True)


class DatasetPairRow(SQLModel, table=True):
    """One derived pair of a dataset; texts and messages are read from the generations and the prompt it names."""

    __tablename__ = "dataset_pair"

    dataset_id: str = Field(foreign_key="dataset.id", primary_key=True)
    position: int = Field(primary_key=True)
    split: str
    prompt_id: str = Field(foreign_key="prompt.id")
    matchup_id: str = Field(foreign_key="matchup.id")
    chosen_generation: str = Field(foreign_key="generation.id")
    rejected_generation: str = Field(foreign_key="generation.id")
    judgment_ids: list[str] = Field(sa_type=JSON)
    margin: float = 0.0
    agreement: float = 1.0
    weight: float = Field(default=1.0, sa_column_kwargs={"server_default": "1"})
    # The judgment whose edit is the chosen text; ``dataset_judgment`` holds the foreign key to it.
    edited_by: str | None = None


class UserRow(User, _Row, table=True):
    __tablename__ = "user"

    id: str = Field(default_factory=lambda: new_id("usr"), primary_key=True)
    name: str = Field(unique=True)
    role: UserRole = Field(default=UserRole.annotator, sa_type=EnumText(UserRole))  # type: ignore[call-overload]
    status: UserStatus = Field(default=UserStatus.active, sa_type=EnumText(UserStatus))  # type: ignore[call-overload]
    pseudonym: str = Field(default_factory=lambda: new_id("person"), unique=True)


class CredentialRow(Credential, _Row, table=True):
    __tablename__ = "credential"

    id: str = Field(default_factory=lambda: new_id("key"), primary_key=True)
    user_id: str = Field(foreign_key="user.id", index=True)
    kind: CredentialKind = Field(sa_type=EnumText(CredentialKind))  # type: ignore[call-overload]
    expires_at: datetime | None = Field(default=None, sa_type=Moment)  # type: ignore[call-overload]
    ended_at: datetime | None = Field(default=None, sa_type=Moment)  # type: ignore[call-overload]


class AuditRow(AuditEvent, _Row, table=True):
    """One act, in the order done. The database itself refuses to change or remove a row (see its migration)."""

    __tablename__ = "audit"
    __table_args__ = (Index("ix_audit_verb_subject", "verb", "subject"),)

    number: int | None = Field(default=None, primary_key=True)
    actor: str = Field(index=True)
    detail: dict[str, Any] = Field(default_factory=dict, sa_type=JSON)


class RunRow(Run, _Row, table=True):
    __tablename__ = "run"
    __table_args__ = (Index("ix_run_queue", "state", "priority", "created_at"),)

    id: str = Field(default_factory=lambda: new_id("run"), primary_key=True)
    config: dict[str, Any] = Field(default_factory=dict, sa_type=JSON)
    result: dict[str, Any] = Field(default_factory=dict, sa_type=JSON)
    state: RunState = Field(default=RunState.queued, sa_type=EnumText(RunState))  # type: ignore[call-overload]
    started_at: datetime | None = Field(default=None, sa_type=Moment)  # type: ignore[call-overload]
    ended_at: datetime | None = Field(default=None, sa_type=Moment)  # type: ignore[call-overload]
    heartbeat_at: datetime | None = Field(default=None, sa_type=Moment)  # type: ignore[call-overload]


class MetricRow(SQLModel, table=True):
    """One point of one curve of one run."""

    __tablename__ = "metric"
    __table_args__ = (Index("ix_metric_run", "run_id", "id"),)

    id: int | None = Field(default=None, primary_key=True)
    run_id: str = Field(foreign_key="run.id")
    step: int
    name: str
    value: float
    at: datetime = Field(default_factory=now, sa_type=Moment)  # type: ignore[call-overload]


class CheckpointRow(Checkpoint, _Row, table=True):
    __tablename__ = "checkpoint"

    id: str = Field(default_factory=lambda: new_id("ckp"), primary_key=True)
    name: str = Field(unique=True)
    kind: str = Field(index=True)  # type: ignore[assignment]
    run_id: str | None = Field(default=None, foreign_key="run.id")
    dataset_id: str | None = Field(default=None, foreign_key="dataset.id")
    parent_id: str | None = Field(default=None, foreign_key="checkpoint.id")
    manifest: dict[str, Any] = Field(default_factory=dict, sa_type=JSON)
    removed_at: datetime | None = Field(default=None, sa_type=Moment)  # type: ignore[call-overload]


class ScorecardRow(Scorecard, _Row, table=True):
    __tablename__ = "scorecard"

    id: str = Field(default_factory=lambda: new_id("sco"), primary_key=True)
    kind: str = Field(index=True)  # type: ignore[assignment]
    subject_id: str = Field(index=True)
    run_id: str | None = Field(default=None, foreign_key="run.id")
    settings: dict[str, Any] = Field(default_factory=dict, sa_type=JSON)
    figures: dict[str, Any] = Field(default_factory=dict, sa_type=JSON)


class BenchmarkRow(Benchmark, _Row, table=True):
    __tablename__ = "benchmark"

    id: str = Field(default_factory=lambda: new_id("ben"), primary_key=True)
    policy_id: str = Field(foreign_key="policy.id", index=True)
    run_id: str | None = Field(default=None, foreign_key="run.id")
    means: dict[str, float] = Field(sa_type=JSON)
    higher_is_better: dict[str, bool] = Field(default_factory=dict, sa_type=JSON)
    settings: dict[str, Any] = Field(default_factory=dict, sa_type=JSON)


class BenchmarkItemRow(SQLModel, table=True):
    """One item of one benchmark."""

    __tablename__ = "benchmark_item"

    benchmark_id: str = Field(foreign_key="benchmark.id", primary_key=True)
    item: str = Field(primary_key=True)
    scores: dict[str, float] = Field(sa_type=JSON)
    asked: str = ""
    answer: str = ""
