"""Lineage: from a policy to the people who made it, in one walk.

policy ← checkpoint ← run ← dataset ← judgments ← generations ← the policies that wrote them ← …
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from sqlmodel import Session, col, select

from feedback.db import Database
from feedback.store.rows import get_by_key
from feedback.tables import (
    CheckpointRow,
    DatasetJudgmentRow,
    DatasetRow,
    GenerationRow,
    JudgmentRow,
    MatchupRow,
    PolicyRow,
    RunRow,
)


def policy_lineage(db: Database, key: str) -> dict[str, Any]:
    """Everything a policy came from, as JSON-able dictionaries.

    Keys: ``policy``; ``run``, ``checkpoint``, ``dataset`` (None for a base model); ``judgments`` with ``count``,
    ``by_source``, ``annotators`` (votes each) and ``ids``; ``judged_policies`` (whose replies were judged, with how
    many); ``parent``: the same again for the policy it was trained from, None at the base.
    """
    with db.read() as session:
        policy = get_by_key(session, PolicyRow, "policy", key, hint="`studio policies list` shows all.")
        return _walk(session, policy)


def _walk(session: Session, policy: PolicyRow) -> dict[str, Any]:
    checkpoint = session.get(CheckpointRow, policy.checkpoint_id) if policy.checkpoint_id else None
    run = session.get(RunRow, policy.run_id) if policy.run_id else None
    dataset = session.get(DatasetRow, checkpoint.dataset_id) if checkpoint and checkpoint.dataset_id else None
    parent = session.get(PolicyRow, policy.parent_id) if policy.parent_id else None
    return {
        "policy": policy.model_dump(mode="json", include={"id", "name", "base", "created_at", "parent_id"}),
        "checkpoint": checkpoint
        and checkpoint.model_dump(mode="json", include={"id", "name", "path", "base", "created_at"}),
        "run": run
        and run.model_dump(mode="json", include={"id", "method", "state", "config", "started_at", "ended_at"}),
        "dataset": dataset
        and dataset.model_dump(mode="json", include={"id", "name", "hash", "counts", "dropped", "created_at"}),
        "judgments": _judgments(session, dataset.id) if dataset else None,
        "judged_policies": _judged_policies(session, dataset.id) if dataset else None,
        "parent": _walk(session, parent) if parent else None,
    }


def _judgments(session: Session, dataset_id: str) -> dict[str, Any]:
    query = (
        select(JudgmentRow.id, JudgmentRow.source, JudgmentRow.annotator)
        .join(DatasetJudgmentRow, col(DatasetJudgmentRow.judgment_id) == col(JudgmentRow.id))
        .where(DatasetJudgmentRow.dataset_id == dataset_id)
        .order_by(col(JudgmentRow.created_at), col(JudgmentRow.id))
    )
    rows = session.exec(query).all()
    return {
        "count": len(rows),
        "by_source": dict(Counter(str(source) for _, source, _ in rows)),
        "annotators": dict(Counter(annotator for _, _, annotator in rows)),
        "ids": [judgment_id for judgment_id, _, _ in rows],
    }


def _judged_policies(session: Session, dataset_id: str) -> dict[str, int]:
    matchups = session.exec(
        select(MatchupRow.generation_ids)
        .join(JudgmentRow, col(JudgmentRow.matchup_id) == col(MatchupRow.id))
        .join(DatasetJudgmentRow, col(DatasetJudgmentRow.judgment_id) == col(JudgmentRow.id))
        .where(DatasetJudgmentRow.dataset_id == dataset_id)
    ).all()
    wanted = list({generation_id for generation_ids in matchups for generation_id in generation_ids})
    names: Counter[str] = Counter()
    for start in range(0, len(wanted), 500):
        query = (
            select(PolicyRow.name)
            .join(GenerationRow, col(GenerationRow.policy_id) == col(PolicyRow.id))
            .where(col(GenerationRow.id).in_(wanted[start : start + 500]))
        )
        names.update(session.exec(query).all())
    return dict(names)
