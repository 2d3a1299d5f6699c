"""Datasets: saved once with their judgments and pairs, then only read."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal

from sqlalchemy import delete, insert, update
from sqlalchemy.exc import IntegrityError
from sqlmodel import Session, SQLModel, col, select

from feedback.database.engine import Database
from feedback.errors import Conflict
from feedback.store.rows import as_row, get_by_key, in_chunks, rows_by_id
from feedback.tables import (
    BatchRow,
    DatasetJudgmentRow,
    DatasetPairRow,
    DatasetRow,
    GenerationRow,
    JudgmentRow,
    MatchupRow,
    PolicyRow,
    PromptRow,
    RunRow,
)
from feedback.types import Dataset, DatasetFilters, JudgmentState, Message, PreferencePair, Purpose, Split, now

_HINT = "`studio dataset list` shows all; `studio dataset freeze NAME` makes one."
_PAGE = 500
# Rows a transaction, some 20 ms on SQLite: others wait no longer than that.
_CHUNK = 500
_UNFINISHED = ".freezing-"
"""How the name of a dataset begins that is still being written; no name that a person gives begins with a point."""
_ABANDONED_AFTER = timedelta(hours=1)


@dataclass(frozen=True)
class JudgedMatchup:
    """A matchup with the judgments that count and everything a pair is derived from, in stored order."""

    matchup_id: str
    prompt_id: str
    prompt_hash: str
    messages: list[dict[str, str]]
    generations: list[GenerationRow]
    judgments: list[JudgmentRow]

    @property
    def texts(self) -> list[str]:
        """The replies, in stored order."""
        return [reply.text for reply in self.generations]

    @property
    def place(self) -> tuple[str, list[str], str]:
        """What matchups are sorted by: what was judged first, so that the order is the same wherever it was judged.

        Ids are drawn at random; pairs in their order would make other batches, and another model, in every home.
        """
        return self.prompt_hash, sorted(self.texts), self.matchup_id


def save_dataset(
    db: Database, dataset: Dataset, judgment_ids: Sequence[str], pairs: Sequence[PreferencePair]
) -> DatasetRow:
    """Keep a dataset whole or not at all; Conflict when its name is taken.

    It is written in short transactions under a name that nobody can ask for, and gets its own with the last of them:
    people's votes do not wait for a large dataset.
    """
    row = as_row(DatasetRow, dataset)
    row.name = f"{_UNFINISHED}{row.id}"
    taken = Conflict(f"There is already a dataset {dataset.name!r}; datasets never change, choose another name.")
    _remove_unfinished(db)
    with db.write() as session:
        if session.exec(select(DatasetRow.id).where(DatasetRow.name == dataset.name)).first() is not None:
            raise taken
        session.add(row)
    try:
        _save_members(db, row.id, judgment_ids, pairs)
        with db.write() as session:
            session.execute(update(DatasetRow).where(col(DatasetRow.id) == row.id).values(name=dataset.name))
    except BaseException as error:
        _remove(db, row.id)
        if isinstance(error, IntegrityError):
            raise taken from error
        raise
    return get_dataset(db, row.id)


def _save_members(db: Database, dataset_id: str, judgment_ids: Sequence[str], pairs: Sequence[PreferencePair]) -> None:
    for start in range(0, len(judgment_ids), _CHUNK):
        members = [{"dataset_id": dataset_id, "judgment_id": key} for key in judgment_ids[start : start + _CHUNK]]
        with db.write() as session:
            session.execute(insert(DatasetJudgmentRow), members)
    for start in range(0, len(pairs), _CHUNK):
        columns = [_pair_columns(dataset_id, start + i, pair) for i, pair in enumerate(pairs[start : start + _CHUNK])]
        with db.write() as session:
            session.execute(insert(DatasetPairRow), columns)


def _remove(db: Database, dataset_id: str) -> None:
    """Remove what there is of a dataset that was never finished."""
    _remove_members(db, DatasetPairRow, col(DatasetPairRow.position), col(DatasetPairRow.dataset_id) == dataset_id)
    _remove_members(
        db, DatasetJudgmentRow, col(DatasetJudgmentRow.judgment_id), col(DatasetJudgmentRow.dataset_id) == dataset_id
    )
    with db.write() as session:
        session.execute(delete(DatasetRow).where(col(DatasetRow.id) == dataset_id))


def _remove_members(db: Database, table: type[SQLModel], key: Any, of_dataset: Any) -> None:
    is_left = True
    while is_left:
        with db.write() as session:
            part = session.exec(select(key).where(of_dataset).limit(_CHUNK)).all()
            session.execute(delete(table).where(of_dataset, key.in_(part)))
        is_left = len(part) == _CHUNK


def _remove_unfinished(db: Database) -> None:
    """Remove what processes left that were killed while they froze; one that still freezes is not that old."""
    old = select(DatasetRow.id).where(
        col(DatasetRow.name).startswith(_UNFINISHED), col(DatasetRow.created_at) < now() - _ABANDONED_AFTER
    )
    with db.read() as session:
        left = session.exec(old).all()
    for dataset_id in left:
        _remove(db, dataset_id)


def get_dataset(db: Database, key: str) -> DatasetRow:
    """The dataset with this id or name."""
    with db.read() as session:
        return get_by_key(session, DatasetRow, "dataset", key, hint=_HINT)


def list_datasets(db: Database) -> list[DatasetRow]:
    """Datasets, newest first."""
    with db.read() as session:
        query = select(DatasetRow).where(col(DatasetRow.name).not_like(f"{_UNFINISHED}%"))
        return list(session.exec(query.order_by(col(DatasetRow.created_at).desc(), col(DatasetRow.id))))


def find_identical_dataset(db: Database, dataset: DatasetRow) -> str | None:
    """The name of the oldest other dataset of the same hash, which holds the same judgments and the same pairs."""
    query = select(DatasetRow.name).where(DatasetRow.hash == dataset.hash, DatasetRow.id != dataset.id)
    query = query.where(col(DatasetRow.name).not_like(f"{_UNFINISHED}%"))
    with db.read() as session:
        return session.exec(query.order_by(col(DatasetRow.created_at), col(DatasetRow.id))).first()


def list_pairs(
    db: Database, dataset_key: str, *, split: Literal["train", "test"] | None = None, limit: int | None = None
) -> list[PreferencePair]:
    """A dataset's pairs in their frozen order, of one split or both."""
    pairs: list[PreferencePair] = []
    for pair in iterate_pairs(db, dataset_key, split=split):
        if limit is not None and len(pairs) >= limit:
            break
        pairs.append(pair)
    return pairs


def iterate_pairs(
    db: Database, dataset_key: str, *, split: Literal["train", "test"] | None = None
) -> Iterator[PreferencePair]:
    """A dataset's pairs one by one, read a page at a time: constant memory however large the dataset."""
    dataset = get_dataset(db, dataset_key)
    position = -1
    while True:
        with db.read() as session:
            query = select(DatasetPairRow).where(
                DatasetPairRow.dataset_id == dataset.id, col(DatasetPairRow.position) > position
            )
            if split is not None:
                query = query.where(DatasetPairRow.split == split)
            rows = session.exec(query.order_by(col(DatasetPairRow.position)).limit(_PAGE)).all()
            page = _pairs_with_texts(session, rows)
        yield from page
        if len(rows) < _PAGE:
            return
        position = rows[-1].position


def list_judged_matchups(db: Database, filters: DatasetFilters) -> tuple[list[JudgedMatchup], dict[str, int]]:
    """The matchups with current judgments that pass the filters, and a count per reason of those that do not.

    Judgments of evaluation prompts are always left out: those prompts measure policies and never train them.
    """
    dropped: Counter[str] = Counter()
    with db.read() as session:
        # An unknown name is refused even where nothing was judged
        _policy_ids(session, filters.policies)
        _batch_ids(session, filters.batches)
        judgments = session.exec(
            select(JudgmentRow).where(JudgmentRow.state == JudgmentState.current).order_by(col(JudgmentRow.id))
        ).all()
        kept: dict[str, list[JudgmentRow]] = defaultdict(list)
        for judgment in judgments:
            reason = _refusal(judgment, filters)
            if reason:
                dropped[reason] += 1
            else:
                kept[judgment.matchup_id].append(judgment)
        judged: list[JudgedMatchup] = []
        for start in range(0, len(kept), _PAGE):
            part = dict(list(kept.items())[start : start + _PAGE])
            judged.extend(_judged_matchups(session, part, filters, dropped))
    return judged, dict(dropped)


def list_frozen_matchups(db: Database, dataset_key: str) -> list[JudgedMatchup]:
    """The matchups behind a dataset with the judgments it froze, whatever became of those judgments since."""
    dataset = get_dataset(db, dataset_key)
    with db.read() as session:
        frozen = session.exec(
            select(JudgmentRow)
            .join(DatasetJudgmentRow, col(DatasetJudgmentRow.judgment_id) == col(JudgmentRow.id))
            .where(DatasetJudgmentRow.dataset_id == dataset.id)
            .order_by(col(JudgmentRow.annotator), col(JudgmentRow.id))
        ).all()
        kept: dict[str, list[JudgmentRow]] = defaultdict(list)
        for judgment in frozen:
            kept[judgment.matchup_id].append(judgment)
        judged: list[JudgedMatchup] = []
        for start in range(0, len(kept), _PAGE):
            part = dict(list(kept.items())[start : start + _PAGE])
            judged.extend(_with_texts(session, part))
    return sorted(judged, key=lambda item: item.place)


def _refusal(judgment: JudgmentRow, filters: DatasetFilters) -> str | None:
    if judgment.source not in filters.sources:
        return f"source_{judgment.source.value}"
    if filters.annotators and judgment.annotator not in filters.annotators:
        return "other_annotator"
    if filters.since is not None and judgment.created_at < filters.since:
        return "before_since"
    if filters.until is not None and judgment.created_at >= filters.until:
        return "after_until"
    return None


def _judged_matchups(
    session: Session, kept: dict[str, list[JudgmentRow]], filters: DatasetFilters, dropped: Counter[str]
) -> Iterator[JudgedMatchup]:
    matchups, prompts, generations = _subjects(session, kept)
    allowed = _policy_ids(session, filters.policies)
    batches = _batch_ids(session, filters.batches)
    nobodys = _drawn_on_the_way(session, list(generations.values())) if allowed is not None else set()
    trained_on = {Purpose.collect, Purpose.playground} if filters.playground else {Purpose.collect}
    for matchup in matchups:
        judgments = kept[matchup.id]
        prompt = prompts[matchup.prompt_id]
        replies = [generations[key] for key in matchup.generation_ids]
        if matchup.purpose not in trained_on:  # checks and evaluations measure; they never train
            dropped[f"purpose_{matchup.purpose.value}"] += len(judgments)
        elif prompt.split is Split.evaluation:
            dropped["evaluation_prompt"] += len(judgments)
        elif batches is not None and matchup.batch_id not in batches:
            dropped["other_batch"] += len(judgments)
        elif allowed is not None and any(r.policy_id not in allowed or r.id in nobodys for r in replies):
            dropped["other_policy"] += len(judgments)
        else:
            yield JudgedMatchup(matchup.id, prompt.id, prompt.content_hash, prompt.messages, replies, judgments)


def _with_texts(session: Session, kept: dict[str, list[JudgmentRow]]) -> Iterator[JudgedMatchup]:
    """The matchups of frozen judgments. A prompt that was marked for evaluation since is part of what was frozen."""
    matchups, prompts, generations = _subjects(session, kept)
    for matchup in matchups:
        prompt, replies = prompts[matchup.prompt_id], [generations[key] for key in matchup.generation_ids]
        yield JudgedMatchup(matchup.id, prompt.id, prompt.content_hash, prompt.messages, replies, kept[matchup.id])


def _subjects(
    session: Session, matchup_ids: Iterable[str]
) -> tuple[Sequence[MatchupRow], dict[str, PromptRow], dict[str, GenerationRow]]:
    """What judgments are about: the matchups, and their prompts and replies by id."""
    matchups = session.exec(select(MatchupRow).where(col(MatchupRow.id).in_(list(matchup_ids)))).all()
    prompts = rows_by_id(session, PromptRow, (matchup.prompt_id for matchup in matchups))
    generations = rows_by_id(session, GenerationRow, (key for matchup in matchups for key in matchup.generation_ids))
    return matchups, prompts, generations


def _policy_ids(session: Session, keys: Sequence[str]) -> set[str] | None:
    if not keys:
        return None
    return {get_by_key(session, PolicyRow, "policy", key).id for key in keys}


def _batch_ids(session: Session, keys: Sequence[str]) -> set[str] | None:
    if not keys:
        return None
    return {get_by_key(session, BatchRow, "batch", key).id for key in keys}


def _drawn_on_the_way(session: Session, generations: Sequence[GenerationRow]) -> set[str]:
    """The replies of runs that made no policy, or not yet: they stand under the policy such a run moved away from."""
    moved = [row for row in generations if row.run_id is not None and row.sampling.get("iteration", 0) > 0]
    ids = list({str(row.run_id) for row in moved})
    # A run of another studio is not known here; what it drew came with the policy it made
    runs = set(in_chunks(ids, lambda part: list(session.exec(select(RunRow.id).where(col(RunRow.id).in_(part))))))
    makers = in_chunks(
        ids, lambda part: list(session.exec(select(PolicyRow.run_id).where(col(PolicyRow.run_id).in_(part))))
    )
    return {row.id for row in moved if row.run_id in runs - set(makers)}


def _pair_columns(dataset_id: str, position: int, pair: PreferencePair) -> dict[str, object]:
    return {
        "dataset_id": dataset_id,
        "position": position,
        "split": pair.split,
        "prompt_id": pair.prompt_id,
        "matchup_id": pair.matchup_id,
        "chosen_generation": pair.chosen_generation,
        "rejected_generation": pair.rejected_generation,
        "judgment_ids": list(pair.judgment_ids),
        "margin": pair.margin,
        "agreement": pair.agreement,
        "edited_by": pair.edited_by,
        "weight": pair.weight,
    }


def _pairs_with_texts(session: Session, rows: Sequence[DatasetPairRow]) -> list[PreferencePair]:
    shown = (key for row in rows for key in (row.chosen_generation, row.rejected_generation))
    generations = rows_by_id(session, GenerationRow, shown)
    edits = _edited_texts(session, [row.edited_by for row in rows if row.edited_by])
    prompts = rows_by_id(session, PromptRow, (row.prompt_id for row in rows))
    return [
        PreferencePair(
            prompt_id=row.prompt_id,
            matchup_id=row.matchup_id,
            messages=tuple(Message.model_validate(message) for message in prompts[row.prompt_id].messages),
            chosen=edits[row.edited_by] if row.edited_by else generations[row.chosen_generation].text,
            rejected=generations[row.rejected_generation].text,
            chosen_generation=row.chosen_generation,
            rejected_generation=row.rejected_generation,
            judgment_ids=tuple(row.judgment_ids),
            margin=row.margin,
            agreement=row.agreement,
            weight=row.weight,
            split=row.split,  # type: ignore[arg-type]
            edited_by=row.edited_by,
            chosen_cut=not row.edited_by and generations[row.chosen_generation].is_cut,
            rejected_cut=generations[row.rejected_generation].is_cut,
        )
        for row in rows
    ]


def _edited_texts(session: Session, judgment_ids: Sequence[str]) -> dict[str, str]:
    found = rows_by_id(session, JudgmentRow, judgment_ids)
    return {key: row.edited["text"] for key, row in found.items() if row.edited}
