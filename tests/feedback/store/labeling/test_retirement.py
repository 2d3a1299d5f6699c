"""Retired prompts: nothing is drawn for them and nobody is asked, while what was judged stays."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from feedback.database.engine import Database
from feedback.datasets import freeze
from feedback.errors import Conflict, InvalidInput, NotFound
from feedback.labeling import assignment, judging
from feedback.store.content import prompts
from feedback.store.datasets.datasets import list_pairs
from feedback.store.labeling import matchups, reviews
from feedback.store.labeling.retirement import choose_prompts, restore_prompts, retire_prompts
from feedback.store.models import policies
from feedback.types import MatchupState, Prompt, Purpose, Split
from tests import factories
from tests.factories import judge_by, longer


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest) -> Iterator[Database]:
    yield request.getfixturevalue("db" if request.param == "sqlite" else "postgresql")


def state_of(db: Database, matchup_id: str) -> MatchupState:
    return factories.get_matchup(db, matchup_id).state


def test_a_retired_prompt_is_drawn_for_no_more_and_comes_back(database: Database) -> None:
    db = database
    kept, gone = factories.make_prompt(db, "Kept?"), factories.make_prompt(db, "Gone?")
    held_out = factories.make_prompt(db, "Held out?", Split.evaluation)
    done = retire_prompts(db, [gone.id, held_out.id])
    assert (done.changed, done.already, done.matchups) == (2, 0, 0)
    again = retire_prompts(db, [gone.id])
    assert (again.changed, again.already) == (0, 1)
    assert [row.id for row in matchups.list_prompts_without_open_matchup(db, limit=9)] == [kept.id]
    assert [row.id for row in prompts.list_prompts(db)] == [kept.id]
    assert prompts.list_prompts(db, split=Split.evaluation) == [] and prompts.count_prompts(db) == 1
    assert {row.id for row in prompts.list_prompts(db, retired=True)} == {gone.id, held_out.id}
    assert prompts.count_prompts(db, retired=None) == 3
    saved = prompts.save_prompts(db, [Prompt(messages=gone.messages)])
    assert (saved.added, saved.retired) == (0, 1), "bringing it again leaves it retired, and says so"
    assert restore_prompts(db, [gone.id]).changed == 1
    assert [row.id for row in matchups.list_prompts_without_open_matchup(db, limit=9)] == [kept.id, gone.id]


def test_its_pairs_leave_the_pool_and_what_was_judged_stays(database: Database) -> None:
    db = database
    policy = factories.make_policy(db)
    policies.promote_policy(db, policy.id)
    judged = factories.make_matchup(db, policy=policy)
    judge_by(db, longer, count=1)
    prompt = factories.get_prompt(db, judged.prompt_id)
    waiting = factories.make_matchup(db, policy=policy, prompt=prompt)
    assert retire_prompts(db, [prompt.id]).matchups == 1
    assert (state_of(db, judged.id), state_of(db, waiting.id)) == (MatchupState.satisfied, MatchupState.retired)
    assert assignment.lease_next(db, "ann") is None
    frozen = freeze.freeze(db, "after")
    assert (
        frozen.counts["pairs"] == 1 and list_pairs(db, "after")[0].messages[0].content == prompt.messages[0]["content"]
    )

    other = factories.make_policy(db)
    policies.promote_policy(db, other.id)
    policies.promote_policy(db, policy.id)
    assert state_of(db, waiting.id) is MatchupState.retired, "a promotion brings back nothing of a retired prompt"
    assert restore_prompts(db, [prompt.id]).matchups == 1
    assert assignment.lease_next(db, "ann") is not None


def test_a_pair_that_a_promotion_took_out_meanwhile_stays_out(db: Database) -> None:
    first, second = factories.make_policy(db), factories.make_policy(db)
    policies.promote_policy(db, first.id)
    row = factories.make_matchup(db, policy=first)
    half_judged = factories.make_matchup(db, policy=first, required=2)
    for _ in range(2):
        task = assignment.lease_next(db, "ann")
        assert task is not None
        judging.submit(db, task.lease_id, "ann", verdict="left")
    assert state_of(db, row.id) is MatchupState.satisfied
    untouched = factories.make_matchup(db, policy=first)
    ids = [half_judged.prompt_id, untouched.prompt_id]
    assert retire_prompts(db, ids).matchups == 2
    policies.promote_policy(db, second.id)
    assert restore_prompts(db, ids).matchups == 1
    assert (state_of(db, half_judged.id), state_of(db, untouched.id)) == (MatchupState.open, MatchupState.retired)


def test_gold_and_repeats_of_a_retired_prompt_are_put_before_nobody(db: Database) -> None:
    original = factories.make_matchup(db)
    gold = matchups.save_gold(db, original.id, {"verdict": "first"})
    assert retire_prompts(db, [original.prompt_id]).matchups == 1
    assert state_of(db, gold.id) is MatchupState.retired
    assert restore_prompts(db, [original.prompt_id]).matchups == 1
    assert factories.get_matchup(db, gold.id).purpose is Purpose.gold
    assert (state_of(db, gold.id), state_of(db, original.id)) == (MatchupState.open, MatchupState.retired)


def test_nothing_but_a_restore_reopens_it(db: Database) -> None:
    row = factories.make_matchup(db)
    task = assignment.lease_next(db, "ann")
    assert task is not None
    retire_prompts(db, [row.prompt_id])
    judging.submit(db, task.lease_id, "ann", verdict="left")
    assert state_of(db, row.id) is MatchupState.satisfied, "what was on a screen counts"
    with pytest.raises(Conflict, match=f"studio prompts restore {row.prompt_id}"):
        reviews.requeue_matchup(db, row.id, "ada", "odd")
    assert judging.undo_last(db, "ann") is not None
    assert state_of(db, row.id) is MatchupState.retired


def test_replies_drawn_while_it_was_retired_wait_for_its_return(database: Database) -> None:
    db = database
    policy = factories.make_policy(db)
    policies.promote_policy(db, policy.id)
    prompt = factories.make_prompt(db)
    retire_prompts(db, [prompt.id])
    late = factories.make_matchup(db, policy=policy, prompt=prompt)
    assert state_of(db, late.id) is MatchupState.retired and assignment.lease_next(db, "ann") is None
    with pytest.raises(Conflict, match=f"studio prompts restore {prompt.id}"):
        matchups.save_gold(db, late.id, {"verdict": "first"})
    assert restore_prompts(db, [prompt.id]).matchups == 1
    assert state_of(db, late.id) is MatchupState.open


def test_prompts_are_named_by_ids_or_by_a_tag(db: Database) -> None:
    tagged = [Prompt(messages=[{"role": "user", "content": text}], tags=["math", text]) for text in ("1?", "2?")]
    ids = prompts.save_prompts(db, tagged).ids
    other = factories.make_prompt(db)
    assert choose_prompts(db, [], "math", retired=True).changing == ids
    for given, tag in (([], None), (ids, "math")):
        with pytest.raises(InvalidInput, match="either by their ids or by a tag"):
            retire_prompts(db, given, tag)
    with pytest.raises(NotFound, match=r"no prompt 'prm-none'.*nothing was changed"):
        retire_prompts(db, [other.id, "prm-none"])
    with pytest.raises(NotFound, match=r"no prompt with the tag 'maths'. Known: 1\?, 2\?, math"):
        retire_prompts(db, [], "maths")
    assert prompts.count_tags(db) == {"math": 2, "": 1, "1?": 1, "2?": 1}
    assert retire_prompts(db, [], "math").changed == 2
    assert prompts.count_tags(db) == {"": 1} and prompts.count_tags(db, retired=True)["math"] == 2
