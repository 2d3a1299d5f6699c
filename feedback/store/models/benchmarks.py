"""Benchmarks: what policies scored on the tasks of the evaluation harness, item by item, kept for ever."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from sqlalchemy import insert
from sqlalchemy.orm import aliased
from sqlmodel import Session, col, select

from feedback.database.engine import Database
from feedback.errors import InvalidInput
from feedback.store.rows import as_row, check_keepable, get_by_key
from feedback.tables import BenchmarkItemRow, BenchmarkRow, PolicyRow
from feedback.types import Benchmark, BenchmarkItem

_PAGE = 1000


class Both(NamedTuple):
    """One item that two policies answered: both scores, what was asked and what each said."""

    item: str
    score_a: float
    score_b: float
    asked: str
    answer_a: str
    answer_b: str


def save_benchmark(db: Database, benchmark: Benchmark, items: Iterable[BenchmarkItem]) -> BenchmarkRow:
    """Keep a policy's result on one task with all its items; InvalidInput for an item that is named twice."""
    row = as_row(BenchmarkRow, benchmark)
    check_keepable(row, "benchmark")
    columns = [{"benchmark_id": row.id, **item.model_dump()} for item in items]
    if len({one["item"] for one in columns}) != len(columns):
        raise InvalidInput(f"The items of {benchmark.task} are not told apart; each needs a name of its own.")
    with db.write() as session:
        get_by_key(session, PolicyRow, "policy", benchmark.policy_id)
        session.add(row)
        session.flush()
        for start in range(0, len(columns), _PAGE):
            session.execute(insert(BenchmarkItemRow), columns[start : start + _PAGE])
    return row


def list_benchmarks(db: Database, *, policy_id: str | None = None) -> list[BenchmarkRow]:
    """Results without their items, newest first, of one policy or of all."""
    query = select(BenchmarkRow).order_by(col(BenchmarkRow.created_at).desc(), col(BenchmarkRow.id))
    if policy_id is not None:
        query = query.where(BenchmarkRow.policy_id == policy_id)
    with db.read() as session:
        return list(session.exec(query))


def list_scores(db: Database, a_id: str, b_id: str, metric: str) -> list[tuple[float, float]]:
    """The scores of two results on the items that both hold, in the order of the items' names."""
    with db.read() as session:
        return [(a, b) for _, a, b in _scores(session, a_id, b_id, metric)]


def list_differing(
    db: Database, a_id: str, b_id: str, metric: str, *, limit: int, higher_is_better: bool = True
) -> list[Both]:
    """The items on which two results differ, those on which A did worst against B first."""
    sign = 1 if higher_is_better else -1
    with db.read() as session:
        differing = [one for one in _scores(session, a_id, b_id, metric) if one[1] != one[2]]
        first = sorted(differing, key=lambda one: (sign * (one[1] - one[2]), one[0]))[:limit]
        a, b = (_texts(session, key, [item for item, _, _ in first]) for key in (a_id, b_id))
    return [
        Both(item, score_a, score_b, a[item].asked, a[item].answer, b[item].answer) for item, score_a, score_b in first
    ]


def _scores(session: Session, a_id: str, b_id: str, metric: str) -> Iterator[tuple[str, float, float]]:
    """Item by item what two results scored, without the texts."""
    a, b = aliased(BenchmarkItemRow), aliased(BenchmarkItemRow)
    query = (
        select(a.item, a.scores, b.scores)
        .join(b, col(b.item) == col(a.item))
        .where(a.benchmark_id == a_id, b.benchmark_id == b_id)
        .order_by(col(a.item))
    )
    for item, scores_a, scores_b in session.execute(query):
        if metric in scores_a and metric in scores_b:
            yield item, float(scores_a[metric]), float(scores_b[metric])


def _texts(session: Session, benchmark_id: str, items: Sequence[str]) -> dict[str, BenchmarkItemRow]:
    query = select(BenchmarkItemRow).where(
        BenchmarkItemRow.benchmark_id == benchmark_id, col(BenchmarkItemRow.item).in_(items)
    )
    return {row.item: row for row in session.exec(query)}
