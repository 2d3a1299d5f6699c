"""The rules that hold whatever the door: one lease per browser, one generate run at a time, promotion, refill."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from sqlalchemy import event

from feedback.database.engine import Database
from feedback.errors import InvalidInput, LeaseLost, NotEnoughData, UnknownSetting
from feedback.store.labeling import matchups
from feedback.store.models import checkpoints, policies, runs, scorecards
from feedback.store.people import audit
from feedback.tables import RunRow
from feedback.types import Checkpoint, Policy, Run, RunState, Scorecard, UserRole
from studio.background import pool_filler as pool
from studio.background.pool_filler import REFILL_BELOW
from studio.identity import Person
from studio.services.facade import Services
from studio.services.labeling import LabelCounts
from studio.web.api import label_screen
from studio.web.api.schemas import LabelIn
from tests import factories
from tests.factories import current_task
from tests.training.served import reply_to, serving
from tests.training.tiny_models import TEMPLATE, byte_tokenizer, model_at

SESSION = "browser-0001"


@pytest.fixture
def champion(db: Database):
    policy = factories.make_policy(db, "starter")
    return policies.promote_policy(db, policy.id)


def fill(db: Database, policy, count: int) -> None:
    for _ in range(count):
        factories.make_matchup(db, policy=policy)


def finish_fill(db: Database, **result: int) -> None:
    """End the pending generate run as a worker would."""
    pending = next(run for run in runs.list_runs(db) if run.method == "generate" and not run.state.is_terminal)
    runs.update_run(db, pending.id, result=result)
    runs.transition_run(db, pending.id, expected=[pending.state], to=RunState.succeeded)


def test_a_session_keeps_its_task_until_it_is_judged(services: Services, db: Database, champion) -> None:
    fill(db, champion, 3)
    task = current_task(services, SESSION)
    assert current_task(services, SESSION) == task
    assert current_task(services, "browser-0002").lease_id != task.lease_id
    services.labeling.judge(task.lease_id, verdict="left")
    assert current_task(services, SESSION).lease_id != task.lease_id


def test_a_session_never_holds_two_leases(services: Services, db: Database, champion) -> None:
    fill(db, champion, 20)
    seen: list[str] = []
    threads = [
        threading.Thread(target=lambda: seen.append(current_task(services, SESSION).lease_id)) for _ in range(12)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == 12
    assert len(set(seen)) == 1
    assert matchups.count_matchups(db).leased == 1


def test_undo_gives_the_pair_back_and_frees_the_next(services: Services, db: Database, champion) -> None:
    fill(db, champion, 3)
    first = current_task(services, SESSION)
    services.labeling.judge(first.lease_id, verdict="left")
    current_task(services, SESSION)
    undone = services.labeling.undo(SESSION)
    assert (undone.matchup_id, undone.responses) == (first.matchup_id, first.responses)
    assert matchups.count_matchups(db).leased == 1
    assert current_task(services, SESSION) == undone
    assert services.labeling.undo("browser-0002") is None, "another browser's judgment is not this one's to take back"


def test_a_lease_of_somebody_else_is_refused(services: Services, db: Database, champion) -> None:
    fill(db, champion, 1)
    task = services.labeling.lease_with_guidelines("ann")[0]
    with pytest.raises(LeaseLost):
        services.labeling.judge(task.lease_id, "ben", verdict="left")


def test_only_one_run_fills_the_pool_at_a_time(services: Services, db: Database, champion) -> None:
    factories.make_prompt(db)
    first = services.pool.fill_pool()
    assert services.pool.fill_pool().id == first.id
    assert services.pool.last_fill().id == first.id
    assert first.config["policy"] == champion.id


def test_the_last_fill_is_found_without_a_look_at_other_runs(services: Services, db: Database, champion) -> None:
    factories.make_prompt(db)
    old = services.pool.fill_pool()
    finish_fill(db, matchups=1)
    newest = services.pool.fill_pool()
    finish_fill(db, matchups=1)
    for _ in range(5):
        runs.save_run(db, Run(method="dpo", state=RunState.succeeded))
    read: list[str] = []
    event.listen(RunRow, "load", note := lambda run, _: read.append(run.id))
    try:
        found = services.pool.last_fill()
    finally:
        event.remove(RunRow, "load", note)
    assert found is not None and found.id == newest.id != old.id
    assert read == [newest.id]


def test_a_pool_running_low_is_filled_once(services: Services, db: Database, champion) -> None:
    fill(db, champion, REFILL_BELOW - 1)
    assert services._shared.filler.refill() is None, "the first run is asked for by a person or by `studio up`"
    services.pool.fill_pool()
    finish_fill(db, matchups=5)
    again = services._shared.filler.refill()
    assert again is not None
    assert services._shared.filler.refill() is None, "one is under way"


def test_a_full_pool_asks_for_nothing_unless_somebody_left_empty_handed(
    services: Services, db: Database, champion
) -> None:
    fill(db, champion, REFILL_BELOW)
    services.pool.fill_pool()
    finish_fill(db, matchups=5)
    assert services._shared.filler.refill() is None
    assert services._shared.filler.refill(empty_handed=True) is not None


@pytest.mark.parametrize("ending", [RunState.cancelled, "nothing"])
def test_a_fill_that_did_not_work_is_not_repeated_by_itself(services: Services, db: Database, champion, ending) -> None:
    factories.make_prompt(db)
    run = services.pool.fill_pool()
    if ending == "nothing":
        finish_fill(db, matchups=0)
    else:
        runs.transition_run(db, run.id, expected=[RunState.queued], to=ending)
    assert services._shared.filler.refill() is None
    assert services.pool.fill_pool().id != run.id, "a person's press tries again"


def test_filling_without_a_policy_or_prompts_says_what_to_do(services: Services, db: Database) -> None:
    with pytest.raises(NotEnoughData, match="promote"):
        services.pool.fill_pool()
    policies.promote_policy(db, factories.make_policy(db).id)
    with pytest.raises(NotEnoughData, match="prompts import"):
        services.pool.fill_pool()


def test_a_promotion_cancels_the_old_fill_and_starts_a_new_one(services: Services, db: Database, champion) -> None:
    fill(db, champion, 3)
    old = services.pool.fill_pool()
    child = factories.make_policy(db, "child", parent_id=champion.id)
    promotion = services.policies.promote("child")
    assert (promotion.previous, promotion.run.config["policy"]) == ("starter", child.id)
    assert runs.get_run(db, old.id).state is RunState.cancelled
    assert matchups.count_matchups(db).open == 0
    assert services.policies.promote("child").run is None, "promoting the champion changes nothing"
    back = services.policies.promote("starter")
    assert back.previous == "child"
    assert matchups.count_matchups(db).open == 3


def test_a_promotion_goes_on_when_the_old_fill_ends_just_then(
    services: Services, db: Database, champion, monkeypatch: pytest.MonkeyPatch
) -> None:
    factories.make_prompt(db)
    old, child = services.pool.fill_pool(), factories.make_policy(db, "child", parent_id=champion.id)
    cancel = pool.queue.cancel

    def late(database: Database, run_id: str) -> RunRow:
        finish_fill(db, matchups=1)  # between the list and the cancelling
        return cancel(database, run_id)

    monkeypatch.setattr(pool.queue, "cancel", late)
    promotion = services.acting_as(Person("ada", UserRole.admin, "usr-ada")).policies.promote("child")
    assert (promotion.previous, promotion.run.config["policy"]) == ("starter", child.id)
    assert runs.get_run(db, old.id).state is RunState.succeeded
    assert [act.subject for act in audit.list_events(db, verb="policy.promote")] == ["child"]


def test_a_promotion_that_cannot_be_followed_by_a_fill_is_still_one(
    services: Services, db: Database, champion, monkeypatch: pytest.MonkeyPatch
) -> None:
    factories.make_policy(db, "child", parent_id=champion.id)

    def refuse(*_: object, **__: object) -> RunRow:
        raise InvalidInput("This run cannot be queued.")

    factories.make_prompt(db)
    monkeypatch.setattr(pool.queue, "submit", refuse)
    promotion = services.acting_as(Person("ada", UserRole.admin, "usr-ada")).policies.promote("child")
    assert (promotion.policy.name, promotion.run, services.policies.champion_name()) == ("child", None, "child")
    assert [act.subject for act in audit.list_events(db, verb="policy.promote")] == ["child"]


def test_what_people_are_to_measure_is_no_fill_of_the_pool(services: Services, db: Database, champion) -> None:
    """Whether it waits, works, failed or found nothing: the pool is filled and refilled as if it were not there."""
    factories.make_prompt(db)
    child = factories.make_policy(db, "child", parent_id=champion.id)
    services.pool.fill_pool()
    finish_fill(db, matchups=5)
    asked = services.policies.evaluate(child.id, champion.id, "people", 20)
    assert services.pool.last_fill().id != asked.id, (
        "its failure would be told to annotators, with the names of the two"
    )
    runs.transition_run(db, asked.id, expected=[RunState.queued], to=RunState.failed, error="no reply from child")
    assert services._shared.filler.refill() is not None, "what failed was no fill"
    finish_fill(db, matchups=5)
    asked = services.policies.evaluate(child.id, champion.id, "people", 20)
    assert services.pool.fill_pool().id != asked.id


def test_an_annotator_is_not_told_which_policy_the_pool_waits_for(services: Services, db: Database, champion) -> None:
    factories.make_prompt(db)
    run = services.pool.fill_pool()
    runs.transition_run(db, run.id, expected=[run.state], to=RunState.failed, error="No reply from http://far/v1")
    asked = LabelIn(session=SESSION, seq=1)
    told = {
        role: str(label_screen.undo(services.acting_as(Person("p", role, "usr-p")), asked))
        for role in (UserRole.annotator, UserRole.reviewer, UserRole.researcher)
    }
    assert [("http://far/v1" in text) for text in told.values()] == [False, False, True]
    assert all("could not be filled" in text for text in told.values())


def test_a_promotion_leaves_alone_what_people_are_to_measure(services: Services, db: Database, champion) -> None:
    factories.make_prompt(db)
    child, third = factories.make_policy(db, "child"), factories.make_policy(db, "third")
    asked = services.policies.evaluate(third.id, champion.id, "people", 20)
    own = services.policies.evaluate(child.id, champion.id, "people", 20)
    promotion = services.policies.promote("child")
    assert promotion.run is not None and promotion.run.id not in (asked.id, own.id), "the pool is empty now"
    assert [runs.get_run(db, run.id).state for run in (asked, own)] == [RunState.queued] * 2


def test_policies_carry_parent_dataset_and_newest_win_rate(services: Services, db: Database, champion) -> None:
    fill(db, champion, 4)
    factories.judge_by(db, factories.longer)
    dataset = services.datasets.freeze(services.datasets.suggest_dataset_name())
    assert dataset.name == "round-1"
    assert services.datasets.suggest_dataset_name() == "round-2"
    checkpoint = checkpoints.save_checkpoint(
        db, Checkpoint(name="c", kind="policy", path="checkpoints/c", base="b", dataset_id=dataset.id)
    )
    child = factories.make_policy(db, "child", parent_id=champion.id, checkpoint_id=checkpoint.id)
    for rate in (0.5, 0.8):
        figures = {"win_rate": rate, "low": rate - 0.1, "high": rate + 0.1, "n_prompts": 150}
        card = Scorecard(kind="win_rate", subject_id=child.id, against_id=champion.id, figures=figures)
        scorecards.save_scorecard(db, card)
    summary = services.policies.get_policy("child")
    assert (summary.parent, summary.dataset, summary.against) == ("starter", "round-1", "starter")
    assert summary.win_rate.figures["win_rate"] == 0.8
    assert [card.figures["win_rate"] for card, _ in services.policies.list_win_rates(child.id)] == [0.8, 0.5]


def test_an_evaluation_names_its_judge(services: Services, db: Database, champion) -> None:
    child = factories.make_policy(db, "child")
    config = services.policies.evaluate(child.id, champion.id, "shorter", 20).config
    assert (config["a"], config["b"], config["oracle"], config["prompts"]) == (child.id, champion.id, "shorter", 20)
    with pytest.raises(InvalidInput, match="itself"):
        services.policies.evaluate(child.id, child.id, "shorter", 20)
    with pytest.raises(InvalidInput, match="who judges"):
        services.policies.evaluate(child.id, champion.id, "", 20)
    with pytest.raises(UnknownSetting):
        services.policies.evaluate(child.id, champion.id, "no-such-rule", 20)
    assert "keyword:WORD" not in services.policies.oracle_rules()


def test_the_log_tail_starts_at_a_line(services: Services, db: Database, champion) -> None:
    factories.make_prompt(db)
    run = services.pool.fill_pool()
    assert services.runs.log_tail(run.id) == ""
    path = services._shared.home.log_path(run.id)
    path.parent.mkdir(parents=True)
    path.write_text("".join(f"line {number} é\n" for number in range(2000)))
    tail = services.runs.log_tail(run.id, max_bytes=101)
    assert tail.endswith("line 1999 é\n")
    assert tail.startswith("line ")
    assert len(tail) <= 101


def test_counts_say_what_a_dataset_would_hold(services: Services, db: Database, champion) -> None:
    fill(db, champion, 6)
    factories.judge_by(db, factories.longer, annotator="local", count=4)
    counts = services.datasets.feedback_counts()
    assert (counts.verdicts["total"], counts.drawn["pairs"], counts.open_matchups) == (4, 4, 2)
    assert counts.sources["human"] == 4
    assert services.labeling.label_counts().done == 4


def test_a_skip_is_told_apart_from_a_judgment(services: Services, db: Database, champion) -> None:
    fill(db, champion, 3)
    for _ in range(2):
        services.labeling.judge(services.labeling.lease_with_guidelines()[0].lease_id, skip_reason="not_said")
    services.labeling.judge(services.labeling.lease_with_guidelines()[0].lease_id, verdict="tie")
    assert services.labeling.lease_with_guidelines()[0] is None
    assert services.labeling.label_counts() == LabelCounts(done=1, left=0, skipped=2, pool=2)


def test_a_server_that_takes_its_time_holds_up_no_other_policy(services: Services, db: Database) -> None:
    asked, go_on = threading.Event(), threading.Event()
    waited: list[bool] = []
    hello = [{"role": "user", "content": "Hello."}]

    def slowly(body: dict, before: int):
        asked.set()
        waited.append(go_on.wait(5))
        return reply_to(body)

    with serving("slow") as slow, serving("quick") as quick:
        slow.behave = slowly
        for server in (slow, quick):
            policies.save_policy(db, Policy(name=server.models[0], base=server.base))
        thread = threading.Thread(target=services.policies.generate, args=("slow", hello, 1))
        thread.start()
        assert asked.wait(5)
        assert len(services.policies.generate("quick", hello, 1)) == 1
        go_on.set()
        thread.join()
    assert waited == [True]


def test_a_request_that_only_got_reasoning_says_what_to_raise(services: Services, db: Database, tmp_path: Path) -> None:
    tokenizer = byte_tokenizer(TEMPLATE.replace("<|assistant|>{% endif %}", "<|assistant|><think>\n{% endif %}"))
    tokenizer.add_tokens(["<think>", "</think>"])
    base = model_at(tmp_path / "thinker", tokenizer=tokenizer, vocab_size=263)
    policies.save_policy(db, Policy(name="thinker", base=str(base)))
    with pytest.raises(InvalidInput, match=r"Raise max_new_tokens, which counts that too \(now 4\)"):
        services.policies.generate("thinker", [{"role": "user", "content": "Why?"}], 2, max_new_tokens=4, seed=1)
