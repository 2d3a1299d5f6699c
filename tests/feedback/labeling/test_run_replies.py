"""A run's replies go back to the people: which meet, that none goes twice, and what is said when there are none."""

from __future__ import annotations

import random

import pytest

from feedback.database.engine import Database
from feedback.errors import InvalidInput, NotEnoughData
from feedback.labeling.assignment import lease_next
from feedback.labeling.run_replies import send_to_annotators
from feedback.store.content.generations import list_newest_generations, save_generations
from feedback.store.labeling.matchups import count_open
from feedback.store.labeling.retirement import restore_prompts, retire_prompts
from feedback.store.models.policies import promote_policy
from feedback.store.models.runs import save_run
from feedback.types import Generation, MatchupState, Run
from tests.factories import get_generation, get_matchup, make_matchup, make_policy, make_prompt


def drawn(db: Database, prompt: str, policy: str, run: str | None, iteration: int, text: str) -> str:
    sampling = {"iteration": iteration, "score": float(iteration), "kl": 0.5}
    value = Generation(
        prompt_id=prompt, policy_id=policy, text=text, seed=1, sampling=sampling, finish_reason="stop", tokens=2,
        run_id=run,
    )  # fmt: skip
    return save_generations(db, [value])[0].id


def test_the_latest_reply_meets_the_earliest_and_none_goes_twice(db: Database) -> None:
    run, policy, prompt = save_run(db, Run(method="ppo", config={})).id, make_policy(db).id, make_prompt(db).id
    first, _, last = (drawn(db, prompt, policy, run, i, f"reply {i}") for i in range(3))
    (matchup,) = send_to_annotators(db, run, rng=random.Random(0))
    assert set(matchup.generation_ids) == {first, last}
    task = lease_next(db, "ann")
    assert task is not None and set(task.responses) == {"reply 0", "reply 2"}
    with pytest.raises(NotEnoughData, match="has been sent to them before"):
        send_to_annotators(db, run)


def test_replies_to_a_retired_prompt_are_passed_over(db: Database) -> None:
    policy, run = make_policy(db).id, save_run(db, Run(method="ppo", config={})).id
    prompt = make_prompt(db).id
    for iteration in range(2):
        drawn(db, prompt, policy, run, iteration, f"Reply {iteration}")
    retire_prompts(db, [prompt])
    with pytest.raises(NotEnoughData, match="belongs to retired prompts"):
        send_to_annotators(db, run)
    restore_prompts(db, [prompt])
    assert [row.prompt_id for row in send_to_annotators(db, run)] == [prompt]


def test_what_was_sent_is_next_and_stays_when_another_policy_is_promoted(db: Database) -> None:
    run, policy, prompt = save_run(db, Run(method="ppo", config={})).id, make_policy(db).id, make_prompt(db).id
    waiting = make_matchup(db, policy=make_policy(db, "old"))
    for iteration in range(2):
        drawn(db, prompt, policy, run, iteration, f"reply {iteration}")
    (sent,) = send_to_annotators(db, run)
    make_policy(db, "new")
    for name in ("new", "old", "new"):
        promote_policy(db, name)
    assert get_matchup(db, waiting.id).state is MatchupState.retired
    task = lease_next(db, "ann")
    assert task is not None and task.matchup_id == sent.id
    promote_policy(db, "old")
    task = lease_next(db, "ben")
    assert task is not None and task.matchup_id == waiting.id


def test_sent_replies_come_before_what_fills_the_pool(db: Database) -> None:
    run, policy, prompt = save_run(db, Run(method="ppo", config={})).id, make_policy(db).id, make_prompt(db).id
    make_matchup(db)
    for iteration in range(2):
        drawn(db, prompt, policy, run, iteration, f"reply {iteration}")
    (sent,) = send_to_annotators(db, run)
    task = lease_next(db, "ann")
    assert task is not None and task.matchup_id == sent.id


def test_a_lone_reply_meets_another_policys_and_never_its_like(db: Database) -> None:
    run, policy, prompt = save_run(db, Run(method="ppo", config={})).id, make_policy(db).id, make_prompt(db).id
    drawn(db, prompt, policy, run, 0, "the same")
    drawn(db, prompt, policy, None, 0, "the  same ")
    with pytest.raises(NotEnoughData):
        send_to_annotators(db, run)
    other = drawn(db, prompt, policy, None, 0, "another")
    (matchup,) = send_to_annotators(db, run)
    assert other in matchup.generation_ids


def test_the_limit_takes_the_latest_and_mistakes_are_told(db: Database) -> None:
    run, policy = save_run(db, Run(method="ppo", config={})).id, make_policy(db).id
    for number in range(4):
        prompt = make_prompt(db, f"Say {number}.").id
        for iteration in (0, number + 1):
            drawn(db, prompt, policy, run, iteration, f"{number} in {iteration}")
    matchups = send_to_annotators(db, run, limit=2)
    seen = {get_generation(db, one).text for matchup in matchups for one in matchup.generation_ids}
    assert seen == {"3 in 0", "3 in 4", "2 in 0", "2 in 3"} and count_open(db) == 2
    assert [row.text for row in list_newest_generations(db, run, 1)] == ["3 in 4"]
    with pytest.raises(InvalidInput, match="at least 1, not 0"):
        send_to_annotators(db, run, limit=0)
    with pytest.raises(NotEnoughData, match=r"\(dpo\) has kept no replies"):
        send_to_annotators(db, save_run(db, Run(method="dpo", config={})).id)
