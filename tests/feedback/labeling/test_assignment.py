"""Exactly N judgments per matchup, whoever asks and however often: in one process and with eight at once."""

from __future__ import annotations

import multiprocessing
import random
from collections import Counter
from pathlib import Path

import pytest

from feedback.database.engine import Database, open_database
from feedback.errors import InvalidInput, LeaseLost, NotFound
from feedback.labeling import assignment, judging
from feedback.store.labeling import leases, matchups, pool
from feedback.store.models import policies
from feedback.types import Checks, JudgmentState, LeaseState, MatchupState
from tests.factories import (
    count_judgments,
    get_matchup,
    judge_by,
    list_judgments,
    longer,
    make_matchup,
    make_policy,
    make_prompt,
)


def test_an_empty_pool_gives_no_task(db: Database) -> None:
    assert assignment.lease_next(db, "ann") is None


def test_every_call_hands_out_another_matchup(db: Database) -> None:
    made = {make_matchup(db).id for _ in range(5)}
    tasks = [assignment.lease_next(db, "ann") for _ in range(6)]
    assert {task.matchup_id for task in tasks[:5] if task} == made and tasks[5] is None


def test_a_task_says_which_replies_were_cut_in_shown_order(db: Database) -> None:
    for number in range(8):
        make_matchup(db, texts=[f"whole {number}", f"cut {number}"], cut=[False, True])
        shown = assignment.lease_next(db, "ann")
        assert shown is not None
        assert shown.cut == tuple(text.startswith("cut") for text in shown.responses)


def test_nobody_judges_the_same_matchup_twice(db: Database) -> None:
    make_matchup(db, required=2)
    assert judge_by(db, longer, annotator="ann") == 1
    assert assignment.lease_next(db, "ann") is None
    assert assignment.lease_next(db, "bob") is not None


def test_a_skip_counts_nowhere_but_never_comes_back_to_the_same_person(db: Database) -> None:
    matchup = make_matchup(db)
    task = assignment.lease_next(db, "ann")
    assert task
    judging.submit(db, task.lease_id, "ann", skip_reason="unclear")
    assert get_matchup(db, matchup.id).state is MatchupState.open
    assert assignment.lease_next(db, "ann") is None
    assert judge_by(db, longer, annotator="bob") == 1
    assert get_matchup(db, matchup.id).state is MatchupState.satisfied


def test_an_expired_lease_returns_its_matchup_and_refuses_the_late_judgment(db: Database) -> None:
    make_matchup(db)
    late = assignment.lease_next(db, "ann", lease_seconds=-1)
    assert late
    with pytest.raises(LeaseLost, match="expired"):
        judging.submit(db, late.lease_id, "ann", verdict="left")
    again = assignment.lease_next(db, "bob")
    assert again and again.matchup_id == late.matchup_id
    assert leases.get_lease(db, late.lease_id).state is LeaseState.expired
    with pytest.raises(LeaseLost, match="was expired"):
        judging.submit(db, late.lease_id, "ann", verdict="left")
    assert count_judgments(db) == 0


def test_a_foreign_unknown_or_released_lease_is_refused(db: Database) -> None:
    make_matchup(db)
    task = assignment.lease_next(db, "ann")
    assert task
    with pytest.raises(LeaseLost, match="another annotator"):
        judging.submit(db, task.lease_id, "bob", verdict="left")
    with pytest.raises(NotFound, match="lea-nothing"):
        judging.submit(db, "lea-nothing", "ann", verdict="left")
    assert assignment.release(db, task.lease_id) and not assignment.release(db, task.lease_id)
    with pytest.raises(LeaseLost, match="was released"):
        judging.submit(db, task.lease_id, "ann", verdict="left")


def test_a_reloaded_page_resumes_its_own_lease_only(db: Database) -> None:
    make_matchup(db)
    make_matchup(db)
    task = assignment.lease_next(db, "ann", session="tab-1")
    assert assignment.resume(db, "tab-1") == task
    assert assignment.resume(db, "tab-2") is None


def test_each_way_round_is_shown_equally_often(db: Database) -> None:
    matchup = make_matchup(db, required=10)
    for number in range(10):
        assert judge_by(db, longer, annotator=f"ann-{number}") == 1
    orders = Counter(tuple(row.shown_order) for row in list_judgments(db) if row.matchup_id == matchup.id)
    assert orders == {(0, 1): 5, (1, 0): 5}


def test_what_undo_gives_back_comes_again_the_same_way_round(db: Database) -> None:
    for _ in range(8):
        make_matchup(db)
    seen = {}
    for _ in range(7):
        task, ahead = assignment.fill_deck(db, "ann", "tab", size=2)
        seen |= {one.matchup_id: one.responses for one in (task, ahead)}
        judging.submit(db, task.lease_id, "ann", verdict="tie")
    while judging.undo_last(db, "ann", session="tab"):
        pass
    again = {}
    while task := next(iter(assignment.fill_deck(db, "ann", "tab", size=1)), None):
        again[task.matchup_id] = task.responses
        judging.submit(db, task.lease_id, "ann", verdict="left")
    assert again == seen and len(again) == 8


def test_who_comes_back_and_who_came_meanwhile_see_different_orders(db: Database) -> None:
    for _ in range(8):
        make_matchup(db, required=2)
    for _ in range(8):
        before = assignment.lease_next(db, "ann")
        assert before and assignment.release(db, before.lease_id)
        meanwhile, after = assignment.lease_next(db, "bob"), assignment.lease_next(db, "ann")
        assert meanwhile and after and after.matchup_id == meanwhile.matchup_id
        assert after.responses == before.responses != meanwhile.responses


def test_a_judgment_that_was_taken_back_counts_once_for_the_balance(db: Database) -> None:
    matchup = make_matchup(db, required=4)
    task = assignment.lease_next(db, "ann")
    for _ in range(3):
        assert task
        judging.submit(db, task.lease_id, "ann", verdict="left")
        task = judging.undo_last(db, "ann")
    assert judge_by(db, longer, annotator="ann") == 0  # it is held
    assert task and judging.submit(db, task.lease_id, "ann", verdict="left")
    for name in ("bob", "cem", "dee"):
        assert judge_by(db, longer, annotator=name) == 1
    orders = Counter(tuple(row.shown_order) for row in list_judgments(db, current_only=True))
    assert orders == {(0, 1): 2, (1, 0): 2} and get_matchup(db, matchup.id).state is MatchupState.satisfied


def test_a_new_champion_serves_the_next_pair_and_work_at_hand_is_kept(db: Database) -> None:
    old, new = make_policy(db, "old"), make_policy(db, "new")
    policies.promote_policy(db, "old")
    at_hand, waiting = make_matchup(db, policy=old), make_matchup(db, policy=old)
    task = assignment.lease_next(db, "ann")
    assert task and task.matchup_id == at_hand.id
    fresh = make_matchup(db, policy=new)
    policies.promote_policy(db, "new")
    assert get_matchup(db, waiting.id).state is MatchupState.retired
    upcoming = assignment.lease_next(db, "bob")
    assert upcoming and upcoming.matchup_id == fresh.id
    judging.submit(db, task.lease_id, "ann", verdict="left")
    policies.promote_policy(db, "old")
    assert get_matchup(db, waiting.id).state is MatchupState.open
    champion = policies.get_champion(db)
    assert champion and champion.id == old.id and len(policies.list_promotions(db)) == 3
    assert new.id != old.id


def test_annotators_need_a_name(db: Database) -> None:
    with pytest.raises(InvalidInput, match="must not be empty"):
        assignment.lease_next(db, " ")


def _label(job: tuple[str, int]) -> tuple[list[str], int]:
    """One annotator's process: lease, submit (often twice), now and then drop a lease.

    Gives the judgments it was promised, and how often a second submit made another one.
    """
    path, number = job
    db = open_database(path)
    rng = random.Random(number)
    promised: list[str] = []
    clashes = 0
    while (task := assignment.lease_next(db, f"ann-{number}", rng=rng)) is not None:
        if rng.random() < 0.1:
            assignment.release(db, task.lease_id)
            continue
        verdict = rng.choice(["left", "right", "tie", "both_bad"])
        first = judging.submit(db, task.lease_id, task.annotator, verdict=verdict)
        promised.append(first.judgment_id)
        if rng.random() < 0.5:
            second = judging.submit(db, task.lease_id, task.annotator, verdict="left")
            clashes += second.created or second.judgment_id != first.judgment_id
    db.dispose()
    return promised, clashes


@pytest.mark.slow
@pytest.mark.parametrize("required", [1, 3])
def test_eight_processes_never_overfill_a_matchup_and_lose_nothing(tmp_path: Path, required: int) -> None:
    path = tmp_path / "studio.db"
    db = open_database(path)
    policy = make_policy(db)
    prompt = make_prompt(db)
    made = [make_matchup(db, policy=policy, prompt=prompt, required=required).id for _ in range(60)]
    with multiprocessing.get_context("spawn").Pool(8) as pool:
        results = pool.map(_label, [(str(path), number) for number in range(8)], chunksize=1)
    stored = [row for row in list_judgments(db) if row.state is JudgmentState.current]
    promised = [judgment_id for ids, _ in results for judgment_id in ids]
    assert sum(clashes for _, clashes in results) == 0
    assert sorted(promised) == sorted(row.id for row in stored)
    assert Counter(row.matchup_id for row in stored) == dict.fromkeys(made, required)
    assert all(len({r.annotator for r in stored if r.matchup_id == key}) == required for key in made)
    assert matchups.count_matchups(db).open == 0


def test_the_next_task_costs_no_more_for_whoever_has_judged_much(db: Database) -> None:
    """Counted in steps of the database's own machine, not in time: they must not grow with the square of the work."""
    for number in range(60):
        make_matchup(db, required=2, texts=[f"a {number}", f"b {number}"])  # each waits for a second opinion

    def steps(judged: int) -> int:
        for _ in range(judged):
            task = assignment.lease_next(db, "ann", checks=Checks(gold_share=0, repeat_share=0))
            assert task
            judging.submit(db, task.lease_id, "ann", verdict="tie")
        counted = [0]
        with db.reading() as connection:
            driver = connection.connection.driver_connection
            driver.set_progress_handler(lambda: counted.__setitem__(0, counted[0] + 1), 10)  # type: ignore[union-attr]
            assert pool.next_matchup(connection, "ann") is not None
            driver.set_progress_handler(None, 0)  # type: ignore[union-attr]
        return counted[0]

    few, many = steps(10), steps(40)  # 10 and then 50 judged
    assert many < 8 * few
