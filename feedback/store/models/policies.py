"""Policies and promotions: who can reply, and who serves."""

from __future__ import annotations

from sqlalchemy import update
from sqlalchemy.exc import IntegrityError
from sqlmodel import Session, SQLModel, col, select

from feedback.database.engine import Database, one_at_a_time
from feedback.errors import Conflict
from feedback.store.labeling.leases import release_ahead
from feedback.store.rows import as_row, get_by_key, refusal
from feedback.tables import (
    CheckpointRow,
    GenerationRow,
    LeaseRow,
    MatchupRow,
    PolicyRow,
    PromotionRow,
    PromptRow,
    RunRow,
)
from feedback.types import LeaseState, MatchupState, Policy, Purpose, now

_REFERENCES: dict[str, type[SQLModel]] = {"checkpoint_id": CheckpointRow, "parent_id": PolicyRow, "run_id": RunRow}


def save_policy(db: Database, policy: Policy, *, id: str | None = None) -> PolicyRow:
    """Register a policy; Conflict when its name is taken, InvalidInput when what it names is not there."""
    identity = {"id": id} if id else {}
    row = as_row(PolicyRow, policy, **identity)
    try:
        with db.write() as session:
            session.add(row)
    except IntegrityError as error:
        with db.read() as session:
            raise refusal(session, as_row(PolicyRow, policy, **identity), "policy", _REFERENCES) from error
    return row


def get_policy(db: Database, key: str) -> PolicyRow:
    """The policy with this id or name."""
    with db.read() as session:
        return get_by_key(session, PolicyRow, "policy", key, hint="`studio policies list` shows all.")


def check_can_reply(policy: PolicyRow) -> None:
    """Raise Conflict for a policy of which only judgments were imported."""
    if not policy.can_reply:
        raise Conflict(
            f"Policy {policy.name!r}: {policy.note}. Name one that can (`studio policies list` shows all), or move the "
            "whole home with `studio backup` and `studio restore`."
        )


def check_has_weights(policy: PolicyRow) -> None:
    """Raise Conflict for a policy that replies over HTTP: it can be judged, not trained or looked into."""
    if policy.is_endpoint:
        raise Conflict(
            f"Policy {policy.name!r} replies over HTTP, from {policy.base}: its weights, which this needs, are not "
            "here. Name a policy whose weights are (`studio policies list` shows all)."
        )


def list_policies(db: Database) -> list[PolicyRow]:
    """All policies, oldest first."""
    with db.read() as session:
        return list(session.exec(select(PolicyRow).order_by(col(PolicyRow.created_at), col(PolicyRow.id))))


def get_champion(db: Database) -> PolicyRow | None:
    """The policy that serves: the one promoted last."""
    with db.read() as session:
        return _champion(session)


def promote_policy(db: Database, key: str) -> PolicyRow:
    """Make a policy the champion. Undone by promoting the one before.

    Untouched open matchups of other policies are retired, so that the next pair comes from the new champion;
    leased and half-judged ones are left to the people at work on them, and those that somebody asked for (with a
    priority above 0, or in a batch) stay. Promoting the champion changes nothing.
    """
    with db.write() as session:
        one_at_a_time(session, "promote")
        policy = get_by_key(session, PolicyRow, "policy", key, hint="`studio policies list` shows all.")
        check_can_reply(policy)
        checkpoint = session.get(CheckpointRow, policy.checkpoint_id) if policy.checkpoint_id else None
        if checkpoint is not None and checkpoint.removed_at is not None:
            raise Conflict(
                f"The weights of {policy.name!r} were removed to save space; train it again as its run did: "
                f"`studio runs show {policy.run_id}`."
            )
        champion = _champion(session)
        if champion is None or champion.id != policy.id:
            session.add(PromotionRow(policy_id=policy.id))
            _hand_over_pool(session, policy.id)
        return policy


def list_promotions(db: Database) -> list[PromotionRow]:
    """Every promotion, oldest first."""
    with db.read() as session:
        return list(session.exec(select(PromotionRow).order_by(col(PromotionRow.number))))


def _champion(session: Session) -> PolicyRow | None:
    newest = select(PromotionRow.policy_id).order_by(col(PromotionRow.number).desc()).limit(1)
    policy_id = session.exec(newest).first()
    return session.get(PolicyRow, policy_id) if policy_id else None


def _hand_over_pool(session: Session, policy_id: str) -> None:
    """Retire what other policies left in the pool, and reopen what was retired of the new champion's own."""
    release_ahead(session, at=now())
    own = set(session.exec(select(GenerationRow.id).where(GenerationRow.policy_id == policy_id)))
    busy = [LeaseState.leased, LeaseState.submitted]
    touched = set(session.exec(select(LeaseRow.matchup_id).where(col(LeaseRow.state).in_(busy))))
    waiting = session.exec(
        select(MatchupRow.id, MatchupRow.state, MatchupRow.generation_ids).where(
            col(MatchupRow.state).in_([MatchupState.open, MatchupState.retired]),
            col(MatchupRow.purpose) == Purpose.collect,
            col(MatchupRow.priority) <= 0,
            col(MatchupRow.batch_id).is_(None),
            col(MatchupRow.prompt_id).not_in(select(PromptRow.id).where(col(PromptRow.retired).is_(True))),
        )
    ).all()
    gold = session.exec(select(MatchupRow.generation_ids).where(col(MatchupRow.purpose) == Purpose.gold))
    asked_as_gold = {frozenset(ids) for ids in gold}  # reopened, somebody would meet the same replies twice
    changes = []
    for matchup_id, state, generation_ids in waiting:
        is_own = own.issuperset(generation_ids)
        if state is MatchupState.open and not is_own and matchup_id not in touched:
            changes.append({"id": matchup_id, "state": MatchupState.retired})
        elif state is MatchupState.retired and is_own and frozenset(generation_ids) not in asked_as_gold:
            changes.append({"id": matchup_id, "state": MatchupState.open})
    if changes:
        session.execute(update(MatchupRow), changes)
