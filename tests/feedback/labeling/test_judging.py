from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedback.database.engine import Database
from feedback.errors import InvalidInput
from feedback.labeling import assignment, judging
from feedback.store.labeling import matchups
from feedback.tables import JudgmentRow
from feedback.types import JudgmentState, Matchup, MatchupKind, MatchupState, ShownVerdict, Verdict
from tests.factories import (
    get_generation,
    get_matchup,
    list_judgments,
    make_generations,
    make_matchup,
    make_policy,
    make_prompt,
)


def the_judgment(db: Database) -> JudgmentRow:
    (row,) = list_judgments(db)
    return row


def test_left_and_right_become_first_and_second_by_the_order_shown() -> None:
    assert judging.stored_verdict(ShownVerdict.left, [0, 1]) is Verdict.first
    assert judging.stored_verdict(ShownVerdict.left, [1, 0]) is Verdict.second
    assert judging.stored_verdict(ShownVerdict.right, [1, 0]) is Verdict.first
    assert judging.stored_verdict(ShownVerdict.both_bad, [1, 0]) is Verdict.both_bad


@given(st.permutations(range(5)), st.lists(st.integers(1, 5), min_size=5, max_size=5))
def test_a_ranking_says_the_same_of_each_reply_in_either_order(order: list[int], ranks: list[int]) -> None:
    shown = [ranks[index] for index in order]
    assert judging.stored_ranking(shown, order) == ranks


def test_the_preferred_text_is_the_one_the_person_saw_on_that_side(db: Database) -> None:
    for _ in range(8):
        make_matchup(db)

    while (task := assignment.lease_next(db, "ann")) is not None:
        wanted = task.responses[1]
        done = judging.submit(db, task.lease_id, "ann", verdict="right", strength=3, rationale="clearer")
        row = next(r for r in list_judgments(db) if r.id == done.judgment_id)
        matchup = get_matchup(db, row.matchup_id)
        index = 0 if row.verdict is Verdict.first else 1
        assert get_generation(db, matchup.generation_ids[index]).text == wanted
        assert (row.strength, row.rationale) == (3, "clearer")


def test_undo_keeps_the_first_revision_and_shows_the_pair_the_same_way_round(db: Database) -> None:
    make_matchup(db)
    task = assignment.lease_next(db, "ann", session="tab")
    assert task
    judging.submit(db, task.lease_id, "ann", verdict="left")
    back = judging.undo_last(db, "ann", session="tab")
    assert back and back.responses == task.responses and back.lease_id != task.lease_id
    judging.submit(db, back.lease_id, "ann", verdict="right")
    first, second = sorted(list_judgments(db), key=lambda row: row.revision)
    assert (first.state, second.state) == (JudgmentState.withdrawn, JudgmentState.current)
    assert second.supersedes == first.id and first.verdict != second.verdict
    assert matchups.count_matchups(db).satisfied == 1


def test_undo_releases_the_pair_that_was_on_the_screen(db: Database) -> None:
    make_matchup(db)
    make_matchup(db)
    first = assignment.lease_next(db, "ann", session="tab")
    assert first
    judging.submit(db, first.lease_id, "ann", verdict="tie")
    assert assignment.lease_next(db, "ann", session="tab")
    back = judging.undo_last(db, "ann", session="tab")
    assert back and back.matchup_id == first.matchup_id
    assert matchups.count_matchups(db).leased == 1 and assignment.resume(db, "tab") == back


def test_undo_of_a_skip_offers_the_pair_again(db: Database) -> None:
    matchup = make_matchup(db)
    task = assignment.lease_next(db, "ann", session="tab")
    assert task
    judging.submit(db, task.lease_id, "ann", skip_reason="too long")
    back = judging.undo_last(db, "ann", session="tab")
    assert back and back.matchup_id == matchup.id


def test_undo_with_nothing_to_undo_gives_nothing(db: Database) -> None:
    assert judging.undo_last(db, "ann") is None


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ({}, "exactly one of verdict, ranking and skip_reason, not none"),
        ({"verdict": "left", "ranking": [1, 2]}, "not verdict and ranking"),
        ({"verdict": "up"}, "'up' is not a verdict; valid: left, right, tie, both_bad"),
        ({"verdict": "left", "strength": 9}, "strength must be 1, 2 or 3"),
        ({"ranking": [1]}, "needs 2 numbers"),
        ({"ranking": [0, 1]}, "from 1 \\(best\\) to 2"),
        ({"verdict": "left", "edited": {"index": 5, "text": "x"}}, "edited.index"),
        ({"verdict": "left", "edited": {"index": 0, "text": " "}}, "edited.text"),
    ],
)
def test_a_judgment_that_makes_no_sense_is_refused_and_the_lease_stays(
    db: Database, said: dict[str, object], reason: str
) -> None:
    make_matchup(db)
    task = assignment.lease_next(db, "ann")
    assert task
    with pytest.raises(InvalidInput, match=reason):
        judging.submit(db, task.lease_id, "ann", **said)  # type: ignore[arg-type]
    assert judging.submit(db, task.lease_id, "ann", verdict="left").created


def test_a_ranking_of_four_is_stored_in_stored_order(db: Database) -> None:
    prompt, policy = make_prompt(db), make_policy(db)
    rows = make_generations(db, prompt, policy, ["a", "b", "c", "d"])
    matchups.save_matchups(
        db, [Matchup(prompt_id=prompt.id, generation_ids=[row.id for row in rows], kind=MatchupKind.rank)]
    )
    task = assignment.lease_next(db, "ann")
    assert task
    with pytest.raises(InvalidInput, match="ranks 4 replies; give a ranking"):
        judging.submit(db, task.lease_id, "ann", verdict="left")
    wanted = {"a": 2, "b": 1, "c": 4, "d": 2}
    judging.submit(db, task.lease_id, "ann", ranking=[wanted[text] for text in task.responses])
    assert the_judgment(db).ranking == [2, 1, 4, 2]
    assert get_matchup(db, task.matchup_id).state is MatchupState.satisfied
