"""Prompts: the same conversation is stored once, whoever brings it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from sqlalchemy import ColumnElement, String, cast, func
from sqlmodel import Session, col, select

from feedback.database.chunks import Saved, save_in_chunks
from feedback.database.engine import Database
from feedback.store.rows import as_row, in_chunks
from feedback.tables import DatasetJudgmentRow, DatasetRow, JudgmentRow, MatchupRow, PromptRow
from feedback.types import ASKED_HERE, Prompt, Split

MARKED = "became_evaluation"
"""Under this name are counted the stored work prompts that were brought again as evaluation prompts."""
# Prompts a transaction, some 30 ms on SQLite: others wait no longer than that.
_CHUNK = 100


@dataclass(frozen=True)
class SavedPrompts:
    """What became of prompts that were offered; ``ids`` are in the order given, duplicates included.

    ``marked`` are the ids of prompts that were work and are evaluation prompts now, since the mark for evaluation wins
    whichever comes first; ``still_in`` names the datasets frozen before that hold judgments of them. ``held_out``
    counts those offered as work that are evaluation prompts all the same, ``retired`` those that were retired before
    and stay so.
    """

    added: int
    duplicates: int
    ids: list[str]
    marked: list[str] = field(default_factory=list)
    still_in: list[str] = field(default_factory=list)
    held_out: int = 0
    retired: int = 0

    @property
    def summary(self) -> str:
        """The counts in words, as the audit log keeps them."""
        return f"{self.added} added, {self.duplicates} known"


def save_prompts(db: Database, prompts: Sequence[Prompt]) -> SavedPrompts:
    """Add the prompts that are new, all or none. A prompt that is marked for evaluation anywhere is held out."""
    marks = {prompt.content_hash for prompt in prompts if prompt.split is Split.evaluation}
    known: dict[str, PromptRow] = {}
    marked: list[str] = []

    def save(session: Session, chunk: list[Prompt]) -> Saved:
        stored = _stored(session, chunk)
        for row in stored.values():
            if row.content_hash in marks and mark_evaluation(session, row, Split.evaluation):
                marked.append(row.id)
        _bring(session, stored.values(), chunk)
        new = [
            _new_row(prompt, held_out=digest in marks)
            for digest, prompt in _first_of_each(chunk).items()
            if digest not in stored
        ]
        session.add_all(new)
        session.flush()
        known.update({row.content_hash: row for row in (*stored.values(), *new)})
        return Saved({PromptRow: [row.id for row in new]}, Counter(added=len(new)))

    counts = save_in_chunks(db, (list(prompts[i : i + _CHUNK]) for i in range(0, len(prompts), _CHUNK)), save)
    return SavedPrompts(
        counts["added"],
        len(prompts) - counts["added"],
        [known[prompt.content_hash].id for prompt in prompts],
        marked,
        _datasets_with(db, marked),
        sum(p.split is Split.work and known[p.content_hash].split is Split.evaluation for p in prompts),
        sum(known[p.content_hash].retired for p in prompts),
    )


def mark_evaluation(session: Session, row: PromptRow, split: Split) -> bool:
    """Hold a stored prompt out when it is brought as an evaluation prompt; True when it was work before."""
    if split is not Split.evaluation or row.split is Split.evaluation:
        return False
    row.split = Split.evaluation
    session.add(row)
    return True


def _datasets_with(db: Database, prompt_ids: Sequence[str]) -> list[str]:
    """The names of the datasets that hold judgments of these prompts, in alphabetical order."""
    query = (
        select(DatasetRow.name)
        .join(DatasetJudgmentRow, col(DatasetJudgmentRow.dataset_id) == col(DatasetRow.id))
        .join(JudgmentRow, col(JudgmentRow.id) == col(DatasetJudgmentRow.judgment_id))
        .join(MatchupRow, col(MatchupRow.id) == col(JudgmentRow.matchup_id))
        .distinct()
    )
    with db.read() as session:
        found = in_chunks(
            list(prompt_ids), lambda part: list(session.exec(query.where(col(MatchupRow.prompt_id).in_(part))))
        )
    return sorted(set(found))


def _first_of_each(prompts: Sequence[Prompt]) -> dict[str, Prompt]:
    first: dict[str, Prompt] = {}
    for prompt in prompts:
        first.setdefault(prompt.content_hash, prompt)
    return first


def _new_row(prompt: Prompt, *, held_out: bool) -> PromptRow:
    # Named after its content: the same prompt has the same id in every studio.
    row = as_row(PromptRow, prompt, id=f"prm-{prompt.content_hash[:16]}")
    row.split = Split.evaluation if held_out else prompt.split
    return row


def _stored(session: Session, prompts: Sequence[Prompt]) -> dict[str, PromptRow]:
    """The rows of those that are stored already, by content."""
    hashes = list({prompt.content_hash for prompt in prompts})
    query = select(PromptRow)
    rows = in_chunks(hashes, lambda part: list(session.exec(query.where(col(PromptRow.content_hash).in_(part)))))
    return {row.content_hash: row for row in rows}


def _bring(session: Session, stored: Iterable[PromptRow], offered: Sequence[Prompt]) -> None:
    """A prompt that only came in with a request for replies becomes work, with their tags, once somebody brings it."""
    meant = {prompt.content_hash: prompt.tags for prompt in offered if ASKED_HERE not in prompt.tags}
    for row in stored:
        if row.content_hash in meant and ASKED_HERE in row.tags:
            kept = [tag for tag in row.tags if tag != ASKED_HERE]
            row.tags = list(dict.fromkeys([*kept, *meant[row.content_hash]]))
            session.add(row)


def list_prompts(
    db: Database,
    *,
    split: Split | None = None,
    limit: int | None = None,
    tags: Sequence[str] = (),
    ids: Sequence[str] | None = None,
    brought: bool = False,
    retired: bool | None = False,
) -> list[PromptRow]:
    """Prompts in the order they were added; ``tags`` keeps those that carry every one named.

    ``brought`` leaves out those that only came in with a request for replies, which may be anybody's test questions.
    ``retired`` True gives the retired prompts alone, None those in use as well.
    """
    query = select(PromptRow).order_by(PromptRow.created_at, PromptRow.id)  # type: ignore[arg-type]
    if split is not None:
        query = query.where(PromptRow.split == split)
    if brought:
        query = query.where(was_brought())
    if retired is not None:
        query = query.where(col(PromptRow.retired).is_(retired))
    if limit is not None and not tags and ids is None:
        query = query.limit(limit)
    with db.read() as session:
        if ids is not None:
            rows = in_chunks(list(ids), lambda part: list(session.exec(query.where(PromptRow.id.in_(part)))))  # type: ignore[attr-defined]
            rows.sort(key=lambda row: (row.created_at, row.id))  # a chunk has its order, their sequence has none
        else:
            rows = list(session.exec(query))
    # Tags are a JSON list, and the two databases disagree on how to look into one.
    rows = [row for row in rows if set(tags) <= set(row.tags)]
    return rows[:limit]


def count_prompts(
    db: Database, *, split: Split | None = None, brought: bool = False, retired: bool | None = False
) -> int:
    """How many prompts there are, in one split or in all; ``brought`` and ``retired`` as in ``list_prompts``."""
    query = select(func.count()).select_from(PromptRow)
    if split is not None:
        query = query.where(PromptRow.split == split)
    if brought:
        query = query.where(was_brought())
    if retired is not None:
        query = query.where(col(PromptRow.retired).is_(retired))
    with db.read() as session:
        return session.exec(query).one()


def count_tags(db: Database, *, split: Split | None = None, retired: bool | None = False) -> dict[str, int]:
    """How many prompts carry each tag, the commonest first; prompts without a tag are under ``""``."""
    query = select(PromptRow.tags)
    if split is not None:
        query = query.where(PromptRow.split == split)
    if retired is not None:
        query = query.where(col(PromptRow.retired).is_(retired))
    with db.read() as session:
        counts = Counter(tag for tags in session.exec(query) for tag in set(tags) or {""})
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def was_brought() -> ColumnElement[bool]:
    """That a prompt was brought as work, and did not only come in with a request for replies."""
    # Tags are a JSON list, and the two databases disagree on how to look into one
    return cast(col(PromptRow.tags), String).not_like(f'%"{ASKED_HERE}"%')
