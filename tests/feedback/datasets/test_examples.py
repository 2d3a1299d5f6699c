"""What a frozen dataset says beyond its pairs: each example derived by hand from verdicts made through the store."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any, get_args

import pytest

from feedback import formats
from feedback.database.engine import Database
from feedback.datasets.examples import (
    Demonstration,
    LabelledReply,
    SplitName,
    label_noise,
    list_demonstrations,
    list_judged_prompts,
    list_labelled_replies,
    list_rankings,
    list_ties,
)
from feedback.datasets.freeze import freeze, split_of
from feedback.labeling import assignment, judging
from feedback.rules import votes
from feedback.store.datasets.datasets import list_frozen_matchups, list_pairs
from feedback.store.labeling.matchups import save_matchups
from feedback.tables import PromptRow
from feedback.types import DatasetFilters, Matchup, MatchupKind, Part
from tests.factories import make_generations, make_matchup, make_policy, make_prompt


def judge_next(db: Database, annotator: str = "ann", **said: Any) -> None:
    """Judge the next task; ``best`` names the text that wins, ``order`` the texts from best to worst."""
    task = assignment.lease_next(db, annotator, rng=random.Random(0))
    assert task is not None
    if best := said.pop("best", None):
        said["verdict"] = "left" if task.responses[0] == best else "right"
    if order := said.pop("order", None):
        said["ranking"] = [order[text] for text in task.responses]
    if edit := said.pop("edit", None):
        said["edited"] = {"index": task.responses.index(edit[0]), "text": edit[1]}
    judging.submit(db, task.lease_id, annotator, **said)


def pair(db: Database, *texts: str, prompt: PromptRow | None = None, required: int = 1) -> None:
    make_matchup(db, texts=list(texts), prompt=prompt, required=required)


def ranked(db: Database, *texts: str) -> None:
    prompt = make_prompt(db)
    rows = make_generations(db, prompt, make_policy(db), list(texts))
    save_matchups(db, [Matchup(prompt_id=prompt.id, generation_ids=[row.id for row in rows], kind=MatchupKind.rank)])


def all_of(texts: list[Any]) -> set[str]:
    return {example.reply for example in texts}


def test_winners_and_edits_are_demonstrations_and_an_edit_stands_for_its_original(db: Database) -> None:
    pair(db, "good", "bad")
    judge_next(db, best="good")
    pair(db, "fine", "poor")
    judge_next(db, best="fine", edit=("fine", "finer still"))
    pair(db, "this", "that")
    judge_next(db, verdict="tie")
    freeze(db, "d", DatasetFilters(test_share=0.0))
    found = list_demonstrations(db, "d")
    assert {(example.reply, example.origin) for example in found} == {("good", "chosen"), ("finer still", "edited")}
    assert found[0].messages[0].content.startswith("Tell me about")


def test_both_bad_verdicts_label_both_replies_and_ties_label_none(db: Database) -> None:
    pair(db, "good", "bad")
    judge_next(db, best="good")
    pair(db, "awful", "dreadful")
    judge_next(db, verdict="both_bad")
    pair(db, "this", "that")
    judge_next(db, verdict="tie")
    freeze(db, "d", DatasetFilters(test_share=0.0))
    labelled = {example.reply: example.good for example in list_labelled_replies(db, "d")}
    assert labelled == {"good": True, "bad": False, "awful": False, "dreadful": False}
    assert len(list_pairs(db, "d")) == 1


def test_a_reply_called_good_as_often_as_bad_is_left_out(db: Database) -> None:
    prompt = make_prompt(db)
    pair(db, "middle", "low", prompt=prompt)
    judge_next(db, best="middle")
    pair(db, "high", "middle", prompt=prompt)
    judge_next(db, best="high")
    freeze(db, "d", DatasetFilters(test_share=0.0))
    assert {e.reply: e.good for e in list_labelled_replies(db, "d")} == {"high": True, "low": False}


def test_rankings_keep_their_ties_and_give_their_ends(db: Database) -> None:
    ranked(db, "a", "b", "c", "d")
    judge_next(db, order={"a": 2, "b": 1, "c": 2, "d": 4})
    pair(db, "good", "bad")
    judge_next(db, best="good", strength=3)
    ranked(db, "e", "f", "g")
    judge_next(db, order={"e": 1, "f": 1, "g": 1})
    freeze(db, "d", DatasetFilters(test_share=0.0))
    rankings = {ranking.replies: ranking for ranking in list_rankings(db, "d")}
    assert rankings["a", "b", "c", "d"].ranks == (2, 1, 2, 4)
    assert [r.strength for r in rankings.values() if len(r.replies) == 2] == [3.0]
    assert ("e", "f", "g") not in rankings
    assert all_of(list_demonstrations(db, "d")) == {"b", "good"}
    assert {e.reply for e in list_labelled_replies(db, "d") if not e.good} == {"d", "bad"}


def test_ties_are_what_most_judges_call_equally_good(db: Database) -> None:
    pair(db, "this", "that")
    judge_next(db, verdict="tie")
    pair(db, "awful", "dreadful")
    judge_next(db, verdict="both_bad")
    pair(db, "good", "bad")
    judge_next(db, best="good")
    pair(db, "one", "other", required=2)
    judge_next(db, verdict="tie")
    judge_next(db, "bob", best="one")
    ranked(db, "best", "second", "also second")
    judge_next(db, order={"best": 1, "second": 2, "also second": 2})
    freeze(db, "d", DatasetFilters(test_share=0.0))
    ties = list_ties(db, "d")
    assert {frozenset(tie.replies) for tie in ties} == {
        frozenset({"this", "that"}), frozenset({"second", "also second"})
    }  # fmt: skip
    assert {tie.ranks for tie in ties} == {(1, 1)}


def test_splits_are_those_of_the_pairs_and_later_judgments_change_nothing(db: Database) -> None:
    for number in range(20):
        pair(db, f"good {number}", f"bad {number}", required=2)
        judge_next(db, best=f"good {number}")
    row = freeze(db, "d", DatasetFilters(test_share=0.5))
    before = list_demonstrations(db, "d"), list_labelled_replies(db, "d"), list_rankings(db, "d")
    for number in range(20):
        judge_next(db, "ben", best=f"bad {number}")
    judging.undo_last(db, "ann")
    assert (list_demonstrations(db, "d"), list_labelled_replies(db, "d"), list_rankings(db, "d")) == before
    tested = {p.prompt_id for p in list_pairs(db, "d", split="test")}
    assert 0 < len(tested) < 20
    assert {e.prompt_id for e in list_demonstrations(db, "d", split="test")} == tested
    assert {e.prompt_id for e in list_rankings(db, "d", split="train")}.isdisjoint(tested)
    assert len(list_judged_prompts(db, "d", split="test")) == len(tested)
    assert freeze(db, "later", DatasetFilters(test_share=0.5)).hash != row.hash
    assert split_of("x", 0.0, 0) == "train"


def test_noise_is_estimated_from_people_who_judged_the_same_pair(db: Database) -> None:
    for number in range(10):
        pair(db, f"good {number}", f"bad {number}", required=2)
    for who, wrong in (("ann", 0), ("ben", 2)):
        for number in range(10):
            task = assignment.lease_next(db, who)
            assert task is not None
            good = task.responses[0].startswith("good") != (number < wrong)
            judging.submit(db, task.lease_id, who, verdict="left" if good else "right")
    freeze(db, "d")
    # Eight of ten agree: e = (1 - sqrt(2 * 0.8 - 1)) / 2
    assert label_noise(db, "d") == pytest.approx((1 - 0.6**0.5) / 2)


def test_without_a_pair_judged_twice_noise_is_unknown(db: Database) -> None:
    pair(db, "good", "bad")
    judge_next(db, best="good")
    freeze(db, "d")
    assert label_noise(db, "d") is None


def settle_next(db: Database, best: str) -> None:
    task = assignment.lease_next(db, "rev", part=Part.adjudicator)
    assert task is not None
    judging.submit(db, task.lease_id, "rev", verdict="left" if task.responses[0] == best else "right")


def test_where_an_adjudicator_settled_a_matchup_the_others_verdicts_teach_nothing(db: Database) -> None:
    pair(db, "right", "wrong", required=2)
    judge_next(db, "ann", best="wrong", strength=3)
    judge_next(db, "bob", verdict="both_bad")
    settle_next(db, "right")
    pair(db, "poor", "fine", required=2)
    judge_next(db, "ann", best="poor", edit=("fine", "finer"))
    judge_next(db, "bob", best="fine")
    settle_next(db, "fine")
    freeze(db, "d", DatasetFilters(test_share=0.0))
    assert {(example.reply, example.good) for example in list_labelled_replies(db, "d")} == {
        ("right", True), ("wrong", False), ("fine", True), ("poor", False), ("finer", True)
    }  # fmt: skip
    assert all_of(list_demonstrations(db, "d")) == {"right", "finer"}
    first, second = list_rankings(db, "d")
    assert {first.replies[first.ranks.index(1)], second.replies[second.ranks.index(1)]} == {"right", "fine"}
    assert label_noise(db, "d") == 0.5  # of the annotators alone; with the adjudicator it would be less


def test_a_reply_that_most_call_bad_is_not_imitated_though_one_preferred_it(db: Database) -> None:
    pair(db, "least bad", "worst", required=3)
    judge_next(db, "ann", best="least bad")
    judge_next(db, "bob", verdict="both_bad")
    judge_next(db, "cem", verdict="both_bad")
    freeze(db, "d", DatasetFilters(test_share=0.0))
    assert list_demonstrations(db, "d") == []
    assert [example.good for example in list_labelled_replies(db, "d")] == [False, False]


def judge_anyhow(db: Database, rng: random.Random, annotator: str, part: Part = Part.annotator) -> None:
    """Judge the next task, if there is one, by the dice: any answer there is, with an edit now and then."""
    task = assignment.lease_next(db, annotator, rng=rng, part=part)
    if task is None:
        return
    said: dict[str, Any] = {"verdict": rng.choice(["left", "right", "left", "right", "tie", "both_bad"])}
    if len(task.responses) > 2:
        said = {"ranking": [rng.randint(1, len(task.responses)) for _ in task.responses]}
    if part is Part.annotator and rng.random() < 0.15:
        said = {"skip_reason": "unclear"}
    if part is Part.annotator and rng.random() < 0.2:
        said["edited"] = {"index": 0, "text": rng.choice(["edit one", "edit two", "text 1"])}
    judging.submit(db, task.lease_id, annotator, **said)


def judge_all_sorts(db: Database, rng: random.Random) -> None:
    """Texts that come back in several matchups, disagreement, rankings, edits, skips and adjudicators."""
    for _ in range(36):
        prompt, policy = make_prompt(db), make_policy(db)
        for _ in range(2):
            size = rng.choice([2, 2, 3])
            rows = make_generations(db, prompt, policy, [f"text {n}" for n in rng.sample(range(4), size)])
            kind = MatchupKind.pair if size == 2 else MatchupKind.rank
            keys = [row.id for row in rows]
            save_matchups(db, [Matchup(prompt_id=prompt.id, generation_ids=keys, kind=kind, required=3)])
            for annotator in ("ann", "bob", "cem"):
                judge_anyhow(db, rng, annotator)
            if rng.random() < 0.5:
                judge_anyhow(db, rng, "rev", Part.adjudicator)


@pytest.mark.parametrize("seed", range(3))
def test_exports_teach_exactly_what_training_here_learns_and_count_all_the_rest(
    db: Database, tmp_path: Path, seed: int
) -> None:
    rng = random.Random(seed)
    judge_all_sorts(db, rng)
    filters = DatasetFilters(test_share=0.4, min_agreement=rng.choice([0.5, 0.7]))
    freeze(db, "d", filters)
    texts: dict[str, set[tuple[str, str]]] = {"train": set(), "test": set()}
    for matchup in list_frozen_matchups(db, "d"):
        written = [text for _, _, text in votes.edits_of(matchup.judgments)]
        side = split_of(matchup.prompt_hash, filters.test_share, filters.split_seed)
        texts[side] |= {(matchup.prompt_id, text) for text in [*matchup.texts, *written]}
    assert {judgment.part for m in list_frozen_matchups(db, "d") for judgment in m.judgments} == set(Part)
    for split in get_args(SplitName):
        labelled = [(asked(e), e.reply, e.good) for e in list_labelled_replies(db, "d", split=split)]
        rows, dropped = exported(db, "trl-kto", split, tmp_path)
        made = [(row["prompt"][-1]["content"], row["completion"][0]["content"], row["label"]) for row in rows]
        assert sorted(made) == sorted(labelled) and len(made) > 10
        assert len(rows) + sum(dropped.values()) == len(texts[split])
        imitated = [(asked(e), e.reply) for e in list_demonstrations(db, "d", split=split)]
        rows, dropped = exported(db, "trl-sft", split, tmp_path)
        assert sorted(tuple(turn["content"] for turn in row["messages"]) for row in rows) == sorted(imitated)
        assert len(rows) + sum(dropped.values()) == len(texts[split])


def asked(example: LabelledReply | Demonstration) -> str:
    return example.messages[-1].content


def exported(db: Database, format: str, split: str, folder: Path) -> tuple[list[dict[str, Any]], dict[str, int]]:
    report = formats.export_dataset(db, "d", format, folder / f"{format}.{split}.jsonl", split)
    return [json.loads(line) for line in report.path.read_text(encoding="utf-8").splitlines()], report.dropped


def test_a_skip_teaches_nothing_not_even_by_what_was_typed_before_it(db: Database) -> None:
    pair(db, "good", "bad", required=2)
    judge_next(db, best="good")
    judge_next(db, "bob", skip_reason="not mine", edit=("good", "goo"))
    pair(db, "this", "that")
    judge_next(db, skip_reason="unclear", edit=("this", "half a sen"))
    row = freeze(db, "d", DatasetFilters(test_share=0.0))
    assert (row.counts["pairs"], row.dropped) == (1, {"skip": 2})
    assert all_of(list_demonstrations(db, "d")) == {"good"}
    assert {(example.reply, example.good) for example in list_labelled_replies(db, "d")} == {
        ("good", True), ("bad", False)
    }  # fmt: skip
    exported = {name: "".join(formats.stream_dataset(db, "d", name)) for name in ("trl-sft", "trl-kto")}
    assert [len(text.splitlines()) for text in exported.values()] == [1, 2]
    assert not any(typed in text for typed in ("half a sen", '"goo"') for text in exported.values())
