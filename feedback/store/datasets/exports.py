"""What an export reads of a frozen dataset, page by page: constant memory however large the dataset.

Plain tuples instead of validated values: the rows were validated when they were frozen, and an export that
validates them again is several times slower. No session stays open between two pages, so a slow download holds
nothing that others wait for.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any, Literal, NamedTuple

from sqlalchemy import Exists
from sqlalchemy.orm import aliased
from sqlmodel import Session, col, exists, select

from feedback.database.engine import Database
from feedback.store.models.foreign_policies import is_foreign
from feedback.store.rows import in_chunks
from feedback.tables import (
    DatasetJudgmentRow,
    DatasetPairRow,
    GenerationRow,
    JudgmentRow,
    MatchupRow,
    PolicyRow,
    PromptRow,
)
from feedback.types import Part, Source, Verdict

PAIRS_A_PAGE = 2000
PROMPTS_A_PAGE = 500

Messages = list[dict[str, str]]


class PairRecord(NamedTuple):
    """One frozen pair with its texts."""

    position: int
    prompt_id: str
    messages: Messages
    chosen: str
    rejected: str
    agreement: float
    margin: float
    split: str


class VoteRecord(NamedTuple):
    """One judgment of the dataset, in stored order as it was saved."""

    id: str
    annotator: str
    source: Source
    verdict: Verdict | None
    ranking: list[int] | None
    strength: int | None
    shown_order: list[int]
    skip_reason: str | None
    rationale: str | None
    edited: dict[str, Any] | None
    at: datetime
    part: Part
    origin: dict[str, Any] | None


class MatchupRecord(NamedTuple):
    """One matchup with its replies, the names of the policies that made them, and the dataset's judgments of it.

    A policy that is known from imported votes alone has the name that its model has elsewhere.
    """

    id: str
    texts: list[str]
    policies: list[str]
    judgments: list[VoteRecord]


class PromptRecord(NamedTuple):
    """One prompt with all the dataset says of its replies, matchup by matchup."""

    id: str
    content_hash: str
    messages: Messages
    tags: list[str]
    matchups: list[MatchupRecord]


def iterate_pair_records(
    db: Database, dataset_id: str, *, split: Literal["train", "test"] | None = None
) -> Iterator[PairRecord]:
    """A dataset's pairs in their frozen order, of one split or both."""
    position = -1
    while True:
        with db.read() as session:
            page = _pair_page(session, dataset_id, position, split)
        yield from page
        if len(page) < PAIRS_A_PAGE:
            return
        position = page[-1].position


def iterate_prompt_records(db: Database, dataset_id: str) -> Iterator[PromptRecord]:
    """The prompts of a dataset's judgments in the order of their ids, each with everything that was judged."""
    last = ""
    while True:
        with db.read() as session:
            page = _prompt_page(session, dataset_id, last)
        yield from page
        if len(page) < PROMPTS_A_PAGE:
            return
        last = page[-1].id


def list_dataset_annotators(db: Database, dataset_id: str) -> list[str]:
    """Who judged what a dataset holds, by name."""
    query = (
        select(JudgmentRow.annotator)
        .join(DatasetJudgmentRow, col(DatasetJudgmentRow.judgment_id) == col(JudgmentRow.id))
        .where(DatasetJudgmentRow.dataset_id == dataset_id)
        .distinct()
    )
    with db.read() as session:
        return sorted(session.exec(query))


def _pair_page(
    session: Session, dataset_id: str, after: int, split: Literal["train", "test"] | None
) -> list[PairRecord]:
    chosen, rejected = aliased(GenerationRow), aliased(GenerationRow)
    query = (
        select(  # type: ignore[call-overload]  # sqlmodel's overloads end at four columns
            DatasetPairRow.position,
            DatasetPairRow.prompt_id,
            chosen.text,
            rejected.text,
            DatasetPairRow.agreement,
            DatasetPairRow.margin,
            DatasetPairRow.split,
            JudgmentRow.edited,  # a pair that came of an edit has the edited text as its chosen one
        )
        .outerjoin(JudgmentRow, col(JudgmentRow.id) == col(DatasetPairRow.edited_by))
        .join(chosen, col(chosen.id) == col(DatasetPairRow.chosen_generation))
        .join(rejected, col(rejected.id) == col(DatasetPairRow.rejected_generation))
        .where(DatasetPairRow.dataset_id == dataset_id, col(DatasetPairRow.position) > after)
        .order_by(col(DatasetPairRow.position))
        .limit(PAIRS_A_PAGE)
    )
    if split is not None:
        query = query.where(DatasetPairRow.split == split)
    rows = session.exec(query).all()
    prompts = _messages(session, {row[1] for row in rows})
    return [
        PairRecord(position, prompt, prompts[prompt], edited["text"] if edited else text, *rest)
        for position, prompt, text, *rest, edited in rows
    ]


def _messages(session: Session, prompt_ids: set[str]) -> dict[str, Messages]:
    rows = in_chunks(
        sorted(prompt_ids),
        lambda part: list(session.exec(select(PromptRow.id, PromptRow.messages).where(col(PromptRow.id).in_(part)))),
    )
    return dict(rows)


def _prompt_page(session: Session, dataset_id: str, after: str) -> list[PromptRecord]:
    # One inside the other, not one join: a planner without statistics would begin the join at the dataset's
    # judgments and read all of them for every prompt.
    judged = exists().where(col(JudgmentRow.matchup_id) == col(MatchupRow.id), _in_dataset(dataset_id))
    reached = exists().where(col(MatchupRow.prompt_id) == col(PromptRow.id), judged.correlate(MatchupRow))
    query = (
        select(PromptRow.id, PromptRow.content_hash, PromptRow.messages, PromptRow.tags)
        .where(col(PromptRow.id) > after, reached.correlate(PromptRow))
        .order_by(col(PromptRow.id))
        .limit(PROMPTS_A_PAGE)
    )
    prompts = session.exec(query).all()
    ids = [prompt[0] for prompt in prompts]
    matchups = _matchups(session, dataset_id, ids)
    return [
        PromptRecord(key, digest, list(messages), list(tags), matchups[key]) for key, digest, messages, tags in prompts
    ]


def _in_dataset(dataset_id: str) -> Exists:
    """That the judgment at hand belongs to the dataset."""
    return (
        exists()
        .where(
            col(DatasetJudgmentRow.dataset_id) == dataset_id,
            col(DatasetJudgmentRow.judgment_id) == col(JudgmentRow.id),
        )
        .correlate(JudgmentRow)
    )


def _matchups(session: Session, dataset_id: str, prompt_ids: Sequence[str]) -> dict[str, list[MatchupRecord]]:
    query = (
        select(  # type: ignore[call-overload, misc]
            MatchupRow.id,
            MatchupRow.prompt_id,
            MatchupRow.generation_ids,
            JudgmentRow.id,
            JudgmentRow.annotator,
            JudgmentRow.source,
            JudgmentRow.verdict,
            JudgmentRow.ranking,
            JudgmentRow.strength,
            JudgmentRow.shown_order,
            JudgmentRow.skip_reason,
            JudgmentRow.rationale,
            JudgmentRow.edited,
            JudgmentRow.created_at,
            JudgmentRow.part,
            JudgmentRow.origin,
        )
        .join(JudgmentRow, col(JudgmentRow.matchup_id) == col(MatchupRow.id))
        .where(col(MatchupRow.prompt_id).in_(prompt_ids), _in_dataset(dataset_id))
        .order_by(col(MatchupRow.id), col(JudgmentRow.created_at), col(JudgmentRow.id))
    )
    rows = session.exec(query).all()
    replies = _replies(session, {key for row in rows for key in row[2]})
    found: dict[str, list[MatchupRecord]] = defaultdict(list)
    for row in rows:
        listed = found[row[1]]
        if not listed or listed[-1].id != row[0]:
            made = [replies[key] for key in row[2]]
            listed.append(MatchupRecord(row[0], [text for text, _ in made], [name for _, name in made], []))
        listed[-1].judgments.append(VoteRecord(*row[3:]))
    return found


def _replies(session: Session, generation_ids: set[str]) -> dict[str, tuple[str, str]]:
    rows = in_chunks(
        sorted(generation_ids),
        lambda part: list(
            session.exec(
                select(GenerationRow.id, GenerationRow.text, PolicyRow.id, PolicyRow.name, PolicyRow.base)  # type: ignore[call-overload]
                .join(PolicyRow, col(PolicyRow.id) == col(GenerationRow.policy_id))
                .where(col(GenerationRow.id).in_(part))
            )
        ),
    )
    return {
        key: (text, base if is_foreign(policy_id, name, base) else name) for key, text, policy_id, name, base in rows
    }
