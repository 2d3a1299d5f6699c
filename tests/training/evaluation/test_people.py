"""People as the judge of two policies: what they are shown, who may answer, and what the gate makes of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from feedback.database.engine import Database
from feedback.datasets import freeze
from feedback.errors import InvalidInput, UnknownSetting
from feedback.labeling import assignment, judging
from feedback.store.content.generations import list_generations
from feedback.store.labeling.batches import save_batch
from feedback.store.labeling.matchups import count_matchups, list_prompts_without_open_matchup
from feedback.store.labeling.reviews import exclude_judgment
from feedback.store.models.policies import get_policy, promote_policy, save_policy
from feedback.store.models.runs import save_run, transition_run
from feedback.store.reports.comparisons import count_met, withdraw_comparisons
from feedback.store.reports.evidence import list_evidence
from feedback.tables import MatchupRow, PolicyRow, PromptRow
from feedback.types import Batch, Part, Policy, Purpose, Run, RunState, ShownVerdict, Source, Split
from tests.factories import make_matchup, make_prompt
from tests.training.served import reply_to, serving
from training.checkpoints.registration import add_policy
from training.evaluation.gate import Answer, GateVerdict
from training.evaluation.gate_evidence import decide_policy
from training.evaluation.people import asked_of_people, by_people
from training.home import Home
from training.methods import METHODS
from training.methods.generate import FIRST_CHUNK
from training.rewards.oracle_annotator import annotate
from training.runs.queue import submit

QUICK = {"max_new_tokens": 8, "seed": 3}


@pytest.fixture
def rival(db: Database, tiny_base: Path) -> PolicyRow:
    """A second policy, which does not serve; its base is the champion's, so they reply alike."""
    return save_policy(db, Policy(name="rival", base=str(tiny_base)))


def ask(make_context: Any, prompts: int, **config: Any) -> dict[str, Any]:
    context = make_context("generate", {**asked_of_people("rival", "tiny", prompts), **QUICK, **config})
    for number in range(prompts):
        make_prompt(context.db, f"Measure {number}.", split=Split.evaluation)
    return METHODS["generate"].run(context)  # type: ignore[no-any-return]


def answer(db: Database, prefers: str, count: int, annotator: str = "ann", tie: ShownVerdict | None = None) -> int:
    """Judge by whose reply it is, which only a test can know; returns how often that was on the left."""
    left = 0
    for _ in range(count):
        task = assignment.lease_next(db, annotator)
        assert task is not None
        makers = {row.text: row.policy_id for row in list_generations(db, prompt_id=_prompt_of(db, task))}
        on_the_left = makers[task.responses[0]] == get_policy(db, prefers).id
        left += on_the_left
        verdict = tie or (ShownVerdict.left if on_the_left else ShownVerdict.right)
        judging.submit(db, task.lease_id, annotator, verdict=verdict)
    return left


def _prompt_of(db: Database, task: Any) -> str:
    from feedback.store.content.prompts import list_prompts

    rows = [*list_prompts(db, split=Split.evaluation), *list_prompts(db)]
    return next(row.id for row in rows if row.messages == list(task.messages))


def test_each_pair_holds_a_reply_of_both_in_either_order(make_context: Any, db: Database, rival: PolicyRow) -> None:
    result = ask(make_context, 24)
    assert (result["generations"], result["matchups"]) == (48, 24)
    left = answer(db, "rival", 24)
    assert 0 < left < 24
    figures = by_people(db, rival.id, get_policy(db, "tiny").id)
    assert figures is not None and (figures["win_rate"], figures["n_prompts"], figures["waiting"]) == (1.0, 24, 0)
    mirrored = by_people(db, get_policy(db, "tiny").id, rival.id)
    assert mirrored is not None and mirrored["win_rate"] == 0.0
    assert mirrored["high"] == pytest.approx(1 - figures["low"])


def test_they_come_before_the_pool_and_never_reach_a_dataset(make_context: Any, db: Database, rival: PolicyRow) -> None:
    make_matchup(db, policy=get_policy(db, "tiny"))
    ask(make_context, 3)
    answer(db, "rival", 1)  # and not the one that was there before
    promote_policy(db, "rival")  # which retires what the one before left in the pool, but not what somebody asked for
    answer(db, "rival", 2)
    assert count_matchups(db, purposes=[Purpose.evaluate]).satisfied == 3
    frozen = freeze.freeze(db, "d")
    assert frozen.counts["pairs"] == 0 and frozen.dropped == {"purpose_evaluate": 3}


def test_a_rule_is_not_given_what_people_are_asked(
    make_context: Any, db: Database, home: Home, rival: PolicyRow
) -> None:
    ask(make_context, 3)
    make_matchup(db, policy=get_policy(db, "tiny"))
    assert annotate(db, home, "longer", 10).judged == 1
    assert assignment.lease_next(db, "oracle:x", source=Source.simulated) is None
    assert count_matchups(db).open == 3 and count_matchups(db, purposes=[Purpose.collect]).open == 0
    answer(db, "rival", 3)


def test_what_a_rule_said_of_such_a_pair_is_not_counted(
    make_context: Any, db: Database, home: Home, rival: PolicyRow
) -> None:
    context = make_context("generate", {"policy": "rival", "against": "tiny", "limit": 4} | QUICK)
    prompts = [make_prompt(db, f"Measure {number}.") for number in range(4)]
    METHODS["generate"].run(context)
    assert annotate(db, home, "longer", 10).judged == 4
    with db.write() as session:  # pairs that a rule judged before they were made a measurement
        session.execute(update(MatchupRow).values(purpose=Purpose.evaluate))
        session.execute(update(PromptRow).values(split=Split.evaluation))
    assert len(prompts) == 4 and by_people(db, rival.id, get_policy(db, "tiny").id) is None


def test_ties_and_both_bad_count_half_and_prompts_are_the_units(
    make_context: Any, db: Database, rival: PolicyRow
) -> None:
    ask(make_context, 8, required=2)
    answer(db, "rival", 8, "ann")
    answer(db, "rival", 4, "ben", tie=ShownVerdict.tie)
    answer(db, "rival", 3, "ben", tie=ShownVerdict.both_bad)
    figures = by_people(db, rival.id, get_policy(db, "tiny").id)
    assert figures is not None
    counted = {name: figures[name] for name in ("judgments", "annotators", "n_prompts", "waiting")}
    assert counted == {"judgments": 15, "annotators": 2, "n_prompts": 8, "waiting": 1}
    assert (figures["ties"], figures["both_bad"]) == (pytest.approx(4 / 15), pytest.approx(3 / 15))
    assert figures["win_rate"] == pytest.approx((8 + 7 / 2) / 15)
    skipped = assignment.lease_next(db, "ben")
    assert skipped is not None
    judging.submit(db, skipped.lease_id, "ben", skip_reason="both cut off")
    again = by_people(db, rival.id, get_policy(db, "tiny").id)
    assert again is not None and again["judgments"] == 15


def test_what_people_say_decides_and_what_rules_say_is_a_note(
    make_context: Any, db: Database, rival: PolicyRow
) -> None:
    assert by_people(db, rival.id, get_policy(db, "tiny").id) is None
    assert "never measured" in decide_policy(db, "rival").reasons[0].words
    ask(make_context, 30)
    waiting = decide_policy(db, "rival")
    assert waiting.verdict is GateVerdict.hold and waiting.reasons[0].answer is Answer.unclear
    assert waiting.reasons[0].words == (
        "People were asked to compare it with tiny and have not begun. 30 pairs wait for somebody."
    )
    answer(db, "rival", 20)
    decided = decide_policy(db, "rival")
    assert decided.verdict is GateVerdict.promote
    assert "on 20 held-out prompts, judged by people. 10 more pairs wait" in decided.reasons[0].words
    assert "By chance such a lead is ever seen once in" in decided.reasons[0].words
    assert decide_policy(db, "tiny", "rival").verdict is GateVerdict.reject


def test_on_work_prompts_such_pairs_teach(make_context: Any, db: Database, rival: PolicyRow) -> None:
    context = make_context("generate", {"policy": "rival", "against": "tiny", "per_prompt": 4, "limit": 5} | QUICK)
    for number in range(5):
        make_prompt(db, f"Say {number}.")
    result = METHODS["generate"].run(context)
    assert (result["generations"], result["matchups"]) == (20, 10)
    answer(db, "rival", 10)
    frozen = freeze.freeze(db, "d")
    assert frozen.counts["pairs"] == 10
    assert by_people(db, rival.id, get_policy(db, "tiny").id) is None


def test_an_interrupted_draw_is_taken_up_with_pairs_across(make_context: Any, db: Database, rival: PolicyRow) -> None:
    config = {**asked_of_people("rival", "tiny", 9, seed=3), "max_new_tokens": 8}
    context = make_context("generate", config)
    for number in range(9):
        make_prompt(db, f"Measure {number}.", split=Split.evaluation)

    def check() -> None:
        if count_matchups(db).open:
            raise InterruptedError

    context.progress.check = check
    with pytest.raises(InterruptedError):
        METHODS["generate"].run(context)
    assert count_matchups(db).open == FIRST_CHUNK
    again = METHODS["generate"].run(make_context("generate", config, attempt=2, run=context.run))
    assert (again["matchups"], count_matchups(db).open) == (9, 9)
    answer(db, "rival", 9)


def test_a_policy_behind_a_server_meets_one_that_is_here(
    make_context: Any, db: Database, tiny_policy: PolicyRow
) -> None:
    with serving("far") as server:
        add_policy(db, server.base)
        server.behave = lambda body, before: reply_to(body, f"far reply {before}")
        for number in range(6):
            make_prompt(db, f"Measure {number}.", split=Split.evaluation)
        config = asked_of_people("far", "tiny", 6) | QUICK
        assert METHODS["generate"].run(make_context("generate", config))["matchups"] == 6
    task = assignment.lease_next(db, "ann")
    assert task is not None and sum(reply.startswith("far reply") for reply in task.responses) == 1


def test_what_cannot_be_compared_is_refused_when_it_is_asked(
    db: Database, rival: PolicyRow, tiny_policy: PolicyRow
) -> None:
    with pytest.raises(InvalidInput, match="'tiny' cannot be compared with itself"):
        submit(db, "generate", {"against": "tiny"})
    with pytest.raises(UnknownSetting, match="per_prompt even, not 3"):
        submit(db, "generate", {"against": "rival", "per_prompt": 3})
    with pytest.raises(UnknownSetting, match="kind must be pair, not rank"):
        submit(db, "generate", {"against": "rival", "kind": "rank"})
    assert submit(db, "generate", {"against": "rival"}).config["policy"] == "tiny"
    assert list_prompts_without_open_matchup(db, limit=9) == []


def test_a_policy_that_is_still_being_trained_may_be_put_before_people(db: Database, rival: PolicyRow) -> None:
    before = save_run(db, Run(method="dpo", config={"name": "to-come"}))
    run = submit(db, "generate", asked_of_people("to-come", "rival", 9), after=before.id)
    assert (run.config["policy"], run.config["against"], run.after) == ("to-come", "rival", before.id)
    assert submit(db, "generate", asked_of_people("rival", "to-come", 9), after=before.id).after == before.id
    with pytest.raises(InvalidInput, match="'to-come' cannot be compared with itself"):
        submit(db, "generate", asked_of_people("to-come", "to-come", 9), after=before.id)


def test_where_an_adjudicator_settled_a_pair_that_answer_stands_alone(
    make_context: Any, db: Database, rival: PolicyRow
) -> None:
    ask(make_context, 1, required=2)
    answer(db, "rival", 1, "ann")
    answer(db, "tiny", 1, "ben")
    tiny = get_policy(db, "tiny").id
    disputed = by_people(db, rival.id, tiny)
    assert disputed is not None and (disputed["judgments"], disputed["win_rate"]) == (2, 0.5)
    task = assignment.lease_next(db, "eve", part=Part.adjudicator)
    assert task is not None
    makers = {row.text: row.policy_id for row in list_generations(db)}
    ruling = ShownVerdict.left if makers[task.responses[0]] == rival.id else ShownVerdict.right
    said = judging.submit(db, task.lease_id, "eve", verdict=ruling)
    settled = by_people(db, rival.id, tiny)
    assert settled is not None and (settled["judgments"], settled["win_rate"], settled["annotators"]) == (1, 1.0, 1)
    exclude_judgment(db, said.judgment_id, "rev", "not impartial")
    again = by_people(db, rival.id, tiny)
    assert again is not None and (again["judgments"], again["win_rate"]) == (2, 0.5)


def test_a_judgment_that_is_taken_back_or_excluded_counts_no_more(
    make_context: Any, db: Database, rival: PolicyRow
) -> None:
    ask(make_context, 2)
    answer(db, "rival", 2)
    tiny = get_policy(db, "tiny").id
    exclude_judgment(db, next(iter(list_evidence(db, annotator="ann"))).judgment.id, "rev", "clicked through")
    figures = by_people(db, rival.id, tiny)
    assert figures is not None and (figures["judgments"], figures["waiting"]) == (1, 0)


def test_pairs_of_work_prompts_say_nothing_of_held_out_ones(make_context: Any, db: Database, rival: PolicyRow) -> None:
    """A batch may have them only measure, but either policy may have been trained on these prompts."""
    context = make_context("generate", {"policy": "rival", "against": "tiny", "limit": 3} | QUICK)
    for number in range(3):
        make_prompt(db, f"Say {number}.")
    METHODS["generate"].run(context)
    save_batch(db, Batch(name="measure", purpose=Purpose.evaluate), count=3)
    answer(db, "rival", 3)
    assert by_people(db, rival.id, get_policy(db, "tiny").id) is None


def test_the_progress_of_a_draw_names_no_policy(make_context: Any, db: Database, rival: PolicyRow) -> None:
    """Annotators whose pool is empty read it."""
    context = make_context("generate", {**asked_of_people("rival", "tiny", 6), **QUICK})
    for number in range(6):
        make_prompt(db, f"Measure {number}.", split=Split.evaluation)
    told: list[str] = []
    context.progress.report = lambda fraction, text: told.append(text)
    METHODS["generate"].run(context)
    assert len(told) > 1 and not [text for text in told if "rival" in text or "tiny" in text]


def test_a_lead_that_a_look_too_many_would_believe_waits_for_the_rest(
    make_context: Any, db: Database, rival: PolicyRow
) -> None:
    ask(make_context, 12)
    answer(db, "rival", 7)
    figures = by_people(db, rival.id, get_policy(db, "tiny").id)
    assert figures is not None and figures["low"] > 0.5 and figures["evidence"] < 20
    early = decide_policy(db, "rival")
    assert early.verdict is GateVerdict.hold and early.reasons[0].words.endswith(
        "5 more pairs wait for somebody. It is decided when they are judged, or sooner if one leads clearly."
    )
    answer(db, "rival", 5)
    assert decide_policy(db, "rival").verdict is GateVerdict.promote


def test_the_same_reply_of_both_is_a_tie_nobody_is_asked_about(
    make_context: Any, db: Database, rival: PolicyRow
) -> None:
    config = {**asked_of_people("rival", "tiny", 6), "max_new_tokens": 4, "temperature": 0.0}
    run = submit(db, "generate", config)
    for number in range(6):
        make_prompt(db, f"Measure {number}.", split=Split.evaluation)
    result = METHODS["generate"].run(make_context("generate", config, run=run))
    assert (result["matchups"], result["identical"]) == (0, 6)
    transition_run(db, run.id, expected=[RunState.queued], to=RunState.succeeded, result=result)
    assert by_people(db, rival.id, get_policy(db, "tiny").id) is None  # nobody was asked anything
    ask(make_context, 2)
    answer(db, "rival", 2)
    figures = by_people(db, rival.id, get_policy(db, "tiny").id)
    assert figures is not None and (figures["alike"], figures["n_prompts"]) == (6, 8)
    assert figures["win_rate"] == pytest.approx((2 + 3) / 8)


def test_two_measurements_do_not_stand_in_each_others_way(
    make_context: Any, db: Database, rival: PolicyRow, tiny_base: Path
) -> None:
    ask(make_context, 6)
    save_policy(db, Policy(name="third", base=str(tiny_base)))
    other = METHODS["generate"].run(make_context("generate", asked_of_people("third", "tiny", 4) | QUICK))
    assert other["matchups"] == 4
    again = METHODS["generate"].run(
        make_context("generate", asked_of_people("rival", "tiny", 3) | {"max_new_tokens": 8})
    )
    assert again["matchups"] == 3
    tiny = get_policy(db, "tiny").id
    assert sorted(count_met(db, rival.id, tiny).values()) == [1, 1, 1, 2, 2, 2]
    assert sorted(count_met(db, get_policy(db, "third").id, tiny).values()) == [1, 1, 1, 1]


def test_what_was_asked_is_withdrawn_and_what_was_said_stays(make_context: Any, db: Database, rival: PolicyRow) -> None:
    ask(make_context, 5)
    answer(db, "rival", 1)
    assert assignment.lease_next(db, "ben") is not None  # on somebody's screen
    tiny = get_policy(db, "tiny").id
    assert withdraw_comparisons(db, rival.id, tiny) == 3
    figures = by_people(db, rival.id, tiny)
    assert figures is not None and (figures["judgments"], figures["waiting"]) == (1, 1)
    assert withdraw_comparisons(db, rival.id, tiny) == 0


def test_once_all_is_withdrawn_nobody_was_asked(make_context: Any, db: Database, rival: PolicyRow) -> None:
    ask(make_context, 3)
    assert withdraw_comparisons(db, rival.id, get_policy(db, "tiny").id) == 3
    assert by_people(db, rival.id, get_policy(db, "tiny").id) is None
    assert "never measured" in decide_policy(db, "rival").reasons[0].words
