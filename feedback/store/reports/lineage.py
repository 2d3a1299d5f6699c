"""Lineage: from a policy to the people who made it, in one walk, and from a judgment to what was made with it.

policy ← checkpoint ← run ← dataset ← judgments ← generations ← the policies that wrote them ← …
                       run ← the reward models that scored its replies ← dataset ← judgments ← …
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from sqlmodel import Session, col, select

from feedback.database.engine import Database
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
    many); ``rewards``: for each reward model that scored while it learnt ``checkpoint``, ``run``, ``dataset``,
    ``judgments`` and ``judged_policies``; ``reward_function``: the one that scored, or None; ``prompts_only``: whether
    scores taught it, so that of the dataset itself only the prompts were used; ``parent``: the same again for the
    policy it was trained from, None at the base.
    """
    with db.read() as session:
        policy = get_by_key(session, PolicyRow, "policy", key, hint="`studio policies list` shows all.")
        return _walk(session, policy)


def judgment_lineage(db: Database, judgment_id: str) -> dict[str, Any]:
    """Everything that was made with a judgment, as JSON-able dictionaries, each oldest first.

    Keys: ``judgment`` (id, annotator, state, source); ``datasets`` that froze it; ``rewards`` trained on those;
    ``policies`` trained on those datasets, or on the scores of those reward models, or from such policies.
    """
    with db.read() as session:
        judgment = get_by_key(
            session, JudgmentRow, "judgment", judgment_id, hint="`studio review judgments` shows them."
        )
        frozen = select(DatasetJudgmentRow.dataset_id).where(DatasetJudgmentRow.judgment_id == judgment.id)
        datasets = session.exec(select(DatasetRow).where(col(DatasetRow.id).in_(frozen)).order_by(*_oldest(DatasetRow)))
        kept = {row.id: row for row in datasets}
        trained = select(CheckpointRow).where(col(CheckpointRow.dataset_id).in_(list(kept)))
        checkpoints = session.exec(trained.order_by(*_oldest(CheckpointRow))).all()
        rewards = [row for row in checkpoints if row.kind == "reward"]
        policies = _made_with(session, {row.id for row in checkpoints}, {row.id for row in rewards})
    return {
        "judgment": judgment.model_dump(mode="json", include={"id", "annotator", "state", "source"}),
        "datasets": [row.model_dump(mode="json", include={"id", "name", "hash"}) for row in kept.values()],
        "rewards": [row.model_dump(mode="json", include={"id", "name"}) for row in rewards],
        "policies": [row.model_dump(mode="json", include={"id", "name", "run_id"}) for row in policies],
    }


def _made_with(session: Session, checkpoints: set[str], rewards: set[str]) -> list[PolicyRow]:
    """The policies, oldest first, of these checkpoints, scored by these reward models, or trained from such ones."""
    found: dict[str, PolicyRow] = {}
    for policy in session.exec(select(PolicyRow).order_by(*_oldest(PolicyRow))):  # a parent is older than its child
        run = session.get(RunRow, policy.run_id) if policy.run_id else None
        if run is not None and _is_scored(run):
            taught = bool(rewards & {row.id for row in _scorers(session, run)})
        else:
            taught = policy.checkpoint_id in checkpoints
        if taught or policy.parent_id in found:
            found[policy.id] = policy
    return list(found.values())


def _walk(session: Session, policy: PolicyRow) -> dict[str, Any]:
    checkpoint = session.get(CheckpointRow, policy.checkpoint_id) if policy.checkpoint_id else None
    run = session.get(RunRow, policy.run_id) if policy.run_id else None
    parent = session.get(PolicyRow, policy.parent_id) if policy.parent_id else None
    return {
        "policy": policy.model_dump(mode="json", include={"id", "name", "base", "created_at", "parent_id"}),
        **_made(session, checkpoint, run),
        "rewards": [_made(session, row, _run_of(session, row)) for row in _scorers(session, run)] if run else [],
        "reward_function": run.config.get("reward_function") if run else None,
        "prompts_only": run is not None and _is_scored(run),
        "parent": _walk(session, parent) if parent else None,
    }


def _made(session: Session, checkpoint: CheckpointRow | None, run: RunRow | None) -> dict[str, Any]:
    """A checkpoint with the run that made it, the dataset it was given, and who judged that."""
    dataset = session.get(DatasetRow, checkpoint.dataset_id) if checkpoint and checkpoint.dataset_id else None
    return {
        "checkpoint": checkpoint
        and checkpoint.model_dump(mode="json", include={"id", "name", "path", "base", "created_at"}),
        "run": run
        and run.model_dump(mode="json", include={"id", "method", "state", "config", "started_at", "ended_at"}),
        "dataset": dataset
        and dataset.model_dump(mode="json", include={"id", "name", "hash", "counts", "dropped", "created_at"}),
        "judgments": _judgments(session, dataset.id) if dataset else None,
        "judged_policies": _judged_policies(session, dataset.id) if dataset else None,
    }


def _is_scored(run: RunRow) -> bool:
    """Whether a run learnt from scores of replies; a dataset gave it prompts alone."""
    return bool(run.config.get("reward") or run.config.get("reward_function"))


def _scorers(session: Session, run: RunRow) -> list[CheckpointRow]:
    """The reward models that scored replies in a run, in the order they were named there."""
    keys = [key.strip() for key in str(run.config.get("reward") or "").split(",") if key.strip()]
    query = select(CheckpointRow).where(
        col(CheckpointRow.kind) == "reward", col(CheckpointRow.id).in_(keys) | col(CheckpointRow.name).in_(keys)
    )
    rows = session.exec(query).all() if keys else []
    return sorted(rows, key=lambda row: keys.index(row.id if row.id in keys else row.name))


def _run_of(session: Session, checkpoint: CheckpointRow) -> RunRow | None:
    return session.get(RunRow, checkpoint.run_id) if checkpoint.run_id else None


def _oldest(table: Any) -> tuple[Any, Any]:
    return col(table.created_at), col(table.id)


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
