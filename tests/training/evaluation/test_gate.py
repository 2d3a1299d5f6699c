"""The gate: every sentence that lets a policy serve, keeps it waiting or turns it away."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from training.evaluation.gate import Answer, GateLimits, GateVerdict, TaskResult, decide, in_words
from training.evaluation.paired_tests import paired


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
    assert decision.verdict is GateVerdict.promote
    assert the(decision, "preferred")[1] == (
        "It wins 70.0 % [62.0 %, 77.0 %] of comparisons with starter on 150 held-out prompts."
    )
    words = "sums gained 0.5 points (0.990 to 0.995, 2,030 items); with 95 % it lost less than 1.0 points."
    assert the(decision, "benchmark sums")[1] == words


def test_without_a_benchmark_it_may_serve_and_the_gap_is_told() -> None:
    decision = decide(card())
    assert decision.verdict is GateVerdict.promote and the(decision, "benchmarks")[0] is Answer.note


def test_a_win_rate_that_tells_nothing_holds_and_says_how_many_prompts_would_tell() -> None:
    decision = decide(card(win_rate=0.55, low=0.47, high=0.63))
    answer, words = the(decision, "preferred")
    assert decision.verdict is GateVerdict.hold and answer is Answer.unclear
    # Half the interval is 8 points, so 11.4 are found with 80 %; 5 points need (11.4 / 5)² as many prompts.
    assert "a win rate from 61.4 % on" in words and "about 790 would show this one" in words
    assert "hardly show otherwise" in the(decide(card(win_rate=0.5, low=0.42, high=0.58)), "preferred")[1]
    assert decide(None).verdict is GateVerdict.hold and "studio evaluate" in the(decide(None), "preferred")[1]


@pytest.mark.parametrize(
    ("changed", "question", "words"),
    [
        ({"win_rate": 0.4, "low": 0.33, "high": 0.47}, "preferred", "It wins only 40.0 %"),
        ({"ended_after": 0.8}, "replies end", "80.0 % of its replies end by themselves; 100.0 % did."),
        ({"distinct_after": 0.3}, "replies differ", "30.0 % of its replies are different ones; 90.0 % were."),
    ],
)
def test_each_failure_rejects_in_its_own_words(changed: dict[str, float], question: str, words: str) -> None:
    decision = decide(card(**changed))
    answer, said = the(decision, question)
    assert decision.verdict is GateVerdict.reject and answer is Answer.failed and words in said


def test_one_reply_of_few_that_was_cut_is_no_proof() -> None:
    few = decide(card(n_prompts=4, ended_after=0.875))
    assert few.verdict is GateVerdict.hold and the(few, "replies end")[0] is Answer.unclear


def test_the_budget_of_divergence_counts_where_there_is_one() -> None:
    assert decide(card(kl=12.0)).verdict is GateVerdict.promote
    assert decide(card(kl=12.0), limits=GateLimits(kl=10.0)).verdict is GateVerdict.reject
    unknown = decide(card(kl=None), against="old", limits=GateLimits(kl=10.0))
    assert unknown.verdict is GateVerdict.hold and "could not be measured" in the(unknown, "close to old")[1]


def test_a_benchmark_that_fell_rejects_and_one_too_small_to_tell_holds() -> None:
    assert decide(card(), tasks=[task(0, 120)]).verdict is GateVerdict.reject
    small = decide(card(), tasks=[task(1, 3, same=46)])
    assert small.verdict is GateVerdict.hold
    assert "cannot tell whether it lost 1.0 points. About 780 items would tell." in the(small, "benchmark sums")[1]
    even = decide(card(), tasks=[task(9, 9)], limits=GateLimits(margin=0.0))
    assert "It looks to be just there; more items would hardly tell." in the(even, "benchmark sums")[1]
    # What is needed is more than there was, however far the estimate lies from the margin.
    assert "About 2,600 items would tell." in the(decide(card(), tasks=[task(20, 20, same=960)]), "benchmark sums")[1]
    assert decide(card(), tasks=[task(1, 3, same=46)], limits=GateLimits(margin=0.5)).verdict is GateVerdict.promote
    bleu = TaskResult("bleu", paired([31.5, 30.0, 29.0], [31.0, 30.5, 30.0]))
    assert the(decide(card(), tasks=[bleu]), "benchmark bleu")[1].startswith("bleu lost 0.333 (30.500 to 30.167, 3")
    # Where lower is better, a higher score is the loss.
    assert decide(card(), tasks=[task(120, 0, higher_is_better=False)]).verdict is GateVerdict.reject
    assert decide(card(), tasks=[task(0, 120, higher_is_better=False)]).verdict is GateVerdict.promote


def test_a_task_says_how_much_of_it_may_be_lost_unless_one_is_named() -> None:
    unclear = TaskResult("sums", task(1, 3, same=46).compared, margin=0.5)
    assert decide(card(), tasks=[unclear]).verdict is GateVerdict.promote
    assert decide(card(), tasks=[unclear], limits=GateLimits(margin=0.01)).verdict is GateVerdict.hold


def test_one_of_many_tasks_does_not_fail_by_chance() -> None:
    """Of 57 tasks on which nothing changed one alone would fail at the level of a single test more often than not."""
    rng = np.random.default_rng(2)
    rejected = 0
    for _ in range(60):
        drawn = [rng.multinomial(200, [0.05, 0.05, 0.9]) for _ in range(57)]
        results = [task(int(won), int(lost), same=int(same)) for won, lost, same in drawn]
        rejected += decide(card(), tasks=results).verdict is GateVerdict.reject
    assert rejected <= 6


def test_results_that_cannot_be_compared_hold() -> None:
    decision = decide(card(), unlike=["Both took sums, but were asked otherwise."])
    assert decision.verdict is GateVerdict.hold
    assert [reason.words for reason in decision.reasons if reason.question == "benchmarks"] == [
        "Both took sums, but were asked otherwise."
    ]


def test_judges_that_disagree_hold_and_the_judge_is_named() -> None:
    other = card(win_rate=0.3, low=0.25, high=0.36)
    decision = decide(card(), judge="longer", other_judges={"warm": other})
    assert decision.verdict is GateVerdict.hold
    assert the(decision, "preferred")[1].endswith("on 150 held-out prompts, judged by longer.")
    assert "judged by warm it wins only 30.0 %" in the(decision, "judges agree")[1]
    assert decide(card(), judge="longer", other_judges={"warm": card()}).verdict is GateVerdict.promote


@pytest.mark.parametrize("broken", [{"win_rate": float("nan")}, {"low": None}, {"n_prompts": None}])
def test_figures_that_are_none_hold(broken: dict[str, Any]) -> None:
    decision = decide(card(**broken))
    assert decision.verdict is GateVerdict.hold and "never measured" in the(decision, "preferred")[1]


def test_a_share_that_stands_on_its_limit_is_kept() -> None:
    assert decide(card(ended_before=0.8, ended_after=0.7)).verdict is GateVerdict.promote


def test_so_few_prompts_need_more_than_they_are() -> None:
    few = decide(card(win_rate=1.0, low=0.476, high=1.0, n_prompts=6))
    assert "about 7 would show this one" in the(few, "preferred")[1]
    assert "a win rate up to " in the(decide(card(win_rate=0.45, low=0.37, high=0.53)), "preferred")[1]


def test_the_judge_that_taught_it_cannot_let_it_serve() -> None:
    decision = decide(card(), judge_taught_it=True)
    assert decision.verdict is GateVerdict.hold and "another judge" in the(decision, "an independent judge")[1]


def test_replies_that_grew_are_told_and_decide_nothing() -> None:
    decision = decide(card(length_after=60.0))
    assert decision.verdict is GateVerdict.promote and "from 30 to 60 words" in the(decision, "length")[1]
    assert not [reason for reason in decide(card(length_after=40.0)).reasons if reason.question == "length"]


def test_a_decision_is_kept_as_json_and_read_as_lines() -> None:
    kept = json.loads(json.dumps(decide(card(), judge_taught_it=True).as_json()))
    assert kept["verdict"] == "HOLD" and kept["limits"]["ends"] == 0.1
    lines = in_words(kept)
    assert (
        lines[0] == "HOLD"
        and lines[1].startswith("  passed: It wins 70.0 %")
        and len(lines) == 1 + len(kept["reasons"])
    )
