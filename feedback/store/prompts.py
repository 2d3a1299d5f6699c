"""Prompts: the same conversation is stored once, whoever brings it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, String, cast, func
from sqlmodel import col, select

from feedback.db import Database, one_at_a_time
from feedback.store.rows import as_row, get_by_key, in_chunks
from feedback.tables import PromptRow
from feedback.types import ASKED_HERE, Prompt, Split


@dataclass(frozen=True)
class SavedPrompts:
    """What became of prompts that were offered; ``ids`` are in the order given, duplicates included."""

    added: int
    duplicates: int
    ids: list[str]


def save_prompts(db: Database, prompts: Sequence[Prompt]) -> SavedPrompts:
    """Add the prompts that are new. One already stored keeps its split: evaluation prompts stay held out."""
    with db.write() as session:
        one_at_a_time(session, "save_prompts")
        hashes = [prompt.content_hash for prompt in prompts]
        rows = in_chunks(
            hashes,
            lambda part: list(session.exec(select(PromptRow).where(PromptRow.content_hash.in_(part)))),  # type: ignore[attr-defined]
        )
        known = {row.content_hash: row.id for row in rows}
        meant = {prompt.content_hash for prompt in prompts if ASKED_HERE not in prompt.tags}
        for row in rows:
            if row.content_hash in meant and ASKED_HERE in row.tags:  # now it is brought as work
                row.tags = [tag for tag in row.tags if tag != ASKED_HERE]
                session.add(row)
        added = 0
        for prompt in prompts:
            if prompt.content_hash not in known:
                # Named after its content: the same prompt has the same id in every studio.
                row = as_row(PromptRow, prompt, id=f"prm-{prompt.content_hash[:16]}")
                session.add(row)
                known[prompt.content_hash] = row.id
                added += 1
        return SavedPrompts(added, len(prompts) - added, [known[digest] for digest in hashes])


def get_prompt(db: Database, prompt_id: str) -> PromptRow:
    """The prompt with this id."""
    with db.read() as session:
        return get_by_key(session, PromptRow, "prompt", prompt_id)


def list_prompts(
    db: Database,
    *,
    split: Split | None = None,
    limit: int | None = None,
    tags: Sequence[str] = (),
    ids: Sequence[str] | None = None,
    brought: bool = False,
) -> list[PromptRow]:
    """Prompts in the order they were added; ``tags`` keeps those that carry every one named.

    ``brought`` leaves out those that only came in with a request for replies, which may be anybody's test questions.
    """
    query = select(PromptRow).order_by(PromptRow.created_at, PromptRow.id)  # type: ignore[arg-type]
    if split is not None:
        query = query.where(PromptRow.split == split)
    if brought:
        query = query.where(was_brought())
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


def count_prompts(db: Database, *, split: Split | None = None, brought: bool = False) -> int:
    """How many prompts there are, in one split or in all; ``brought`` as in ``list_prompts``."""
    query = select(func.count()).select_from(PromptRow)
    if split is not None:
        query = query.where(PromptRow.split == split)
    if brought:
        query = query.where(was_brought())
    with db.read() as session:
        return session.exec(query).one()


def was_brought() -> ColumnElement[bool]:
    """That a prompt was brought as work, and did not only come in with a request for replies."""
    # Tags are a JSON list, and the two databases disagree on how to look into one
    return cast(col(PromptRow.tags), String).not_like(f'%"{ASKED_HERE}"%')
