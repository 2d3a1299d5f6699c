"""Votes that come in from other tools: each with the prompt, the replies and the policies it needs.

Every vote is read and made into validated rows before the first one is written (``feedback.database.chunks``), so that
a wrong line leaves everything as it was and a slow file keeps nobody waiting.

Ids are made from content, so the same file again finds everything there already. A vote that carries an id of its
own (a judgment that left this studio in an outside format) is not stored a second time under another one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import count
from typing import Any

from pydantic import ValidationError
from sqlalchemy import insert
from sqlalchemy.exc import IntegrityError
from sqlmodel import Session, SQLModel, col, select

from feedback.database.chunks import Added, Saved, save_in_chunks, spooled
from feedback.database.engine import Database
from feedback.errors import InvalidLine
from feedback.store.models.foreign_policies import ForeignPolicies
from feedback.store.rows import in_chunks, reason_of
from feedback.tables import GenerationRow, JudgmentRow, LeaseRow, MatchupRow, PolicyRow, PromptRow
from feedback.types import (
    JudgmentState,
    LeaseState,
    MatchupState,
    Source,
    Verdict,
    content_hash,
    now,
    reject_unstorable_values,
)

# Votes a transaction: some 300 rows, which SQLite writes in about 30 ms. Others wait no longer than that.
_CHUNK = 50
_LATER = "known-when-saved"
"""What stands for the id of a prompt or a policy until the database is asked for it."""
_OUR_IDS = "jud-"
_TEXTS = {
    "messages": "a message",
    "replies": "a reply",
    "policies": "a model's name",
    "annotator": "a judge's name",
    "rationale": "a rationale",
    "key": "an id",
    "origin": "what a file says of a vote",
}
"""What a vote holds in words, and what a person calls it."""
_SWAPPED = {Verdict.first: Verdict.second, Verdict.second: Verdict.first}
_TABLES = (PromptRow, PolicyRow, GenerationRow, MatchupRow, LeaseRow, JudgmentRow)  # each after what it refers to
_COUNTED = {
    JudgmentRow: "judgments",
    PromptRow: "prompts",
    GenerationRow: "generations",
    MatchupRow: "matchups",
    PolicyRow: "policies",
}


@dataclass(frozen=True)
class ImportedVote:
    """One vote on two replies, left then right; ``key`` is the id the file gives it, if it gives one.

    ``origin`` is what the file says of the vote that a judgment has no place for; it is kept with the judgment.
    """

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
    origin: dict[str, Any] | None = None

    @property
    def judgment_key(self) -> str:
        """The id of the judgment the file means: a ranking leaves as pairs, whose ids go on after a point."""
        return self.key.partition(".")[0]

    def identity(self) -> dict[str, Any]:
        """What tells this vote from others with the same judge and verdict; empty where the file's id is ours."""
        if self.key.startswith(_OUR_IDS):
            return {}
        said = {
            "at": None if self.at is None else self.at.isoformat(),
            "strength": self.strength,
            "rationale": self.rationale,
            "skip_reason": self.skip_reason,
            "origin": self.origin,
        }
        return {name: value for name, value in said.items() if value is not None}


def save_votes(db: Database, source: str, votes: Iterable[tuple[int, ImportedVote]]) -> dict[str, int]:
    """Store votes with all they need; gives how many rows of each kind are new.

    ``votes`` come with their line numbers in ``source``. Raises InvalidLine, leaving everything as it was, for a
    vote that does not hold the rules of the store.
    """
    saver = _Saver(source)
    with spooled((_draft(source, number, vote) for number, vote in votes), _CHUNK) as chunks:
        try:
            counts = save_in_chunks(db, chunks, saver.save)
        except IntegrityError as error:
            reason = f"from here on, something does not fit what is stored ({error.orig})"
            raise InvalidLine(source, saver.line, reason) from error
    return {name: counts[name] for name in (*_COUNTED.values(), "already_there")}


@dataclass
class _Draft:
    """A vote as rows that are valid but for the ids of its prompt and policies, which the database may know.

    ``earlier_id`` is the id that such a judgment had when less of a vote told it from others.
    """

    number: int
    vote: ImportedVote
    prompt_hash: str
    earlier_id: str
    rows: dict[type[SQLModel], list[dict[str, Any]]] = field(default_factory=dict)

    @property
    def judgment(self) -> dict[str, Any]:
        return self.rows[JudgmentRow][0]


class _Saver:
    """Saves chunks of one source; ``line`` is where the newest begins."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.line = 0

    def save(self, session: Session, drafts: list[_Draft]) -> Saved:
        """Write one chunk in the transaction under way."""
        self.line = drafts[0].number
        policies = ForeignPolicies(session, self.source, (name for draft in drafts for name in draft.vote.policies))
        new = _unknown(session, drafts)
        _fill_in(session, new, policies)
        _name_annotators(session, new)
        added = _insert(session, new, policies)
        counts = Counter({_COUNTED[table]: len(ids) for table, ids in added.items() if table in _COUNTED})
        counts["already_there"] = len(drafts) - len(new)
        return Saved(added, counts)


def _unknown(session: Session, drafts: list[_Draft]) -> list[_Draft]:
    """The drafts whose judgments are not stored yet, each once."""
    keys = [draft.vote.judgment_key for draft in drafts if draft.vote.key]
    ids = [key for draft in drafts for key in (draft.judgment["id"], draft.earlier_id)]
    query = select(JudgmentRow.id, JudgmentRow.created_at, JudgmentRow.strength, JudgmentRow.rationale)
    found = {
        key: (at, strength, rationale)
        for key, at, strength, rationale in in_chunks(
            list({*keys, *ids}), lambda part: list(session.exec(query.where(col(JudgmentRow.id).in_(part))))
        )
    }

    def is_known(draft: _Draft) -> bool:
        vote = draft.vote
        if draft.judgment["id"] in found or (vote.key and vote.judgment_key in found):
            return True
        at, strength, rationale = found.get(draft.earlier_id, (None, None, None))
        return at is not None and (vote.at or at, vote.strength, vote.rationale) == (at, strength, rationale)

    return list({draft.judgment["id"]: draft for draft in drafts if not is_known(draft)}.values())


def _fill_in(session: Session, drafts: list[_Draft], policies: ForeignPolicies) -> None:
    """Give the rows the ids of their prompts and policies."""
    query = select(PromptRow.content_hash, PromptRow.id)
    hashes = list({draft.prompt_hash for draft in drafts})
    stored = dict(
        in_chunks(hashes, lambda part: list(session.exec(query.where(col(PromptRow.content_hash).in_(part)))))
    )
    for draft in drafts:
        prompt = draft.rows[PromptRow][0]
        prompt["id"] = stored.get(draft.prompt_hash, f"prm-{draft.prompt_hash[:16]}")
        for row in (*draft.rows[GenerationRow], *draft.rows[MatchupRow]):
            row["prompt_id"] = prompt["id"]
        for row, model in zip(draft.rows[GenerationRow], draft.vote.policies, strict=True):
            row["policy_id"] = policies.id_of(model)


def _insert(session: Session, drafts: list[_Draft], policies: ForeignPolicies) -> Added:
    """Insert the rows that are not there yet, table after table; their ids."""
    added: Added = {}
    for table in _TABLES:
        rows = policies.new if table is PolicyRow else [row for draft in drafts for row in draft.rows[table]]
        unique = {row["id"]: row for row in rows}
        there = _existing(session, table, list(unique))
        wanted = [row for key, row in unique.items() if key not in there]
        if wanted:
            session.execute(insert(table), wanted)
        added[table] = [row["id"] for row in wanted]
    return added


def _draft(source: str, number: int, vote: ImportedVote) -> _Draft:
    """A vote as valid rows. What no database can hold is refused before it is hashed, which would fail at it."""
    try:
        for name, what in _TEXTS.items():
            reject_unstorable_values(getattr(vote, name), what)
        return _rows(number, vote)
    except ValidationError as error:
        raise InvalidLine(source, number, reason_of(error)) from error
    except ValueError as error:
        raise InvalidLine(source, number, str(error)) from error


def _rows(number: int, vote: ImportedVote) -> _Draft:
    asked = content_hash(vote.messages)
    prompt = PromptRow.model_validate({"id": _LATER, "messages": vote.messages, "tags": ["imported"]})
    replies = [
        GenerationRow.model_validate(
            {
                "id": f"gen-{content_hash([asked, maker, text])[:20]}",
                "prompt_id": _LATER,
                "policy_id": _LATER,
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
            "prompt_id": _LATER,
            "generation_ids": keys,
            "state": MatchupState.satisfied,
        }
    )
    said = [matchup.id, vote.annotator, verdict, vote.key]
    earlier = content_hash(said)[:20]
    digest = content_hash([*said, identity])[:20] if (identity := vote.identity()) else earlier
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
            "origin": vote.origin,
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
    rows = {table: [row.model_dump() for row in made] for table, made in found.items()}
    return _Draft(number, vote, asked, f"jud-{earlier}", rows)


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


def _existing(session: Session, table: type[Any], ids: Sequence[str]) -> set[str]:
    rows = in_chunks(list(ids), lambda part: list(session.exec(select(table.id).where(col(table.id).in_(part)))))
    return set(rows)
