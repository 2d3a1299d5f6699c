from __future__ import annotations

import random

import pytest

from feedback.quality import agreement, annotator_model
from feedback.quality.ballots import Ballot
from tests.crowd import Member, make_crowd


def vote(members: list[Member], matchups: int, overlap: int, seed: int, gold_share: float = 0.0) -> list[Ballot]:
    """What a crowd says of pairs whose better reply is 0 or 1 by a coin; length says a little about quality."""
    rng = random.Random(seed)
    ballots = []
    for number in range(matchups):
        second_is_better = rng.random() < 0.5
        ratio = rng.gauss(0.15 if second_is_better else -0.15, 0.8)
        truth = int(second_is_better) if rng.random() < gold_share else None
        for place, member in enumerate(rng.sample(members, overlap)):
            left = place % 2
            sign = 1 if left == 1 else -1
            better = 1.0 if second_is_better == (left == 1) else -1.0
            said = member.judge(rng, better, sign * ratio)
            choice = left if said == "left" else 1 - left
            ballots.append(Ballot((f"m{number}", 0, 1), member.name, choice, left, ratio, f"j{len(ballots)}", truth))
    return ballots


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_bad_are_ranked_below_the_good_and_the_biased_are_named(seed: int) -> None:
    crowd = make_crowd()
    skills = annotator_model.fit(vote(crowd, 600, 3, seed)).skills
    accuracy = {member.name: skills[member.name].accuracy.value or 0.0 for member in crowd}
    good = [accuracy[member.name] for member in crowd if member.is_good]
    bad = [accuracy[member.name] for member in crowd if not member.is_good]
    assert max(bad) < min(good), accuracy
    assert {name for name, skill in skills.items() if skill.leans_left} == {"always-left-1", "always-left-2"}
    assert {name for name, skill in skills.items() if skill.leans_longer} == {"length-biased-1", "length-biased-2"}


def test_the_intervals_hold_the_true_chance_as_often_as_they_should_or_nearly() -> None:
    chances = {"good": 0.92, "noisy": 0.75, "random": 0.5, "fast": 0.55}
    held, looked = 0, 0
    for seed in range(1, 6):
        skills = annotator_model.fit(vote(make_crowd(), 600, 3, seed)).skills
        for member in make_crowd():
            if member.kind in chances:
                measure = skills[member.name].accuracy
                assert measure.low is not None and measure.high is not None
                held += measure.low <= chances[member.kind] <= measure.high
                looked += 1
    # The truth is estimated too, which the intervals leave out: a little under 95 in 100 is what can be had.
    assert held / looked >= 0.85, held / looked


def test_the_weighted_answer_is_right_more_often_than_the_majority() -> None:
    rng_seed, members = 7, make_crowd()
    ballots = vote(members, 600, 3, rng_seed)
    model = annotator_model.fit(ballots)
    truth = {ballot.unit: ballot.truth for ballot in vote(members, 600, 3, rng_seed, gold_share=1.0)}
    right = {"model": 0, "majority": 0}
    units = sorted({ballot.unit for ballot in ballots})
    for unit in units:
        votes = sum(1 if ballot.choice == 1 else -1 for ballot in ballots if ballot.unit == unit)
        right["majority"] += (votes > 0) == (truth[unit] == 1)
        right["model"] += (model.second_better[unit] > 0.5) == (truth[unit] == 1)
    assert right["model"] > right["majority"] + 10, right


def test_without_overlap_or_gold_the_good_cannot_be_told_from_the_random() -> None:
    ballots = vote(make_crowd(), 600, 1, 4)
    model = annotator_model.fit(ballots)
    assert all(skill.accuracy.value is None for skill in model.skills.values())
    assert "others judged too" in model.skills["good-1"].accuracy.note
    weights: dict[str, list[float]] = {"good": [], "random": []}
    for ballot in ballots:
        if (kind := ballot.annotator.rsplit("-", 1)[0]) in weights:
            weights[kind].append(model.weight(ballot.unit))
    means = [sum(values) / len(values) for values in weights.values()]
    assert abs(means[0] - means[1]) < 0.15, means


def test_gold_alone_tells_good_from_bad() -> None:
    skills = annotator_model.fit(vote(make_crowd(), 2000, 1, 5, gold_share=0.5)).skills
    assert (skills["good-1"].accuracy.value or 0) > 0.8 > (skills["random-1"].accuracy.value or 1)


def test_only_ties_and_nothing_at_all_give_an_empty_model() -> None:
    tie = Ballot(("m", 0, 1), "ann", "tie", 0, 0.0, "j")
    assert annotator_model.fit([tie]).skills == {} and annotator_model.fit([]).weight(("m", 0, 1)) == 0.0
    assert agreement.left_share([tie]).value is None
