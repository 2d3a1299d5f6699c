"""Benchmarks in the store: items kept whole, paired by name, read without their texts until those are asked for."""

from __future__ import annotations

import pytest

from feedback.database.engine import Database
from feedback.errors import InvalidInput, NotFound
from feedback.store.models.benchmarks import list_benchmarks, list_differing, list_scores, save_benchmark
from feedback.tables import BenchmarkItemRow, BenchmarkRow
from feedback.types import Benchmark, BenchmarkItem
from tests.factories import make_policy


def keep(db: Database, policy_id: str, scores: dict[str, float], task: str = "sums") -> BenchmarkRow:
    items = [
        BenchmarkItem(item=name, scores={"acc": score}, asked=f"What is {name}?", answer=f"{policy_id} said {score}")
        for name, score in scores.items()
    ]
    mean = sum(scores.values()) / len(scores)
    return save_benchmark(db, Benchmark(policy_id=policy_id, task=task, n=len(items), means={"acc": mean}), items)


def test_two_results_meet_on_the_items_both_hold(db: Database) -> None:
    one, two = make_policy(db, "one").id, make_policy(db, "two").id
    a = keep(db, one, {"a": 1.0, "b": 0.0, "c": 1.0, "only-one": 1.0})
    b = keep(db, two, {"c": 0.0, "b": 1.0, "a": 1.0, "only-two": 0.0})
    assert list_scores(db, a.id, b.id, "acc") == [(1.0, 1.0), (0.0, 1.0), (1.0, 0.0)]
    assert list_scores(db, a.id, b.id, "f1") == []
    lost, won = list_differing(db, a.id, b.id, "acc", limit=5)
    assert (lost.item, lost.score_a, lost.score_b, lost.asked) == ("b", 0.0, 1.0, "What is b?")
    assert won.item == "c" and lost.answer_b == f"{two} said 1.0"
    assert len(list_differing(db, a.id, b.id, "acc", limit=1)) == 1


def test_results_are_listed_newest_first_and_by_policy(db: Database) -> None:
    one, two = make_policy(db, "one").id, make_policy(db, "two").id
    first, second = keep(db, one, {"a": 1.0}), keep(db, one, {"a": 0.0})
    keep(db, two, {"a": 0.0})
    assert [row.id for row in list_benchmarks(db, policy_id=one)] == [second.id, first.id]
    assert len(list_benchmarks(db)) == 3


def test_what_does_not_hold_together_is_refused_and_leaves_nothing(db: Database) -> None:
    policy = make_policy(db, "one").id
    twice = [BenchmarkItem(item="a", scores={"acc": 1.0})] * 2
    with pytest.raises(InvalidInput, match="not told apart"):
        save_benchmark(db, Benchmark(policy_id=policy, task="sums", n=2, means={"acc": 1.0}), twice)
    with pytest.raises(NotFound, match="policy 'nobody'"):
        keep(db, "nobody", {"a": 1.0})
    for wrong in ({"n": 0, "means": {"acc": 1.0}}, {"n": 1, "means": {}}, {"n": 1, "means": {"acc": float("nan")}}):
        with pytest.raises(InvalidInput):
            save_benchmark(db, Benchmark.model_construct(policy_id=policy, task="sums", **wrong), [])
    with db.read() as session:
        assert session.query(BenchmarkRow).count() == session.query(BenchmarkItemRow).count() == 0
