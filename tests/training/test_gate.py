"""The gate: every sentence that lets a policy serve, keeps it waiting or turns it away."""

from __future__ import annotations

import json
from typing import Any

import pytest

from training.gate import Answer, Limits, TaskResult, Verdict, decide, in_words
from training.paired import paired


def card(**changed: Any) -> dict[str, Any]:
    """The figures of a good policy."""
    good = {"win_rate": 0.7, "low": 0.62, "high": 0.77, "n_prompts": 150, "samples": 2, "kl": 3.0}
    looks = {"ended": 1.0, "distinct": 0.9, "length": 30.0}
    both = {f"{name}_{when}": value for name, value in looks.items() for when in ("before", "after")}
    return {**good, **both, **changed}


def task(won: int, lost: int, same: int = 2000, higher_is_better: bool = True) -> TaskResult:
    a, b = [1.0] * won + [0.0] * lost + [1.0] * same, [0.0] * won + [1.0] * lost + [1.0] * same
    return TaskResult("sums", paired(a, b), higher_is_better)


def the(decision: Any, question: str) -> tuple[Answer, str]:
    (found,) = [reason for reason in decision.reasons if reason.question.startswith(question)]
    return found.answer, found.words


def test_a_policy_that_is_surely_preferred_and_loses_nothing_may_serve() -> None:
    decision = decide(card(), against="starter", tasks=[task(20, 10)])
    assert decision.verdict is Verdict.promote
    assert the(decision, "preferred")[1] == (
        "It wins 70.0 % [62.0 %, 77.0 %] of comparisons with starter on 150 held-out prompts."
    )
    words = "sums gained 0.5 points (0.990 to 0.995, 2,030 items); with 95 % it lost less than 1.0 points."
    assert the(decision, "benchmark sums")[1] == words


def test_without_a_benchmark_it_may_serve_and_the_gap_is_told() -> None:
    decision = decide(card())
    assert decision.verdict is Verdict.promote and the(decision, "benchmarks")[0] is Answer.note


def test_a_win_rate_that_tells_nothing_holds_and_says_how_many_prompts_would_tell() -> None:
    decision = decide(card(win_rate=0.55, low=0.47, high=0.63))
    answer, words = the(decision, "preferred")
    assert decision.verdict is Verdict.hold and answer is Answer.unclear
    # Half the interval is 8 points, so 11.4 are found with 80 %; 5 points need (11.4 / 5)² as many prompts.
    assert "a win rate from 61.4 % on" in words and "about 790 would show this one" in words
    assert "hardly show otherwise" in the(decide(card(win_rate=0.5, low=0.42, high=0.58)), "preferred")[1]
    assert decide(None).verdict is Verdict.hold and "studio evaluate" in the(decide(None), "preferred")[1]


@pytest.mark.parametrize(
    ("changed", "question", "words"),
    [
        ({"win_rate": 0.4, "low": 0.33, "high": 0.47}, "preferred", "It wins only 40.0 %"),
        ({"ended_after": 0.8}, "replies end", "80.0 % of its 300 replies end by themselves; 100.0 % did."),
        ({"distinct_after": 0.3}, "replies differ", "30.0 % of its replies are said once; 90.0 % were."),
    ],
)
def test_each_failure_rejects_in_its_own_words(changed: dict[str, float], question: str, words: str) -> None:
    decision = decide(card(**changed))
    answer, said = the(decision, question)
    assert decision.verdict is Verdict.reject and answer is Answer.failed and words in said


def test_one_reply_of_few_that_was_cut_is_no_proof() -> None:
    few = decide(card(n_prompts=4, ended_after=0.875))
    assert few.verdict is Verdict.hold and the(few, "replies end")[0] is Answer.unclear


def test_the_budget_of_divergence_counts_where_there_is_one() -> None:
    assert decide(card(kl=12.0)).verdict is Verdict.promote
    assert decide(card(kl=12.0), limits=Limits(kl=10.0)).verdict is Verdict.reject
    assert decide(card(kl=None), limits=Limits(kl=10.0)).verdict is Verdict.promote


def test_a_benchmark_that_fell_rejects_and_one_too_small_to_tell_holds() -> None:
    assert decide(card(), tasks=[task(0, 120)]).verdict is Verdict.reject
    small = decide(card(), tasks=[task(1, 3, same=46)])
    assert small.verdict is Verdict.hold
    assert "cannot tell whether it lost 1.0 points. About 9,000 items" in the(small, "benchmark sums")[1]
    assert "allow a margin" in the(decide(card(), tasks=[task(9, 9)], limits=Limits(margin=0.0)), "benchmark sums")[1]
    assert decide(card(), tasks=[task(1, 3, same=46)], limits=Limits(margin=0.5)).verdict is Verdict.promote
    bleu = TaskResult("bleu", paired([31.5, 30.0, 29.0], [31.0, 30.5, 30.0]))
    assert the(decide(card(), tasks=[bleu]), "benchmark bleu")[1].startswith("bleu lost 0.333 (30.500 to 30.167, 3")
    # Where lower is better, a higher score is the loss.
    assert decide(card(), tasks=[task(120, 0, higher_is_better=False)]).verdict is Verdict.reject
    assert decide(card(), tasks=[task(0, 120, higher_is_better=False)]).verdict is Verdict.promote


def test_the_judge_that_taught_it_cannot_let_it_serve() -> None:
    decision = decide(card(), judge_taught_it=True)
    assert decision.verdict is Verdict.hold and "another judge" in the(decision, "an independent judge")[1]


def test_replies_that_grew_are_told_and_decide_nothing() -> None:
    decision = decide(card(length_after=60.0))
    assert decision.verdict is Verdict.promote and "from 30 to 60 words" in the(decision, "length")[1]
    assert not [reason for reason in decide(card(length_after=40.0)).reasons if reason.question == "length"]


def test_a_decision_is_kept_as_json_and_read_as_lines() -> None:
    kept = json.loads(json.dumps(decide(card(), judge_taught_it=True).as_json()))
    assert kept["verdict"] == "HOLD" and kept["limits"]["margin"] == 0.01
    lines = in_words(kept)
    assert (
        lines[0] == "HOLD"
        and lines[1].startswith("  passed: It wins 70.0 %")
        and len(lines) == 1 + len(kept["reasons"])
    )
