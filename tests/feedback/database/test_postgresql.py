"""What SQLite gets from its one writer, PostgreSQL must get from locks: the same promises, on a real server."""

from __future__ import annotations

import multiprocessing
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import event
from sqlmodel import Session, SQLModel

from feedback import formats, migrations
from feedback.database import snapshot
from feedback.database.engine import Database, open_database
from feedback.datasets import freeze
from feedback.errors import Conflict, LeaseLost, StudioError
from feedback.labeling import assignment, judging
from feedback.rules import pairing
from feedback.store.content import prompts
from feedback.store.labeling import drafts, leases, matchups, reviews
from feedback.store.labeling.batches import ensure_batch
from feedback.store.models import benchmarks, policies, runs
from feedback.store.people import users
from feedback.store.reports import comparisons, lineage
from feedback.types import (
    Batch,
    Benchmark,
    BenchmarkItem,
    DatasetFilters,
    JudgmentState,
    MatchupState,
    MetricPoint,
    Prompt,
    Purpose,
    Run,
    RunState,
    Source,
    Split,
    User,
    UserRole,
    UserStatus,
    Verdict,
    now,
)
from tests.factories import (
    get_matchup,
    judge_by,
    list_judgments,
    longer,
    make_generations,
    make_matchup,
    make_policy,
    make_prompt,
)

spawn = multiprocessing.get_context("spawn")


def test_migrations_build_exactly_the_tables(postgresql: Database) -> None:
    with postgresql.engine.connect() as connection:
        options = {"include_object": lambda _object, name, *_: name != "ix_matchup_pool"}
        context = MigrationContext.configure(connection, opts=options)
        assert compare_metadata(context, SQLModel.metadata) == []
        pool = "SELECT indexdef FROM pg_indexes WHERE indexname = 'ix_matchup_pool'"
        assert "priority DESC" in str(connection.exec_driver_sql(pool).scalar())


def _open(url: str) -> str | None:
    db = open_database(url)
    revision = migrations.current_revision(db.engine)
    db.dispose()
    return revision


@pytest.mark.slow
def test_eight_processes_may_open_a_new_database_at_once(postgresql_url: str) -> None:
    with spawn.Pool(8) as pool:
        revisions = pool.map(_open, [postgresql_url] * 8)
    assert len(set(revisions)) == 1 and revisions[0] is not None


def test_a_server_that_is_not_there_is_told_without_its_password() -> None:
    with pytest.raises(StudioError, match="cannot be opened") as caught:
        open_database("postgresql://ann:secret@127.0.0.1:1/none")
    assert "secret" not in str(caught.value)


def test_a_password_among_the_options_is_not_told() -> None:
    with pytest.raises(StudioError, match="cannot be opened") as caught:
        open_database("postgresql://ann@127.0.0.1:1/none?password=secret&connect_timeout=2")
    assert "secret" not in str(caught.value) and "connect_timeout=2" in str(caught.value)


def _label(job: tuple[str, int]) -> list[tuple[str, str]]:
    """One annotator at work until nothing is left: skips some, judges the rest."""
    url, number = job
    db = open_database(url)
    rng, done = random.Random(number), []
    while task := assignment.lease_next(db, f"annotator-{number}"):
        agreed = "left" if task.responses[0] < task.responses[1] else "right"  # else the matchup would be disputed
        said: dict[str, Any] = {"skip_reason": "no"} if rng.random() < 0.1 else {"verdict": agreed}
        judging.submit(db, task.lease_id, task.annotator, **said)
        done.append((task.matchup_id, "skip" if "skip_reason" in said else "judged"))
    db.dispose()
    return done


@pytest.mark.slow
def test_eight_annotators_get_exactly_the_judgments_each_matchup_requires(
    postgresql: Database, postgresql_url: str
) -> None:
    policy = make_policy(postgresql, "starter")
    required = {make_matchup(postgresql, policy=policy, required=1 + i % 3).id: 1 + i % 3 for i in range(60)}
    with spawn.Pool(8) as pool:
        work = pool.map(_label, [(postgresql_url, number) for number in range(8)], chunksize=1)
    judged = Counter(matchup_id for done in work for matchup_id, said in done if said == "judged")
    assert all(len(done) == len({matchup_id for matchup_id, _ in done}) for done in work)
    assert all(judged[matchup_id] <= count for matchup_id, count in required.items())  # never one too many
    # At the end somebody may find all that is left in other hands and go home; what was skipped by all stays open.
    assert sum(judged.values()) >= sum(required.values()) - 8
    for row in (get_matchup(postgresql, matchup_id) for matchup_id in required):
        assert (row.state is MatchupState.satisfied) == (judged[row.id] == required[row.id])


@pytest.mark.parametrize("in_batch", [False, True], ids=["pool", "batch"])
def test_threads_that_grab_one_place_get_it_once(postgresql: Database, in_batch: bool) -> None:
    batch = ensure_batch(postgresql, Batch(name="one")) if in_batch else None
    for _ in range(10):
        make_matchup(postgresql, required=1, batch=batch)
        barrier, got = threading.Barrier(6), []

        def grab(number: int, barrier: threading.Barrier = barrier, got: list[Any] = got) -> None:
            barrier.wait()
            # Every other one asks for the batch alone, as a rule does
            batch_id = batch.id if batch is not None and number % 2 else None
            got.append(assignment.lease_next(postgresql, f"ann-{number}", batch_id=batch_id))

        threads = [threading.Thread(target=grab, args=(number,)) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len([task for task in got if task]) == 1


def test_a_double_click_leaves_one_judgment(postgresql: Database) -> None:
    for _ in range(5):
        make_matchup(postgresql)
        task = assignment.lease_next(postgresql, "ann")
        assert task
        barrier, said = threading.Barrier(4), []

        def click(lease: str = task.lease_id, barrier: threading.Barrier = barrier, said: list[Any] = said) -> None:
            barrier.wait()
            said.append(judging.submit(postgresql, lease, "ann", verdict="left"))

        threads = [threading.Thread(target=click) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(said) == 4 and len({one.judgment_id for one in said}) == 1
        assert sum(one.created for one in said) == 1


def test_two_last_judgments_at_once_settle_the_matchup(postgresql: Database) -> None:
    for _ in range(5):
        matchup = make_matchup(postgresql, required=2)
        tasks = [assignment.lease_next(postgresql, name) for name in ("ann", "bob")]
        barrier = threading.Barrier(2)

        def submit(task: Any, barrier: threading.Barrier = barrier) -> None:
            barrier.wait()
            judging.submit(postgresql, task.lease_id, task.annotator, verdict="tie")

        threads = [threading.Thread(target=submit, args=(task,)) for task in tasks]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert get_matchup(postgresql, matchup.id).state is MatchupState.satisfied


def test_prompts_offered_by_many_at_once_are_stored_once(postgresql: Database) -> None:
    offered = [Prompt(messages=[{"role": "user", "content": f"Question {i}"}]) for i in range(40)]
    saved: list[int] = []
    threads = [
        threading.Thread(target=lambda: saved.append(prompts.save_prompts(postgresql, offered).added)) for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(saved) == [0, 0, 0, 0, 0, 40] and prompts.count_prompts(postgresql) == 40


def test_an_expired_lease_goes_back_and_undo_brings_a_task_again(postgresql: Database) -> None:
    make_matchup(postgresql)
    lost = assignment.lease_next(postgresql, "ann", lease_seconds=0)
    again = assignment.lease_next(postgresql, "bob", session="tab")
    assert lost and again and lost.matchup_id == again.matchup_id
    judging.submit(postgresql, again.lease_id, "bob", verdict="tie", rationale="both — fine ✓")
    undone = judging.undo_last(postgresql, "bob", session="tab")
    assert undone and undone.responses == again.responses
    judging.submit(postgresql, undone.lease_id, "bob", verdict="left")
    assert [row.state.value for row in list_judgments(postgresql)] == ["withdrawn", "current"]
    assert leases.list_live_leases(postgresql, "tab", at=now() + timedelta(seconds=1)) == []


def test_freezing_and_every_format_give_what_sqlite_gives(postgresql: Database, db: Database, tmp_path: Path) -> None:
    policy = make_policy(postgresql, "starter")
    for number in range(12):
        make_matchup(postgresql, policy=policy, texts=[f"short {number}", f"a longer one 🏳️‍🌈 {number}"])
    judge_by(postgresql, longer, count=10)
    judge_by(postgresql, lambda left, right: 0)
    frozen = freeze.freeze(postgresql, "d", DatasetFilters(test_share=0.3))
    formats.export_dataset(postgresql, "d", "raw", tmp_path / "raw.jsonl")
    formats.import_file(db, tmp_path / "raw.jsonl", "raw")
    assert freeze.freeze(db, "d", DatasetFilters(test_share=0.3)).hash == frozen.hash
    for format in formats.FORMATS:
        there, here = (sorted(formats.stream_dataset(one, "d", format)) for one in (postgresql, db))
        assert there == here, format
    counts = formats.import_file(postgresql, tmp_path / "raw.jsonl", "raw")
    assert counts["already_there"] == 12 and counts["judgments"] == 0


def _claim(url: str) -> list[str]:
    db = open_database(url)
    claimed = []
    while run := runs.claim_next_run(db):
        claimed.append(run.id)
    db.dispose()
    return claimed


@pytest.mark.slow
def test_each_queued_run_is_claimed_once(postgresql: Database, postgresql_url: str) -> None:
    queued = {runs.save_run(postgresql, Run(method="generate")).id for _ in range(30)}
    with spawn.Pool(4) as pool:
        claimed = [run_id for part in pool.map(_claim, [postgresql_url] * 4) for run_id in part]
    assert Counter(claimed) == Counter(queued)
    run_id = claimed[0]
    assert runs.transition_run(postgresql, run_id, expected=[RunState.starting], to=RunState.running)
    assert runs.transition_run(postgresql, run_id, expected=[RunState.starting], to=RunState.running) is None
    runs.save_metrics(postgresql, run_id, [MetricPoint(step=1, name="loss", value=0.5)])
    assert [point.value for point in runs.list_metrics(postgresql, run_id)] == [0.5]


def test_benchmarks_keep_their_order_and_meet_item_by_item(postgresql: Database) -> None:
    one, two = (make_policy(postgresql, name).id for name in ("one", "two"))
    means = {"z_main": 0.5, "acc": 1.0}
    kept = []
    for policy, score in ((one, 0.0), (two, 1.0)):
        items = [
            BenchmarkItem(item=f"i{n}", scores={"z_main": score, "acc": 1.0}, answer=f"{policy} {n}") for n in range(3)
        ]
        value = Benchmark(policy_id=policy, task="sums", n=3, means=means, settings={"version": 1})
        kept.append(benchmarks.save_benchmark(postgresql, value, items).id)
    assert [list(row.means) for row in benchmarks.list_benchmarks(postgresql)] == [["z_main", "acc"]] * 2
    assert benchmarks.list_scores(postgresql, *kept, "z_main") == [(0.0, 1.0)] * 3
    (first, _) = benchmarks.list_differing(postgresql, *kept, "z_main", limit=2)
    assert (first.item, first.answer_a, first.answer_b) == ("i0", f"{one} 0", f"{two} 0")


def test_people_judge_two_policies_and_a_rule_is_not_asked(postgresql: Database) -> None:
    one, two = make_policy(postgresql, "one"), make_policy(postgresql, "two")
    for number in range(3):
        prompt = make_prompt(postgresql, f"Measure {number}.", split=Split.evaluation)
        rows = [
            *make_generations(postgresql, prompt, one, [f"short {number}"]),
            *make_generations(postgresql, prompt, two, [f"a longer one {number}"]),
        ]
        pair = pairing.make_pairs(rows, random.Random(number), purpose=Purpose.evaluate, across=True)
        matchups.save_matchups(postgresql, pair)
    assert judge_by(postgresql, longer, annotator="oracle:longer", source=Source.simulated) == 0
    assert judge_by(postgresql, longer, count=2) == 2
    found = comparisons.list_comparisons(postgresql, one.id)[two.id]
    won_by_two = [
        comparison.verdict is (Verdict.first if comparison.first == two.id else Verdict.second)
        for comparison in found.comparisons
    ]
    assert (won_by_two, found.waiting) == ([True, True], 1)
    assert comparisons.list_comparisons(postgresql, "nobody") == {}
    fill, _ = (runs.save_run(postgresql, Run(method="generate", config=config)) for config in ({}, {"against": "two"}))
    assert [row.id for row in runs.list_fills(postgresql, limit=2)] == [fill.id]


def test_promotion_and_lineage_walk(postgresql: Database) -> None:
    first, second = make_policy(postgresql, "first"), make_policy(postgresql, "second")
    make_matchup(postgresql, policy=first)
    policies.promote_policy(postgresql, "first")
    policies.promote_policy(postgresql, second.id)
    champion = policies.get_champion(postgresql)
    assert champion and champion.name == "second" and matchups.count_matchups(postgresql).retired == 1
    assert lineage.policy_lineage(postgresql, "second")["policy"]["name"] == "second"


def test_a_copy_of_postgresql_is_a_sqlite_file_that_loads_into_either(
    postgresql: Database, postgresql_server: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    policy = make_policy(postgresql, "starter")
    for _ in range(5):
        make_matchup(postgresql, policy=policy)
    judge_by(postgresql, longer)
    policies.promote_policy(postgresql, "starter")
    freeze.freeze(postgresql, "d")
    snapshot.save_copy(postgresql, tmp_path / "copy.db")
    copy = snapshot.open_copy(tmp_path / "copy.db")
    assert list_judgments(copy) == list_judgments(postgresql)
    with pytest.raises(Conflict, match="holds rows already"), snapshot.loaded_copy(copy, postgresql):
        pass
    with postgresql.engine.begin() as connection:
        for table in reversed(SQLModel.metadata.sorted_tables):
            connection.execute(table.delete())
    with pytest.raises(OSError), snapshot.loaded_copy(copy, postgresql):
        raise OSError("the home could not be put in place")
    assert list_judgments(postgresql) == [], "nothing is committed before the block has ended"
    with snapshot.loaded_copy(copy, postgresql):
        pass
    assert list_judgments(copy) == list_judgments(postgresql)
    # Numbers given by the server go on after those that were loaded.
    make_policy(postgresql, "next")
    policies.promote_policy(postgresql, "next")
    assert [row.number for row in policies.list_promotions(postgresql)] == [1, 2]


def test_a_text_postgresql_cannot_hold_is_refused_with_a_sentence(postgresql: Database) -> None:
    make_matchup(postgresql)
    task = assignment.lease_next(postgresql, "ann")
    assert task
    with pytest.raises(StudioError, match="NUL"):
        judging.submit(postgresql, task.lease_id, "ann", verdict="left", rationale="a\0b")
    judging.submit(postgresql, task.lease_id, "ann", verdict="left", rationale="ab")


def _overlapping(db: Database, first: Callable[[], Any], second: Callable[[], Any]) -> list[Any]:
    """What each gave or raised, ``second`` run while ``first`` has all but committed: to its end, or until it waits."""
    found: list[Any] = [None, None]
    reached, released, holder = threading.Event(), threading.Event(), []

    def hold(_connection_or_session: Any) -> None:
        if threading.get_ident() in holder:
            holder.clear()
            reached.set()
            released.wait(60)

    def work(number: int, act: Callable[[], Any]) -> None:
        if number == 0:
            holder.append(threading.get_ident())
        try:
            found[number] = act()
        except Exception as error:
            found[number] = error
        reached.set()

    def waits() -> bool:
        asked = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        with db.engine.connect() as connection:
            return bool(connection.exec_driver_sql(asked).scalar())

    threads = [threading.Thread(target=work, args=job) for job in enumerate((first, second))]
    event.listen(db.engine, "commit", hold)  # a vote's, which has no session
    event.listen(Session, "before_commit", hold)
    try:
        threads[0].start()
        assert reached.wait(60)
        threads[1].start()
        while threads[1].is_alive() and not waits():
            time.sleep(0.01)
    finally:
        released.set()
        for thread in threads:
            thread.join()
        event.remove(db.engine, "commit", hold)
        event.remove(Session, "before_commit", hold)
    return found


def test_two_admins_who_remove_each_other_at_once_leave_one(postgresql: Database) -> None:
    for name in ("ann", "bob"):
        users.save_user(postgresql, User(name=name, role=UserRole.admin), actor="setup")
    first, second = _overlapping(
        postgresql,
        lambda: users.set_user_status(postgresql, "ann", UserStatus.disabled, actor="bob"),
        lambda: users.set_user_role(postgresql, "bob", UserRole.annotator, actor="ann"),
    )
    assert first.status is UserStatus.disabled and isinstance(second, Conflict)
    assert users.count_admins(postgresql) == 1


def test_drafts_that_come_at_once_from_two_windows_are_kept_one_after_the_other(postgresql: Database) -> None:
    make_matchup(postgresql)
    task = assignment.lease_next(postgresql, "ann")
    assert task
    for words in (("first", "second"), ("third", "fourth")):  # with no draft there, and with one
        saves = [partial(judging.save_draft, postgresql, task.lease_id, "ann", {"rationale": word}) for word in words]
        assert all(isinstance(kept, datetime) for kept in _overlapping(postgresql, *saves))
        assert judging.draft_of(postgresql, task) == {"rationale": words[1]}


def test_a_draft_and_a_vote_at_once_neither_lock_each_other_out_nor_leave_a_draft(postgresql: Database) -> None:
    for draft_first in (True, False):
        make_matchup(postgresql)
        task = assignment.lease_next(postgresql, "ann")
        assert task
        judging.save_draft(postgresql, task.lease_id, "ann", {"rationale": "so far"})
        save = partial(judging.save_draft, postgresql, task.lease_id, "ann", {"rationale": "a word more"})
        vote = partial(judging.submit, postgresql, task.lease_id, "ann", verdict="left")
        if draft_first:
            kept, voted = _overlapping(postgresql, save, vote)
            assert isinstance(kept, datetime)
        else:
            voted, kept = _overlapping(postgresql, vote, save)
            assert isinstance(kept, LeaseLost)
        assert voted.created and drafts.get_draft(postgresql, task.matchup_id, "ann") is None


def test_a_judgment_that_is_taken_back_while_it_is_excluded_stays_taken_back(postgresql: Database) -> None:
    make_matchup(postgresql)
    task = assignment.lease_next(postgresql, "ann", session="tab")
    assert task
    judged = judging.submit(postgresql, task.lease_id, "ann", verdict="left")
    undone, excluded = _overlapping(
        postgresql,
        lambda: judging.undo_last(postgresql, "ann", session="tab"),
        lambda: reviews.exclude_judgment(postgresql, judged.judgment_id, "rev", "spam"),
    )
    assert undone and undone.matchup_id == task.matchup_id
    assert isinstance(excluded, Conflict) and "is withdrawn" in str(excluded)
    assert [row.state for row in list_judgments(postgresql)] == [JudgmentState.withdrawn]


def test_an_opinion_asked_for_during_the_last_vote_is_asked_for_beside_it(postgresql: Database) -> None:
    matchup = make_matchup(postgresql)
    task = assignment.lease_next(postgresql, "ann")
    assert task
    voted, asked = _overlapping(
        postgresql,
        lambda: judging.submit(postgresql, task.lease_id, "ann", verdict="tie"),
        lambda: reviews.requeue_matchup(postgresql, matchup.id, "rev", "look again"),
    )
    assert voted.created and asked.matchup_id == matchup.id
    now_asked = get_matchup(postgresql, matchup.id)
    assert (now_asked.state, now_asked.required) == (MatchupState.open, 2)
    assert assignment.lease_next(postgresql, "bob")
