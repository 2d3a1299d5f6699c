"""Votes that come in from other tools: each with the prompt, the replies and the policies it needs.

Ids are made from content, so the same file again finds everything there already. A vote that carries an id of its
own (a judgment that left this studio in an outside format) is not stored a second time under another one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import count, islice
from typing import Any

from pydantic import ValidationError
from sqlalchemy import insert
from sqlalchemy.exc import IntegrityError
from sqlmodel import Session, SQLModel, col, select

from feedback.db import Database, one_at_a_time
from feedback.errors import InvalidLine
from feedback.store.rows import in_chunks, reason_of
from feedback.tables import GenerationRow, JudgmentRow, LeaseRow, MatchupRow, PolicyRow, PromptRow
from feedback.types import (
    CANNOT_REPLY,
    JudgmentState,
    LeaseState,
    MatchupState,
    Source,
    Verdict,
    content_hash,
    now,
    storable_throughout,
)

_BATCH = 400
_TEXTS = {
    "messages": "a message",
    "replies": "a reply",
    "policies": "a model's name",
    "annotator": "a judge's name",
    "rationale": "a rationale",
    "key": "an id",
}
"""What a vote holds in words, and what a person calls it."""
_SWAPPED = {Verdict.first: Verdict.second, Verdict.second: Verdict.first}
_TABLES = (PromptRow, PolicyRow, GenerationRow, MatchupRow, LeaseRow, JudgmentRow)  # each after what it refers to


@dataclass(frozen=True)
class ImportedVote:
    """One vote on two replies, left then right; ``key`` is the id the file gives it, if it gives one."""

    messages: list[dict[str, str]]
    replies: tuple[str, str]
    verdict: Verdict
    strength: int | None
    policies: tuple[str, str]
    annotator: str
    rationale: str | None
    skip_reason: str | None
    at: datetime | None
    key: str

    @property
    def judgment_key(self) -> str:
        """The id of the judgment the file means: a ranking leaves as pairs, whose ids go on after a point."""
        return self.key.partition(".")[0]


def save_votes(db: Database, source: str, votes: Iterable[tuple[int, ImportedVote]]) -> dict[str, int]:
    """Store votes with all they need in one transaction; gives how many rows of each kind are new.

    ``votes`` come with their line numbers in ``source``. Raises InvalidLine, leaving everything as it was, for a
    vote that does not hold the rules of the store.
    """
    counts = {"judgments": 0, "prompts": 0, "generations": 0, "matchups": 0, "policies": 0, "already_there": 0}
    number = 0
    remaining = iter(votes)
    try:
        with db.write() as session:
            one_at_a_time(session, "save_prompts")
            policies = _Policies(session, source)
            while batch := list(islice(remaining, _BATCH)):
                number = batch[0][0]
                _save_batch(session, source, batch, policies, counts)
    except IntegrityError as error:
        raise InvalidLine(
            source, number, f"from here on, something does not fit what is stored ({error.orig})"
        ) from error
    return counts


class _Policies:
    """Policies by name; one that no row has is made up, and says that it cannot reply here."""

    def __init__(self, session: Session, source: str) -> None:
        self._ids = dict(session.exec(select(PolicyRow.name, PolicyRow.id)).all())
        self._source = source
        self.new: list[dict[str, Any]] = []

    def id_of(self, name: str) -> str:
        usable = usable_policy_name(name)
        if usable not in self._ids:
            self._ids[usable] = f"pol-{content_hash(['imported', usable])[:20]}"
            note = f"imported with {self._source}; it replied elsewhere and {CANNOT_REPLY}"
            row = {"id": self._ids[usable], "name": usable, "base": name, "note": note}
            self.new.append(PolicyRow.model_validate(row).model_dump())
        return self._ids[usable]


def usable_policy_name(name: str) -> str:
    """A model's name elsewhere as one that a policy may have: other characters become ``-``."""
    kept = "".join(letter if letter.isascii() and (letter.isalnum() or letter in "._-") else "-" for letter in name)
    return kept.lstrip("._-")[:80] or "imported"


@dataclass
class _Draft:
    """A vote as rows, of which some may be there already."""

    number: int
    vote: ImportedVote
    rows: dict[type[SQLModel], list[dict[str, Any]]] = field(default_factory=dict)

    @property
    def judgment(self) -> dict[str, Any]:
        return self.rows[JudgmentRow][0]


def _save_batch(
    session: Session,
    source: str,
    batch: Sequence[tuple[int, ImportedVote]],
    policies: _Policies,
    counts: dict[str, int],
) -> None:
    _check_texts(source, batch)
    known_keys = _existing(session, JudgmentRow, [vote.judgment_key for _, vote in batch if vote.key])
    fresh = [(number, vote) for number, vote in batch if vote.judgment_key not in known_keys]
    counts["already_there"] += len(batch) - len(fresh)
    prompt_ids = _prompt_ids(session, [vote for _, vote in fresh])
    drafts = [_draft(source, number, vote, policies, prompt_ids) for number, vote in fresh]
    stored = _existing(session, JudgmentRow, [draft.judgment["id"] for draft in drafts])
    new = list({d.judgment["id"]: d for d in drafts if d.judgment["id"] not in stored}.values())
    counts["already_there"] += len(drafts) - len(new)
    _name_annotators(session, new)
    for table in _TABLES:
        rows = policies.new if table is PolicyRow else [row for draft in new for row in draft.rows[table]]
        unique = {row["id"]: row for row in rows}
        there = _existing(session, table, list(unique))
        wanted = [row for key, row in unique.items() if key not in there]
        if wanted:
            session.execute(insert(table), wanted)
        noun = f"{table.__tablename__}s" if table is not PolicyRow else "policies"
        if noun in counts:
            counts[noun] += len(wanted)
    policies.new = []


def _check_texts(source: str, batch: Sequence[tuple[int, ImportedVote]]) -> None:
    """Refuse what no database can hold before anything is hashed or looked up, which would fail at it."""
    for number, vote in batch:
        try:
            for name, what in _TEXTS.items():
                storable_throughout(getattr(vote, name), what)
        except ValueError as error:
            raise InvalidLine(source, number, str(error)) from error


def _draft(source: str, number: int, vote: ImportedVote, policies: _Policies, prompt_ids: dict[str, str]) -> _Draft:
    try:
        return _Draft(number, vote, _rows(vote, policies, prompt_ids))
    except ValidationError as error:
        raise InvalidLine(source, number, reason_of(error)) from error


def _rows(
    vote: ImportedVote, policies: _Policies, prompt_ids: dict[str, str]
) -> dict[type[SQLModel], list[dict[str, Any]]]:
    asked = content_hash(vote.messages)
    prompt_id = prompt_ids.get(asked, f"prm-{asked[:16]}")
    prompt = PromptRow.model_validate({"id": prompt_id, "messages": vote.messages, "tags": ["imported"]})
    replies = [
        GenerationRow.model_validate(
            {
                "id": f"gen-{content_hash([asked, maker, text])[:20]}",
                "prompt_id": prompt_id,
                "policy_id": policies.id_of(maker),
                "text": text,
                "seed": 0,
            }
        )
        for maker, text in zip(vote.policies, vote.replies, strict=True)
    ]
    # Stored order is by id, so that it says nothing of which reply was preferred, whatever the file's habit.
    stored = sorted(replies, key=lambda reply: reply.id)
    is_swapped = stored[0] is not replies[0]
    keys = [reply.id for reply in stored]
    verdict = _SWAPPED.get(vote.verdict, vote.verdict) if is_swapped else vote.verdict
    matchup = MatchupRow.model_validate(
        {
            "id": f"mat-{content_hash(keys)[:20]}",
            "prompt_id": prompt_id,
            "generation_ids": keys,
            "state": MatchupState.satisfied,
        }
    )
    digest = content_hash([matchup.id, vote.annotator, verdict, vote.key])[:20]
    order, at = ([1, 0] if is_swapped else [0, 1]), vote.at or now()
    judgment = JudgmentRow.model_validate(
        {
            "id": f"jud-{digest}",
            "matchup_id": matchup.id,
            "lease_id": f"lea-{digest}",
            "annotator": vote.annotator,
            "source": Source.imported,
            "verdict": verdict,
            "strength": vote.strength,
            "shown_order": order,
            "skip_reason": vote.skip_reason,
            "rationale": vote.rationale,
            "created_at": at,
        }
    )
    lease = LeaseRow.model_validate(
        {
            "id": judgment.lease_id,
            "matchup_id": matchup.id,
            "annotator": vote.annotator,
            "source": Source.imported,
            "shown_order": order,
            "state": LeaseState.skipped if verdict is Verdict.skip else LeaseState.submitted,
            "expires_at": at,
            "ended_at": at,
        }
    )
    found: dict[type[SQLModel], list[SQLModel]] = {
        PromptRow: [prompt],
        GenerationRow: list(replies),
        MatchupRow: [matchup],
        LeaseRow: [lease],
        JudgmentRow: [judgment],
    }
    return {table: [row.model_dump() for row in rows] for table, rows in found.items()}


def _name_annotators(session: Session, drafts: Sequence[_Draft]) -> None:
    """One person says one thing of one matchup: a second word under the same name is another annotator's.

    Files of pairs do not say who judged, so all their votes bear one name; the same pair preferred both ways is a
    disagreement, and must reach the dataset as one.
    """
    matchups = list({draft.judgment["matchup_id"] for draft in drafts})
    query = select(JudgmentRow.matchup_id, JudgmentRow.annotator).where(JudgmentRow.state == JudgmentState.current)
    taken = set(
        in_chunks(matchups, lambda part: list(session.exec(query.where(col(JudgmentRow.matchup_id).in_(part)))))
    )
    for draft in drafts:
        name, matchup_id = draft.vote.annotator, draft.judgment["matchup_id"]
        free = next(candidate for candidate in _spellings(name) if (matchup_id, candidate) not in taken)
        taken.add((matchup_id, free))
        draft.judgment["annotator"] = draft.rows[LeaseRow][0]["annotator"] = free


def _spellings(name: str) -> Iterator[str]:
    yield name
    for number in count(2):
        yield f"{name}-{number}"


def _prompt_ids(session: Session, votes: Sequence[ImportedVote]) -> dict[str, str]:
    hashes = list({content_hash(vote.messages) for vote in votes})
    query = select(PromptRow.content_hash, PromptRow.id)
    rows = in_chunks(hashes, lambda part: list(session.exec(query.where(col(PromptRow.content_hash).in_(part)))))
    return dict(rows)


def _existing(session: Session, table: type[Any], ids: Sequence[str]) -> set[str]:
    rows = in_chunks(list(ids), lambda part: list(session.exec(select(table.id).where(col(table.id).in_(part)))))
    return set(rows)
