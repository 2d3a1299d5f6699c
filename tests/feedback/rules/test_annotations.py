"""Remarks say the same of each reply in shown and in stored order, and what a screen cannot have meant is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedback.database.engine import Database
from feedback.datasets import examples, freeze
from feedback.errors import InvalidInput, LeaseLost
from feedback.labeling import assignment, judging
from feedback.rules import annotations as remarks
from feedback.store.datasets import datasets as store
from feedback.store.labeling import drafts
from tests.factories import list_judgments, make_matchup

TEXTS = ["zero", "one \U0001f600", "two", "three"]


@given(st.permutations(range(4)), st.integers(0, 3), st.lists(st.sampled_from([None, 1, 5]), min_size=4, max_size=4))
def test_what_is_shown_and_what_is_stored_are_inverse(order: list[int], place: int, ratings: list[int | None]) -> None:
    shown = {
        "edited": {"index": place, "text": "better"},
        "spans": [{"index": place, "start": 0, "end": 3, "mark": "bad", "reason": "why"}],
        "criteria": {"clear": ratings},
        "ranking": [None, 2, 1, None],
        "rationale": "because",
        "active_ms": 12,
    }
    if not any(ratings):
        del shown["criteria"]
    stored = remarks.to_stored(shown, order, [TEXTS[index] for index in order])
    assert stored["edited"]["index"] == stored["spans"][0]["index"] == order[place]
    assert stored["ranking"][order[2]] == 1
    assert remarks.to_shown(stored, order) == shown


@pytest.mark.parametrize(
    "content",
    [
        {"edited": {"index": 4, "text": "x"}},
        {"edited": {"index": True, "text": "x"}},
        {"edited": {"index": 0, "text": "  "}},
        {"spans": [{"index": 0, "start": 0, "end": 5, "mark": "good"}]},
        {"spans": [{"index": 0, "start": 2, "end": 2, "mark": "good"}]},
        {"spans": [{"index": 0, "start": 0, "end": 1, "mark": "so-so"}]},
        {"spans": ["all of it"]},
        {"criteria": {"clear": [1, 2]}},
        {"criteria": {"clear": [1, 2, 3, 6]}},
        {"criteria": {"clear": [True, 2, 3, 4]}},
        {"edited": "all of it"},
        {"spans": [{"index": 0, "start": False, "end": True, "mark": "good"}]},
        {"ranking": [1, 2, 3, 9]},
        {"active_ms": "long"},
        {"active_ms": float("nan")},
        {"active_ms": float("inf")},
        {"rationale": "x" * (remarks.MAX_TEXT + 1)},
        {"opinion": "mine"},
    ],
)
def test_what_the_screen_cannot_have_meant_is_refused(content: dict) -> None:
    with pytest.raises(InvalidInput):
        remarks.to_stored(content, [0, 1, 2, 3], TEXTS)


def test_a_span_counts_characters_and_time_stays_sane() -> None:
    span = {"index": 1, "start": 4, "end": 5, "mark": "good"}
    assert remarks.to_stored({"spans": [span], "active_ms": -3}, [0, 1, 2, 3], TEXTS) == {
        "spans": [span],
        "active_ms": 0,
    }
    assert TEXTS[1][4:5] == "\U0001f600"


def test_a_draft_outlives_its_lease_and_ends_with_the_judgment(db: Database) -> None:
    make_matchup(db)
    task = assignment.lease_next(db, "ann", session="tab")
    assert task
    judging.save_draft(db, task.lease_id, "ann", {"rationale": "half a thou", "edited": {"index": 1, "text": "new"}})
    with pytest.raises(LeaseLost):
        judging.save_draft(db, task.lease_id, "bob", {"rationale": "mine"})
    assignment.release(db, task.lease_id)
    again = assignment.lease_next(db, "ann", session="tab")
    assert again and again.lease_id != task.lease_id
    kept = judging.draft_of(db, again)
    assert kept["rationale"] == "half a thou"
    assert again.responses[kept["edited"]["index"]] == task.responses[1], "the edit follows its reply to its new place"
    with pytest.raises(InvalidInput):
        judging.submit(db, again.lease_id, "ann", verdict="left", edited={"index": 7, "text": "x"})
    assert judging.draft_of(db, again) == kept, "a refused judgment leaves the draft"
    judging.submit(db, again.lease_id, "ann", verdict="left", **kept)
    assert drafts.get_draft(db, again.matchup_id, "ann") is None
    with pytest.raises(LeaseLost):
        judging.save_draft(db, again.lease_id, "ann", {"rationale": "too late"})


def test_an_edit_becomes_a_pair_and_a_demonstration_and_freezing_twice_gives_one_hash(db: Database) -> None:
    make_matchup(db, texts=["The first.", "The second."])
    task = assignment.lease_next(db, "ann")
    assert task
    judging.submit(db, task.lease_id, "ann", verdict="tie", edited={"index": 0, "text": "Much better."})
    frozen, again = freeze.freeze(db, "one"), freeze.freeze(db, "two")
    assert frozen.hash == again.hash
    assert frozen.counts["edits"] == frozen.counts["pairs"] == 1
    (pair,) = store.list_pairs(db, "one")
    (row,) = list_judgments(db)
    assert (pair.chosen, pair.rejected, pair.edited_by) == ("Much better.", task.responses[0], row.id)
    (shown,) = examples.list_demonstrations(db, "one")
    assert (shown.reply, shown.origin) == ("Much better.", "edited")
