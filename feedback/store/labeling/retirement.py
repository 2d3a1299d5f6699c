"""Retired prompts: no replies are drawn for them and nobody is asked about them; what was judged stays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import update
from sqlmodel import Session, col, select

from feedback.database.engine import Database, one_at_a_time
from feedback.errors import InvalidInput, NotFound
from feedback.store.labeling.leases import release_ahead
from feedback.store.labeling.matchups import is_asked_as_gold
from feedback.store.rows import in_chunks
from feedback.tables import GenerationRow, LeaseRow, MatchupRow, PromotionRow, PromptRow
from feedback.types import LeaseState, MatchupState, Purpose, now


@dataclass(frozen=True)
class ChosenPrompts:
    """The ids of prompts that were named: those an act changes, and those that are already as it would leave them."""

    changing: list[str]
    already: list[str]


@dataclass(frozen=True)
class Retirement:
    """How many prompts were retired or restored, how many already were, and how many matchups went with them."""

    changed: int
    already: int
    matchups: int

    @property
    def summary(self) -> str:
        """The counts in words, as the audit log keeps them."""
        return f"{self.changed} prompts, {self.matchups} matchups"


def choose_prompts(db: Database, ids: Sequence[str], tag: str | None, *, retired: bool) -> ChosenPrompts:
    """The prompts with these ids, or those that carry the tag; ``retired`` is what they are to become.

    Raises InvalidInput unless either ids or a tag are given, NotFound for an id or a tag that no prompt has.
    """
    with db.read() as session:
        return _choose(session, ids, tag, retired)


def retire_prompts(db: Database, ids: Sequence[str], tag: str | None = None) -> Retirement:
    """Retire prompts, chosen as in ``choose_prompts``, and take their open matchups out of the pool.

    What is on a screen stays there, and the answer to it counts.
    """
    with db.write() as session:
        one_at_a_time(session, "promote")
        chosen = _choose(session, ids, tag, retired=True)
        release_ahead(session, at=now())
        _mark(session, chosen.changing, retired=True)
        waiting = _matchups(session, chosen.changing, MatchupState.open)
        moved = _move(session, waiting, MatchupState.open, MatchupState.retired)
        return Retirement(len(chosen.changing), len(chosen.already), moved)


def restore_prompts(db: Database, ids: Sequence[str], tag: str | None = None) -> Retirement:
    """Take prompts back into use, chosen as in ``choose_prompts``, and reopen their matchups.

    A matchup stays out of the pool where a promotion would have taken it out meanwhile, or where it only measured two
    policies, who can be compared anew.
    """
    with db.write() as session:
        one_at_a_time(session, "promote")
        chosen = _choose(session, ids, tag, retired=False)
        _mark(session, chosen.changing, retired=False)
        waiting = _matchups(session, chosen.changing, MatchupState.retired)
        moved = _move(session, _still_wanted(session, waiting), MatchupState.retired, MatchupState.open)
        return Retirement(len(chosen.changing), len(chosen.already), moved)


def _choose(session: Session, ids: Sequence[str], tag: str | None, retired: bool) -> ChosenPrompts:
    if bool(ids) == (tag is not None):
        raise InvalidInput("Name prompts either by their ids or by a tag; `studio prompts list` shows both.")
    columns = select(PromptRow.id, PromptRow.retired, PromptRow.tags)
    if tag is None:
        wanted = list(dict.fromkeys(ids))
        found = in_chunks(wanted, lambda part: list(session.exec(columns.where(col(PromptRow.id).in_(part)))))
        missing = set(wanted) - {key for key, _, _ in found}
        if missing:
            unknown = next(key for key in wanted if key in missing)
            raise NotFound(
                "prompt",
                unknown,
                hint="`studio prompts list` shows those in use, with --retired the others; nothing was changed.",
            )
    else:
        everything = session.exec(columns.order_by(col(PromptRow.created_at), col(PromptRow.id))).all()
        # Tags are a JSON list, and the two databases disagree on how to look into one
        found = [row for row in everything if tag in row[2]]
        if not found:
            known = sorted({one for _, _, tags in everything for one in tags})
            raise NotFound("prompt with the tag", tag, known, "`studio prompts list --tags` counts them.")
    return ChosenPrompts(
        [key for key, is_retired, _ in found if is_retired is not retired],
        [key for key, is_retired, _ in found if is_retired is retired],
    )


def _mark(session: Session, ids: Sequence[str], *, retired: bool) -> None:
    if ids:  # in the order in which others lock them
        session.execute(update(PromptRow), [{"id": key, "retired": retired} for key in sorted(ids)])


def _matchups(session: Session, prompt_ids: Sequence[str], state: MatchupState) -> list[MatchupRow]:
    query = select(MatchupRow).where(MatchupRow.state == state)
    return in_chunks(
        list(prompt_ids), lambda part: list(session.exec(query.where(col(MatchupRow.prompt_id).in_(part))))
    )


def _move(session: Session, matchups: Sequence[MatchupRow], before: MatchupState, after: MatchupState) -> int:
    """Change the state of matchups, but of those that a vote settled since they were read; returns how many changed."""

    def change(part: list[str]) -> list[int]:
        still = (col(MatchupRow.id).in_(part), col(MatchupRow.state) == before)
        return [session.connection().execute(update(MatchupRow).where(*still).values(state=after)).rowcount]

    return sum(in_chunks([row.id for row in matchups], change))


def _still_wanted(session: Session, matchups: Sequence[MatchupRow]) -> list[MatchupRow]:
    """Those that would be open had their prompts never been retired."""
    newest = select(PromotionRow.policy_id).order_by(col(PromotionRow.number).desc()).limit(1)
    champion = session.exec(newest).first()
    ids = [row.id for row in matchups]
    judged = select(LeaseRow.matchup_id).where(LeaseRow.state == LeaseState.submitted)
    touched = set(in_chunks(ids, lambda part: list(session.exec(judged.where(col(LeaseRow.matchup_id).in_(part))))))
    replies = [key for row in matchups for key in row.generation_ids]
    own_replies = select(GenerationRow.id).where(GenerationRow.policy_id == champion)
    own = set(in_chunks(replies, lambda part: list(session.exec(own_replies.where(col(GenerationRow.id).in_(part))))))

    def asked_for(row: MatchupRow) -> bool:
        return row.priority > 0 or row.batch_id is not None or row.id in touched or own.issuperset(row.generation_ids)

    return [
        row
        for row in matchups
        if row.purpose in (Purpose.gold, Purpose.repeat)
        or (row.purpose is Purpose.collect and asked_for(row) and not is_asked_as_gold(session, row))
    ]
