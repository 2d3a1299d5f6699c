"""Gold, repeats, third opinions, adjudication, batches and reviews: what is served to whom, and what is counted."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from pydantic import ValidationError

from feedback.database.engine import Database, open_database
from feedback.datasets import freeze
from feedback.errors import Conflict, InvalidInput, LeaseLost, NotFound
from feedback.labeling import assignment, judging
from feedback.labeling.assignment import Task
from feedback.quality import report as quality
from feedback.store.content import generations
from feedback.store.datasets import datasets as dataset_store
from feedback.store.labeling import batches, leases, matchups, reviews
from feedback.store.models import policies
from feedback.store.transfer import archive
from feedback.tables import MatchupRow
from feedback.types import (
    Act,
    Batch,
    Checks,
    DatasetFilters,
    Generation,
    JudgmentState,
    Matchup,
    MatchupState,
    Part,
    Purpose,
    Source,
    Weighting,
)
from tests.crowd import judge_all, make_crowd
from tests.factories import get_matchup, judge_by, list_judgments, longer, make_matchup, make_policy, make_prompt

NEVER = Checks(gold_share=0, repeat_share=0)
AT = datetime(2026, 1, 5, 9, tzinfo=UTC)


def say(db: Database, name: str, text: str | None = None, **said: str) -> Task:
    """Lease the next matchup to somebody who prefers the reply that reads ``text``, or says what is ``said``."""
    task = assignment.lease_next(db, name, checks=NEVER)
    assert task
    verdict = {"verdict": "left" if task.responses[0] == text else "right"} if text else said
    judging.submit(db, task.lease_id, name, **verdict)  # type: ignore[arg-type]
    return task


def contested(db: Database, required: int, max_required: int) -> MatchupRow:
    row = make_matchup(db, texts=["yes", "no"], required=required)
    batches.save_batch(
        db, Batch(name=f"b-{row.id}", required=required, max_required=max_required), matchup_ids=[row.id]
    )
    return row


def state(db: Database, row: MatchupRow) -> MatchupState:
    return get_matchup(db, row.id).state


def test_a_third_opinion_is_asked_for_only_where_two_disagree(db: Database) -> None:
    agreed = contested(db, 2, 3)
    say(db, "ann", "yes"), say(db, "bob", "yes")
    assert state(db, agreed) is MatchupState.satisfied and assignment.lease_next(db, "cat") is None
    split = contested(db, 2, 3)
    say(db, "ann", "yes"), say(db, "bob", "no")
    assert state(db, split) is MatchupState.open
    say(db, "cat", "no")
    assert state(db, split) is MatchupState.satisfied and get_matchup(db, split.id).required == 3


def test_what_stays_contested_is_settled_blind_by_somebody_who_had_no_say(db: Database) -> None:
    row = contested(db, 2, 2)
    say(db, "ann", "yes"), say(db, "bob", verdict="tie")
    assert state(db, row) is MatchupState.disputed
    assert assignment.lease_next(db, "ann", part=Part.adjudicator) is None
    task = assignment.lease_next(db, "judge", part=Part.adjudicator)
    assert task and set(vars(task)) == {
        "lease_id", "matchup_id", "kind", "messages", "responses", "expires_at", "annotator", "shown_order", "cut",
        "reasoning",
    }  # fmt: skip
    assert assignment.lease_next(db, "other-judge", part=Part.adjudicator) is None
    judging.submit(db, task.lease_id, "judge", verdict="left" if task.responses[0] == "no" else "right")
    assert state(db, row) is MatchupState.adjudicated
    frozen = freeze.freeze(db, "d")
    (pair,) = dataset_store.list_pairs(db, frozen.id)
    assert pair.chosen == "no"  # though one said yes and nobody else said no
    assert matchups.count_matchups(db).adjudicated == 1


def test_nobody_judges_what_they_wrote(db: Database) -> None:
    policy, prompt = make_policy(db), make_prompt(db)
    rows = generations.save_generations(
        db,
        [
            Generation(prompt_id=prompt.id, policy_id=policy.id, text="the model's", seed=0),
            Generation(prompt_id=prompt.id, policy_id=policy.id, text="ann's own", seed=1, author="ann"),
        ],
    )
    matchups.save_matchups(db, [Matchup(prompt_id=prompt.id, generation_ids=[row.id for row in rows])])
    assert assignment.lease_next(db, "ann") is None
    assert assignment.lease_next(db, "bob") is not None


def test_gold_looks_like_any_task_and_is_seen_by_everybody_once(db: Database) -> None:
    gold = matchups.save_gold(db, make_matchup(db, texts=["yes", "no"]).id, {"verdict": "first"})
    for _ in range(3):
        make_matchup(db, required=2)
    eager = Checks(gold_share=0.5, repeat_share=0.0)
    for name in ("ann", "bob"):
        seen = []
        while task := assignment.lease_next(db, name, checks=eager, rng=random.Random(4)):
            seen.append(task.matchup_id)
            judging.submit(db, task.lease_id, name, verdict="left")
        assert seen.count(gold.id) == 1 and len(seen) == 4
    assert matchups.count_matchups(db).open == 0  # gold is no work
    report = quality.report(db)
    assert {line.name: line.gold.n for line in report.annotators} == {"ann": 1, "bob": 1}
    drops = freeze.preview(db).dropped
    assert drops["purpose_gold"] == 2


def test_gold_is_not_served_when_nothing_else_is_left(db: Database) -> None:
    matchups.save_gold(db, make_matchup(db).id, {"verdict": "first"})
    assert assignment.lease_next(db, "ann", checks=Checks(gold_share=0.5)) is None


def test_what_is_counted_as_left_and_on_screens_is_work_alone(db: Database) -> None:
    matchups.save_gold(db, make_matchup(db).id, {"verdict": "first"})
    disputed = contested(db, required=2, max_required=2)
    for name, text in (("ann", "yes"), ("bob", "no")):
        say(db, name, text)
    assert state(db, disputed) is MatchupState.disputed
    work = make_matchup(db)
    assert assignment.lease_next(db, "rev", part=Part.adjudicator)
    golden = assignment.lease_next(db, "cleo", checks=Checks(gold_share=0.5), rng=random.Random(4))
    assert golden and get_matchup(db, golden.matchup_id).purpose is Purpose.gold
    counts = matchups.count_matchups(db)
    assert (counts.open, counts.leased, matchups.count_open(db)) == (1, 0, 1)
    task = assignment.lease_next(db, "dan", checks=NEVER)
    assert task and task.matchup_id == work.id and matchups.count_matchups(db).leased == 1
    judging.submit(db, task.lease_id, "dan", verdict="left")
    assert assignment.lease_next(db, "eve") is None and matchups.count_open(db) == 0


def test_a_repeat_shows_ones_own_pair_with_its_sides_swapped_after_a_delay(db: Database) -> None:
    for _ in range(2):
        make_matchup(db)
    often = Checks(gold_share=0.0, repeat_share=0.5, repeat_after=3600)
    rng = random.Random(1)  # draws a repeat at once
    first = assignment.lease_next(db, "ann", checks=NEVER, at=AT)
    assert first
    judging.submit(db, first.lease_id, "ann", verdict="left", at=AT)
    soon = assignment.lease_next(db, "ann", checks=often, rng=random.Random(1), at=AT + timedelta(minutes=59))
    assert soon and get_matchup(db, soon.matchup_id).purpose is Purpose.collect
    assignment.release(db, soon.lease_id)
    again = assignment.lease_next(db, "ann", checks=often, rng=rng, at=AT + timedelta(minutes=61))
    assert again and again.responses == first.responses[::-1] and again.matchup_id != first.matchup_id
    judging.submit(db, again.lease_id, "ann", verdict="left", at=AT + timedelta(minutes=62))
    (line,) = quality.report(db).annotators
    assert (line.consistency.value, line.consistency.n) == (0.0, 1)
    assert freeze.preview(db).dropped["purpose_repeat"] == 1


def test_a_batch_with_priority_comes_first_and_what_evaluates_does_not_train(db: Database) -> None:
    old, new = make_matchup(db), make_matchup(db)
    batches.save_batch(db, Batch(name="eval", purpose=Purpose.evaluate, priority=9), matchup_ids=[new.id])
    assert say(db, "ann", verdict="left").matchup_id == new.id
    with pytest.raises(Conflict, match="not free"):
        batches.save_batch(db, Batch(name="again"), matchup_ids=[new.id])
    with pytest.raises(Conflict, match="already a batch 'eval'"):
        batches.save_batch(db, Batch(name="eval"), count=1)
    batches.set_priority(db, "eval", -1)
    assert say(db, "bob", verdict="left").matchup_id == old.id
    (summary,) = batches.list_batches(db)
    assert summary.states == {"satisfied": 1} and summary.batch.priority == -1
    assert freeze.preview(db).dropped == {"purpose_evaluate": 1}


def test_a_heartbeat_keeps_a_lease_and_never_shortens_it(db: Database) -> None:
    make_matchup(db)
    task = assignment.lease_next(db, "ann", lease_seconds=60, at=AT)
    assert task
    later = assignment.heartbeat(db, task.lease_id, "ann", lease_seconds=60, at=AT + timedelta(seconds=50))
    assert later == AT + timedelta(seconds=110)
    # The clock is set back: the lease does not end earlier for it.
    assert assignment.heartbeat(db, task.lease_id, "ann", lease_seconds=60, at=AT - timedelta(hours=1)) == later
    with pytest.raises(LeaseLost, match="another annotator"):
        assignment.heartbeat(db, task.lease_id, "bob", at=AT)
    with pytest.raises(LeaseLost, match="expired"):
        assignment.heartbeat(db, task.lease_id, "ann", at=AT + timedelta(hours=1))


def test_undo_finds_the_last_judgment_though_the_clock_was_set_back(db: Database) -> None:
    make_matchup(db), make_matchup(db)
    for at in (AT, AT - timedelta(hours=5)):
        task = assignment.lease_next(db, "ann", session="tab", at=at, checks=NEVER)
        assert task
        judging.submit(db, task.lease_id, "ann", verdict="left", at=at)
    back = judging.undo_last(db, "ann", session="tab")
    assert back and back.matchup_id == task.matchup_id


def test_a_skip_is_not_taken_back_when_others_have_filled_its_place(db: Database) -> None:
    make_matchup(db)
    task = assignment.lease_next(db, "ann", session="tab")
    assert task
    judging.submit(db, task.lease_id, "ann", skip_reason="unclear")
    assert judge_by(db, longer, annotator="bob") == 1
    assert judging.undo_last(db, "ann", session="tab") is None


def test_an_excluded_judgment_is_kept_counts_nowhere_and_can_come_back(db: Database) -> None:
    row = make_matchup(db, texts=["yes", "no"])
    say(db, "ann", "yes")
    (judgment,) = list_judgments(db)
    with pytest.raises(InvalidInput, match="a reason is needed"):
        reviews.exclude_judgment(db, judgment.id, "boss", "  ")
    reviews.exclude_judgment(db, judgment.id, "boss", "a bot", requeue=True)
    assert list_judgments(db)[0].state is JudgmentState.excluded
    assert freeze.preview(db).counts()["judgments"] == 0 and state(db, row) is MatchupState.open
    assert assignment.lease_next(db, "ann") is None  # not asked the same again
    say(db, "bob", "no")
    reviews.restore_judgment(db, judgment.id, "boss", "it was none")
    with pytest.raises(Conflict, match="is current"):
        reviews.restore_judgment(db, judgment.id, "boss", "twice")
    assert len(list_judgments(db)) == 2
    assert [act.act for act in reviews.list_reviews(db)] == [Act.restore, Act.exclude]


def test_a_requeued_matchup_gets_exactly_one_opinion_more(db: Database) -> None:
    row = make_matchup(db)
    say(db, "ann", verdict="left")
    reviews.requeue_matchup(db, row.id, "boss", "looks odd")
    say(db, "bob", verdict="tie")
    assert assignment.lease_next(db, "cat") is None
    with pytest.raises(NotFound):
        reviews.requeue_matchup(db, "mat-nothing", "boss", "x")


def test_a_message_needs_somebody_who_is_there(db: Database) -> None:
    make_matchup(db)
    say(db, "ann", verdict="left")
    reviews.save_message(db, "ann", "boss", "well done")
    assert [row.reason for row in reviews.list_reviews(db, annotator="ann", act=Act.message)] == ["well done"]
    with pytest.raises(NotFound, match="nobody"):
        reviews.save_message(db, "nobody", "boss", "hello")


@pytest.mark.parametrize("fields", [{"gold": None}, {"gold": {"verdict": "left"}}, {"gold": {"ranking": [1, 2]}}])
def test_gold_without_a_usable_answer_is_refused(fields: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Matchup(prompt_id="p", generation_ids=["a", "b"], purpose=Purpose.gold, **fields)  # type: ignore[arg-type]


def test_weights_follow_who_judged_and_an_unweighted_dataset_hashes_as_before(db: Database) -> None:
    policy = make_policy(db)
    for number in range(120):
        texts = [f"good {'x ' * (number % 7)}", f"bad {'x ' * (number % 5)}"]
        make_matchup(db, policy=policy, texts=texts, required=2)
    crowd = [member for member in make_crowd() if member.name in ("good-1", "good-2", "good-3", "random-1")]
    judge_all(db, crowd, lambda _messages, text: float(text.startswith("good")), start=AT)
    plain = freeze.freeze(db, "plain")
    again = freeze.preview(db)
    assert plain.hash == freeze.dataset_hash(DatasetFilters(), again)
    weighted = freeze.freeze(db, "weighted", DatasetFilters(weighting=Weighting.reliability))
    assert weighted.hash != plain.hash
    assert {pair.weight for pair in dataset_store.list_pairs(db, plain.id)} == {1.0}
    pairs = dataset_store.list_pairs(db, weighted.id)
    assert all(0 < pair.weight <= 1 for pair in pairs) and len({pair.weight for pair in pairs}) > 3
    by_random = {row.id for row in list_judgments(db) if row.annotator == "random-1"}
    weak = [pair.weight for pair in pairs if by_random & set(pair.judgment_ids) and len(pair.judgment_ids) == 1]
    sure = [pair.weight for pair in pairs if not by_random & set(pair.judgment_ids) and len(pair.judgment_ids) == 2]
    assert sure and (not weak or max(weak) < min(sure))
    right = [pair.chosen.startswith("good") for pair in pairs]
    assert sum(right) / len(right) > 0.9


def test_rows_of_the_first_schema_are_kept_and_get_their_defaults(tmp_path: Path) -> None:
    from alembic import command
    from alembic.config import Config

    from feedback import migrations
    from feedback.database.engine import create_engine_for

    path = tmp_path / "old.db"
    engine = create_engine_for(f"sqlite:///{path}")
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
    with engine.begin() as connection:
        at = "2026-01-05 09:00:00.000000"
        for statement in (
            f"INSERT INTO prompt (created_at, messages, split, tags, content_hash, id) VALUES ('{at}', "
            """'[{"role": "user", "content": "hi"}]', 'work', '[]', 'h', 'prm-1')""",
            f"INSERT INTO policy (created_at, name, base, note, id) VALUES ('{at}', 'p', 'b', '', 'pol-1')",
            *(
                "INSERT INTO generation (created_at, prompt_id, policy_id, text, seed, sampling, finish_reason, tokens,"
                f" id) VALUES ('{at}', 'prm-1', 'pol-1', '{text}', 0, '{{}}', 'stop', 1, 'gen-{text}')"
                for text in ("a", "b")
            ),
            "INSERT INTO matchup (created_at, prompt_id, generation_ids, kind, state, required, priority, purpose, id) "
            f"""VALUES ('{at}', 'prm-1', '["gen-a", "gen-b"]', 'pair', 'open', 2, 0, 'collect', 'mat-1')""",
            "INSERT INTO lease (created_at, matchup_id, annotator, source, shown_order, state, expires_at, id) "
            f"VALUES ('{at}', 'mat-1', 'ann', 'human', '[1, 0]', 'submitted', '{at}', 'lea-1')",
            "INSERT INTO judgment (created_at, matchup_id, lease_id, annotator, source, verdict, shown_order, "
            f"revision, state, id) VALUES ('{at}', 'mat-1', 'lea-1', 'ann', 'human', 'first', '[1, 0]', 1, 'current', "
            "'jud-1')",
        ):
            connection.exec_driver_sql(statement)
    engine.dispose()
    db = open_database(path)
    (judgment,) = list_judgments(db)
    assert (judgment.id, judgment.part) == ("jud-1", Part.annotator)
    matchup = get_matchup(db, "mat-1")
    assert (matchup.purpose, matchup.max_required, matchup.gold, matchup.batch_id) == (Purpose.collect, 0, None, None)
    task = assignment.lease_next(db, "bob")
    assert task and leases.get_lease(db, task.lease_id).shown_order == [0, 1]  # the other way round than ann's
    judging.submit(db, task.lease_id, "bob", verdict="left")
    assert state(db, matchup) is MatchupState.satisfied
    frozen = freeze.freeze(db, "old")
    assert len(list(archive.iterate_judgments(db, frozen.id))) == 2
    db.dispose()


def test_a_pair_that_became_gold_does_not_come_back_when_its_policy_serves_again(db: Database) -> None:
    ours, other = make_policy(db, "ours"), make_policy(db, "other")
    policies.promote_policy(db, "ours")
    asked, open_still = (make_matchup(db, policy=ours, texts=[f"yes {n}", f"no {n}"]) for n in range(2))
    matchups.save_gold(db, asked.id, {"verdict": "first"})
    policies.promote_policy(db, other.id)
    policies.promote_policy(db, ours.id)
    assert get_matchup(db, asked.id).state is MatchupState.retired
    assert get_matchup(db, open_still.id).state is MatchupState.open


@pytest.mark.parametrize("required", [1, 2])
def test_an_undo_or_a_late_vote_does_not_bring_back_what_became_gold(db: Database, required: int) -> None:
    row = make_matchup(db, required=required)
    task = assignment.lease_next(db, "ann", session="tab")
    assert task
    judging.submit(db, task.lease_id, "ann", verdict="left")
    gold = matchups.save_gold(db, row.id, {"verdict": "first"})
    before = state(db, row)
    again = judging.undo_last(db, "ann", session="tab")
    assert again and again.matchup_id == row.id
    assert (before, state(db, row)) == (
        MatchupState.satisfied if required == 1 else MatchupState.retired,
        MatchupState.retired,
    )
    judging.submit(db, again.lease_id, "ann", verdict="right")
    assert state(db, row) is before and state(db, gold) is MatchupState.open
    assert assignment.lease_next(db, "bob") is None and matchups.count_open(db) == 0


def test_a_vote_on_what_was_retired_meanwhile_leaves_it_so(db: Database) -> None:
    row = make_matchup(db, required=2)
    task = assignment.lease_next(db, "ann")
    assert task
    matchups.save_gold(db, row.id, {"verdict": "first"})
    judging.submit(db, task.lease_id, "ann", verdict="left")
    assert state(db, row) is MatchupState.retired and matchups.count_matchups(db).open == 0


def test_an_adjudicator_who_takes_a_skip_back_leaves_the_dispute_one(db: Database) -> None:
    row = contested(db, required=2, max_required=2)
    for name, text in (("ann", "yes"), ("bob", "no")):
        say(db, name, text)
    task = assignment.lease_next(db, "rev", session="tab", part=Part.adjudicator)
    assert task
    judging.submit(db, task.lease_id, "rev", skip_reason="later")
    again = judging.undo_last(db, "rev", session="tab")
    assert again and again.matchup_id == row.id and state(db, row) is MatchupState.disputed
    assignment.release(db, again.lease_id)
    assert assignment.lease_next(db, "zoe", part=Part.adjudicator)  # somebody else can still settle it


def test_an_oracle_has_no_pace_and_is_not_called_too_fast(db: Database) -> None:
    for _ in range(30):
        make_matchup(db, required=2)
    judge_by(db, longer, annotator="oracle:longer", count=30, source=Source.simulated)
    judge_by(db, longer, annotator="ann", count=30)  # a person, and as fast
    lines = {line.name: line for line in quality.report(db).annotators}
    oracle, person = lines["oracle:longer"], lines["ann"]
    assert person.hasty.value == 1.0 and "too fast to have read" in person.flags
    assert "too fast to have read" not in oracle.flags
    assert oracle.hasty.value is None and oracle.seconds.value is None and "no pace" in oracle.hasty.note


def test_a_restored_judgment_settles_what_was_asked_anew(db: Database) -> None:
    row = contested(db, 1, 0)
    say(db, "ann", "yes")
    (judgment,) = list_judgments(db)
    reviews.exclude_judgment(db, judgment.id, "boss", "a bot", requeue=True)
    assert state(db, row) is MatchupState.open
    reviews.restore_judgment(db, judgment.id, "boss", "it was none")
    assert state(db, row) is MatchupState.satisfied, "nobody can be given it, so it must not wait in the pool"
    reviews.exclude_judgment(db, judgment.id, "boss", "a bot after all", requeue=True)
    say(db, "bob", "no")
    reviews.restore_judgment(db, judgment.id, "boss", "it was none")
    assert state(db, row) is MatchupState.disputed, "two opinions, and they differ"


def test_without_its_adjudication_a_matchup_is_disputed_again(db: Database) -> None:
    row = contested(db, 2, 2)
    say(db, "ann", "yes"), say(db, "bob", "no")
    task = assignment.lease_next(db, "judge", part=Part.adjudicator)
    assert task
    ruling = judging.submit(db, task.lease_id, "judge", verdict="left").judgment_id
    reviews.exclude_judgment(db, ruling, "boss", "wrong key", requeue=True)
    assert state(db, row) is MatchupState.disputed
    assert assignment.lease_next(db, "judge", part=Part.adjudicator) is None
    reviews.restore_judgment(db, ruling, "boss", "right key")
    assert state(db, row) is MatchupState.adjudicated
    reviews.exclude_judgment(db, ruling, "boss", "wrong key")
    assert assignment.lease_next(db, "other-judge", part=Part.adjudicator)
